-- The submission protocol: `claim` opens an intent to pay, `settle` records what came of it and moves the job.
-- Both take their arguments as one JSON object (`shared::db::protocol` has the Rust side) and lock rows in one order:
-- video_jobs, job_stages, submissions, vendors.

-- A metadata value as text. Absent means: not an object, no key, JSON null, empty, or the text `None`.
CREATE FUNCTION metadata_text(metadata jsonb, key text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN jsonb_typeof(metadata) = 'object' THEN nullif(nullif(metadata ->> key, 'None'), '') END
$$;

-- The vendor's id of the job's work, wherever this or the replaced application has put it.
CREATE FUNCTION job_task_id(job video_jobs, vendor text) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT CASE vendor
        WHEN 'ghostcut' THEN metadata_text(job.job_metadata, 'ghostcut_task_id')
        WHEN 'sync' THEN coalesce(metadata_text(job.job_metadata, 'sync_generation_id'),
                                  CASE WHEN job.is_pro_job THEN nullif(nullif(job.zhaoli_task_id, 'None'), '') END)
    END
$$;

-- Takes a vendor id that is in the job's row but not in the ledger into the ledger, as accepted by somebody else.
-- False when the slot or the id is taken.
CREATE FUNCTION import_submission(job uuid, of_vendor text, of_account text, task_id text)
RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    -- Whatever somebody wrote into the row: no content of it may keep a fact from being written.
    IF task_id IS NULL OR length(task_id) NOT BETWEEN 1 AND 200 THEN RETURN false; END IF;
    INSERT INTO submissions (token, job_id, vendor, account, attempt, state, imported, request_body, request_sha256,
                             vendor_task_id, work_state, send_deadline, settled_at, user_id)
    SELECT gen_random_uuid(), job, of_vendor, of_account,
           1 + coalesce((SELECT max(attempt) FROM submissions s WHERE s.job_id = job AND s.vendor = of_vendor), 0),
           'accepted', true, '', sha256(''), task_id, 'pending', clock_timestamp(), clock_timestamp(),
           (SELECT user_id FROM video_jobs WHERE id = job)
    ON CONFLICT DO NOTHING;
    RETURN FOUND;
END $$;

-- Model: step Claim.
-- I2. Inserts the intent, or says why not. Only the call that is answered `claimed` may send, until `remaining_ms` is over.
-- {job, stage, epoch, vendor, account, attempt, token, source_key, source_url, metadata?, send_within_ms, cost_reserved}
-- verdicts: claimed, imported (the row has an id: poll it), occupied (read the live submission), conflict (the row's id is
-- another submission's), undecided (a callback speaks of a work for an attempt that counts as absent), forgot (`mark`, a line of the trail that the caller knows, is gone), the refusals gone, stale,
-- over, stopped, callback, lease, and those of `admit`, which say when to ask again (retry_ms).
CREATE FUNCTION claim(c jsonb, body bytea, OUT verdict text, OUT remaining_ms bigint, OUT retry_ms bigint) LANGUAGE plpgsql AS $$
DECLARE
    job video_jobs%ROWTYPE;
    st job_stages%ROWTYPE;
    present text;
    deadline timestamptz;
BEGIN
    SELECT * INTO job FROM video_jobs WHERE id = (c ->> 'job')::uuid FOR UPDATE;
    IF NOT FOUND THEN verdict := 'gone'; RETURN; END IF;
    SELECT * INTO st FROM job_stages
    WHERE job_id = job.id AND stage = c ->> 'stage' AND epoch = (c ->> 'epoch')::bigint AND state = 'dispatched'
    FOR UPDATE;
    IF NOT FOUND THEN verdict := 'stale'; RETURN; END IF;
    IF job.status NOT IN ('queued', 'uploading', 'processing') THEN verdict := 'over'; RETURN; END IF;
    IF EXISTS (SELECT FROM settings WHERE name = 'stop_paid') THEN verdict := 'stopped'; RETURN; END IF;
    IF EXISTS (SELECT FROM callbacks WHERE job_id = job.id AND processed_at IS NULL) THEN
        verdict := 'callback'; RETURN;
    END IF;
    -- A work was called back for an attempt that counts as absent, and nobody could look at it.
    IF EXISTS (SELECT FROM callbacks k JOIN submissions s ON s.token = k.token WHERE k.job_id = job.id AND k.outcome = 'failed'
               AND s.vendor = c ->> 'vendor' AND s.state = 'absent') THEN
        verdict := 'undecided'; RETURN;
    END IF;
    IF c ? 'mark' AND NOT EXISTS (SELECT FROM job_events e WHERE e.id = (c -> 'mark' ->> 'id')::bigint
                                  AND e.at = (c -> 'mark' ->> 'at')::timestamptz) THEN
        verdict := 'forgot'; RETURN;
    END IF;
    deadline := clock_timestamp() + make_interval(secs => (c ->> 'send_within_ms')::bigint / 1000.0);
    IF deadline >= st.due_at THEN verdict := 'lease'; RETURN; END IF;

    -- The id of an attempt that ended does not keep a new one from being opened; any other id does.
    present := job_task_id(job, c ->> 'vendor');
    IF present IS NOT NULL AND NOT EXISTS (
        SELECT FROM submissions s WHERE s.job_id = job.id AND s.vendor = c ->> 'vendor' AND s.vendor_task_id = present
        AND NOT ledger_occupies(s.state))
    THEN
        IF import_submission(job.id, c ->> 'vendor', c ->> 'account', present) THEN
            INSERT INTO job_events (job_id, kind, actor, stage, epoch, detail)
            VALUES (job.id, 'imported', c ->> 'actor', st.stage, st.epoch, jsonb_build_object('task_id', present));
            verdict := 'imported';
        ELSIF EXISTS (SELECT FROM submissions s WHERE s.job_id = job.id AND s.vendor = c ->> 'vendor'
                      AND ledger_occupies(s.state)) THEN
            verdict := 'occupied';
        ELSE
            verdict := 'conflict';
        END IF;
        RETURN;
    END IF;

    IF EXISTS (SELECT FROM submissions s WHERE s.job_id = job.id AND s.vendor = c ->> 'vendor' AND ledger_occupies(s.state))
    THEN verdict := 'occupied'; RETURN; END IF;

    -- Locks the account. The insert after it waits for nobody: the lock on the job keeps others from its slot.
    SELECT a.refusal, a.retry_ms INTO verdict, retry_ms
    FROM admit(c ->> 'vendor', c ->> 'account', (c ->> 'token')::uuid, (c ->> 'send_within_ms')::bigint,
               coalesce((c ->> 'cost_reserved')::numeric, 0)) a;
    IF verdict IS NOT NULL THEN RETURN; END IF;
    -- From here on nobody is waited for.
    deadline := clock_timestamp() + make_interval(secs => (c ->> 'send_within_ms')::bigint / 1000.0);
    IF deadline >= st.due_at THEN verdict := 'lease'; RETURN; END IF;
    INSERT INTO submissions (token, job_id, vendor, account, attempt, state, request_body, request_sha256,
                             source_key, source_url, metadata, send_deadline, cost_reserved, user_id)
    VALUES ((c ->> 'token')::uuid, job.id, c ->> 'vendor', c ->> 'account', (c ->> 'attempt')::integer, 'claimed',
            body, sha256(body), c ->> 'source_key', c ->> 'source_url', nullif(c -> 'metadata', 'null'), deadline,
            (c ->> 'cost_reserved')::numeric, job.user_id)
    ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN verdict := 'occupied'; RETURN; END IF;
    INSERT INTO job_events (job_id, kind, actor, stage, epoch, token, detail)
    VALUES (job.id, 'claimed', c ->> 'actor', st.stage, st.epoch, (c ->> 'token')::uuid,
            jsonb_build_object('attempt', c -> 'attempt'));
    verdict := 'claimed';
    remaining_ms := floor(extract(epoch FROM deadline - clock_timestamp()) * 1000);
END $$;

-- Writes a fact into the ledger (I7: by token, from any state, however late) and, for an acceptance, the vendor's id into
-- the job's row if the row has none that still counts (I4).
-- ledger: written, same (known before), kept (a better state stands), second (another work for the same token),
-- taken (the id belongs to another submission).  metadata: set, same, other, gone, none.
CREATE FUNCTION settle_fact(fact jsonb, actor text, job video_jobs, sub submissions,
                            OUT ledger text, OUT metadata text) LANGUAGE plpgsql AS $$
DECLARE
    becomes text := fact ->> 'state';
    task text := fact ->> 'task_id';
    present text;
    new_keys jsonb;
    charged numeric;
BEGIN
    metadata := 'none';
    -- A status from before a redo. And only a status ends a redo: an answer, a search or a callback is about the time before.
    IF (fact ->> 'redos')::integer <> sub.redos AND becomes IN ('failed', 'redoing') THEN
        ledger := 'kept';
        RETURN;
    ELSIF becomes = 'accepted' AND sub.state IN ('accepted', 'succeeded', 'failed')
       OR becomes = 'accepted' AND sub.state = 'redoing' AND (fact ->> 'redos')::integer IS DISTINCT FROM sub.redos
       OR becomes = 'accepted' AND sub.state = 'duplicate' AND NOT coalesce((fact ->> 'promote')::boolean, false)
       OR becomes = sub.state
    THEN
        ledger := CASE WHEN task <> sub.vendor_task_id AND NOT sub.imported THEN 'second' ELSE 'same' END;
        IF ledger = 'second' THEN RETURN; END IF;
        becomes := sub.state;
    -- A late refusal of a Sync.so request is about one of its sends; others may be on their way since it became unknown.
    ELSIF NOT ledger_edge(sub.state, becomes) OR becomes = 'rejected' AND sub.state = 'unknown' AND sub.vendor = 'sync' THEN
        ledger := 'kept';
        RETURN;
    ELSIF becomes = 'redoing' AND EXISTS (SELECT FROM settings WHERE name = 'stop_paid') THEN
        ledger := 'kept';
        RETURN;
    ELSE
        ledger := 'written';
    END IF;

    IF task IS NOT NULL AND EXISTS (SELECT FROM submissions o WHERE o.vendor = sub.vendor AND o.account = sub.account
                                    AND o.vendor_task_id = task AND o.token <> sub.token) THEN
        ledger := 'taken';
        RETURN;
    END IF;

    IF ledger = 'written' AND becomes = 'accepted' AND sub.state <> 'redoing' THEN
        present := job_task_id(job, sub.vendor);
        IF job.id IS NULL THEN
            metadata := 'gone';
        ELSIF present = task THEN
            metadata := 'same';
        ELSIF present IS NULL OR EXISTS (
            SELECT FROM submissions o WHERE o.job_id = sub.job_id AND o.vendor = sub.vendor
            AND o.vendor_task_id = present AND NOT ledger_occupies(o.state))
        THEN
            metadata := 'set';
        ELSE
            metadata := 'other';
        END IF;
        -- Someone else's work is the job's: ours is a duplicate, paid and not needed.
        IF metadata = 'other' OR (NOT ledger_occupies(sub.state) AND EXISTS (
            SELECT FROM submissions o WHERE o.job_id = sub.job_id AND o.vendor = sub.vendor AND ledger_occupies(o.state)))
        THEN
            becomes := 'duplicate';
            metadata := 'other';
        END IF;
    END IF;

    -- A vendor that does not say what a success cost has charged what was expected. Nothing is charged yet while it is pending.
    charged := CASE WHEN becomes = 'succeeded' THEN coalesce((fact ->> 'charged')::numeric, sub.cost_charged, sub.cost_reserved)
                    WHEN becomes IN ('failed', 'duplicate') THEN coalesce((fact ->> 'charged')::numeric, sub.cost_charged)
                    ELSE coalesce(nullif((fact ->> 'charged')::numeric, 0), sub.cost_charged) END;
    UPDATE submissions o SET
        state = becomes,
        vendor_task_id = coalesce(task, o.vendor_task_id),
        vendor_project_id = coalesce(fact ->> 'project_id', o.vendor_project_id),
        work_state = coalesce(CASE becomes WHEN 'succeeded' THEN 'succeeded' WHEN 'failed' THEN 'failed'
                              WHEN 'accepted' THEN 'pending' WHEN 'duplicate' THEN 'pending' END, o.work_state),
        answer = CASE WHEN jsonb_typeof(fact -> 'answer') = 'object' THEN fact -> 'answer' ELSE o.answer END,
        settled_at = CASE WHEN o.state <> becomes THEN clock_timestamp() ELSE o.settled_at END,
        redos = o.redos + (becomes = 'redoing' AND o.state <> 'redoing')::integer,
        cost_charged = charged,
        cost_wasted = CASE
            WHEN becomes = 'duplicate' OR becomes = 'succeeded' AND (job.id IS NULL OR job.status IN ('canceled', 'failed'))
            THEN coalesce(charged, o.cost_reserved)
            WHEN becomes = 'failed' THEN coalesce(charged, o.cost_wasted) ELSE o.cost_wasted END
    WHERE o.token = sub.token;

    IF metadata = 'set' THEN
        new_keys := coalesce(sub.metadata, '{}') || CASE sub.vendor WHEN 'sync' THEN jsonb_build_object('sync_generation_id', task)
            ELSE jsonb_strip_nulls(jsonb_build_object('ghostcut_task_id', task, 'ghostcut_project_id', fact ->> 'project_id')) END;
        UPDATE video_jobs v SET
            job_metadata = CASE WHEN jsonb_typeof(v.job_metadata) = 'object' THEN v.job_metadata ELSE '{}' END || new_keys,
            updated_at = timezone('utc', now())
        WHERE v.id = job.id;
        INSERT INTO job_events (job_id, kind, actor, token, metadata_changed)
        VALUES (job.id, 'task_id_set', actor, sub.token, new_keys);
    ELSIF metadata = 'other' THEN
        INSERT INTO job_events (job_id, kind, actor, token, detail)
        VALUES (sub.job_id, 'duplicate', actor, sub.token, jsonb_build_object('task_id', task, 'present', present));
    END IF;
END $$;

-- Moves the job's stage row; the caller has decided that it may. Values that are absent stay.
CREATE FUNCTION move_stage(mv jsonb, st job_stages) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF mv ->> 'state' = 'done' THEN
        DELETE FROM job_stages WHERE job_id = st.job_id;
        RETURN;
    END IF;
    UPDATE job_stages SET
        stage = coalesce(mv ->> 'stage', st.stage),
        state = mv ->> 'state',
        epoch = st.epoch + 1,
        due_at = CASE WHEN mv ->> 'state' = 'waiting'
                 THEN clock_timestamp() + make_interval(secs => (mv ->> 'delay_ms')::bigint / 1000.0) END,
        tries = coalesce((mv ->> 'tries')::integer, st.tries),
        starts = 0,
        reason = mv ->> 'reason',
        entered_at = CASE WHEN coalesce(mv ->> 'stage', st.stage) <> st.stage THEN clock_timestamp() ELSE st.entered_at END
    WHERE job_id = st.job_id;
END $$;

-- Writes what users see of the job.
CREATE FUNCTION patch_job(of_job uuid, patch jsonb) RETURNS void LANGUAGE sql AS $$
    UPDATE video_jobs SET
        status = coalesce(patch ->> 'status', status),
        progress_percentage = coalesce((patch ->> 'progress')::integer, progress_percentage),
        progress_message = coalesce(patch ->> 'message', progress_message),
        error_message = coalesce(patch ->> 'error', error_message),
        error_code = coalesce(left(patch ->> 'error_code', 50), error_code),
        output_url = coalesce(patch ->> 'output_url', output_url),
        started_at = CASE WHEN patch ->> 'status' = 'processing' THEN coalesce(started_at, timezone('utc', now()))
                     ELSE started_at END,
        completed_at = CASE WHEN patch ->> 'status' IN ('completed', 'failed') THEN timezone('utc', now())
                       ELSE completed_at END,
        updated_at = timezone('utc', now())
    WHERE id = of_job
$$;

-- What succeeded for a job that ended without its result is wasted, until the job is completed after all.
CREATE FUNCTION book_waste(of_job uuid) RETURNS void LANGUAGE sql AS $$
    UPDATE submissions s
    SET cost_wasted = CASE WHEN j.status IN ('canceled', 'failed') THEN coalesce(s.cost_charged, s.cost_reserved) END
    FROM video_jobs j WHERE j.id = of_job AND s.job_id = of_job AND s.state = 'succeeded'
    -- Nearly every job completes, and then there is nothing to write.
    AND s.cost_wasted IS DISTINCT FROM CASE WHEN j.status IN ('canceled', 'failed') THEN coalesce(s.cost_charged, s.cost_reserved) END
$$;

-- Model: step Settle.
-- One round trip for everything that a stage came to.
-- {job, stage, epoch, actor,
--  fact?: {token, state, task_id?, project_id?, answer?, charged?, redos? (known of), promote? (a duplicate becomes the job's),
--         unfollowed? (seen while no stage followed it)},
--  move?: {state: waiting|parked|dead|done, stage?, delay_ms?, tries?, reason?, from?: [stage]},
--  job_patch?: {status?, progress?, message?, error?, error_code?, output_url?}, event?: {kind, detail},
--  signal?: what the answer says about the account, see `vendor_signal`}
-- A move is fenced by (stage, epoch, dispatched). One that carries a new fact about the job's own submission may also
-- come from the stages in `from`, whatever the epoch. move: moved, held (waits, because the vendor and not the job seems to be at
-- fault), lost, none.
CREATE FUNCTION settle(s jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    fact jsonb := nullif(s -> 'fact', 'null');
    mv jsonb := nullif(s -> 'move', 'null');
    signal jsonb := nullif(s -> 'signal', 'null');
    hold_ms bigint;
    job video_jobs%ROWTYPE;
    st job_stages%ROWTYPE;
    sub submissions%ROWTYPE;
    fenced boolean;
    ours boolean := true;
    -- Whether callbacks name a work for a submission that is to be absent: true, one is not processed yet; false, it came to nothing.
    named boolean;
    ledger text := 'none';
    metadata text := 'none';
    moved text := 'none';
    -- The job's new status; null: it stays.
    becomes text;
    -- For the trail: only here is it known what a run changed.
    change jsonb := '{}';
    line job_events%ROWTYPE;
BEGIN
    SELECT * INTO job FROM video_jobs WHERE id = (s ->> 'job')::uuid FOR UPDATE;
    SELECT * INTO st FROM job_stages WHERE job_id = (s ->> 'job')::uuid FOR UPDATE;
    fenced := coalesce(st.stage = s ->> 'stage' AND st.epoch = (s ->> 'epoch')::bigint AND st.state = 'dispatched', false);

    IF fact IS NOT NULL THEN
        SELECT * INTO sub FROM submissions WHERE token = (fact ->> 'token')::uuid AND job_id = (s ->> 'job')::uuid FOR UPDATE;
        IF NOT FOUND THEN RAISE EXCEPTION 'settle: no submission % of job %', fact ->> 'token', s ->> 'job'; END IF;
        ours := ledger_occupies(sub.state) OR NOT EXISTS (
            SELECT FROM submissions o WHERE o.job_id = sub.job_id AND o.vendor = sub.vendor AND ledger_occupies(o.state));
        SELECT bool_or(c.processed_at IS NULL) INTO named FROM callbacks c
        WHERE fact ->> 'state' = 'absent' AND c.job_id = sub.job_id AND c.token = sub.token
        AND (c.processed_at IS NULL OR c.outcome = 'failed');
        IF named IS NOT NULL THEN
            -- The vendor has named a work for it. Only who has looked at that may say that there is none.
            ledger := 'kept';
        ELSIF fact ->> 'state' = 'failed' AND (fact ->> 'unfollowed')::boolean AND st.state <> 'dead'
              AND starts_with(st.stage, CASE sub.vendor WHEN 'sync' THEN 'lipsync.' ELSE 'inpaint.' END) THEN
            ledger := 'kept';
        ELSIF fact ->> 'state' = 'redoing' AND NOT (fenced AND coalesce(job.status, 'queued') IN ('queued', 'uploading', 'processing')) THEN
            -- A redo is an intent, not a fact: a stale actor has none.
            ledger := 'kept';
        ELSE
            SELECT f.ledger, f.metadata INTO ledger, metadata FROM settle_fact(fact, s ->> 'actor', job, sub) f;
        END IF;
        IF metadata = 'other' AND ours AND NOT import_submission(job.id, sub.vendor, sub.account, job_task_id(job, sub.vendor))
           OR ledger = 'taken'
        THEN
            mv := '{"state": "parked", "reason": "task_id_conflict"}';
            s := s - 'job_patch';
        ELSIF NOT named THEN
            mv := '{"state": "parked", "reason": "outcome_undecided"}';
            s := s - 'job_patch';
        ELSIF named THEN
            -- It will have been processed, or have failed.
            mv := '{"state": "waiting", "delay_ms": 60000}';
            s := s - 'job_patch';
        ELSIF ledger = 'kept' OR ledger = 'second' AND mv IS NOT NULL THEN
            -- Somebody recorded more than we knew: look again.
            mv := '{"state": "waiting", "delay_ms": 1000}';
            s := s - 'job_patch';
        END IF;
        IF ledger IN ('second', 'taken') THEN
            INSERT INTO job_events (job_id, kind, actor, token, detail)
            VALUES (sub.job_id, ledger || '_work', s ->> 'actor', sub.token, fact);
        END IF;
    END IF;

    -- A job is not given up while something may have been paid for it.
    IF mv ->> 'state' = 'dead' AND EXISTS (SELECT FROM submissions o WHERE o.job_id = st.job_id
        AND o.state IN ('claimed', 'unknown', 'accepted', 'redoing'))
    THEN
        mv := '{"state": "waiting", "delay_ms": 60000}';
        s := s - 'job_patch';
    END IF;

    IF signal IS NOT NULL THEN
        hold_ms := vendor_signal(signal, (s ->> 'job')::uuid, s ->> 'actor');
        -- A job that was rejected three times is at fault itself, and would hold up the others for ever.
        IF hold_ms IS NOT NULL AND mv ->> 'state' = 'done' AND 3 > (
            SELECT count(*) FROM submissions o WHERE o.job_id = job.id AND o.vendor = signal ->> 'vendor' AND o.state = 'rejected')
        THEN
            mv := jsonb_build_object('state', 'waiting', 'delay_ms', hold_ms);
            s := s - 'job_patch';
        ELSE
            hold_ms := NULL;
        END IF;
    END IF;

    IF mv IS NOT NULL THEN
        IF st.job_id IS NOT NULL AND ours AND (fenced
           OR ledger = 'written' AND st.state <> 'dead' AND nullif(mv -> 'from', 'null') ? st.stage)
        THEN
            IF mv ->> 'state' = 'dead' THEN
                INSERT INTO dead_letters (job_id, stage, epoch, reason, error)
                VALUES (st.job_id, st.stage, st.epoch, mv ->> 'reason', s -> 'job_patch' ->> 'error')
                ON CONFLICT (job_id, epoch) DO UPDATE
                SET stage = excluded.stage, reason = excluded.reason, error = excluded.error;
            END IF;
            PERFORM move_stage(mv, st);
            moved := CASE WHEN hold_ms IS NULL THEN 'moved' ELSE 'held' END;
        ELSE
            moved := 'lost';
        END IF;
    END IF;

    IF moved = 'moved' AND nullif(s -> 'job_patch', 'null') IS NOT NULL
       AND job.status IN ('queued', 'uploading', 'processing')
    THEN
        PERFORM patch_job(job.id, s -> 'job_patch');
        becomes := nullif(s -> 'job_patch' ->> 'status', job.status);
        IF becomes IN ('completed', 'failed') THEN PERFORM book_waste(job.id); END IF;
    END IF;
    IF nullif(s -> 'event', 'null') IS NOT NULL THEN
        IF moved IN ('moved', 'held') THEN
            change := jsonb_build_object('from', st.stage || ' ' || st.state, 'to', CASE mv ->> 'state' WHEN 'done' THEN 'none'
                ELSE coalesce(mv ->> 'stage', st.stage) || ' ' || (mv ->> 'state') END);
        END IF;
        IF becomes IS NOT NULL THEN
            change := change || jsonb_build_object('was', job.status, 'status', becomes);
        END IF;
        INSERT INTO job_events (job_id, kind, actor, stage, epoch, token, detail)
        VALUES ((s ->> 'job')::uuid, s -> 'event' ->> 'kind', s ->> 'actor', s ->> 'stage', (s ->> 'epoch')::bigint, sub.token,
                coalesce(s -> 'event' -> 'detail', '{}')
                || jsonb_build_object('ledger', ledger, 'metadata', metadata, 'move', moved) || change)
        RETURNING * INTO line;
    END IF;
    RETURN jsonb_build_object('ledger', ledger, 'metadata', metadata, 'move', moved, 'line', line.id, 'line_at', line.at,
        'job_seconds', greatest(extract(epoch FROM timezone('utc', now()) - job.created_at), 0));
END $$;
