//! What a worker or a sweep brings that slept through what happened since: the counterexamples of `tests/model`, in SQL.

use chrono::{TimeDelta, Utc};
use serde_json::json;
use shared::db::{
    Claim, Claimed, Db, Fact, JobPatch, LedgerVerdict, Move, MoveState, MoveVerdict, SendAgain,
    Settlement, UnknownFilter,
};
use shared::domain::admission::Refusal;
use shared::domain::outcome::Reason;
use shared::domain::{JobStatus, LedgerState, Stage, Vendor};
use uuid::Uuid;

use crate::ledger::{accepted, again_of, claim_of, claimed, settlement, stage_of, state_of};
use crate::sql::{execute, value, with_database};

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

/// The actor of a dispatch moves the job while it stands there; a new fact also from the stages that wait for it, and from no other.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_moved_from_where_it_waits_for_the_actor_or_the_fact_only() -> anyhow::Result<()> {
    with_database(true, async |url, db| {
        let standing = async |stage: &str, state: &str, epoch: i64| {
            let (job, token) = claimed(url, db, &json!({})).await?;
            bring(db, job, Fact::new(token, LedgerState::Unknown)).await?;
            let stands = format!(
                "UPDATE job_stages SET stage = '{stage}', state = '{state}', epoch = {epoch} WHERE job_id = '{job}'"
            );
            execute(url, &stands).await?;
            anyhow::Ok((job, token))
        };
        for (stage, state, epoch, expected) in [
            ("inpaint.submit", "dispatched", 1, MoveVerdict::Moved),
            ("inpaint.submit", "dispatched", 2, MoveVerdict::Lost),
            ("inpaint.submit", "waiting", 1, MoveVerdict::Lost),
            ("inpaint.poll", "dispatched", 1, MoveVerdict::Lost),
        ] {
            let (job, _) = standing(stage, state, epoch).await?;
            let moved = db.settle(&settlement(job, 1, None)).await?.r#move;
            assert_eq!(moved, expected, "{stage} {state} {epoch}");
        }
        for (stage, expected) in [
            ("inpaint.reconcile", MoveVerdict::Moved),
            ("inpaint.store", MoveVerdict::Lost),
            ("lipsync.poll", MoveVerdict::Lost),
        ] {
            let (job, token) = standing(stage, "waiting", 9).await?;
            let late = accepted(token, &format!("w-{token}"));
            let verdict = db.settle(&settlement(job, 1, Some(late))).await?;
            assert_eq!(
                (verdict.ledger, verdict.r#move),
                (LedgerVerdict::Written, expected),
                "{stage}"
            );
        }
        Ok(())
    })
    .await
}

