-- A worker that has stopped stays in the list for a while, so that it does not vanish without a word.

ALTER TABLE workers
    -- When it ended as it should; null while it runs, and of one that was killed.
    ADD COLUMN left_at timestamptz;
