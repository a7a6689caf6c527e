-- What operators do to jobs: cancel, retry, resume, and replay or discard dead letters. Every function locks in the order of
-- the protocol: video_jobs, job_stages, submissions.

-- An error without what differs from one case to the next, so that equal faults are counted together. Kept are the host of a URL and
-- the status of an HTTP answer: they are what the fault is.
CREATE FUNCTION error_class_of(error text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT left(btrim(regexp_replace(regexp_replace(regexp_replace(regexp_replace(regexp_replace(error,
        '[a-zA-Z][a-zA-Z0-9+.-]*://(?:[^[:space:]"''<>()/@]*@)?([^[:space:]"''<>()/?#]*)[^[:space:]"''<>()]*', '<url \1>', 'g'),
        '[0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}', '<id>', 'g'),
        '\m[0-9a-fA-F]{16,}\M', '<hex>', 'g'),
        '(?<!\mHTTP [0-9]{0,2})[0-9]+([.:][0-9]+)*', '<n>', 'g'),
        '[[:space:]]+', ' ', 'g')), 200)
$$;

ALTER TABLE dead_letters
    ADD COLUMN error_class text NOT NULL GENERATED ALWAYS AS (error_class_of(coalesce(error, reason))) STORED,
    ADD COLUMN resolved_by text,
    ADD COLUMN note text,
    ADD CONSTRAINT resolved_in_one_way CHECK ((resolved_at IS NULL) = (resolution IS NULL));
-- Grouping reads this index alone, and a page of one group is a piece of it.
CREATE INDEX dead_letters_groups ON dead_letters (coalesce(stage, 'unknown'), error_class, reason, id) INCLUDE (received_at)
    WHERE resolved_at IS NULL;
CREATE INDEX dead_letters_by_id ON dead_letters (id) WHERE resolved_at IS NULL;
-- The same undecidable message again is the same letter.
CREATE INDEX dead_letters_bodies ON dead_letters (sha256(body)) WHERE job_id IS NULL AND resolved_at IS NULL;

-- An operator decided that this failed attempt does not count against the bound on paid attempts.
ALTER TABLE submissions ADD COLUMN forgiven boolean NOT NULL DEFAULT false;

-- Ends a job on request. While nobody knows whether a submission of it was sent, its stage stays and finds out; everything
-- else that is paid is followed by the ledger sweep. now, following, canceled (before), gone, or the status it ended with.
-- Model: step Cancel.
CREATE FUNCTION cancel_job(of_job uuid, actor text, why text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    job video_jobs%ROWTYPE;
    st job_stages%ROWTYPE;
    unclear boolean;
BEGIN
    SELECT * INTO job FROM video_jobs WHERE id = of_job FOR UPDATE;
    IF NOT FOUND THEN RETURN 'gone'; END IF;
    SELECT * INTO st FROM job_stages WHERE job_id = of_job FOR UPDATE;
    -- One that was canceled by hand while it stood still has its stage, and nobody would end it.
    IF coalesce(job.status, 'queued') NOT IN ('queued', 'uploading', 'processing')
       AND NOT coalesce(job.status = 'canceled' AND st.state IN ('parked', 'dead'), false) THEN RETURN job.status; END IF;
    unclear := EXISTS (SELECT FROM submissions WHERE job_id = of_job AND state IN ('claimed', 'unknown'));
    UPDATE video_jobs SET status = 'canceled', completed_at = timezone('utc', now()), updated_at = timezone('utc', now())
    WHERE id = of_job;
    IF NOT unclear THEN DELETE FROM job_stages WHERE job_id = of_job; END IF;
    PERFORM book_waste(of_job);
    INSERT INTO job_events (job_id, kind, actor, stage, epoch, detail)
    VALUES (of_job, 'canceled', actor, st.stage, st.epoch,
            jsonb_build_object('reason', why, 'was', coalesce(job.status, 'queued'), 'outcome_unclear', unclear));
    RETURN CASE WHEN unclear THEN 'following' ELSE 'now' END;
END $$;

-- Makes a parked job, or one that waits for its time, due now. A search for a lost request keeps its times: they prove
-- something. resumed, gone, over (it has no stage any more), or the state it is in instead.
-- Model: step Retry.
CREATE FUNCTION resume_job(of_job uuid, actor text, why text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    st job_stages%ROWTYPE;
BEGIN
    PERFORM FROM video_jobs WHERE id = of_job FOR UPDATE;
    IF NOT FOUND THEN RETURN 'gone'; END IF;
    SELECT * INTO st FROM job_stages WHERE job_id = of_job FOR UPDATE;
    IF NOT FOUND THEN RETURN 'over'; END IF;
    IF st.state = 'waiting' AND st.due_at > clock_timestamp() AND st.stage <> 'inpaint.reconcile' THEN
        -- Nothing of this epoch is on its way: a dispatch makes the next one.
        UPDATE job_stages SET due_at = clock_timestamp() WHERE job_id = of_job;
        INSERT INTO job_events (job_id, kind, actor, stage, epoch, detail)
        VALUES (of_job, 'resumed', actor, st.stage, st.epoch,
                jsonb_build_object('reason', why, 'was', st.state, 'was_due', st.due_at));
        RETURN 'resumed';
    END IF;
    IF st.state <> 'parked' THEN RETURN st.state; END IF;
    UPDATE job_stages SET state = 'waiting', epoch = st.epoch + 1, due_at = clock_timestamp(), tries = 0, starts = 0,
        reason = NULL
    WHERE job_id = of_job;
    INSERT INTO job_events (job_id, kind, actor, stage, epoch, detail)
    VALUES (of_job, 'resumed', actor, st.stage, st.epoch + 1, jsonb_build_object('reason', why, 'was', st.reason));
    RETURN 'resumed';
END $$;

-- Puts a job that has ended back on its way. Sends nothing: the stage it comes to reads the ledger. The caller holds the locks
-- of the job and of its stage, and decided under them.
-- {job, stage, delay_ms, by, reason, kind: replayed|retried, how, status, message?, vendor?, forgive, operation?}
-- Model: step Retry.
CREATE FUNCTION restart_job(r jsonb) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    job video_jobs%ROWTYPE;
    st job_stages%ROWTYPE;
    next_epoch bigint;
BEGIN
    SELECT * INTO job FROM video_jobs WHERE id = (r ->> 'job')::uuid FOR UPDATE;
    SELECT * INTO st FROM job_stages WHERE job_id = job.id FOR UPDATE;
    -- A message for a row that is gone may still be on its way. Under a lower epoch it would look like one from the future.
    -- Whatever removes a row leaves an event with the row's epoch; retention may have removed that too.
    next_epoch := 1 + coalesce(greatest(st.epoch, (SELECT max(e.epoch) FROM job_events e WHERE e.job_id = job.id)),
                               (extract(epoch FROM clock_timestamp()) * 1000)::bigint);
    INSERT INTO job_stages (job_id, stage, epoch, state, due_at, fairness_key, priority)
    VALUES (job.id, r ->> 'stage', next_epoch, 'waiting',
            clock_timestamp() + make_interval(secs => (r ->> 'delay_ms')::bigint / 1000.0), job.user_id,
            -- The row may be gone; intake noted the class.
            coalesce(st.priority, (SELECT (e.detail ->> 'priority')::smallint FROM job_events e
                                   WHERE e.job_id = job.id AND e.kind = 'created' LIMIT 1), 1))
    ON CONFLICT (job_id) DO UPDATE SET stage = excluded.stage, epoch = excluded.epoch, state = 'waiting',
        due_at = excluded.due_at, tries = 0, starts = 0, reason = NULL, entered_at = clock_timestamp();
    UPDATE submissions SET forgiven = true WHERE token IN (
        SELECT s.token FROM submissions s
        WHERE s.job_id = job.id AND s.vendor = r ->> 'vendor' AND s.state = 'failed' AND NOT s.forgiven
        ORDER BY s.attempt DESC LIMIT (r ->> 'forgive')::bigint);
    UPDATE video_jobs SET status = r ->> 'status', progress_message = r ->> 'message', error_message = NULL,
        error_code = NULL, completed_at = NULL, updated_at = timezone('utc', now())
    WHERE id = job.id;
    PERFORM book_waste(job.id);
    UPDATE dead_letters SET resolved_at = clock_timestamp(), resolution = r ->> 'kind', resolved_by = r ->> 'by',
        note = r ->> 'reason'
    WHERE job_id = job.id AND resolved_at IS NULL;
    INSERT INTO job_events (job_id, kind, actor, stage, epoch, detail)
    VALUES (job.id, r ->> 'kind', r ->> 'by', r ->> 'stage', next_epoch,
            jsonb_build_object('reason', r -> 'reason', 'how', r -> 'how', 'was', job.status, 'from', st.stage,
                               'forgiven', r -> 'forgive', 'operation', r -> 'operation'));
END $$;

-- Closes a dead letter. The job it is about stays failed, and its stage goes if it still stands as the letter says.
-- discarded, resolved (before), gone.
CREATE FUNCTION discard_letter(letter bigint, actor text, why text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    found_letter dead_letters%ROWTYPE;
BEGIN
    SELECT * INTO found_letter FROM dead_letters WHERE id = letter;
    IF NOT FOUND THEN RETURN 'gone'; END IF;
    PERFORM FROM video_jobs WHERE id = found_letter.job_id FOR UPDATE;
    UPDATE dead_letters SET resolved_at = clock_timestamp(), resolution = 'discarded', resolved_by = actor, note = why
    WHERE id = letter AND resolved_at IS NULL;
    IF NOT FOUND THEN RETURN 'resolved'; END IF;
    DELETE FROM job_stages
    WHERE job_id = found_letter.job_id AND state = 'dead' AND epoch = found_letter.epoch + 1;
    IF found_letter.job_id IS NOT NULL THEN
        INSERT INTO job_events (job_id, kind, actor, stage, epoch, detail)
        VALUES (found_letter.job_id, 'discarded', actor, found_letter.stage, found_letter.epoch + 1,
                jsonb_build_object('reason', why));
    END IF;
    RETURN 'discarded';
END $$;

-- What a vendor's part of a job has come to: its live, else its latest submission, else an id in the job's row that the
-- ledger does not know. A failed attempt, which costs nothing, says what another one will cost by what was reserved for it. One row.
CREATE FUNCTION job_part(job video_jobs, of_vendor text, OUT state text, OUT work_failed boolean, OUT last_cost float8,
                                    OUT failed_attempts integer) LANGUAGE plpgsql STABLE AS $$
DECLARE
    present text := job_task_id(job, of_vendor);
BEGIN
    SELECT s.state, coalesce(s.work_state = 'failed', false) INTO state, work_failed FROM submissions s
    WHERE s.job_id = job.id AND s.vendor = of_vendor
    ORDER BY ledger_occupies(s.state) DESC, (s.state = 'duplicate' AND s.work_state <> 'failed') DESC, s.attempt DESC LIMIT 1;
    SELECT (count(*) FILTER (WHERE s.state = 'failed' AND NOT s.forgiven))::integer,
           (array_agg(coalesce(nullif(s.cost_charged, 0), s.cost_reserved, s.cost_charged) ORDER BY s.attempt DESC)
               FILTER (WHERE coalesce(s.cost_charged, s.cost_reserved) IS NOT NULL))[1]::float8
    INTO failed_attempts, last_cost FROM submissions s WHERE s.job_id = job.id AND s.vendor = of_vendor;
    IF present IS NOT NULL AND NOT coalesce(ledger_occupies(state), false) AND NOT EXISTS (
        SELECT FROM submissions s WHERE s.job_id = job.id AND s.vendor = of_vendor AND s.vendor_task_id = present)
    THEN
        state := 'foreign';
    END IF;
END $$;

-- Makes the jobs due that wait because of what a vendor last answered about the account, or to ask Sync.so again under the key of a
-- submission whose outcome is unknown: the cause is said to be mended. A search at GhostCut keeps its times, which prove something. Says how
-- many. Takes no lock that anybody may wait for: a row that is being worked on is left alone, and comes due by itself.
CREATE FUNCTION release_jobs(of_vendor text, actor text, why text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    released bigint;
BEGIN
    WITH held AS (
        SELECT st.job_id, st.due_at AS was_due FROM job_stages st
        CROSS JOIN LATERAL (SELECT e.detail, e.epoch FROM job_events e WHERE e.job_id = st.job_id ORDER BY e.id DESC LIMIT 1) said
        WHERE st.state = 'waiting' AND st.due_at > clock_timestamp()
        AND st.stage IN (CASE of_vendor WHEN 'sync' THEN 'lipsync.submit' ELSE 'inpaint.submit' END,
                         CASE of_vendor WHEN 'sync' THEN 'lipsync.poll' ELSE 'inpaint.poll' END)
        -- Nothing has run since: runs that bring no news write no line.
        AND (said.epoch = st.epoch - 1 AND (said.detail ->> 'answer' IN ('throttled', 'slots', 'misconfigured', 'out_of_credit')
                                            OR said.detail ->> 'move' = 'held')
             OR st.stage = 'lipsync.submit' AND EXISTS (
                 SELECT FROM submissions s WHERE s.job_id = st.job_id AND s.vendor = 'sync' AND s.state = 'unknown'))
        FOR UPDATE OF st SKIP LOCKED),
    due AS (
        UPDATE job_stages st SET due_at = clock_timestamp() FROM held WHERE st.job_id = held.job_id
        RETURNING st.job_id, st.stage, st.epoch, held.was_due)
    INSERT INTO job_events (job_id, kind, actor, stage, epoch, detail)
    SELECT job_id, 'resumed', actor, stage, epoch, jsonb_build_object('reason', why, 'was', 'waiting', 'was_due', was_due) FROM due;
    GET DIAGNOSTICS released = ROW_COUNT;
    RETURN released;
END $$;
