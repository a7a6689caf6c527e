-- What an operator on call met: a job that the vendor's answer put off goes on as soon as the cause is mended, and errors and costs
-- are told by what matters about them.

-- An error without what differs from one case to the next. Kept are the host of a URL and the status of an HTTP answer: they
-- are what the fault is. Letters that are there keep the class that they got.
CREATE OR REPLACE FUNCTION error_class_of(error text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT left(btrim(regexp_replace(regexp_replace(regexp_replace(regexp_replace(regexp_replace(error,
        '[a-zA-Z][a-zA-Z0-9+.-]*://(?:[^[:space:]"''<>()/@]*@)?([^[:space:]"''<>()/?#]*)[^[:space:]"''<>()]*', '<url \1>', 'g'),
        '[0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}', '<id>', 'g'),
        '\m[0-9a-fA-F]{16,}\M', '<hex>', 'g'),
        '(?<!\mHTTP [0-9]{0,2})[0-9]+([.:][0-9]+)*', '<n>', 'g'),
        '[[:space:]]+', ' ', 'g')), 200)
$$;

-- As before, but a failed attempt, which costs nothing, says what another one will cost by what was reserved for it.
CREATE OR REPLACE FUNCTION job_part(job video_jobs, of_vendor text, OUT state text, OUT work_failed boolean, OUT last_cost float8,
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

-- Makes a parked job, or one that waits for its time, due now. A search for a lost request keeps its times: they prove
-- something. resumed, gone, over (it has no stage any more), or the state it is in instead.
-- Model: step Retry.
CREATE OR REPLACE FUNCTION resume_job(of_job uuid, actor text, why text) RETURNS text LANGUAGE plpgsql AS $$
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

-- Makes the jobs due that wait because of what a vendor last answered about the account: its cause is said to be mended. Says how
-- many. Takes no lock that anybody may wait for: a row that is being worked on is left alone, and comes due by itself.
CREATE FUNCTION release_jobs(of_vendor text, actor text, why text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    released bigint;
BEGIN
    WITH held AS (
        SELECT st.job_id, st.due_at AS was_due FROM job_stages st
        CROSS JOIN LATERAL (SELECT e.detail, e.epoch FROM job_events e WHERE e.job_id = st.job_id ORDER BY e.id DESC LIMIT 1) said
        WHERE st.state = 'waiting' AND st.due_at > clock_timestamp()
        -- Nothing has run since: runs that bring no news write no line.
        AND said.epoch = st.epoch - 1
        AND st.stage IN (CASE of_vendor WHEN 'sync' THEN 'lipsync.submit' ELSE 'inpaint.submit' END,
                         CASE of_vendor WHEN 'sync' THEN 'lipsync.poll' ELSE 'inpaint.poll' END)
        AND (said.detail ->> 'answer' IN ('throttled', 'slots', 'misconfigured', 'out_of_credit') OR said.detail ->> 'move' = 'held')
        FOR UPDATE OF st SKIP LOCKED),
    due AS (
        UPDATE job_stages st SET due_at = clock_timestamp() FROM held WHERE st.job_id = held.job_id
        RETURNING st.job_id, st.stage, st.epoch, held.was_due)
    INSERT INTO job_events (job_id, kind, actor, stage, epoch, detail)
    SELECT job_id, 'resumed', actor, stage, epoch, jsonb_build_object('reason', why, 'was', 'waiting', 'was_due', was_due) FROM due;
    GET DIAGNOSTICS released = ROW_COUNT;
    RETURN released;
END $$;
