DROP TABLE access_sessions;
DROP TABLE access_tokens;
