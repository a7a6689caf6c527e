-- Which paid sends an account may make now, and what they cost. `claim` asks `admit` before it opens a submission, replays and
-- redos ask `take_send_permit`, and `settle` passes on what an answer says about the account (`vendor_signal`).

-- What operators did to the fleet rather than to one job, and what the fleet decided about an account, in order. Append-only.
CREATE TABLE operator_events (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Who.
    actor text NOT NULL CHECK (actor <> ''),
    -- Why, in the operator's words or the vendor's.
    reason text NOT NULL CHECK (reason <> ''),
    -- One word for what was done: `vendor_paused`.
    action text NOT NULL CHECK (action <> ''),
    -- What it was done to: `sync/default`, `fleet`.
    subject text NOT NULL CHECK (subject <> ''),
    detail jsonb NOT NULL DEFAULT '{}'
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON operator_events FOR EACH ROW EXECUTE FUNCTION deny_update();

ALTER TABLE vendors
    -- The operator's knobs; null is no limit.
    ADD COLUMN max_in_flight integer CHECK (max_in_flight >= 1),
    ADD COLUMN max_per_minute numeric CHECK (max_per_minute > 0),
    ADD COLUMN burst integer CHECK (burst >= 1),
    ADD COLUMN daily_budget numeric CHECK (daily_budget >= 0),
    ADD COLUMN balance_floor numeric,
    -- The operator's pause; `infinity` is until resumed.
    ADD COLUMN held_until timestamptz,
    ADD COLUMN held_reason text,
    ADD COLUMN held_by text,
    -- The kind of the pause that the vendor's answers asked for.
    ADD COLUMN pause_kind text CHECK (pause_kind IN ('throttled', 'misconfigured', 'out_of_credit')),
    -- The bucket of the rate.
    ADD COLUMN tokens numeric,
    ADD COLUMN refilled_at timestamptz,
    -- Works in flight when the vendor last said that its slots are full; a cap until then.
    ADD COLUMN slots integer CHECK (slots >= 1),
    ADD COLUMN slots_until timestamptz,
    -- Until when `balance` counts: one that could not be read for long stops nobody.
    ADD COLUMN balance_until timestamptz,
    -- The circuit: calls in a row without an answer; rejections in a row for one reason, and the job that was the first; open
    -- since, no claim until, how often in a row; the one send that is let through afterwards.
    ADD COLUMN failures integer NOT NULL DEFAULT 0,
    ADD COLUMN reject_reason text,
    ADD COLUMN reject_job uuid,
    ADD COLUMN rejects integer NOT NULL DEFAULT 0,
    ADD COLUMN open_kind text CHECK (open_kind IN ('failures', 'rejects')),
    ADD COLUMN opened_at timestamptz,
    ADD COLUMN open_until timestamptz,
    ADD COLUMN open_reason text,
    ADD COLUMN openings integer NOT NULL DEFAULT 0,
    ADD COLUMN probe_token uuid,
    ADD COLUMN probe_until timestamptz,
    ADD CONSTRAINT pause_has_a_kind CHECK ((paused_until IS NULL) = (pause_kind IS NULL)),
    ADD CONSTRAINT hold_has_a_reason CHECK ((held_until IS NULL) = (held_reason IS NULL OR held_by IS NULL)),
    ADD CONSTRAINT circuit_is_open_or_not CHECK ((open_until IS NULL) = (open_kind IS NULL OR opened_at IS NULL));

-- Money outlives the job, and so does whose it was.
ALTER TABLE submissions ADD COLUMN user_id uuid;

-- What a submission has cost, or will as far as we know: what the vendor charged, else what was reserved.
CREATE FUNCTION submission_cost(s submissions) RETURNS numeric LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN s.state IN ('not_sent', 'rejected', 'absent') THEN 0
           ELSE coalesce(s.cost_charged, s.cost_reserved, 0) END
$$;

-- Costs by the UTC day of the claim. `reserved` is of what has not ended yet.
CREATE VIEW cost_days AS
SELECT (s.claimed_at AT TIME ZONE 'UTC')::date AS day, s.vendor, s.account, coalesce(s.user_id, j.user_id) AS user_id,
    count(*) FILTER (WHERE s.state NOT IN ('not_sent', 'rejected', 'absent')) AS submissions,
    coalesce(sum(submission_cost(s)) FILTER (WHERE s.state IN ('claimed', 'unknown', 'accepted', 'redoing')), 0) AS reserved,
    coalesce(sum(submission_cost(s)) FILTER (WHERE s.state NOT IN ('claimed', 'unknown', 'accepted', 'redoing')), 0) AS charged,
    coalesce(sum(s.cost_wasted), 0) AS wasted
FROM submissions s LEFT JOIN video_jobs j ON j.id = s.job_id
GROUP BY 1, 2, 3, 4;

-- From claim to final state, unknown outcomes included: they may hold a slot at the vendor.
CREATE FUNCTION vendor_in_flight(v vendors) RETURNS bigint LANGUAGE sql VOLATILE AS $$
    SELECT count(*) FROM submissions s WHERE s.vendor = v.vendor AND s.account = v.account
    AND s.state IN ('claimed', 'unknown', 'accepted', 'redoing')
$$;

CREATE FUNCTION vendor_cap(v vendors) RETURNS integer LANGUAGE sql VOLATILE AS $$
    SELECT least(v.max_in_flight, CASE WHEN v.slots_until > clock_timestamp() THEN v.slots END)
$$;

-- Reserved and charged since midnight UTC. Not by `clock_timestamp()`: what may change within a statement is no bound of an index.
CREATE FUNCTION vendor_spent_today(v vendors) RETURNS numeric LANGUAGE sql VOLATILE AS $$
    SELECT coalesce(sum(submission_cost(s)), 0) FROM submissions s WHERE s.vendor = v.vendor AND s.account = v.account
    AND s.claimed_at >= date_trunc('day', statement_timestamp(), 'UTC')
$$;

-- What the bucket of the rate holds; null without a rate. It holds two seconds' worth unless told otherwise: as much as one look
-- of the dispatcher can use.
CREATE FUNCTION vendor_tokens(v vendors) RETURNS numeric LANGUAGE sql VOLATILE AS $$
    SELECT CASE WHEN v.max_per_minute IS NULL THEN NULL ELSE
        least(size, coalesce(v.tokens + extract(epoch FROM clock_timestamp() - v.refilled_at) / 60 * v.max_per_minute, size)) END
    FROM (SELECT coalesce(v.burst, ceil(v.max_per_minute / 30)) AS size) bucket
$$;

-- Why the account sends nothing paid at all now, replays and redos included, and until when; null when it does.
CREATE FUNCTION vendor_stop(v vendors, OUT why text, OUT until timestamptz) LANGUAGE sql VOLATILE AS $$
    SELECT CASE WHEN v.held_until > t THEN 'manual' WHEN v.paused_until > t THEN v.pause_kind
                WHEN v.open_until > t OR v.open_until IS NOT NULL AND v.probe_until > t THEN 'circuit' END,
           CASE WHEN v.held_until > t THEN v.held_until WHEN v.paused_until > t THEN v.paused_until
                ELSE greatest(v.open_until, v.probe_until) END
    FROM clock_timestamp() t
$$;

-- Why nothing new may be paid for, at this cost, while replays and redos go on; null when it may.
CREATE FUNCTION vendor_stop_new(v vendors, cost numeric, OUT why text, OUT until timestamptz) LANGUAGE plpgsql AS $$
BEGIN
    IF v.balance < v.balance_floor AND v.balance_until > clock_timestamp() THEN
        why := 'floor'; until := v.balance_until;
    ELSIF v.daily_budget IS NOT NULL AND (vendor_spent_today(v) + cost > v.daily_budget OR vendor_spent_today(v) >= v.daily_budget) THEN
        why := 'budget'; until := date_trunc('day', clock_timestamp(), 'UTC') + interval '1 day';
    ELSIF vendor_cap(v) IS NOT NULL AND vendor_in_flight(v) >= vendor_cap(v) THEN
        why := 'full'; until := clock_timestamp() + interval '1 second';
    END IF;
END $$;

-- The least that a submission has cost lately: a budget with less left lets nothing through.
CREATE FUNCTION vendor_least_cost(v vendors) RETURNS numeric LANGUAGE sql STABLE AS $$
    SELECT coalesce(min(cost_reserved), 0) FROM (
        SELECT s.cost_reserved FROM submissions s WHERE s.vendor = v.vendor AND s.account = v.account
        ORDER BY s.claimed_at DESC LIMIT 20) lately
$$;

-- Lets one paid send through, or says why not and when to ask again. The last thing before a send is committed, because it takes
-- a token of the rate and, after an open circuit, the place of the one probe. `new_cost` is null for what the ledger has already.
CREATE FUNCTION admit(of_vendor text, of_account text, send uuid, send_within_ms bigint, new_cost numeric,
                      OUT refusal text, OUT retry_ms bigint) LANGUAGE plpgsql AS $$
DECLARE
    v vendors%ROWTYPE;
    until timestamptz;
BEGIN
    SELECT * INTO v FROM vendors WHERE vendor = of_vendor AND account = of_account;
    -- The lock makes sends of one account wait for each other until they are committed: only where something is counted.
    IF v.max_in_flight IS NOT NULL OR v.slots_until > clock_timestamp() OR v.max_per_minute IS NOT NULL OR v.daily_budget IS NOT NULL
       OR v.open_until IS NOT NULL
    THEN
        SELECT * INTO v FROM vendors WHERE vendor = of_vendor AND account = of_account FOR UPDATE;
    END IF;
    SELECT s.why, s.until INTO refusal, until FROM vendor_stop(v) s;
    IF refusal IS NULL AND new_cost IS NOT NULL THEN
        SELECT s.why, s.until INTO refusal, until FROM vendor_stop_new(v, new_cost) s;
    END IF;
    IF refusal IS NULL AND vendor_tokens(v) < 1 THEN
        refusal := 'rate';
        until := clock_timestamp() + make_interval(secs => ((1 - vendor_tokens(v)) / v.max_per_minute * 60)::float8);
    END IF;
    IF refusal IS NOT NULL THEN
        -- Limits change at any time. The dispatcher holds new ones back until there is room, the others come by themselves.
        until := least(until, clock_timestamp() + CASE WHEN new_cost IS NULL THEN interval '1 minute' ELSE interval '5 seconds' END);
        retry_ms := greatest(100, extract(epoch FROM until - clock_timestamp()) * 1000);
    ELSIF v.max_per_minute IS NOT NULL OR v.open_until IS NOT NULL THEN
        UPDATE vendors SET tokens = vendor_tokens(v) - 1, refilled_at = clock_timestamp(),
            probe_token = CASE WHEN v.open_until IS NOT NULL THEN send END,
            probe_until = CASE WHEN v.open_until IS NOT NULL
                               THEN clock_timestamp() + make_interval(secs => send_within_ms / 1000.0 + 1) END
        WHERE vendor = of_vendor AND account = of_account;
    END IF;
END $$;

-- Permission to replay or redo a submission. Caps and budgets do not count: it is in flight and its money is reserved.
-- `not_after`: when the vendor may have forgotten the first send. It is asked here, right before the send, because a worker may
-- have slept since it read the submission; so are the job, its stage, and whether it still wants its result.
-- {vendor, account, token, job, stage, epoch, send_within_ms, not_after? (of a replay)}
CREATE FUNCTION take_send_permit(p jsonb, OUT refusal text, OUT retry_ms bigint) LANGUAGE plpgsql AS $$
DECLARE
    status text;
BEGIN
    SELECT coalesce(j.status, 'queued') INTO status FROM video_jobs j WHERE j.id = (p ->> 'job')::uuid FOR UPDATE;
    PERFORM FROM job_stages st WHERE st.job_id = (p ->> 'job')::uuid AND st.stage = p ->> 'stage'
        AND st.epoch = (p ->> 'epoch')::bigint AND st.state = 'dispatched' FOR UPDATE;
    IF NOT FOUND OR status NOT IN ('queued', 'uploading', 'processing') OR (p ->> 'not_after')::timestamptz <= clock_timestamp()
       OR NOT EXISTS (SELECT FROM submissions s WHERE s.token = (p ->> 'token')::uuid AND s.job_id = (p ->> 'job')::uuid
                      AND s.state = CASE WHEN p ? 'not_after' THEN 'unknown' ELSE 'accepted' END)
    THEN
        refusal := 'settled'; retry_ms := 0;
    ELSIF EXISTS (SELECT FROM settings WHERE name = 'stop_paid') THEN
        refusal := 'stopped'; retry_ms := 60000;
    ELSE
        SELECT a.refusal, a.retry_ms INTO refusal, retry_ms
        FROM admit(p ->> 'vendor', p ->> 'account', (p ->> 'token')::uuid, (p ->> 'send_within_ms')::bigint, NULL) a;
    END IF;
END $$;

-- How many new submissions would be let through now; null is any number. Without a lock: `admit` decides.
CREATE FUNCTION vendor_room(of_vendor text, of_account text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    v vendors%ROWTYPE;
    left_today numeric;
    affordable numeric;
BEGIN
    IF EXISTS (SELECT FROM settings WHERE name = 'stop_paid') THEN RETURN 0; END IF;
    SELECT * INTO v FROM vendors WHERE vendor = of_vendor AND account = of_account;
    IF (SELECT why FROM vendor_stop(v)) IS NOT NULL OR (SELECT why FROM vendor_stop_new(v, 0)) IS NOT NULL THEN RETURN 0; END IF;
    IF v.daily_budget IS NOT NULL THEN
        left_today := v.daily_budget - vendor_spent_today(v);
        IF left_today <= 0 THEN RETURN 0; END IF;
        -- As many as it pays for at the usual price; one may always ask.
        SELECT greatest(1, floor(left_today / nullif(avg(s.cost_reserved), 0))) INTO affordable FROM submissions s
        WHERE s.vendor = v.vendor AND s.account = v.account AND s.claimed_at >= date_trunc('day', statement_timestamp(), 'UTC');
    END IF;
    RETURN least(affordable, CASE WHEN vendor_cap(v) IS NOT NULL THEN vendor_cap(v) - vendor_in_flight(v) END, floor(vendor_tokens(v)),
                 CASE WHEN v.open_until IS NOT NULL THEN 1 END);
END $$;

-- What two rejections for the same reason have in common: not the ids of the vendor's own log lines and long numbers, and of a
-- page that is not the vendor's own answer only its status, because every such page may read otherwise.
CREATE FUNCTION plain_reason(reason text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT left(regexp_replace(regexp_replace(regexp_replace(coalesce(reason, ''), '^(HTTP [0-9]+ without a code):.*', '\1'),
                                              ' \((trace|request) [^)]*\)', '', 'g'),
                               '[0-9a-f]{8}[0-9a-f-]*|[0-9]{5,}', '#', 'gi'), 200)
$$;

-- What the answer to a paid call, or a refusal of a free one, says about the account. Called by `settle`; what
-- that locks after it are submissions of the job whose lock it holds.
-- {vendor, account, kind, token?, reason?, ms?, max_failures?, max_rejects?, open_ms?, open_cap_ms?}
-- kind: works; fails (no answer); rejects (this body); throttled (pause for ms); slots (the vendor's slots are full: a cap for
-- ms); misconfigured, out_of_credit (pause for ms).
-- hold_ms: the job is to wait so long rather than fail, because the vendor seems to reject everybody.
CREATE FUNCTION vendor_signal(s jsonb, job uuid, actor text, OUT hold_ms bigint) LANGUAGE plpgsql AS $$
DECLARE
    v vendors%ROWTYPE;
    kind text := s ->> 'kind';
    is_probe boolean;
    opens boolean := false;
    closes boolean;
    was text;
BEGIN
    -- Most answers are news to nobody and need no lock.
    IF kind = 'works' AND NOT EXISTS (
        SELECT FROM vendors w WHERE w.vendor = s ->> 'vendor' AND w.account = s ->> 'account'
        AND (w.failures > 0 OR w.reject_reason IS NOT NULL OR w.open_until IS NOT NULL)) THEN RETURN; END IF;
    INSERT INTO vendors (vendor, account) VALUES (s ->> 'vendor', s ->> 'account') ON CONFLICT DO NOTHING;
    SELECT * INTO v FROM vendors WHERE vendor = s ->> 'vendor' AND account = s ->> 'account' FOR UPDATE;
    was := v.open_kind;
    is_probe := coalesce(v.probe_token = (s ->> 'token')::uuid, false);
    -- An answer of any kind ends a run of calls without one.
    closes := kind = 'works' OR kind <> 'fails' AND v.open_kind = 'failures';

    IF kind = 'fails' THEN
        v.failures := v.failures + 1;
        opens := CASE WHEN v.open_until IS NULL THEN v.failures >= (s ->> 'max_failures')::integer ELSE is_probe END;
    ELSE
        v.failures := 0;
    END IF;
    IF kind = 'works' THEN
        v.reject_reason := NULL; v.reject_job := NULL; v.rejects := 0;
    ELSIF kind = 'rejects' THEN
        IF v.reject_reason IS DISTINCT FROM plain_reason(s ->> 'reason') THEN
            v.reject_reason := plain_reason(s ->> 'reason'); v.reject_job := job; v.rejects := 1;
            -- It looks at requests again.
            closes := v.open_until IS NOT NULL;
        ELSIF job <> v.reject_job THEN
            v.rejects := v.rejects + 1;
        END IF;
        -- The first one is taken to be at fault itself; the others wait until something is accepted, and then show whose fault
        -- it was.
        IF v.rejects >= 2 THEN
            hold_ms := (s ->> 'open_ms')::bigint;
            opens := v.rejects >= (s ->> 'max_rejects')::integer
                     AND (v.open_until IS NULL OR is_probe OR v.open_kind = 'failures');
        END IF;
    ELSIF kind = 'slots' THEN
        v.slots := (SELECT greatest(1, count(*)) FROM submissions o WHERE o.vendor = v.vendor AND o.account = v.account
                    AND o.state IN ('accepted', 'redoing'));
        v.slots_until := clock_timestamp() + make_interval(secs => (s ->> 'ms')::bigint / 1000.0);
    ELSIF kind IN ('throttled', 'misconfigured', 'out_of_credit') THEN
        IF kind = 'throttled' THEN v.tokens := 0; v.refilled_at := clock_timestamp(); END IF;
        IF v.paused_until IS NULL
           OR v.paused_until < clock_timestamp() + make_interval(secs => (s ->> 'ms')::bigint / 1000.0)
        THEN
            v.paused_until := clock_timestamp() + make_interval(secs => (s ->> 'ms')::bigint / 1000.0);
            v.pause_kind := kind;
            v.pause_reason := coalesce(s ->> 'reason', kind);
            v.paused_at := clock_timestamp();
        END IF;
    END IF;

    IF opens THEN
        v.open_kind := CASE kind WHEN 'fails' THEN 'failures' ELSE 'rejects' END;
        v.open_reason := coalesce(s ->> 'reason', kind);
        v.opened_at := coalesce(v.opened_at, clock_timestamp());
        v.open_until := clock_timestamp() + make_interval(secs => least(
            (s ->> 'open_ms')::bigint * 2 ^ least(v.openings, 20), greatest((s ->> 'open_ms')::bigint, (s ->> 'open_cap_ms')::bigint)) / 1000.0);
        v.openings := v.openings + 1;
    ELSIF closes THEN
        v.open_kind := NULL; v.open_reason := NULL; v.opened_at := NULL; v.open_until := NULL; v.openings := 0;
    END IF;
    IF opens OR closes THEN v.probe_token := NULL; v.probe_until := NULL; END IF;
    IF (was IS NULL) <> (v.open_kind IS NULL) THEN
        INSERT INTO operator_events (actor, reason, action, subject)
        VALUES (actor, coalesce(nullif(s ->> 'reason', ''), kind),
                CASE WHEN was IS NULL THEN 'circuit_opened' ELSE 'circuit_closed' END, v.vendor || '/' || v.account);
    END IF;
    UPDATE vendors w SET failures = v.failures, reject_reason = v.reject_reason, reject_job = v.reject_job, rejects = v.rejects,
        slots = v.slots, slots_until = v.slots_until, tokens = v.tokens, refilled_at = v.refilled_at, paused_until = v.paused_until,
        pause_kind = v.pause_kind, pause_reason = v.pause_reason, paused_at = v.paused_at, open_kind = v.open_kind,
        open_reason = v.open_reason, opened_at = v.opened_at, open_until = v.open_until, openings = v.openings,
        probe_token = v.probe_token, probe_until = v.probe_until
    WHERE w.vendor = v.vendor AND w.account = v.account;
END $$;

-- An operator's change of an account: `change` names columns and their new values; `hold_ms` in it is a pause from now on.
-- False: the account no longer has `if_version`, and nothing was done.
CREATE FUNCTION change_vendor(of_vendor text, of_account text, change jsonb, actor text, reason text, action text,
                              if_version bigint)
RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    v vendors%ROWTYPE;
BEGIN
    INSERT INTO vendors (vendor, account) VALUES (of_vendor, of_account) ON CONFLICT DO NOTHING;
    SELECT * INTO v FROM vendors WHERE vendor = of_vendor AND account = of_account FOR UPDATE;
    IF v.version <> if_version THEN RETURN false; END IF;
    IF change ? 'hold_ms' THEN
        change := change || jsonb_build_object('held_until', coalesce(
            clock_timestamp() + make_interval(secs => (change ->> 'hold_ms')::bigint / 1000.0), 'infinity'));
    END IF;
    v := jsonb_populate_record(v, change);
    UPDATE vendors w SET max_in_flight = v.max_in_flight, max_per_minute = v.max_per_minute, burst = v.burst,
        daily_budget = v.daily_budget, balance_floor = v.balance_floor, held_until = v.held_until,
        held_reason = v.held_reason, held_by = v.held_by, paused_until = v.paused_until, pause_kind = v.pause_kind,
        pause_reason = v.pause_reason, slots = v.slots, slots_until = v.slots_until, failures = v.failures,
        reject_reason = v.reject_reason, reject_job = v.reject_job, rejects = v.rejects, open_kind = v.open_kind, open_reason = v.open_reason,
        opened_at = v.opened_at, open_until = v.open_until, openings = v.openings, probe_token = v.probe_token,
        probe_until = v.probe_until, version = w.version + 1
    WHERE w.vendor = of_vendor AND w.account = of_account;
    INSERT INTO operator_events (actor, reason, action, subject, detail)
    VALUES (actor, reason, action, of_vendor || '/' || of_account, change);
    RETURN true;
END $$;
