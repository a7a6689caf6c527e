-- Comparisons of the ledger with the vendors' lists.
CREATE TABLE audits (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at timestamptz,
    -- Works taken by the vendors from then on were compared.
    since timestamptz NOT NULL,
    actor text NOT NULL,
    reason text NOT NULL,
    -- Whether it also corrected the ledger.
    repair boolean NOT NULL,
    -- Why it was not finished.
    error text,
    -- One object per vendor: what `domain::audit::Comparison` says.
    comparisons jsonb NOT NULL DEFAULT '[]',
    -- Findings, and those of them that could be repaired and are not.
    findings integer NOT NULL DEFAULT 0,
    open integer NOT NULL DEFAULT 0
);
CREATE INDEX audits_started ON audits (started_at);

-- Which cluster this is and which timeline it writes: a restore elsewhere changes the first, a failover the second.
CREATE FUNCTION database_cluster() RETURNS jsonb LANGUAGE sql VOLATILE AS $$
    SELECT jsonb_build_object('system', system_identifier::text, 'timeline', left(pg_walfile_name(pg_current_wal_lsn()), 8))
    FROM pg_control_system()
$$;

-- Ends the stop of paid sends. What processes remember from before, and the cluster of before, count no more.
CREATE FUNCTION allow_paid(by text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM settings WHERE name IN ('stop_paid', 'database_cluster');
    INSERT INTO settings (name, value, changed_by) VALUES ('paid_resumed', '{}', by)
    ON CONFLICT (name) DO UPDATE SET changed_at = clock_timestamp(), changed_by = excluded.changed_by;
END $$;

-- Takes a work that a vendor shows with our marker, and that the ledger does not know, into the ledger: first as a submission
-- believed to be absent, which occupies nothing, then by `settle` as whatever it is to the job: its submission, or a duplicate.
-- Harmless twice. {token, job, vendor, account, attempt, at, metadata?, settlement}
CREATE FUNCTION rebuild(r jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM video_jobs WHERE id = (r ->> 'job')::uuid FOR UPDATE;
    PERFORM FROM job_stages WHERE job_id = (r ->> 'job')::uuid FOR UPDATE;
    INSERT INTO submissions (token, job_id, vendor, account, attempt, state, imported, request_body, request_sha256,
                             claimed_at, send_deadline, metadata)
    SELECT (r ->> 'token')::uuid, (r ->> 'job')::uuid, r ->> 'vendor', r ->> 'account',
           -- The number may have been given again since the database forgot it.
           CASE WHEN max(s.attempt) FILTER (WHERE s.attempt = (r ->> 'attempt')::integer) IS NULL
                THEN (r ->> 'attempt')::integer ELSE max(s.attempt) + 1 END,
           'absent', true, '', sha256(''), t.at, t.at, nullif(r -> 'metadata', 'null')
    FROM (SELECT coalesce((r ->> 'at')::timestamptz, clock_timestamp()) AS at) t
    LEFT JOIN submissions s ON s.job_id = (r ->> 'job')::uuid AND s.vendor = r ->> 'vendor'
    GROUP BY t.at
    ON CONFLICT (token) DO NOTHING;
    RETURN settle(r -> 'settlement');
END $$;
