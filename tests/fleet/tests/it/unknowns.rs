//! What a person can decide about an unknown outcome, and what the sweep finds for a job that does not look any more.

use std::time::Duration;

use fleet::{DEADLINE, Expectation, Fleet, Kind, eventually};
use producer::lost::LostSearch;
use producer::vendors::Vendors;
use sandbox::{Fault, FaultRule, Operation, SandboxConfig, Vendor as Payee, When};
use shared::db::{Claimed, Fact, Move, MoveState, Settlement, UnknownFilter};
use shared::domain::outcome::Reason;
use shared::domain::search::Marker;
use shared::domain::{LedgerState, Stage, Vendor};
use shared::storage::{Container, Key};
use shared::vendor::Metrics;
use uuid::Uuid;

use crate::callback_evidence::Hand;
use crate::command::producer;
use crate::ledger::{claim_of, claimed, stage_of, state_of};
use crate::sql::{execute, value, with_database};

/// The token of the job's newest submission.
async fn token(fleet: &Fleet, job: Uuid) -> anyhow::Result<String> {
    let submissions = fleet.db.job_submissions(job).await?;
    let last = submissions
        .last()
        .ok_or_else(|| anyhow::anyhow!("nothing is claimed yet"))?;
    Ok(last.token.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_adopts_a_work_that_the_list_does_not_show() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let environment = &fleet.environment;
        let services = [fleet.workers(1)?, vec![fleet.producer()?]];
        let other = fleet.submit_kind(Kind::Inpaint, 1).await?;
        fleet.wait_for(std::slice::from_ref(&other)).await?;
        let others = fleet.sandbox.truth().works(Payee::Ghostcut).remove(0).id;
        let hidden = FaultRule::new(Payee::Ghostcut, Operation::List, Fault::DropItems { contains: String::new() });
        fleet.sandbox.faults().add(hidden)?;
        let lost = FaultRule::new(Payee::Ghostcut, Operation::Submit, Fault::LoseAnswer).times(1);
        fleet.sandbox.faults().add(lost)?;
        let job = fleet.submit_kind(Kind::Inpaint, 0).await?;
        eventually(DEADLINE, async || {
            let stage = fleet.db.job_stage(job.job).await?;
            anyhow::ensure!(stage.as_ref().is_some_and(|stage| stage.state == "parked"), "{stage:?}");
            Ok(())
        })
        .await?;
        let token = token(fleet, job.job).await?;
        let work = fleet.sandbox.truth().works(Payee::Ghostcut).remove(1).id;

        let listed = producer(environment, &["unknowns", "list", "--vendor", "ghostcut", "--json"]).await?.json(0);
        assert_eq!((&listed["unknowns"][0]["token"], &listed["unknowns"][0]["stage_reason"]), (&token.clone().into(), &"outcome_undecided".into()));
        producer(environment, &["unknowns", "list"]).await?.said(0, "parked (outcome_undecided)");
        producer(environment, &["unknowns", "list", "--older-than", "2h"]).await?.said(0, "1 are for less: leave --older-than out");
        producer(environment, &["unknowns", "list", "--vendor", "sync"]).await?.said(0, "no outcome is unknown");
        let shown = producer(environment, &["unknowns", "show", &token]).await?;
        shown.said(0, &format!("the name gf-{}-1-{token}", job.job));
        shown.said(0, "answer seen");

        let adopt = async |id: &str, more: &[&str]| {
            let args = ["unknowns", "adopt", &token, "--task-id", id, "--reason", "a test", "--by", "somebody"];
            producer(environment, &[&args, more].concat()).await
        };
        adopt("404404404", &[]).await?.said(1, "does not know a work 404404404");
        adopt(&others, &[]).await?.said(1, &format!("of job {}", other.job));
        adopt(&others, &["--force"]).await?.said(1, "belongs to another submission");
        adopt(&work, &[]).await?.said(0, "is polled next");
        fleet.books(&[other, job.clone()]).await?.assert_balanced();
        adopt(&work, &[]).await?.said(1, "not unknown");
        let trail = format!(
            "SELECT actor || ' ' || (detail ->> 'action') || ' ' || (detail ->> 'reason') || ' ' || (detail ->> 'ledger') AS value \
             FROM job_events WHERE job_id = '{}' AND kind = 'operator' ORDER BY id DESC LIMIT 1",
            job.job
        );
        assert_eq!(value(&fleet.database.url, &trail).await?.as_deref(), Some("somebody adopt a test written"));
        for service in services.into_iter().flatten() {
            service.stop().await?;
        }
        Ok(())
    })
    .await
}

