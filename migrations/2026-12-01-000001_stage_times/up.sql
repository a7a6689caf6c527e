-- When the row was last dispatched, and when a worker took it up; what a run leaves in the trail, and what is shown while it runs.
-- Null: by a process of an older version, or not yet.
ALTER TABLE job_stages ADD COLUMN dispatched_at timestamptz, ADD COLUMN started_at timestamptz;
