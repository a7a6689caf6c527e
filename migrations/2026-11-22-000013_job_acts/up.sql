-- What operators did to single jobs, newest first, and works that were paid for twice: few lines of a long trail.
CREATE INDEX CONCURRENTLY IF NOT EXISTS job_events_acts ON job_events (kind, at, id)
    WHERE kind IN ('canceled', 'resumed', 'replayed', 'retried', 'discarded', 'operator', 'duplicate', 'second_work');
