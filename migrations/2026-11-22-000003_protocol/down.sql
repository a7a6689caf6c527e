DROP FUNCTION settle, book_waste, patch_job, move_stage, settle_fact, claim, import_submission, job_task_id, metadata_text;
