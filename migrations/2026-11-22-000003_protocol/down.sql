DROP FUNCTION settle, patch_job, move_stage, settle_fact, claim, import_submission, job_task_id, metadata_text;
