DELETE FROM settings WHERE name = 'retention';
DROP INDEX job_requests_created;
DROP INDEX operations_finished;
DROP INDEX notices_ended;
DROP INDEX dead_letters_resolved;
DROP INDEX callbacks_processed;
DROP INDEX submissions_sources;
DROP INDEX submissions_bodies;
DROP INDEX job_events_at;
