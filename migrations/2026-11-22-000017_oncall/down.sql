DROP FUNCTION release_jobs(text, text, text);

CREATE OR REPLACE FUNCTION resume_job(of_job uuid, actor text, why text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    st job_stages%ROWTYPE;
BEGIN
    PERFORM FROM video_jobs WHERE id = of_job FOR UPDATE;
    IF NOT FOUND THEN RETURN 'gone'; END IF;
    SELECT * INTO st FROM job_stages WHERE job_id = of_job FOR UPDATE;
    IF NOT FOUND THEN RETURN 'over'; END IF;
    IF st.state <> 'parked' THEN RETURN st.state; END IF;
    UPDATE job_stages SET state = 'waiting', epoch = st.epoch + 1, due_at = clock_timestamp(), tries = 0, starts = 0,
        reason = NULL
    WHERE job_id = of_job;
    INSERT INTO job_events (job_id, kind, actor, stage, epoch, detail)
    VALUES (of_job, 'resumed', actor, st.stage, st.epoch + 1, jsonb_build_object('reason', why, 'was', st.reason));
    RETURN 'resumed';
END $$;

CREATE OR REPLACE FUNCTION job_part(job video_jobs, of_vendor text, OUT state text, OUT work_failed boolean, OUT last_cost float8,
                         OUT failed_attempts integer) LANGUAGE plpgsql STABLE AS $$
DECLARE
    present text := job_task_id(job, of_vendor);
BEGIN
    SELECT s.state, coalesce(s.work_state = 'failed', false) INTO state, work_failed FROM submissions s
    WHERE s.job_id = job.id AND s.vendor = of_vendor
    ORDER BY ledger_occupies(s.state) DESC, (s.state = 'duplicate' AND s.work_state <> 'failed') DESC, s.attempt DESC LIMIT 1;
    SELECT (count(*) FILTER (WHERE s.state = 'failed' AND NOT s.forgiven))::integer,
           (array_agg(coalesce(s.cost_charged, s.cost_reserved) ORDER BY s.attempt DESC)
               FILTER (WHERE coalesce(s.cost_charged, s.cost_reserved) IS NOT NULL))[1]::float8
    INTO failed_attempts, last_cost FROM submissions s WHERE s.job_id = job.id AND s.vendor = of_vendor;
    IF present IS NOT NULL AND NOT coalesce(ledger_occupies(state), false) AND NOT EXISTS (
        SELECT FROM submissions s WHERE s.job_id = job.id AND s.vendor = of_vendor AND s.vendor_task_id = present)
    THEN
        state := 'foreign';
    END IF;
END $$;

CREATE OR REPLACE FUNCTION error_class_of(error text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT left(btrim(regexp_replace(regexp_replace(regexp_replace(regexp_replace(regexp_replace(error,
        '[a-zA-Z][a-zA-Z0-9+.-]*://[^[:space:]"''<>()]+', '<url>', 'g'),
        '[0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}', '<id>', 'g'),
        '\m[0-9a-fA-F]{16,}\M', '<hex>', 'g'),
        '[0-9]+([.:][0-9]+)*', '<n>', 'g'),
        '[[:space:]]+', ' ', 'g')), 200)
$$;