/// A job that is parked because of a submission that was claimed, perhaps sent, and not answered. No worker runs.
pub(crate) async fn parked(
    fleet: &Fleet,
    kind: Kind,
    source_key: Option<String>,
) -> anyhow::Result<(Expectation, Uuid)> {
    let (stage, vendor) = match kind {
        Kind::Lipsync => (Stage::LipsyncSubmit, Vendor::Sync),
        Kind::Inpaint | Kind::Both => (Stage::InpaintSubmit, Vendor::Ghostcut),
    };
    let job = fleet.submit_kind(kind, 0).await?;
    let lease = Duration::from_secs(120);
    let picked = fleet.db.pick_due(stage, 10, 10, lease, None).await?;
    let epoch = picked
        .iter()
        .find(|row| row.job_id == job.job)
        .unwrap()
        .epoch;
    let claim = shared::db::Claim {
        stage,
        epoch,
        vendor,
        source_key,
        send_within_ms: 60_000,
        ..claim_of(job.job)
    };
    assert!(matches!(
        fleet.db.claim(&claim, b"{}").await?,
        Claimed::Claimed { .. }
    ));
    let settlement = Settlement {
        job: job.job,
        stage,
        epoch,
        actor: "test".to_owned(),
        fact: Some(Fact::new(claim.token, LedgerState::Unknown)),
        r#move: Some(Move {
            state: MoveState::Parked,
            stage: None,
            delay_ms: 0,
            tries: Some(0),
            reason: Some(Reason::OutcomeUndecided.as_str()),
            from: &[],
        }),
        job_patch: None,
        event: None,
        signal: None,
    };
    fleet.db.settle(&settlement).await?;
    Ok((job, claim.token))
}

/// Another customer's result, perhaps, and the ledger cannot know: it has no such submission.
#[tokio::test(flavor = "multi_thread")]
async fn no_force_adopts_a_work_that_is_marked_as_anothers() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let (url, environment) = (&fleet.database.url, &fleet.environment);
        let (_, token) = parked(fleet, Kind::Inpaint, None).await?;
        let marker = Marker {
            job: Uuid::new_v4(),
            attempt: 1,
            token: Uuid::new_v4(),
        };
        let work = Hand::new(fleet, environment)?.send(marker, None).await?;
        let text = token.to_string();
        let args = [
            "unknowns",
            "adopt",
            &text,
            "--task-id",
            &work,
            "--reason",
            "a test",
            "--force",
        ];
        let refused = producer(environment, &args).await?;
        refused.said(
            1,
            &format!(
                "belongs to another submission: {} of job {}",
                marker.token, marker.job
            ),
        );
        assert_eq!(state_of(url, token).await?.as_deref(), Some("unknown"));
        Ok(())
    })
    .await
}

