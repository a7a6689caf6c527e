-- Finds rows that another application has put in and that no stage row follows yet.
CREATE INDEX CONCURRENTLY IF NOT EXISTS video_jobs_unfinished ON video_jobs (updated_at)
    WHERE is_pro_job AND status IN ('queued', 'processing');
