DROP INDEX CONCURRENTLY IF EXISTS operator_events_acknowledged;
