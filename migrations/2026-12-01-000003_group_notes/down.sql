DROP TABLE dead_letter_notes;
