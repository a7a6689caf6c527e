//! Which indexes the fleet's own queries read, by PostgreSQL's counts: tables grow for years, and the same queries have to stay
//! as fast. Each test fails when its index is gone, or when the query is written so that it cannot be used.

use fleet::{DEADLINE, eventually};
use serde_json::json;
use shared::db::{Db, DeadLetter, JobFilter, NoticeRoom};
use shared::domain::Vendor;
use shared::domain::retention::Kind;
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

/// Of a trail that has years, the last hour.
#[tokio::test(flavor = "multi_thread")]
async fn what_failed_lately_is_read_from_its_index() -> anyhow::Result<()> {
    with_database(true, async |url, _| {
        let rows = format!(
            "INSERT INTO job_events (job_id, kind, actor, at, detail) \
             SELECT gen_random_uuid(), CASE n % 3 WHEN 0 THEN 'canceled' WHEN 1 THEN 'failed' ELSE 'gave_up' END, 'w', \
                 now() - n * interval '5 minutes', CASE n % 3 WHEN 1 THEN '{{\"status\": \"failed\"}}' ELSE '{{}}' END::jsonb \
             FROM generate_series(1, {ROWS}) n; \
             ANALYZE job_events"
        );
        execute(url, &rows).await?;
        forget_counts(url).await?;
        let points = queried(url, async |db| Ok(db.series(60).await?)).await?;
        let (failed, canceled): (Vec<_>, Vec<_>) =
            points.iter().map(|point| (point.failed, point.canceled)).unzip();
        let sum = |counts: &[i64]| counts.iter().sum::<i64>();
        // Not all that was given up has ended its job.
        assert!((3..=5).contains(&sum(&failed)), "{failed:?}");
        assert!((3..=5).contains(&sum(&canceled)), "{canceled:?}");
        for index in ["job_events_failed", "job_events_acts"] {
            was_read(url, index).await?;
        }
        Ok(())
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

/// A receiver that is away for a day leaves many notices that wait; picking up reads those that are due.
#[tokio::test(flavor = "multi_thread")]
async fn notices_that_are_due_are_found_by_an_index() -> anyhow::Result<()> {
    with_database(true, async |url, _| {
        let rows = format!(
            "INSERT INTO notices (job_id, url, host, status, has_result, due_at) \
             SELECT gen_random_uuid(), 'https://h', 'h' || n % 2, 'failed', false, \
                 now() + CASE WHEN n <= 6 THEN -1 ELSE 1 END * interval '1 hour' FROM generate_series(1, {ROWS}) n; \
             ANALYZE notices"
        );
        execute(url, &rows).await?;
        forget_counts(url).await?;
        let room = NoticeRoom {
            limit: 5,
            per_host: 2,
            lease: DEADLINE,
        };
        let pick = async || queried(url, async |db| Ok(db.pick_notices(room).await?)).await;
        assert_eq!(pick().await?.len(), 4, "two of each host");
        assert_eq!(pick().await?.len(), 0, "there is no room");
        for index in ["notices_due", "notices_in_hand", "notices_pkey"] {
            was_read(url, index).await?;
        }
        Ok(())
    })
    .await
}

/// A sweep costs what it removes, however much there is.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_old_is_found_by_indexes() -> anyhow::Result<()> {
    with_database(true, async |url, _| {
        // One an hour up to now: what is older than `before` are the first few.
        let times = format!("FROM generate_series(1, {ROWS}) n, LATERAL (SELECT now() - n * interval '1 hour' AS t) times");
        let rows = format!(
            "INSERT INTO job_events (job_id, kind, actor, at) SELECT gen_random_uuid(), 'x', 'x', t {times} ORDER BY t; \
             INSERT INTO submissions (token, job_id, vendor, account, attempt, state, request_body, request_sha256, source_key, \
                 claimed_at, send_deadline, settled_at, vendor_task_id) \
             SELECT gen_random_uuid(), gen_random_uuid(), 'ghostcut', 'default', 1, 'succeeded', '{{}}', sha256('{{}}'), \
                 'submissions/' || n, t, t + interval '1 s', t, 'work-' || n {times}; \
             INSERT INTO callbacks (vendor, token, body, processed_at, outcome) \
             SELECT 'sync', gen_random_uuid(), convert_to(n::text, 'UTF8'), t, 'late' {times}; \
             INSERT INTO dead_letters (reason, body, resolved_at, resolution) \
             SELECT 'undecidable', convert_to(n::text, 'UTF8'), t, 'discarded' {times}; \
             INSERT INTO dead_letter_notes (stage, error_class, reason, note, noted_by, noted_at) \
             SELECT 'unknown', n, 'undecidable', 'x', 'x', t {times}; \
             INSERT INTO job_requests (user_id, idempotency_key, request_sha256, job_id, created_at) \
             SELECT gen_random_uuid(), 'k', sha256(''), gen_random_uuid(), t {times}; \
             INSERT INTO audits (started_at, finished_at, since, actor, reason, repair) SELECT t, t, t, 'x', 'x', false {times}; \
             INSERT INTO notices (job_id, url, host, status, has_result, state, due_at, ended_at) \
             SELECT gen_random_uuid(), 'u', 'h', 'failed', false, 'delivered', NULL, t {times}; \
             INSERT INTO operations (action, filter, actor, reason, another_attempt, canary, state, total, capped, finished_at) \
             SELECT 'cancel', '{{}}', 'x', 'x', false, false, 'done', 1, false, t {times}; \
             ANALYZE"
        );
        execute(url, &rows).await?;
        let before = chrono::Utc::now() - chrono::TimeDelta::hours(ROWS - 40);
        for (kind, index) in [
            (Kind::Events, "job_events_at"),
            (Kind::RequestBodies, "submissions_bodies"),
            (Kind::Callbacks, "callbacks_processed"),
            (Kind::DeadLetters, "dead_letters_resolved"),
            (Kind::GroupNotes, "dead_letter_notes_noted"),
            (Kind::IdempotencyKeys, "job_requests_created"),
            (Kind::Audits, "audits_started"),
            (Kind::Notices, "notices_ended"),
            (Kind::Operations, "operations_finished"),
        ] {
            forget_counts(url).await?;
            let removed = queried(url, async |db| {
                Ok(db.remove_old(kind, before, None, 1000, false).await?.removed)
            })
            .await?;
            assert!((39..=41).contains(&removed), "{removed} {kind}");
            was_read(url, index).await?;
        }
        forget_counts(url).await?;
        let sources = queried(url, async |db| Ok(db.old_sources(before, None, 1000).await?)).await?;
        assert!((39..=41).contains(&sources.len()), "{}", sources.len());
        was_read(url, "submissions_sources").await
    })
    .await
}
