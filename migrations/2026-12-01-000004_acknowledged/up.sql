-- What somebody has dealt with, by the submission: the overview counts what nobody has, however long the trail of operators is.
CREATE INDEX CONCURRENTLY IF NOT EXISTS operator_events_acknowledged ON operator_events (subject)
    WHERE action = 'finding_acknowledged';
