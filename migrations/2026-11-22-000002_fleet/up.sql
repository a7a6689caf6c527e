-- What will happen next to every unfinished job: one narrow, hot row each. Deleted when the job is done.
CREATE TABLE job_stages (
    job_id uuid PRIMARY KEY REFERENCES video_jobs (id) ON DELETE CASCADE,
    stage text NOT NULL CHECK (stage IN (
        'source.import', 'lipsync.submit', 'lipsync.poll', 'lipsync.store',
        'inpaint.submit', 'inpaint.reconcile', 'inpaint.poll', 'inpaint.store')),
    -- Begins with the milliseconds of the clock: the epochs of a job that is put in again under the id of a deleted one are
    -- above all those in old messages.
    epoch bigint NOT NULL DEFAULT (extract(epoch FROM clock_timestamp()) * 1000)::bigint CHECK (epoch >= 1),
    state text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'dispatched', 'parked', 'dead')),
    due_at timestamptz DEFAULT now(),
    tries integer NOT NULL DEFAULT 0 CHECK (tries >= 0),
    starts integer NOT NULL DEFAULT 0 CHECK (starts >= 0),
    priority smallint NOT NULL DEFAULT 1 CHECK (priority BETWEEN 0 AND 2),
    fairness_key uuid NOT NULL,
    reason text CHECK (length(reason) <= 100),
    entered_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT due_exactly_when_it_can_move CHECK ((state IN ('waiting', 'dispatched')) = (due_at IS NOT NULL)),
    CONSTRAINT reason_when_it_stands CHECK (state IN ('waiting', 'dispatched') OR reason IS NOT NULL)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000,
        autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 2000);
-- Dispatch reads one priority class of one stage in due order, and only what can become due.
CREATE INDEX job_stages_due ON job_stages (stage, priority, due_at) WHERE state IN ('waiting', 'dispatched');
-- What a person has to look at.
CREATE INDEX job_stages_standing ON job_stages (state, stage) WHERE state IN ('parked', 'dead');

-- Which next states a submission may take. `domain::LedgerState::may_become` is the same table; a test compares them.
CREATE FUNCTION ledger_edge(was text, becomes text) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT (was, becomes) IN (
        ('claimed', 'accepted'), ('claimed', 'rejected'), ('claimed', 'not_sent'), ('claimed', 'unknown'),
        ('claimed', 'duplicate'),
        ('unknown', 'accepted'), ('unknown', 'absent'), ('unknown', 'rejected'), ('unknown', 'duplicate'),
        ('accepted', 'succeeded'), ('accepted', 'failed'), ('accepted', 'redoing'),
        ('redoing', 'accepted'),
        ('absent', 'accepted'), ('absent', 'duplicate'),
        ('duplicate', 'accepted'))
$$;
CREATE FUNCTION ledger_occupies(state text) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT state IN ('claimed', 'unknown', 'accepted', 'redoing', 'succeeded')
$$;

-- The ledger: one row per intent to pay. `job_id` has no foreign key, because the money outlives the job.
CREATE TABLE submissions (
    token uuid PRIMARY KEY,
    job_id uuid NOT NULL,
    vendor text NOT NULL CHECK (vendor IN ('sync', 'ghostcut')),
    account text NOT NULL,
    attempt integer NOT NULL CHECK (attempt >= 1),
    state text NOT NULL CHECK (state IN ('claimed', 'unknown', 'accepted', 'redoing', 'succeeded',
                                         'not_sent', 'rejected', 'failed', 'absent', 'duplicate')),
    -- Found in `job_metadata` without a row here: paid by somebody else, followed and never sent by us.
    imported boolean NOT NULL DEFAULT false,
    request_body bytea NOT NULL,
    request_sha256 bytea NOT NULL CHECK (length(request_sha256) = 32),
    source_key text,
    source_url text,
    source_deleted_at timestamptz,
    -- What goes into `job_metadata` with the vendor's ids once it is accepted, whoever learns that.
    metadata jsonb CHECK (jsonb_typeof(metadata) = 'object'),
    vendor_task_id text CHECK (vendor_task_id NOT IN ('', 'None') AND length(vendor_task_id) <= 200),
    vendor_project_id text,
    -- How the work was last seen at the vendor.
    work_state text CHECK (work_state IN ('pending', 'succeeded', 'failed')),
    claimed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    send_deadline timestamptz NOT NULL,
    settled_at timestamptz,
    answer jsonb NOT NULL DEFAULT '{}',
    redos integer NOT NULL DEFAULT 0,
    searches integer NOT NULL DEFAULT 0,
    last_searched_at timestamptz,
    cost_reserved numeric,
    cost_charged numeric,
    cost_wasted numeric,
    UNIQUE (job_id, vendor, attempt),
    CONSTRAINT known_at_the_vendor CHECK (
        state NOT IN ('accepted', 'redoing', 'succeeded', 'failed', 'duplicate') OR vendor_task_id IS NOT NULL),
    CONSTRAINT deadline_after_claim CHECK (imported OR send_deadline > claimed_at)
);
-- I1: at most one submission of a (job, vendor) that is, or may be, paid.
CREATE UNIQUE INDEX submissions_slot ON submissions (job_id, vendor) WHERE ledger_occupies(state);
-- One work at the vendor belongs to one submission.
CREATE UNIQUE INDEX submissions_task ON submissions (vendor, account, vendor_task_id) WHERE vendor_task_id IS NOT NULL;
-- The sweep that follows everything not ended.
CREATE INDEX submissions_alive ON submissions (vendor, state, claimed_at)
    WHERE state IN ('claimed', 'unknown', 'accepted', 'redoing');
