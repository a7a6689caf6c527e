DROP TABLE job_requests, settings, vendors, dead_letters, callbacks, job_events, submissions, job_stages;
DROP FUNCTION guard_ledger, deny_truncate, deny_update, ledger_occupies, ledger_edge;
