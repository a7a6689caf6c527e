-- When jobs failed, from the trail: a retry changes their rows.
CREATE INDEX CONCURRENTLY IF NOT EXISTS job_events_failed ON job_events (at) WHERE detail ->> 'status' = 'failed';
