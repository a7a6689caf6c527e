//! Which indexes the fleet's own queries read, by PostgreSQL's counts: tables grow for years, and the same queries have to stay
//! as fast. Each test fails when its index is gone, or when the query is written so that it cannot be used.

use fleet::{DEADLINE, eventually};
use serde_json::json;
use shared::db::{Db, DeadLetter, JobFilter};
use shared::domain::Vendor;
use uuid::Uuid;

use crate::sql::{config, execute, value, with_database};

/// Enough that PostgreSQL prefers an index to the whole table.
const ROWS: i64 = 4_000;
/// What a query may read of an index that has all of them.
const FEW: i64 = 100;

/// Runs a query on connections of its own. What PostgreSQL has counted of a connection is sure to be seen when that has ended.
async fn queried<T>(
    url: &str,
    query: impl AsyncFnOnce(&Db) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let db = Db::new(&config(url))?;
    query(&db).await
}

async fn number(url: &str, query: &str) -> anyhow::Result<i64> {
    Ok(value(url, query).await?.unwrap_or_default().parse()?)
}

/// Waits until this index was scanned, and checks that few of its entries were read and nothing of its table without an index.
async fn was_read(url: &str, index: &str) -> anyhow::Result<()> {
    eventually(DEADLINE, async || {
        let scans = format!(
            "SELECT idx_scan::text AS value FROM pg_stat_user_indexes WHERE indexrelname = '{index}'"
        );
        anyhow::ensure!(number(url, &scans).await? > 0, "{index} is not read");
        Ok(())
    })
    .await?;
    let entries = format!(
        "SELECT (idx_tup_read / idx_scan)::text AS value FROM pg_stat_user_indexes WHERE indexrelname = '{index}'"
    );
    let entries = number(url, &entries).await?;
    assert!(entries <= FEW, "{entries} entries of {index} are read");
    let rows = format!(
        "SELECT t.seq_tup_read::text AS value FROM pg_stat_user_tables t JOIN pg_stat_user_indexes i USING (relid) \
         WHERE i.indexrelname = '{index}'"
    );
    let rows = number(url, &rows).await?;
    assert_eq!(rows, 0, "rows of the table of {index} are read one by one");
    Ok(())
}

/// Makes submissions to GhostCut, one an hour up to now, and forgets what was counted while they were made.
async fn submissions(url: &str) -> anyhow::Result<()> {
    execute(
        url,
        &format!(
            "INSERT INTO submissions (token, job_id, vendor, account, attempt, state, request_body, request_sha256, \
                 claimed_at, send_deadline, settled_at, vendor_task_id, cost_reserved) \
             SELECT ('00000000-0000-0000-0000-' || lpad(n::text, 12, '0'))::uuid, gen_random_uuid(), 'ghostcut', 'default', 1, \
                 'succeeded', '', sha256(''), t, t + interval '1 s', t, 'work-' || n, 2 \
             FROM generate_series(1, {ROWS}) n, LATERAL (SELECT now() - n * interval '1 hour' AS t) times"
        ),
    )
    .await?;
    // Index-only scans need to know which pages everybody sees.
    execute(url, "VACUUM ANALYZE submissions").await?;
    forget_counts(url).await
}

async fn forget_counts(url: &str) -> anyhow::Result<()> {
    value(
        url,
        "SELECT pg_stat_force_next_flush()::text || pg_stat_reset()::text AS value",
    )
    .await?;
    Ok(())
}

