//! What a worker or a sweep brings that slept through what happened since: the counterexamples of `tests/model`, in SQL.

use std::time::Duration;

use chrono::{TimeDelta, Utc};
use serde_json::json;
use shared::db::{Db, Fact, LedgerVerdict, Settlement};
use shared::domain::admission::Refusal;
use shared::domain::{LedgerState, Stage, Vendor};
use uuid::Uuid;

use crate::ledger::{accepted, claim_of, claimed, settlement, state_of};
use crate::sql::{execute, with_database};

/// Brings a fact and nothing else.
async fn bring(db: &Db, job: Uuid, fact: Fact) -> anyhow::Result<LedgerVerdict> {
    let only = Settlement {
        r#move: None,
        ..settlement(job, 1, Some(fact))
    };
    Ok(db.settle(&only).await?.ledger)
}

fn seen(token: Uuid, state: LedgerState, redos: i32) -> Fact {
    Fact {
        redos: Some(redos),
        ..Fact::new(token, state)
    }
}

/// A replay may have been accepted since: the first send's refusal must not free the slot (model: LateRefusalProvesNothing).
#[tokio::test(flavor = "multi_thread")]
async fn a_late_refusal_frees_the_slot_only_where_nothing_is_replayed() -> anyhow::Result<()> {
    with_database(true, async |url, db| {
        for (vendor, expected) in [
            (Vendor::Sync, LedgerVerdict::Kept),
            (Vendor::Ghostcut, LedgerVerdict::Written),
        ] {
            let job = crate::ledger::job(url, &json!({})).await?;
            let stage = match vendor {
                Vendor::Sync => Stage::LipsyncSubmit,
                Vendor::Ghostcut => Stage::InpaintSubmit,
            };
            execute(
                url,
                &format!("UPDATE job_stages SET stage = '{stage}' WHERE job_id = '{job}'"),
            )
            .await?;
            let mut claim = claim_of(job);
            (claim.vendor, claim.stage) = (vendor, stage);
            db.claim(&claim, b"{}").await?;
            bring(db, job, Fact::new(claim.token, LedgerState::Unknown)).await?;
            let late = bring(db, job, Fact::new(claim.token, LedgerState::Rejected)).await?;
            assert_eq!(late, expected, "{vendor}");
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redo_is_claimed_by_the_jobs_own_stage_and_ended_by_a_status_that_knew_of_it()
-> anyhow::Result<()> {
    with_database(true, async |url, db| {
        let (job, token) = claimed(url, db, &json!({})).await?;
        bring(db, job, accepted(token, "w-1")).await?;
        let redoing = |redos| seen(token, LedgerState::Redoing, redos);
        let stale = Settlement {
            r#move: None,
            ..settlement(job, 2, Some(redoing(0)))
        };
        assert_eq!(
            db.settle(&stale).await?.ledger,
            LedgerVerdict::Kept,
            "another epoch"
        );
        execute(
            url,
            &format!("UPDATE video_jobs SET status = 'canceled' WHERE id = '{job}'"),
        )
        .await?;
        assert_eq!(
            bring(db, job, redoing(0)).await?,
            LedgerVerdict::Kept,
            "the job is over"
        );
        execute(
            url,
            // What is refused makes the job look again; here it is to stand where it stood.
            &format!(
                "UPDATE video_jobs SET status = 'processing' WHERE id = '{job}'; \
                 UPDATE job_stages SET state = 'dispatched', epoch = 1 WHERE job_id = '{job}'"
            ),
        )
        .await?;
        assert_eq!(bring(db, job, redoing(0)).await?, LedgerVerdict::Written);

        // An answer, a search or a callback from before, and a status from before.
        assert_eq!(
            bring(db, job, accepted(token, "w-1")).await?,
            LedgerVerdict::Same
        );
        let mut before = accepted(token, "w-1");
        before.redos = Some(0);
        assert_eq!(bring(db, job, before.clone()).await?, LedgerVerdict::Same);
        assert_eq!(state_of(url, token).await?.as_deref(), Some("redoing"));
        before.redos = Some(1);
        assert_eq!(bring(db, job, before).await?, LedgerVerdict::Written);

        // Somebody looked before the redo and writes after it.
        assert_eq!(
            bring(db, job, seen(token, LedgerState::Failed, 0)).await?,
            LedgerVerdict::Kept
        );
        assert_eq!(bring(db, job, redoing(0)).await?, LedgerVerdict::Kept);
        assert_eq!(
            bring(db, job, seen(token, LedgerState::Failed, 1)).await?,
            LedgerVerdict::Written
        );
        Ok(())
    })
    .await
}

/// A worker that slept between reading a submission and replaying it.
#[tokio::test(flavor = "multi_thread")]
async fn a_replay_is_permitted_while_the_outcome_is_unknown_and_the_key_is_fresh()
-> anyhow::Result<()> {
    with_database(true, async |url, db| {
        let (job, token) = claimed(url, db, &json!({})).await?;
        bring(db, job, Fact::new(token, LedgerState::Unknown)).await?;
        let permit = async |not_after| {
            let within = Duration::from_secs(1);
            let refused =
                db.take_send_permit(Vendor::Sync, "default", token, within, Some(not_after));
            anyhow::Ok(refused.await?.map(|refused| refused.why))
        };
        let (later, before) = (
            Utc::now() + TimeDelta::hours(1),
            Utc::now() - TimeDelta::hours(1),
        );
        assert_eq!(permit(later).await?, None);
        assert_eq!(
            permit(before).await?,
            Some(Refusal::Settled),
            "the window is over"
        );
        bring(db, job, Fact::new(token, LedgerState::Absent)).await?;
        assert_eq!(
            permit(later).await?,
            Some(Refusal::Settled),
            "a person decided"
        );
        Ok(())
    })
    .await
}

/// Another application writes an id that the ledger cannot hold, between claim and answer: the answer is kept all the same.
#[tokio::test(flavor = "multi_thread")]
async fn no_content_of_the_row_keeps_an_answer_from_being_written() -> anyhow::Result<()> {
    with_database(true, async |url, db| {
        let (job, token) = claimed(url, db, &json!({})).await?;
        let id = "7".repeat(250);
        let metadata = json!({ "ghostcut_task_id": id });
        execute(
            url,
            &format!("UPDATE video_jobs SET job_metadata = '{metadata}' WHERE id = '{job}'"),
        )
        .await?;
        let verdict = db
            .settle(&settlement(job, 1, Some(accepted(token, "w-1"))))
            .await?;
        assert_eq!(verdict.ledger, LedgerVerdict::Written);
        assert_eq!(
            state_of(url, token).await?.as_deref(),
            Some("duplicate"),
            "paid, and the row names another work"
        );
        assert_eq!(
            crate::ledger::stage_of(url, job).await?.as_deref(),
            Some("inpaint.submit parked")
        );
        Ok(())
    })
    .await
}