/// Vendors quote signed URLs in what they answer.
#[tokio::test(flavor = "multi_thread")]
async fn no_signature_is_shown() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let (url, environment) = (&fleet.database.url, &fleet.environment);
        let (job, token) = parked(fleet, Kind::Lipsync, None).await?;
        let signed = "https://vendor.example/result.mp4?X-Amz-Signature=secret";
        let statements = format!(
            "UPDATE submissions SET answer = '{{\"class\": \"ambiguous\", \"reason\": \"said {signed}\"}}'; \
             INSERT INTO job_events (job_id, kind, actor, token, detail) \
             VALUES ('{}', 'second_work', 'test', '{token}', '{{\"urls\": [\"{signed}\"]}}')",
            job.job
        );
        execute(url, &statements).await?;
        let token = token.to_string();
        let show = ["unknowns", "show", &token];
        for (args, times) in [
            (&show[..], 2),
            (&[&show[..], &["--json"]].concat(), 2),
            (&["unknowns", "list", "--json"], 1),
        ] {
            let shown = producer(environment, args).await?;
            shown.said(0, "result.mp4?[redacted]");
            assert_eq!(shown.stdout.matches("[redacted]").count(), times, "{shown:?}");
            assert!(!shown.stdout.contains("secret"), "{shown:?}");
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_confirms_that_nothing_was_accepted() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let (url, environment) = (&fleet.database.url, &fleet.environment);
        let key = Key::SubmissionSource { token: Uuid::new_v4(), container: Container::Mp4 }.to_string();
        fleet.storage.put(&key, "video/mp4", "source".into()).await?;
        let (inpaint, ghostcut) = parked(fleet, Kind::Inpaint, Some(key.clone())).await?;
        let (lipsync, sync) = parked(fleet, Kind::Lipsync, None).await?;
        let confirm = async |token: Uuid, more: &[&str]| {
            let token = token.to_string();
            let args = ["unknowns", "confirm-not-accepted", &token, "--reason", "a test"];
            producer(environment, &[&args, more].concat()).await
        };
        // Its sender may still be at it, whoever says otherwise.
        confirm(ghostcut, &["--force"]).await?.said(1, "may still be sent");
        let past = "UPDATE submissions SET claimed_at = claimed_at - interval '2 hours', send_deadline = now() - interval '1 minute'";
        execute(url, past).await?;

        // An empty list proves nothing: it may lag, or show only half.
        confirm(ghostcut, &[]).await?.said(1, "not proved to show ours");
        let control = fleet.submit_kind(Kind::Inpaint, 2).await?;
        let hand = Hand::new(fleet, environment)?;
        let sent = hand.submit(control.job, 1).await?;
        confirm(ghostcut, &[]).await?.said(1, "none of them is known to be ours");
        hand.settle(&sent, LedgerState::Accepted, Some((Stage::InpaintPoll, 0))).await?;

        let there = async || anyhow::Ok(fleet.storage.head(&key).await?.is_some());
        let slow = environment.clone().with("GHOSTCUT_SETTLE_TIME", "1h");
        let token = ghostcut.to_string();
        let args = ["unknowns", "confirm-not-accepted", &token, "--reason", "a test"];
        producer(&slow, &args).await?.said(1, "too early");
        assert!(there().await?, "a work that is there all the same needs its source");
        execute(url, &format!("UPDATE submissions SET send_deadline = now() - interval '1 h' WHERE token = '{ghostcut}'")).await?;
        producer(&slow, &args).await?.said(1, "run this again at");
        assert!(!there().await?, "a late request can only fail");
        assert_eq!(state_of(url, ghostcut).await?.as_deref(), Some("unknown"));
        let done = eventually(DEADLINE, async || {
            let done = confirm(ghostcut, &[]).await?;
            anyhow::ensure!(done.code == Some(0), "{done:?}");
            Ok(done)
        });
        done.await?.said(0, "pays for a new attempt");
        assert_eq!(stage_of(url, inpaint.job).await?.as_deref(), Some("inpaint.submit waiting"));
        confirm(ghostcut, &[]).await?.said(1, "is absent, not unknown");

        // Sync.so can be asked again under the key.
        confirm(sync, &[]).await?.said(1, "under its key");
        confirm(sync, &["--force"]).await?.said(0, "pays for a new attempt");

        let services = [fleet.workers(1)?, vec![fleet.producer()?]];
        fleet.books(&[inpaint, lipsync, control]).await?.assert_balanced();
        for service in services.into_iter().flatten() {
            service.stop().await?;
        }
        Ok(())
    })
    .await
}

/// The vendor lists it: whoever says that it is not there is wrong.
#[tokio::test(flavor = "multi_thread")]
async fn a_listed_work_cannot_be_confirmed_away() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let services = [fleet.workers(1)?, vec![fleet.producer()?]];
        let lost = FaultRule::new(Payee::Sync, Operation::Submit, Fault::LoseAnswer);
        fleet.sandbox.faults().add(lost)?;
        let job = fleet.submit_kind(Kind::Lipsync, 0).await?;
        let accepted = fleet.sandbox.truth().wait_until(DEADLINE, |truth| truth.paid(Payee::Sync) == 1).await;
        assert!(accepted);
        for service in services.into_iter().flatten() {
            service.stop().await?;
        }
        let token = token(fleet, job.job).await?;
        let past = "UPDATE submissions SET state = 'unknown', claimed_at = claimed_at - interval '1 minute', send_deadline = now()";
        execute(&fleet.database.url, past).await?;
        let args = ["unknowns", "confirm-not-accepted", &token, "--reason", "a test", "--force"];
        let refused = producer(&fleet.environment, &args).await?;
        let work = fleet.sandbox.truth().works(Payee::Sync).remove(0).id;
        refused.said(1, &format!("--task-id {work}"));
        // The list told it by the URL of the input: the name is not in it.
        fleet.sandbox.faults().clear();
        let services = [fleet.workers(1)?, vec![fleet.producer()?]];
        fleet.books(&[job]).await?.assert_balanced();
        for service in services.into_iter().flatten() {
            service.stop().await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_outcome_of_a_deleted_job_is_found_and_booked_as_wasted() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let url = &fleet.database.url;
        let services = [fleet.workers(1)?, vec![fleet.producer()?]];
        for vendor in [Payee::Ghostcut, Payee::Sync] {
            let lost = FaultRule::new(vendor, Operation::Submit, Fault::LoseAnswer);
            fleet.sandbox.faults().add(lost)?;
        }
        for (number, kind) in [Kind::Inpaint, Kind::Lipsync].into_iter().enumerate() {
            let job = fleet.submit_kind(kind, number).await?.job;
            let unknown = format!("SELECT state AS value FROM submissions WHERE job_id = '{job}'");
            eventually(DEADLINE, async || {
                let state = value(url, &unknown).await?;
                anyhow::ensure!(state.as_deref() == Some("unknown"), "{state:?}");
                Ok(())
            })
            .await?;
            execute(url, &format!("DELETE FROM video_jobs WHERE id = '{job}'")).await?;
            eventually(DEADLINE, async || {
                let state = value(url, &unknown).await?;
                anyhow::ensure!(state.as_deref() == Some("succeeded"), "{state:?}");
                Ok(())
            })
            .await?;
        }
        let wasted = "SELECT cost_wasted::text AS value FROM submissions WHERE vendor = 'ghostcut'";
        assert!(value(url, wasted).await?.is_some(), "paid, and of no use");
        for service in services.into_iter().flatten() {
            service.stop().await?;
        }
        Ok(())
    })
    .await
}