/// Admission asks it before every paid send, under the lock of the account.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_day_has_cost_is_read_from_the_index_of_the_day() -> anyhow::Result<()> {
    with_database(true, async |url, _| {
        submissions(url).await?;
        let spent = "INSERT INTO vendors (vendor, account) VALUES ('ghostcut', 'default'); \
                     DO $$ BEGIN PERFORM vendor_spent_today(v) FROM vendors v; END $$";
        execute(url, spent).await?;
        was_read(url, "submissions_claimed").await?;
        let fetched = "SELECT idx_tup_fetch::text AS value FROM pg_stat_user_indexes \
                       WHERE indexrelname = 'submissions_claimed'";
        assert_eq!(
            number(url, fetched).await?,
            0,
            "the index has all that is summed up"
        );
        forget_counts(url).await?;
        queried(url, async |db| Ok(db.cost_totals().await?)).await?;
        was_read(url, "submissions_claimed").await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_one_users_jobs_is_read_from_its_index() -> anyhow::Result<()> {
    with_database(true, async |url, _| {
        let user = Uuid::from_u128(7);
        // Every tenth job is this user's: a page must not read all of them to find its own.
        let rows = format!(
            "INSERT INTO video_jobs (id, user_id, original_filename, created_at) \
             SELECT gen_random_uuid(), CASE WHEN n % 10 = 0 THEN '{user}' ELSE gen_random_uuid() END, 'clip.mp4', \
                 timezone('utc', now()) - n * interval '1 minute' FROM generate_series(1, {ROWS}) n; \
             ANALYZE video_jobs"
        );
        execute(url, &rows).await?;
        forget_counts(url).await?;
        queried(url, async |db| {
            let filter = JobFilter {
                user_id: Some(user),
                ..JobFilter::default()
            };
            let mut before = None;
            for _ in 0..3 {
                let page = db.list_jobs(&filter, before, 20).await?;
                assert_eq!(page.jobs.len(), 20);
                assert_ne!(before, page.next);
                before = page.next;
            }
            Ok(())
        })
        .await?;
        was_read(url, "video_jobs_user_page").await
    })
    .await
}

/// An audit asks for what its window has and for what the vendor's list names, which may be from long ago.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_audit_compares_is_read_from_indexes() -> anyhow::Result<()> {
    with_database(true, async |url, _| {
        submissions(url).await?;
        let since =
            chrono::Utc::now() - chrono::TimeDelta::hours(5) - chrono::TimeDelta::minutes(1);
        let (tasks, tokens) = (
            ["work-1000".to_owned(), "work-2".to_owned()],
            [Uuid::from_u128(0x2000)],
        );
        let booked = queried(url, async |db| {
            Ok(db
                .booked(Vendor::Ghostcut, "default", since, &tasks, &tokens)
                .await?)
        })
        .await?;
        let found: Vec<_> = booked
            .iter()
            .filter_map(|booked| booked.task_id.as_deref())
            .collect();
        let expected = [
            "work-2000",
            "work-1000",
            "work-5",
            "work-4",
            "work-3",
            "work-2",
            "work-1",
        ];
        assert_eq!(found, expected, "oldest first, and each once");
        for index in [
            "submissions_claimed",
            "submissions_task",
            "submissions_pkey",
        ] {
            was_read(url, index).await?;
        }
        Ok(())
    })
    .await
}

/// A flood of messages that nobody can read is kept one row for each, found by its body.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_was_kept_before_is_found_by_an_index() -> anyhow::Result<()> {
    with_database(true, async |url, _| {
        let rows = format!(
            "INSERT INTO dead_letters (stage, reason, error, body, headers) \
             SELECT 'inpaint.poll', 'undecidable', 'e', convert_to('body ' || n, 'UTF8'), '{{}}' FROM generate_series(1, {ROWS}) n; \
             ANALYZE dead_letters"
        );
        execute(url, &rows).await?;
        forget_counts(url).await?;
        queried(url, async |db| {
            for body in ["body 17", "another body", "another body"] {
                let letter = DeadLetter::Undecidable {
                    stage: None,
                    error: "e".to_owned(),
                    body: body.into(),
                };
                db.record_dead_letter(&letter, &json!({})).await?;
            }
            Ok(())
        })
        .await?;
        was_read(url, "dead_letters_bodies").await?;
        let kept = number(url, "SELECT count(*)::text AS value FROM dead_letters").await?;
        assert_eq!(kept, ROWS + 1);
        Ok(())
    })
    .await
}
