-- Keyset pages of one user's jobs.
CREATE INDEX CONCURRENTLY IF NOT EXISTS video_jobs_user_page ON video_jobs (user_id, created_at DESC, id DESC);