-- Duplicates that still run at the vendor; there should never be any.
CREATE INDEX submissions_duplicates ON submissions (vendor, claimed_at) WHERE state = 'duplicate';
-- The positive controls of a search: what else was accepted in its window. And what a day has cost, without reading the rows.
CREATE INDEX submissions_claimed ON submissions (vendor, account, claimed_at)
    INCLUDE (state, cost_reserved, cost_charged, cost_wasted);

-- Of a submission that has ended the bytes may be emptied, alone. Their hash stays, and so does all that proves the payment.
CREATE FUNCTION guard_ledger() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    emptied submissions%ROWTYPE;
BEGIN
    IF TG_OP = 'DELETE' THEN
        RAISE EXCEPTION 'the ledger has no DELETE (submission %)', OLD.token;
    END IF;
    IF NEW.state <> OLD.state AND NOT ledger_edge(OLD.state, NEW.state) THEN
        RAISE EXCEPTION 'submission %: % may not become %', OLD.token, OLD.state, NEW.state;
    END IF;
    IF (NEW.token, NEW.job_id, NEW.vendor, NEW.attempt, NEW.request_sha256)
       IS DISTINCT FROM (OLD.token, OLD.job_id, OLD.vendor, OLD.attempt, OLD.request_sha256) THEN
        RAISE EXCEPTION 'submission %: its intent may not change', OLD.token;
    END IF;
    IF NEW.request_body IS DISTINCT FROM OLD.request_body THEN
        emptied := OLD;
        emptied.request_body := '';
        IF NEW IS DISTINCT FROM emptied THEN
            RAISE EXCEPTION 'submission %: its intent may not change', OLD.token;
        ELSIF OLD.state IN ('claimed', 'unknown', 'accepted', 'redoing') THEN
            RAISE EXCEPTION 'submission %: it is %, its bytes may be needed', OLD.token, OLD.state;
        END IF;
    END IF;
    IF OLD.vendor_task_id IS NOT NULL AND NEW.vendor_task_id IS DISTINCT FROM OLD.vendor_task_id AND NOT OLD.imported THEN
        RAISE EXCEPTION 'submission %: its vendor task id may not change', OLD.token;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER guard_ledger BEFORE UPDATE OR DELETE ON submissions FOR EACH ROW EXECUTE FUNCTION guard_ledger();
CREATE FUNCTION deny_truncate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% has no TRUNCATE', TG_TABLE_NAME;
END $$;
CREATE TRIGGER deny_truncate BEFORE TRUNCATE ON submissions FOR EACH STATEMENT EXECUTE FUNCTION deny_truncate();

-- What happened to a job, in order. Append-only; without a foreign key, so that it outlives the job.
CREATE TABLE job_events (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    job_id uuid NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    kind text NOT NULL,
    actor text NOT NULL,
    stage text,
    epoch bigint,
    token uuid,
    detail jsonb NOT NULL DEFAULT '{}',
    metadata_changed jsonb
);
CREATE INDEX job_events_of_job ON job_events (job_id, id);
CREATE FUNCTION deny_update() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME;
END $$;
CREATE TRIGGER append_only BEFORE UPDATE ON job_events FOR EACH ROW EXECUTE FUNCTION deny_update();

-- Vendor callbacks, stored before they are processed.
CREATE TABLE callbacks (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    vendor text NOT NULL CHECK (vendor IN ('sync', 'ghostcut')),
    token uuid NOT NULL,
    job_id uuid,
    received_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    body bytea NOT NULL,
    processed_at timestamptz,
    outcome text
);
-- Those that keep a job from paying.
CREATE INDEX callbacks_unprocessed ON callbacks (job_id) WHERE processed_at IS NULL OR outcome = 'failed';

-- Jobs given up, and messages nobody can decide about.
CREATE TABLE dead_letters (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    received_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    job_id uuid,
    stage text,
    epoch bigint,
    reason text NOT NULL,
    error text,
    body bytea,
    headers jsonb,
    resolved_at timestamptz,
    resolution text,
    CONSTRAINT a_job_or_a_body CHECK (job_id IS NOT NULL OR body IS NOT NULL),
    UNIQUE (job_id, epoch)
);
CREATE INDEX dead_letters_open ON dead_letters (stage, reason) WHERE resolved_at IS NULL;

-- Knobs and state per vendor account.
CREATE TABLE vendors (
    vendor text NOT NULL CHECK (vendor IN ('sync', 'ghostcut')),
    account text NOT NULL,
    paused_until timestamptz,
    pause_reason text,
    paused_at timestamptz,
    balance numeric(14, 4),
    balance_at timestamptz,
    -- Grows with every change by an operator, so that two of them do not overwrite each other.
    version bigint NOT NULL DEFAULT 1,
    PRIMARY KEY (vendor, account),
    CONSTRAINT pause_has_a_reason CHECK ((paused_until IS NULL) = (pause_reason IS NULL))
);

-- Fleet-wide switches. `stop_paid` present: nothing paid is sent.
CREATE TABLE settings (
    name text PRIMARY KEY,
    value jsonb NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    changed_by text NOT NULL
);

-- Answers to repeated creations: the same key is the same job.
CREATE TABLE job_requests (
    user_id uuid NOT NULL,
    idempotency_key text NOT NULL CHECK (length(idempotency_key) BETWEEN 1 AND 255),
    request_sha256 bytea NOT NULL CHECK (length(request_sha256) = 32),
    job_id uuid NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, idempotency_key)
);
