SET LOCAL client_min_messages = warning;
-- The table of the application that puts jobs in. Created when absent; an existing one is adopted as it is:
-- columns that the fleet needs are added, the old name of the metadata column is changed, no value is touched.
CREATE TABLE IF NOT EXISTS video_jobs (
    id uuid PRIMARY KEY,
    user_id uuid NOT NULL,
    original_filename varchar(500) NOT NULL,
    display_name varchar(500),
    status varchar(20) NOT NULL DEFAULT 'queued',
    is_pro_job boolean NOT NULL DEFAULT false,
    progress_percentage integer DEFAULT 0,
    progress_message text,
    processing_config jsonb NOT NULL DEFAULT '{}',
    segments_data jsonb,
    job_metadata jsonb,
    zhaoli_task_id varchar(255),
    estimated_credits integer,
    actual_credits_used integer,
    video_duration_seconds integer,
    processing_duration_seconds integer,
    input_file_size_mb numeric(8, 2),
    output_file_size_mb numeric(8, 2),
    output_url varchar(1000),
    video_resolution varchar(20),
    queued_at timestamp,
    started_at timestamp,
    completed_at timestamp,
    created_at timestamp NOT NULL DEFAULT timezone('utc', now()),
    updated_at timestamp NOT NULL DEFAULT timezone('utc', now()),
    error_message text,
    error_code varchar(50),
    retry_count integer DEFAULT 0,
    max_retries integer DEFAULT 3
);

-- One of the two variants in the field calls the column `metadata`. The comment tells `down` to give the name back.
DO $$
BEGIN
    IF EXISTS (SELECT FROM information_schema.columns
               WHERE table_schema = current_schema() AND table_name = 'video_jobs' AND column_name = 'metadata')
       AND NOT EXISTS (SELECT FROM information_schema.columns
               WHERE table_schema = current_schema() AND table_name = 'video_jobs' AND column_name = 'job_metadata')
    THEN
        ALTER TABLE video_jobs RENAME COLUMN metadata TO job_metadata;
        COMMENT ON COLUMN video_jobs.job_metadata IS 'ghostfleet: was metadata';
    END IF;
END $$;

ALTER TABLE video_jobs
    ADD COLUMN IF NOT EXISTS display_name varchar(500),
    ADD COLUMN IF NOT EXISTS is_pro_job boolean NOT NULL DEFAULT false,
    ADD COLUMN IF NOT EXISTS processing_config jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN IF NOT EXISTS segments_data jsonb,
    ADD COLUMN IF NOT EXISTS job_metadata jsonb,
    ADD COLUMN IF NOT EXISTS zhaoli_task_id varchar(255),
    ADD COLUMN IF NOT EXISTS video_duration_seconds integer,
    ADD COLUMN IF NOT EXISTS output_url varchar(1000),
    ADD COLUMN IF NOT EXISTS started_at timestamp,
    ADD COLUMN IF NOT EXISTS completed_at timestamp,
    ADD COLUMN IF NOT EXISTS error_code varchar(50);

-- Keyset pages of the job list.
CREATE INDEX IF NOT EXISTS video_jobs_created_page ON video_jobs (created_at DESC, id DESC);
CREATE INDEX IF NOT EXISTS video_jobs_status_page ON video_jobs (status, created_at DESC, id DESC);
CREATE INDEX IF NOT EXISTS video_jobs_error_page ON video_jobs (error_code, created_at DESC, id DESC) WHERE error_code IS NOT NULL;
