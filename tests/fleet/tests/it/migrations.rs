//! The migrations on an empty database and on top of the replaced application's table, both variants of it.

use shared::db::{Db, SchemaState};

use crate::sql::{config, execute, value, values, with_database};

/// The table as the application's ORM creates it.
const ORM_VARIANT: &str = "\
CREATE TABLE users (id uuid PRIMARY KEY); \
CREATE TABLE video_jobs (id uuid PRIMARY KEY, user_id uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE, \
    original_filename varchar(500) NOT NULL, display_name varchar(500), status varchar(20), is_pro_job boolean, \
    progress_percentage integer, progress_message text, processing_config jsonb, segments_data jsonb, job_metadata jsonb, \
    zhaoli_task_id varchar(255), estimated_credits integer, actual_credits_used integer, video_duration_seconds integer, \
    processing_duration_seconds integer, input_file_size_mb numeric(8,2), output_file_size_mb numeric(8,2), \
    output_url varchar(1000), video_resolution varchar(20), queued_at timestamp, started_at timestamp, \
    completed_at timestamp, created_at timestamp, updated_at timestamp, error_message text, error_code varchar(50), \
    retry_count integer, max_retries integer);";

/// The same as the application's `schema.sql` has it: another name for the metadata, no output URL, CHECKs.
const SCHEMA_VARIANT: &str = "\
CREATE TABLE users (id uuid PRIMARY KEY); \
CREATE TABLE video_jobs (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), \
    user_id uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE, original_filename varchar(500) NOT NULL, \
    display_name varchar(500), \
    status varchar(20) NOT NULL CHECK (status IN ('queued','uploading','processing','completed','failed','canceled')), \
    progress_percentage integer DEFAULT 0 CHECK (progress_percentage BETWEEN 0 AND 100), progress_message text, \
    processing_config jsonb NOT NULL, metadata jsonb DEFAULT '{}', zhaoli_task_id varchar(255), estimated_credits integer, \
    actual_credits_used integer, video_duration_seconds integer, processing_duration_seconds integer, \
    input_file_size_mb numeric(8,2), output_file_size_mb numeric(8,2), video_resolution varchar(20), queued_at timestamp, \
    started_at timestamp, completed_at timestamp, created_at timestamp DEFAULT now(), updated_at timestamp DEFAULT now(), \
    error_message text, error_code varchar(50), retry_count integer DEFAULT 0, max_retries integer DEFAULT 3, \
    segments_data jsonb, is_pro_job boolean DEFAULT false);";

const USER: &str = "INSERT INTO users VALUES ('00000000-0000-0000-0000-000000000009');";

/// Everything that makes the schema: columns, constraints, indexes, functions, triggers, comments.
const SCHEMA: &str = "\
SELECT string_agg(line, E'\\n' ORDER BY line) AS value FROM ( \
    SELECT format('%s.%s %s %s %s %s', table_name, column_name, data_type, column_default, is_nullable, \
        col_description((table_schema || '.' || table_name)::regclass, ordinal_position)) AS line \
    FROM information_schema.columns WHERE table_schema = 'public' \
    UNION ALL SELECT format('%s %s', conrelid::regclass, pg_get_constraintdef(oid)) FROM pg_constraint \
        WHERE connamespace = 'public'::regnamespace \
    UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' \
    UNION ALL SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'public'::regnamespace \
    UNION ALL SELECT pg_get_triggerdef(t.oid) FROM pg_trigger t WHERE NOT tgisinternal) lines";

/// How many migrations there are.
fn folders() -> usize {
    let migrations = concat!(env!("CARGO_MANIFEST_DIR"), "/../../migrations");
    let entries = std::fs::read_dir(migrations).unwrap();
    entries
        .filter(|entry| entry.as_ref().unwrap().path().is_dir())
        .count()
}

