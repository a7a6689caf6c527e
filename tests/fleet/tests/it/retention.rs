//! What is old goes, nothing else does, and what stays still does its work.

use std::time::Duration;

use bytes::Bytes;
use chrono::{TimeDelta, Utc};
use fleet::{DEADLINE, Kind as JobKind, eventually};
use futures::{StreamExt as _, stream};
use producer::config::{Keep, RetentionConfig};
use producer::retention::Remover;
use sandbox::SandboxConfig;
use serde_json::json;
use shared::db::{Claimed, Db};
use shared::domain::retention::Kind;
use shared::domain::{LedgerState, Vendor};
use shared::storage::{Container, Key};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::command::producer;
use crate::ledger::{claim_of, claimed, job, settlement};
use crate::sql::{execute, value, values, with_database};

/// Removes what is older than three months, in pieces of two; says how many rows went.
async fn remove(db: &Db, kind: Kind) -> anyhow::Result<i64> {
    let before = Utc::now() - TimeDelta::days(90);
    let (mut after, mut removed) = (None, 0);
    loop {
        let piece = db
            .remove_old(kind, before, after.as_ref(), 2, false)
            .await?;
        removed += piece.removed;
        if piece.looked_at < 2 {
            return Ok(removed);
        }
        after = piece.last();
    }
}

/// The texts of a column, in order.
async fn left(url: &str, column: &str, table: &str) -> anyhow::Result<Vec<String>> {
    let query = format!("SELECT {column} AS value FROM {table} ORDER BY 1");
    Ok(values(url, &query).await?.into_iter().flatten().collect())
}

/// A job and a line of its trail, both so many days old.
async fn trail(url: &str, name: &str, status: &str, ended: &str, line: &str) -> anyhow::Result<()> {
    let row = format!(
        "WITH made AS (INSERT INTO video_jobs (id, user_id, original_filename, status, is_pro_job, completed_at) \
             VALUES (gen_random_uuid(), gen_random_uuid(), 'a', '{status}', true, {ended}) RETURNING id) \
         INSERT INTO job_events (job_id, kind, actor, at) SELECT id, '{name}', 'test', now() - interval '{line}' FROM made"
    );
    execute(url, &row).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_trail_of_a_job_goes_when_the_job_has_long_ended() -> anyhow::Result<()> {
    with_database(true, async |url, db| {
        let ago = |days: u32| format!("timezone('utc', now()) - interval '{days} days'");
        for number in 1..=5 {
            trail(url, &format!("old {number}"), "completed", &ago(100), "101 days").await?;
        }
        trail(url, "runs", "processing", "NULL", "101 days").await?;
        trail(url, "ended lately", "failed", &ago(80), "101 days").await?;
        trail(url, "young", "completed", &ago(80), "80 days").await?;
        trail(url, "dead", "failed", &ago(100), "101 days").await?;
        // The only proof of a second payment, who did something and why, and how far a job came that may be retried.
        trail(url, "second_work", "completed", &ago(100), "101 days").await?;
        trail(url, "operator", "completed", &ago(100), "101 days").await?;
        trail(url, "advanced", "failed", &ago(100), "101 days").await?;
        execute(
            url,
            "INSERT INTO job_stages (job_id, stage, state, due_at, reason, fairness_key) \
             SELECT job_id, 'lipsync.poll', 'dead', NULL, 'x', gen_random_uuid() FROM job_events WHERE kind = 'dead'; \
             INSERT INTO job_events (job_id, kind, actor, at) VALUES (gen_random_uuid(), 'of no job', 'test', now() - interval '99 days'); \
             INSERT INTO job_events (job_id, kind, actor, at) VALUES (gen_random_uuid(), 'newer', 'test', now() - interval '8 days')",
        )
        .await?;
        let counted = db.remove_old(Kind::Events, Utc::now() - TimeDelta::days(90), None, 100, true).await?;
        assert_eq!((counted.looked_at, counted.removed), (12, 6), "only counted");
        assert_eq!(remove(db, Kind::Events).await?, 6);
        let left = left(url, "kind", "job_events").await?;
        let kept = ["advanced", "dead", "ended lately", "newer", "operator", "runs", "second_work", "young"];
        assert_eq!(left, kept);
        Ok(())
    })
    .await
}

/// A process that looked long ago, because nothing happened or because it was frozen for some days, remembers the line that was the
/// newest then. Were that removed, it would take it for a forgotten commit and stop all paid sends.
#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_a_process_may_remember_is_never_removed() -> anyhow::Result<()> {
    with_database(true, async |url, db| {
        let line = async |age: &str| {
            let row = format!(
                "INSERT INTO job_events (job_id, kind, actor, at) VALUES (gen_random_uuid(), 'x', 'test', now() - interval '{age}')"
            );
            execute(url, &row).await
        };
        line("200 days").await?;
        line("100 days").await?;
        assert_eq!(db.forgot_commits().await?, None, "it remembers the line of 100 days ago");
        assert_eq!(remove(db, Kind::Events).await?, 1, "the one before it is old");
        assert_eq!(db.forgot_commits().await?, None);
        // As if it had been frozen since.
        line("6 days").await?;
        assert_eq!(remove(db, Kind::Events).await?, 0);
        assert_eq!(db.forgot_commits().await?, None);
        // A claim names the line, and is refused without it.
        let job = job(url, &json!({})).await?;
        let claim = db.claim(&claim_of(job), b"body").await?;
        assert!(matches!(claim, Claimed::Claimed { .. }), "{claim:?}");

        // What was superseded more than a week ago nobody remembers who is alive.
        execute(url, "DELETE FROM job_events").await?;
        for age in ["120 days", "110 days", "8 days"] {
            line(age).await?;
        }
        assert_eq!(remove(db, Kind::Events).await?, 2);
        Ok(())
    })
    .await
}

