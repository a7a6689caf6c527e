ALTER TABLE job_stages DROP COLUMN dispatched_at, DROP COLUMN started_at;
