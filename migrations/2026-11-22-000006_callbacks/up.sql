-- Callbacks are stored once, however often the vendor repeats them, and processed by whichever producer picks them up.
ALTER TABLE callbacks
    ADD COLUMN body_sha256 bytea NOT NULL GENERATED ALWAYS AS (sha256(body)) STORED,
    -- Picked up so often. A pick is a lease: what is not finished by `due_at` is picked up again.
    ADD COLUMN tries integer NOT NULL DEFAULT 0,
    ADD COLUMN due_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Why it came to its outcome, or what kept it from one so far.
    ADD COLUMN detail text,
    ADD CONSTRAINT processed_with_an_outcome CHECK ((processed_at IS NULL) = (outcome IS NULL));
-- In this order, so that it also finds a body that comes under another token.
CREATE UNIQUE INDEX callbacks_once ON callbacks (vendor, body_sha256, token);
CREATE INDEX callbacks_due ON callbacks (due_at) WHERE processed_at IS NULL;
-- What a person asks for who looks at a submission.
CREATE INDEX callbacks_of_token ON callbacks (token);
