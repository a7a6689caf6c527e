DELETE FROM settings WHERE name = 'retention';

CREATE OR REPLACE FUNCTION restart_job(r jsonb) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    job video_jobs%ROWTYPE;
    st job_stages%ROWTYPE;
    next_epoch bigint;
BEGIN
    SELECT * INTO job FROM video_jobs WHERE id = (r ->> 'job')::uuid FOR UPDATE;
    SELECT * INTO st FROM job_stages WHERE job_id = job.id FOR UPDATE;
    -- A message for a row that is gone may still be on its way. Under a lower epoch it would look like one from the future.
    -- Whatever removes a row leaves an event with the row's epoch.
    next_epoch := 1 + greatest(coalesce(st.epoch, 0),
                               coalesce((SELECT max(e.epoch) FROM job_events e WHERE e.job_id = job.id), 0));
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
                               'forgiven', r -> 'forgive'));
END $$;

CREATE OR REPLACE FUNCTION guard_ledger() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        RAISE EXCEPTION 'the ledger has no DELETE (submission %)', OLD.token;
    END IF;
    IF NEW.state <> OLD.state AND NOT ledger_edge(OLD.state, NEW.state) THEN
        RAISE EXCEPTION 'submission %: % may not become %', OLD.token, OLD.state, NEW.state;
    END IF;
    IF (NEW.token, NEW.job_id, NEW.vendor, NEW.attempt, NEW.request_body)
       IS DISTINCT FROM (OLD.token, OLD.job_id, OLD.vendor, OLD.attempt, OLD.request_body) THEN
        RAISE EXCEPTION 'submission %: its intent may not change', OLD.token;
    END IF;
    IF OLD.vendor_task_id IS NOT NULL AND NEW.vendor_task_id IS DISTINCT FROM OLD.vendor_task_id AND NOT OLD.imported THEN
        RAISE EXCEPTION 'submission %: its vendor task id may not change', OLD.token;
    END IF;
    RETURN NEW;
END $$;

DROP INDEX job_requests_created;
DROP INDEX operations_finished;
DROP INDEX notices_ended;
DROP INDEX dead_letters_resolved;
DROP INDEX callbacks_processed;
DROP INDEX submissions_sources;
DROP INDEX submissions_bodies;
DROP INDEX job_events_at;
