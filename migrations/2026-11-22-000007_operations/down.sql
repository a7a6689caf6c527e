DROP FUNCTION release_jobs, job_part, discard_letter, restart_job, resume_job, cancel_job;
ALTER TABLE submissions DROP COLUMN forgiven;
DROP INDEX dead_letters_groups, dead_letters_by_id, dead_letters_bodies;
ALTER TABLE dead_letters DROP CONSTRAINT resolved_in_one_way, DROP COLUMN error_class, DROP COLUMN resolved_by, DROP COLUMN note;
DROP FUNCTION error_class_of;