/// Whatever its actor thinks, a job is not given up while something may have been paid for it (model: AliveNeverDead).
#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_given_up_only_when_nothing_may_be_paid() -> anyhow::Result<()> {
    with_database(true, async |url, db| {
        let give_up = async |job| {
            let mut dead = settlement(job, 1, None);
            dead.r#move = Some(Move {
                state: MoveState::Dead,
                stage: None,
                delay_ms: 0,
                tries: None,
                reason: Some(Reason::KillsConsumers.as_str()),
                from: &[],
            });
            dead.job_patch = Some(JobPatch {
                status: Some(JobStatus::Failed),
                ..JobPatch::default()
            });
            db.settle(&dead).await?;
            let status = format!("SELECT status AS value FROM video_jobs WHERE id = '{job}'");
            anyhow::Ok((stage_of(url, job).await?, value(url, &status).await?))
        };
        let text = |stage: &str, status: &str| (Some(stage.to_owned()), Some(status.to_owned()));
        for state in [
            None,
            Some(LedgerState::Unknown),
            Some(LedgerState::Accepted),
        ] {
            let (job, token) = claimed(url, db, &json!({})).await?;
            match state {
                Some(LedgerState::Accepted) => {
                    bring(db, job, accepted(token, &format!("w-{token}"))).await?;
                }
                Some(state) => {
                    bring(db, job, Fact::new(token, state)).await?;
                }
                None => {}
            }
            let waits = text("inpaint.submit waiting", "processing");
            assert_eq!(give_up(job).await?, waits, "{state:?}");
        }
        let (job, token) = claimed(url, db, &json!({})).await?;
        bring(db, job, Fact::new(token, LedgerState::NotSent)).await?;
        let over = text("inpaint.submit dead", "failed");
        assert_eq!(give_up(job).await?, over, "nothing was sent");
        Ok(())
    })
    .await
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
        db.stop_paid("test", "test").await?;
        assert_eq!(
            bring(db, job, redoing(0)).await?,
            LedgerVerdict::Kept,
            "paid sends are stopped"
        );
        crate::ledger::resume(db).await?;
        let back =
            format!("UPDATE job_stages SET state = 'dispatched', epoch = 1 WHERE job_id = '{job}'");
        execute(url, &back).await?;
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
        let again = SendAgain {
            vendor: Vendor::Sync,
            ..again_of(&Claim {
                token,
                ..claim_of(job)
            })
        };
        let permit = async |not_after| {
            let again = SendAgain {
                not_after: Some(not_after),
                ..again.clone()
            };
            let refused = db.take_send_permit(&again).await?;
            anyhow::Ok(refused.map(|refused| refused.why))
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
        let canceled = format!("UPDATE video_jobs SET status = 'canceled' WHERE id = '{job}'");
        execute(url, &canceled).await?;
        assert_eq!(
            permit(later).await?,
            Some(Refusal::Settled),
            "nobody wants the result any more"
        );
        let wanted = format!("UPDATE video_jobs SET status = 'processing' WHERE id = '{job}'");
        execute(url, &wanted).await?;
        let moved = format!("UPDATE job_stages SET epoch = epoch + 1 WHERE job_id = '{job}'");
        execute(url, &moved).await?;
        assert_eq!(
            permit(later).await?,
            Some(Refusal::Settled),
            "the message is stale"
        );
        let back = format!("UPDATE job_stages SET epoch = epoch - 1 WHERE job_id = '{job}'");
        execute(url, &back).await?;
        assert_eq!(permit(later).await?, None);
        db.stop_paid("test", "test").await?;
        assert_eq!(permit(later).await?, Some(Refusal::Stopped));
        crate::ledger::resume(db).await?;
        assert_eq!(permit(later).await?, None);
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

/// Between the sweep's look at the vendor and its note, an operator replayed the job, and its stage keeps the slot of the failed
/// work until a person has decided.
#[tokio::test(flavor = "multi_thread")]
async fn a_swept_failure_counts_only_while_no_stage_follows_the_work() -> anyhow::Result<()> {
    with_database(true, async |url, db| {
        for (stage, state, expected) in [
            ("inpaint.poll", "parked", LedgerVerdict::Kept),
            ("inpaint.poll", "waiting", LedgerVerdict::Kept),
            ("inpaint.poll", "dead", LedgerVerdict::Written),
            ("lipsync.poll", "waiting", LedgerVerdict::Written),
        ] {
            let (job, token) = claimed(url, db, &json!({})).await?;
            bring(db, job, accepted(token, &format!("w-{token}"))).await?;
            let stands = matches!(state, "parked" | "dead");
            execute(
                url,
                &format!(
                    "UPDATE job_stages SET stage = '{stage}', state = '{state}', \
                     due_at = CASE WHEN {stands} THEN NULL ELSE now() END, \
                     reason = CASE WHEN {stands} THEN 'vendor_needs_operator' END WHERE job_id = '{job}'"
                ),
            )
            .await?;
            let swept = Fact {
                unfollowed: true,
                ..seen(token, LedgerState::Failed, 0)
            };
            assert_eq!(bring(db, job, swept).await?, expected, "{stage} {state}");
        }
        Ok(())
    })
    .await
}

/// The vendor called back about a work of the submission, and could then not be asked about it: no search proves that there is
/// none, and no other attempt is paid for, until a person has decided.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_called_back_is_not_absent_before_somebody_has_looked() -> anyhow::Result<()> {
    with_database(true, async |url, db| {
        let (job, token) = claimed(url, db, &json!({})).await?;
        bring(db, job, Fact::new(token, LedgerState::Unknown)).await?;
        let absent = || settlement(job, 1, Some(Fact::new(token, LedgerState::Absent)));
        let called_back = |outcome: &str| {
            format!(
                "INSERT INTO callbacks (vendor, token, job_id, body, processed_at, outcome) \
                 VALUES ('ghostcut', '{token}', '{job}', 'x', now(), '{outcome}') \
                 ON CONFLICT (vendor, body_sha256, token) DO UPDATE SET outcome = excluded.outcome"
            )
        };
        execute(url, &called_back("failed")).await?;
        assert_eq!(db.settle(&absent()).await?.ledger, LedgerVerdict::Kept);
        assert_eq!(state_of(url, token).await?.as_deref(), Some("unknown"));
        assert_eq!(
            stage_of(url, job).await?.as_deref(),
            Some("inpaint.submit parked")
        );

        assert_eq!(db.dismiss_callbacks(token, db.now().await?).await?, 1);
        let dispatched = format!(
            "UPDATE job_stages SET state = 'dispatched', epoch = 1, reason = NULL, due_at = now() + interval '1 minute' \
             WHERE job_id = '{job}'"
        );
        execute(url, &dispatched).await?;
        bring(db, job, Fact::new(token, LedgerState::Absent)).await?;
        assert_eq!(state_of(url, token).await?.as_deref(), Some("absent"));

        // One that came after the proof.
        execute(url, &called_back("failed")).await?;
        let next = Claim {
            attempt: 2,
            ..claim_of(job)
        };
        assert_eq!(db.claim(&next, b"body").await?, Claimed::Undecided);
        let open = async || anyhow::Ok(db.unknowns(UnknownFilter::default()).await?);
        let listed = open().await?;
        assert!(
            listed.len() == 1 && listed[0].token == token && listed[0].undecided,
            "{listed:?}"
        );
        assert_eq!(db.dismiss_callbacks(token, db.now().await?).await?, 1);
        assert!(open().await?.is_empty());
        assert!(matches!(
            db.claim(&next, b"body").await?,
            Claimed::Claimed { .. }
        ));
        Ok(())
    })
    .await
}
