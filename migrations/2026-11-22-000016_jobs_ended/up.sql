-- What ended in the last minutes, how, and how long it took, without reading the rows.
CREATE INDEX CONCURRENTLY IF NOT EXISTS video_jobs_ended ON video_jobs (completed_at) INCLUDE (status, created_at)
    WHERE completed_at IS NOT NULL;
