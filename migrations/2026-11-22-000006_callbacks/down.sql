DROP INDEX callbacks_of_token, callbacks_due, callbacks_once;
ALTER TABLE callbacks
    DROP CONSTRAINT processed_with_an_outcome,
    DROP COLUMN detail,
    DROP COLUMN due_at,
    DROP COLUMN tries,
    DROP COLUMN body_sha256;