/// One whose search fails every time must not keep the newer ones from being found.
#[tokio::test(flavor = "multi_thread")]
async fn a_search_that_fails_for_one_is_made_for_the_others() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let (url, environment) = (&fleet.database.url, &fleet.environment);
        let (_, older) = parked(fleet, Kind::Inpaint, None).await?;
        let (job, newer) = parked(fleet, Kind::Inpaint, None).await?;
        let age = format!(
            "UPDATE submissions SET send_deadline = now() - interval '2 minutes', settled_at = now() - interval '2 minutes', \
             claimed_at = claimed_at - CASE token WHEN '{older}' THEN interval '5 minutes' ELSE interval '4 minutes' END"
        );
        execute(url, &age).await?;
        let marker = Marker { job: job.job, attempt: 1, token: newer };
        Hand::new(fleet, environment)?.send(marker, None).await?;
        let metrics = Metrics::register(&shared::telemetry::Registry::default())?;
        let (sync, ghostcut) = (environment.parse()?, environment.parse()?);
        let lost = LostSearch {
            db: fleet.db.clone(),
            vendors: Vendors::new(&sync, &ghostcut, environment.parse()?, metrics)?,
            pause: Duration::from_secs(60),
        };
        let faults = fleet.sandbox.faults();
        let searched = async |token: Uuid| {
            let query = format!("SELECT concat_ws(' ', searches, last_searched_at > now() - interval '1 minute') AS value \
                                 FROM submissions WHERE token = '{token}'");
            value(url, &query).await
        };

        // What the client falls back to fails as well.
        let fail_once = |fault: Fault| {
            for operation in [Operation::List, Operation::Status] {
                let rule = FaultRule::new(Payee::Ghostcut, operation, fault.clone());
                faults.add(rule.times(1))?;
            }
            anyhow::Ok(())
        };
        // The vendor is away: no use in asking again at once, but next time it is another one's turn.
        let away = Fault::Status { status: 500, error_code: None, body: None, when: When::Before };
        fail_once(away)?;
        lost.sweep().await;
        assert_eq!(faults.fired().len(), 2);
        assert_eq!(searched(older).await?.as_deref(), Some("0 t"), "tried, not made");
        assert_eq!(state_of(url, newer).await?.as_deref(), Some("unknown"));

        execute(url, "UPDATE submissions SET last_searched_at = NULL").await?;
        fail_once(Fault::Code { code: 2002, when: When::Before })?;
        lost.sweep().await;
        assert_eq!(faults.fired().len(), 4);
        assert_eq!(searched(older).await?.as_deref(), Some("0 t"));
        assert_eq!(state_of(url, newer).await?.as_deref(), Some("accepted"), "found in the same sweep");
        Ok(())
    })
    .await
}

/// A worker that died between claim and answer leaves no answer at all, and its row must not hide the others.
#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_outcome_without_any_answer_is_listed() -> anyhow::Result<()> {
    with_database(true, async |url, db| {
        let (job, token) = claimed(url, db, &serde_json::json!({})).await?;
        let died = format!(
            "ALTER TABLE submissions DISABLE TRIGGER ALL; \
             UPDATE submissions SET vendor = 'sync', state = 'unknown', answer = '{{}}' WHERE token = '{token}'; \
             ALTER TABLE submissions ENABLE TRIGGER ALL; \
             UPDATE job_stages SET stage = 'lipsync.submit', state = 'waiting', due_at = now() WHERE job_id = '{job}'"
        );
        execute(url, &died).await?;
        let rows = db.unknowns(UnknownFilter::default()).await?;
        assert_eq!(rows.len(), 1);
        assert!(!rows[0].refused_for_now && rows[0].undecided, "{rows:?}");
        Ok(())
    })
    .await
}
