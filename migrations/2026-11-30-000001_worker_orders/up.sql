-- What an operator wants of a worker. It reads it back whenever it writes that it is there, and says whether it does it.

ALTER TABLE workers
    -- The worker's own word: none of its consumers takes anything new, because it was asked to be quiet.
    ADD COLUMN quiet boolean NOT NULL DEFAULT false,
    -- Null: that it works. A restarted worker is another row, of which nothing is asked.
    ADD COLUMN asked text CHECK (asked IN ('quiet', 'stop')),
    ADD COLUMN asked_by text,
    ADD COLUMN asked_reason text,
    ADD COLUMN asked_at timestamptz,
    ADD CONSTRAINT asked_by_somebody CHECK (num_nulls(asked, asked_by, asked_reason, asked_at) IN (0, 4));
