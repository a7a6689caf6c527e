-- What people have found out about a group of dead letters, for whoever looks next: one note for each stage, normalised error and
-- reason, as `dead_letters_groups` groups them. It outlives the letters, so that the same fault is known when it comes again.
CREATE TABLE dead_letter_notes (
    stage text NOT NULL,
    error_class text NOT NULL,
    reason text NOT NULL,
    note text NOT NULL CHECK (length(note) BETWEEN 1 AND 1000),
    noted_by text NOT NULL,
    noted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Of this text; never used again, so that a note which was removed and written anew is another one.
    version bigint GENERATED ALWAYS AS IDENTITY,
    PRIMARY KEY (stage, error_class, reason)
);
CREATE INDEX dead_letter_notes_noted ON dead_letter_notes (noted_at);
