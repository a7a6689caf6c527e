ALTER TABLE workers
    DROP COLUMN quiet,
    DROP COLUMN asked,
    DROP COLUMN asked_by,
    DROP COLUMN asked_reason,
    DROP COLUMN asked_at;
