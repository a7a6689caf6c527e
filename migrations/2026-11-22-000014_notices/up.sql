-- Who is to be told when a job ends. Kept apart from the job's row: that belongs to the application, whose own columns may hold
-- anything, and nothing is to be sent to an address that intake has not checked.
CREATE TABLE notice_targets (
    job_id uuid PRIMARY KEY REFERENCES video_jobs (id) ON DELETE CASCADE,
    url text NOT NULL CHECK (length(url) <= 2048),
    -- Of the URL, by which deliveries to one receiver are bounded.
    host text NOT NULL CHECK (host <> '')
);

-- What is to be told, or was. A job that is put back and ends again makes another one. Without a foreign key: the job may go
-- before its receiver has answered.
CREATE TABLE notices (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    job_id uuid NOT NULL,
    url text NOT NULL,
    host text NOT NULL,
    -- What the job had come to, so that a notice says the same however late it is sent.
    status text NOT NULL CHECK (status IN ('completed', 'failed', 'canceled')),
    has_result boolean NOT NULL,
    error_code text,
    error_message text,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    state text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'delivered', 'refused', 'given_up')),
    due_at timestamptz DEFAULT clock_timestamp(),
    -- A producer is sending it. Until `due_at` it is nobody else's.
    in_hand boolean NOT NULL DEFAULT false,
    tries integer NOT NULL DEFAULT 0,
    -- Tries before a replay, which do not count. `tries` itself only grows: it is what tells a late try from the newest.
    forgiven integer NOT NULL DEFAULT 0,
    -- What came of the last try: the receiver's status, or why there was none.
    last_status integer,
    last_error text,
    ended_at timestamptz,
    CONSTRAINT due_exactly_while_it_waits CHECK ((state = 'waiting') = (due_at IS NOT NULL)),
    CONSTRAINT ended_exactly_when_it_does_not CHECK ((state = 'waiting') = (ended_at IS NULL)),
    CONSTRAINT tries_from_zero CHECK (forgiven BETWEEN 0 AND tries),
    CONSTRAINT in_hand_only_while_it_waits CHECK (state = 'waiting' OR NOT in_hand)
);
-- The sweep reads host by host, and of each only what is due.
CREATE INDEX notices_due ON notices (host, due_at) WHERE state = 'waiting';
CREATE INDEX notices_in_hand ON notices (host) WHERE in_hand;
CREATE INDEX notices_of_job ON notices (job_id, created_at DESC, id DESC);
CREATE INDEX notices_page ON notices (created_at DESC, id DESC);
CREATE INDEX notices_state_page ON notices (state, created_at DESC, id DESC);

-- Whatever ends a job (a settlement, a cancellation, a hand in psql) ends it by its status: this is the one place they share, and it
-- is in their transaction.
CREATE FUNCTION note_end() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO notices (job_id, url, host, status, has_result, error_code, error_message)
    SELECT NEW.id, t.url, t.host, NEW.status, NEW.status = 'completed' AND NEW.output_url IS NOT NULL,
           CASE WHEN NEW.status = 'failed' THEN NEW.error_code END, CASE WHEN NEW.status = 'failed' THEN NEW.error_message END
    FROM notice_targets t WHERE t.job_id = NEW.id;
    RETURN NULL;
END $$;
CREATE TRIGGER note_end AFTER UPDATE OF status ON video_jobs FOR EACH ROW
    WHEN (NEW.status IS DISTINCT FROM OLD.status AND NEW.status IN ('completed', 'failed', 'canceled'))
    EXECUTE FUNCTION note_end();
