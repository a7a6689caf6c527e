-- What may go when it is old (`shared::db::retention` says when), and the indexes by which it is found: each is read from its oldest
-- end, so that a sweep costs what it removes. The tables are those of this version, so none has rows that an index would lock.
CREATE INDEX job_events_at ON job_events (at, id);
CREATE INDEX submissions_bodies ON submissions (settled_at)
    WHERE state IN ('not_sent', 'rejected', 'failed', 'absent', 'duplicate', 'succeeded') AND request_body <> '';
CREATE INDEX submissions_sources ON submissions (settled_at)
    WHERE state IN ('not_sent', 'rejected', 'failed', 'absent', 'duplicate', 'succeeded')
    AND source_key IS NOT NULL AND source_deleted_at IS NULL;
CREATE INDEX callbacks_processed ON callbacks (processed_at) WHERE processed_at IS NOT NULL;
CREATE INDEX dead_letters_resolved ON dead_letters (resolved_at) WHERE resolved_at IS NOT NULL;
CREATE INDEX notices_ended ON notices (ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX operations_finished ON operations (finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX job_requests_created ON job_requests (created_at);
