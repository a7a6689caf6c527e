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