/// A job whose trail is gone may be retried: old messages about it must not look as if they came from the future.
#[tokio::test(flavor = "multi_thread")]
async fn the_epochs_of_a_job_without_trail_go_on_above_the_old_ones() -> anyhow::Result<()> {
    with_database(true, async |url, db| {
        let job = job(url, &json!({})).await?;
        let epoch = db.job_stage(job).await?.unwrap().epoch;
        let ended = format!(
            "UPDATE video_jobs SET status = 'failed' WHERE id = '{job}'; DELETE FROM job_stages WHERE job_id = '{job}'; \
             DELETE FROM job_events WHERE job_id = '{job}'"
        );
        execute(url, &ended).await?;
        let order = json!({ "job": job, "stage": "lipsync.submit", "delay_ms": 0, "by": "t", "reason": "t", "kind": "retried",
            "how": "submit", "status": "queued", "forgive": 0 });
        execute(url, &format!("DO $$ BEGIN PERFORM restart_job('{order}'); END $$")).await?;
        let again = db.job_stage(job).await?.unwrap().epoch;
        assert!(again > epoch + 1, "{again} is not far above {epoch}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_loses_the_bytes_of_what_has_ended_and_nothing_else() -> anyhow::Result<()> {
    with_database(true, async |url, db| {
        let (job, token) = claimed(url, db, &json!({})).await?;
        let change = async |set: &str| {
            let update = format!("UPDATE submissions SET {set} WHERE token = '{token}'");
            execute(url, &update).await.map_err(|error| error.to_string())
        };
        let refused = |outcome: Result<(), String>, why: &str| {
            let error = outcome.unwrap_err();
            assert!(error.contains(why), "{error}");
        };
        refused(change("request_body = ''").await, "its bytes may be needed");
        let fact = shared::db::Fact::new(token, LedgerState::Rejected);
        db.settle(&settlement(job, 0, Some(fact))).await?;
        for set in [
            "request_body = 'other'",
            "request_body = '', request_sha256 = sha256('')",
            "request_body = '', account = 'other'",
            "request_body = '', cost_charged = 0",
            "request_body = '', answer = '{\"a\": 1}'",
            "request_body = '', settled_at = NULL",
        ] {
            refused(change(set).await, "its intent may not change");
        }
        refused(change("request_sha256 = sha256('')").await, "its intent may not change");

        let bytes = "SELECT octet_length(request_body) || ' ' || encode(request_sha256, 'hex') AS value FROM submissions";
        let before = value(url, bytes).await?.unwrap();
        let hash = before.split_once(' ').unwrap().1;
        assert_eq!(remove(db, Kind::RequestBodies).await?, 0, "it has just ended");
        assert_eq!(value(url, bytes).await?.as_deref(), Some(before.as_str()));
        change("settled_at = now() - interval '91 days'").await.unwrap();
        assert_eq!(remove(db, Kind::RequestBodies).await?, 1);
        assert_eq!(value(url, bytes).await?, Some(format!("0 {hash}")));
        assert_eq!(remove(db, Kind::RequestBodies).await?, 0, "once");
        refused(change("request_body = 'back'").await, "its intent may not change");
        change("vendor_task_id = 'work-1'").await.unwrap();
        // Without its bytes a submission proves nothing about others, and is no error either.
        let now = Utc::now();
        let window = (now - TimeDelta::days(1), now + TimeDelta::days(1));
        let known = db.known_works(Vendor::Ghostcut, "default", window.0, window.1, token).await?;
        assert!(known.is_empty(), "{known:?}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn of_every_other_table_what_is_done_with_goes() -> anyhow::Result<()> {
    with_database(true, async |url, db| {
        let (job, token) = claimed(url, db, &json!({})).await?;
        let rows = format!(
            "INSERT INTO callbacks (vendor, token, body, processed_at, outcome, detail) VALUES \
                 ('sync', gen_random_uuid(), '1', now() - interval '91 days', 'late', 'old'), \
                 ('sync', gen_random_uuid(), '2', now() - interval '89 days', 'late', 'young'), \
                 ('sync', '{token}', '3', now() - interval '91 days', 'late', 'of a live one'), \
                 ('sync', gen_random_uuid(), '4', NULL, NULL, 'not processed'); \
             INSERT INTO dead_letters (reason, body, received_at, resolved_at, resolution) VALUES \
                 ('old', '1', now() - interval '99 days', now() - interval '91 days', 'discarded'), \
                 ('closed lately', '2', now() - interval '99 days', now() - interval '89 days', 'discarded'), \
                 ('open', '3', now() - interval '99 days', NULL, NULL); \
             INSERT INTO dead_letter_notes (stage, error_class, reason, note, noted_by, noted_at) VALUES \
                 ('unknown', 'old', 'old', 'old', 'x', now() - interval '91 days'), \
                 ('unknown', 'young', 'young', 'young', 'x', now() - interval '89 days'), \
                 ('unknown', 'open', 'open', 'of an open one', 'x', now() - interval '91 days'); \
             INSERT INTO job_requests (user_id, idempotency_key, request_sha256, job_id, created_at) VALUES \
                 (gen_random_uuid(), 'old', sha256(''), gen_random_uuid(), now() - interval '91 days'), \
                 (gen_random_uuid(), 'of one that runs', sha256(''), '{job}', now() - interval '91 days'), \
                 (gen_random_uuid(), 'young', sha256(''), gen_random_uuid(), now() - interval '89 days'); \
             INSERT INTO audits (started_at, finished_at, error, since, actor, reason, repair) VALUES \
                 (now() - interval '95 days', now(), NULL, now(), 'x', 'old', false), \
                 (now() - interval '94 days', NULL, NULL, now(), 'x', 'old and unfinished', false), \
                 (now() - interval '93 days', now(), NULL, now(), 'x', 'the last one', false), \
                 (now() - interval '92 days', now(), 'e', now(), 'x', 'failed after it', false); \
             INSERT INTO access_tokens (name, sha256, role, created_by) VALUES ('t', sha256('t'), 'read', 'x'); \
             INSERT INTO access_sessions (sha256, token, expires_at) VALUES (sha256('old'), 't', now() - interval '91 days'), \
                 (sha256('young'), 't', now()); \
             INSERT INTO notices (job_id, url, host, status, has_result, state, due_at, ended_at, created_at) VALUES \
                 (gen_random_uuid(), 'delivered', 'h', 'failed', false, 'delivered', NULL, now() - interval '91 days', '2020-01-01'), \
                 (gen_random_uuid(), 'refused', 'h', 'failed', false, 'refused', NULL, now() - interval '91 days', '2020-01-01'), \
                 (gen_random_uuid(), 'given up', 'h', 'failed', false, 'given_up', NULL, now() - interval '91 days', '2020-01-01'), \
                 (gen_random_uuid(), 'ended lately', 'h', 'failed', false, 'given_up', NULL, now() - interval '89 days', '2020-01-01'), \
                 (gen_random_uuid(), 'waits', 'h', 'failed', false, 'waiting', now(), NULL, '2020-01-01'); \
             INSERT INTO operations (action, filter, actor, reason, another_attempt, canary, state, error, total, capped, created_at, \
                 updated_at, due_at, finished_at) \
                 SELECT 'replay', '{{}}', 'x', name, false, false, state, CASE WHEN state = 'failed' THEN 'e' END, 1, false, \
                     '2020-01-01', '2020-01-01', '2020-01-01', now() - days * interval '1 day' \
                 FROM (VALUES ('done', 'done', 91), ('stopped', 'stopped', 91), ('failed', 'failed', 91), ('ended lately', 'done', 89), \
                     ('runs', 'running', NULL), ('awaits', 'awaiting', NULL)) o (name, state, days); \
             INSERT INTO operator_events (at, actor, reason, action, subject) VALUES (now() - interval '9 years', 'x', 'x', 'x', 'x')"
        );
        execute(url, &rows).await?;
        for (kind, removed, column, table, kept) in [
            (Kind::Callbacks, 1, "detail", "callbacks", &["not processed", "of a live one", "young"] as &[&str]),
            (Kind::DeadLetters, 1, "reason", "dead_letters", &["closed lately", "open"]),
            (Kind::GroupNotes, 1, "note", "dead_letter_notes", &["of an open one", "young"]),
            (Kind::IdempotencyKeys, 1, "idempotency_key", "job_requests", &["of one that runs", "young"]),
            (Kind::Audits, 2, "reason", "audits", &["failed after it", "the last one"]),
            (Kind::Sessions, 1, "token", "access_sessions", &["t"]),
            (Kind::Notices, 3, "url", "notices", &["ended lately", "waits"]),
            (Kind::Operations, 3, "reason", "operations", &["awaits", "ended lately", "runs"]),
        ] {
            let counted = db.remove_old(kind, Utc::now() - TimeDelta::days(90), None, 100, true).await?;
            assert_eq!(counted.removed, removed, "{kind}, only counted");
            assert_eq!(remove(db, kind).await?, removed, "{kind}");
            assert_eq!(left(url, column, table).await?, kept, "{kind}");
        }
        assert_eq!(left(url, "actor", "operator_events").await?, ["x"], "never");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_producers_one_sweeps_and_a_dead_one_is_succeeded() -> anyhow::Result<()> {
    with_database(true, async |url, db| {
        let hour = Duration::from_secs(3600);
        let begin = async || db.begin_retention("test", hour).await;
        assert_eq!(db.last_retention().await?, None);
        let first = begin().await?.unwrap();
        assert_eq!(begin().await?, None, "one is under way");
        assert!(db.renew_retention(first).await?);
        let later = async |time: &str| {
            let age = format!("UPDATE settings SET changed_at = changed_at - interval '{time}' WHERE name = 'retention'");
            execute(url, &age).await
        };
        later("6 minutes").await?;
        let second = begin().await?.unwrap();
        assert!(!db.renew_retention(first).await?, "its place is taken");
        db.end_retention(first, true).await?;
        assert_eq!(db.last_retention().await?, None, "and its end is nobody's");
        db.end_retention(second, true).await?;
        let ended = db.last_retention().await?.unwrap();
        later("59 minutes").await?;
        assert_eq!(begin().await?, None, "not due");
        later("2 minutes").await?;
        let third = begin().await?.unwrap();
        db.end_retention(third, false).await?;
        assert_eq!(db.last_retention().await?, Some(ended), "it failed");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_that_nobody_needs_go_and_no_others() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let services = crate::callbacks::services(&fleet.environment).await?;
        let jobs = [fleet.submit_kind(JobKind::Inpaint, 0).await?, fleet.submit_kind(JobKind::Inpaint, 2).await?];
        fleet.wait_for(&jobs).await?;
        crate::callbacks::stop(services).await?;
        let url = &fleet.database.url;
        let sources = left(url, "source_key", "submissions").await?;
        let old = format!(
            "UPDATE submissions SET settled_at = settled_at - interval '8 days' WHERE job_id = '{}'; \
             UPDATE submissions SET settled_at = settled_at - interval '6 days' WHERE job_id = '{}'",
            jobs[0].job, jobs[1].job
        );
        execute(url, &old).await?;
        // Of a submission that nobody knows to have ended.
        let own = Key::SubmissionSource { token: Uuid::new_v4(), container: Container::Mp4 }.to_string();
        fleet.storage.put(&own, "video/mp4", "source".into()).await?;
        let counted = producer(&fleet.environment, &["retention", "--dry-run", "--json"]).await?.json(0);
        assert_eq!((&counted["dry_run"], &counted["removed"]["sources"]), (&json!(true), &json!(1)), "{counted}");
        assert_eq!(counted["removed"]["request_bodies"], 0);
        let table = producer(&fleet.environment, &["retention", "--dry-run"]).await?;
        table.said(0, "WOULD GO");

        let done = producer(&fleet.environment, &["retention", "--retain-uploads", "off", "--json"]).await?.json(0);
        assert_eq!(done["removed"]["sources"], 1, "{done}");
        assert_eq!(done["removed"].get("uploads"), None, "they are kept");
        let gone = "SELECT source_key AS value FROM submissions WHERE source_deleted_at IS NOT NULL";
        let gone = value(url, gone).await?.unwrap();
        for key in sources.iter().chain([&own]) {
            let there = fleet.storage.head(key).await?.is_some();
            assert_eq!(there, *key != gone, "{key}");
        }
        let again = producer(&fleet.environment, &["retention", "--json"]).await?.json(0);
        assert_eq!(again["removed"]["sources"], 0, "{again}");

        let away = fleet.environment.clone().with("AWS_SECRET_ACCESS_KEY", "wrong");
        let failed = producer(&away, &["retention", "--json"]).await?.json(4);
        assert!(failed["failed"]["uploads"].as_str().unwrap().contains("s3:ListBucketMultipartUploads"), "{failed}");
        assert_eq!(failed["removed"]["events"], 0, "others go on: {failed}");
        Ok(())
    })
    .await
}

/// Uploads of processes that died, which nobody will complete. Those of other applications in the bucket are not ours to end.
#[tokio::test(flavor = "multi_thread")]
async fn abandoned_uploads_of_the_fleet_are_ended() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let (user, job) = (Uuid::new_v4(), Uuid::new_v4());
        let ours = Key::LipsyncResult { user, job }.to_string();
        let theirs = format!("users/{user}/portrait.mp4");
        let mut uploads = Vec::new();
        for key in [ours.clone(), theirs.clone()] {
            let storage = fleet.storage.clone();
            uploads.push(tokio::spawn(async move {
                let begun = Ok::<_, std::convert::Infallible>(Bytes::from(vec![7; 9 << 20]));
                let endless = stream::iter([begun]).chain(stream::pending());
                storage
                    .put_stream(&key, "video/mp4", Box::pin(endless))
                    .await
            }));
        }
        let running = async || {
            let page = fleet.storage.running_uploads("users/", None).await?;
            let mut keys: Vec<_> = page.uploads.into_iter().map(|upload| upload.key).collect();
            keys.sort_unstable();
            anyhow::Ok(keys)
        };
        let mut both = vec![ours.clone(), theirs.clone()];
        both.sort_unstable();
        eventually(DEADLINE, async || {
            let running = running().await?;
            anyhow::ensure!(running == both, "{running:?}");
            Ok(())
        })
        .await?;
        let config: RetentionConfig = fleet.environment.parse()?;
        let sweep = async |age: Duration| {
            let remover = Remover {
                db: fleet.db.clone(),
                storage: fleet.storage.clone(),
                config: RetentionConfig {
                    retain_uploads: Keep(Some(age)),
                    ..config.clone()
                },
            };
            remover.sweep(false, None, &CancellationToken::new()).await
        };
        let swept = sweep(Duration::from_secs(3600)).await?;
        assert_eq!(
            (swept.removed["uploads"], running().await?),
            (0, both),
            "{swept:?}"
        );
        let swept = sweep(Duration::ZERO).await?;
        assert_eq!(
            (swept.removed["uploads"], running().await?),
            (1, vec![theirs]),
            "{swept:?}"
        );
        let again = fleet.storage.abort_upload(&ours, "no-such-id").await;
        assert!(again.is_ok(), "what is gone is ended: {again:?}");
        for upload in uploads {
            upload.abort();
        }
        Ok(())
    })
    .await
}