async fn up_down_up(url: &str) -> anyhow::Result<()> {
    let config = config(url);
    assert_eq!(Db::migrate(&config).await?.len(), folders());
    let first = value(url, SCHEMA).await?;
    assert!(
        first
            .as_ref()
            .is_some_and(|schema| schema.contains("submissions_slot"))
    );
    Db::revert_all(&config).await?;
    assert_eq!(
        value(url, "SELECT to_regclass('submissions')::text AS value").await?,
        None
    );
    assert!(
        matches!(Db::schema_state(&config).await?, SchemaState::Older { missing } if missing.len() == folders())
    );
    Db::migrate(&config).await?;
    assert_eq!(Db::schema_state(&config).await?, SchemaState::Current);
    assert_eq!(value(url, SCHEMA).await?, first);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_database_gets_the_whole_schema_and_gives_it_back() -> anyhow::Result<()> {
    with_database(false, async |url, _| {
        up_down_up(url).await?;
        assert_eq!(
            Db::migrate(&config(url)).await?,
            Vec::<String>::new(),
            "nothing is left to apply"
        );
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn producers_that_start_together_migrate_once() -> anyhow::Result<()> {
    with_database(false, async |url, _| {
        let config = config(url);
        let applied = futures::future::try_join_all((0..4).map(|_| Db::migrate(&config))).await?;
        assert_eq!(applied.iter().map(Vec::len).sum::<usize>(), folders());
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_orm_variant_keeps_every_value() -> anyhow::Result<()> {
    keeps_every_value(ORM_VARIANT, "job_metadata").await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_schema_sql_variant_keeps_every_value() -> anyhow::Result<()> {
    keeps_every_value(SCHEMA_VARIANT, "metadata").await
}

async fn keeps_every_value(table: &str, metadata_column: &str) -> anyhow::Result<()> {
    with_database(false, async |url, db| {
        execute(url, table).await?;
        execute(url, USER).await?;
        let insert = format!(
            "INSERT INTO video_jobs (id, user_id, original_filename, status, processing_config, {metadata_column}, \
                zhaoli_task_id, is_pro_job, error_message) \
             SELECT ('00000000-0000-0000-0000-0000000000' || (10 + n))::uuid, '00000000-0000-0000-0000-000000000009', \
                'clip' || n, (ARRAY['processing','completed','failed'])[n], '{{\"effects\":[]}}', \
                (ARRAY['{{\"ghostcut_task_id\":\"None\"}}','{{\"a\":[1,2]}}','null'])[n]::jsonb, 't' || n, true, 'e' || n \
             FROM generate_series(1, 3) n"
        );
        execute(url, &insert).await?;
        // Without the columns that the fleet adds, and under either name of the metadata.
        let rows = "SELECT (to_jsonb(j) - ARRAY['output_url','job_metadata','metadata']) \
                    || jsonb_build_object('m', coalesce(to_jsonb(j)->'job_metadata', to_jsonb(j)->'metadata')) || '{}' \
                    #>> '{}' AS value FROM video_jobs j ORDER BY id";
        let rows = rows.replace("|| '{}' #>> '{}'", "");
        let rows = format!("SELECT row::text AS value FROM ({}) x(row)", rows.replace(" AS value", ""));
        let before = values(url, &rows).await?;
        assert_eq!(before.len(), 3);
        up_down_up(url).await?;
        assert_eq!(values(url, &rows).await?, before);
        let job = db.job("00000000-0000-0000-0000-000000000011".parse()?).await?;
        assert_eq!(job.map(|job| (job.status, job.output_url)), Some(("processing".to_owned(), None)));
        Db::revert_all(&config(url)).await?;
        assert_eq!(values(url, &rows).await?, before, "leaving the fleet keeps the jobs");
        let restored = format!("SELECT count(*)::text AS value FROM video_jobs WHERE {metadata_column} IS NOT NULL");
        assert_eq!(value(url, &restored).await?.as_deref(), Some("3"), "the column has its old name again");
        Ok(())
    })
    .await
}
