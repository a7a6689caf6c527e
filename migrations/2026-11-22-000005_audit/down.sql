DROP FUNCTION rebuild(jsonb);
DROP FUNCTION allow_paid(text);
DROP FUNCTION database_cluster();
DROP TABLE audits;
