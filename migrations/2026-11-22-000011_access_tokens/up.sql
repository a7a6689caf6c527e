-- Who may use the HTTP API. Only hashes are kept: whoever reads this database, or a backup of it, cannot use the API with it.

-- A row is never removed: a name stands in the trail and means one token for ever, and while this table is empty the API is
-- open to its own machine.
CREATE TABLE access_tokens (
    name text PRIMARY KEY CHECK (name ~ '^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$'),
    -- Of the whole token. It has 256 random bits, which nobody can try out, so no slow hash is needed.
    sha256 bytea NOT NULL UNIQUE CHECK (octet_length(sha256) = 32),
    role text NOT NULL CHECK (role IN ('submit', 'read', 'operate', 'admin')),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_by text NOT NULL CHECK (created_by <> ''),
    -- Null: until revoked.
    expires_at timestamptz,
    -- To the minute.
    last_used_at timestamptz,
    revoked_at timestamptz,
    revoked_by text,
    CONSTRAINT revoked_by_somebody CHECK ((revoked_at IS NULL) = (revoked_by IS NULL))
);
CREATE TRIGGER never_removed BEFORE DELETE ON access_tokens FOR EACH ROW EXECUTE FUNCTION deny_update();

-- Browsers that signed in with a token. A session ends with its token.
CREATE TABLE access_sessions (
    sha256 bytea PRIMARY KEY CHECK (octet_length(sha256) = 32),
    token text NOT NULL REFERENCES access_tokens,
    expires_at timestamptz NOT NULL
);
CREATE INDEX access_sessions_expired ON access_sessions (expires_at);
