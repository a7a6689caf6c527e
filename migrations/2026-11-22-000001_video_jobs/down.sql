-- Jobs are the application's, so a table with rows stays; added columns stay with it. Only the old name is given back.
DROP INDEX IF EXISTS video_jobs_created_page, video_jobs_status_page, video_jobs_error_page;
DO $$
DECLARE
    has_rows boolean;
BEGIN
    IF col_description('video_jobs'::regclass,
           (SELECT attnum FROM pg_attribute WHERE attrelid = 'video_jobs'::regclass AND attname = 'job_metadata'))
       = 'ghostfleet: was metadata'
    THEN
        ALTER TABLE video_jobs RENAME COLUMN job_metadata TO metadata;
        COMMENT ON COLUMN video_jobs.metadata IS NULL;
        RETURN;
    END IF;
    SELECT EXISTS (SELECT FROM video_jobs) INTO has_rows;
    -- A foreign key to another table means that the application made it.
    IF NOT has_rows AND NOT EXISTS (
        SELECT FROM pg_constraint WHERE conrelid = 'video_jobs'::regclass AND contype = 'f')
    THEN
        DROP TABLE video_jobs;
    END IF;
END $$;
