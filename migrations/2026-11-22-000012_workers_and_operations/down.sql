DROP INDEX operator_events_page;
DROP TABLE operations;
DROP TABLE workers;
