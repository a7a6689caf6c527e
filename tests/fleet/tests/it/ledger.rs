//! The guards in the database: claim, settle, the ledger's edges. Each test fails when its guard is taken out.

use std::time::Duration;

use serde_json::{Value, json};
use shared::db::{
    Claim, Claimed, Db, Fact, LedgerVerdict, MetadataVerdict, Move, MoveState, MoveVerdict,
    PaidResumed, SendAgain, Settlement, Verdict,
};
use shared::domain::message::JobRef;
use shared::domain::transition::accepted_from;
use shared::domain::{LedgerState, Stage, Vendor};
use uuid::Uuid;

use crate::sql::{execute, value, values, with_database};

pub(crate) const STAGE: Stage = Stage::InpaintSubmit;

/// A job in `inpaint.submit`, dispatched under epoch 1 for a minute.
pub(crate) async fn job(url: &str, metadata: &Value) -> anyhow::Result<Uuid> {
    let id = Uuid::new_v4();
    execute(
        url,
        &format!(
            "INSERT INTO video_jobs (id, user_id, original_filename, status, is_pro_job, job_metadata) \
             VALUES ('{id}', '{id}', 'clip.mp4', 'processing', true, '{metadata}'); \
             INSERT INTO job_stages (job_id, stage, epoch, state, due_at, fairness_key) \
             VALUES ('{id}', '{STAGE}', 1, 'dispatched', now() + interval '1 minute', '{id}');"
        ),
    )
    .await?;
    Ok(id)
}

pub(crate) fn claim_of(job: Uuid) -> Claim {
    Claim {
        job,
        stage: STAGE,
        epoch: 1,
        actor: "test".to_owned(),
        vendor: Vendor::Ghostcut,
        account: "default".to_owned(),
        attempt: 1,
        token: Uuid::new_v4(),
        source_key: None,
        source_url: None,
        metadata: Some(json!({ "ghostcut_video_url": "https://bucket.example/source.mp4" })),
        send_within_ms: 30_000,
        cost_reserved: Some(2.0),
    }
}

/// A redo of what was claimed so.
pub(crate) fn again_of(claim: &Claim) -> SendAgain {
    SendAgain {
        vendor: claim.vendor,
        account: claim.account.clone(),
        token: claim.token,
        job: claim.job,
        stage: claim.stage,
        epoch: claim.epoch,
        send_within_ms: 5_000,
        not_after: None,
    }
}

pub(crate) fn accepted(token: Uuid, task: &str) -> Fact {
    let mut fact = Fact::new(token, LedgerState::Accepted);
    fact.task_id = Some(task.to_owned());
    fact
}

pub(crate) fn settlement(job: Uuid, epoch: i64, fact: Option<Fact>) -> Settlement {
    Settlement {
        job,
        stage: STAGE,
        epoch,
        actor: "test".to_owned(),
        fact,
        r#move: Some(Move {
            state: MoveState::Waiting,
            stage: Some(Stage::InpaintPoll),
            delay_ms: 60_000,
            tries: Some(0),
            reason: None,
            from: accepted_from(STAGE),
        }),
        job_patch: None,
        event: None,
        signal: None,
    }
}

/// A claimed submission of a fresh job.
pub(crate) async fn claimed(url: &str, db: &Db, metadata: &Value) -> anyhow::Result<(Uuid, Uuid)> {
    let job = job(url, metadata).await?;
    let claim = claim_of(job);
    assert!(matches!(
        db.claim(&claim, b"body").await?,
        Claimed::Claimed { .. }
    ));
    Ok((job, claim.token))
}

pub(crate) async fn resume(db: &Db) -> anyhow::Result<PaidResumed> {
    let resumed = db.resume_paid("test", "test", Duration::ZERO, false);
    Ok(resumed.await?)
}

async fn metadata_id(url: &str, job: Uuid) -> anyhow::Result<Option<String>> {
    value(
        url,
        &format!(
            "SELECT job_metadata ->> 'ghostcut_task_id' AS value FROM video_jobs WHERE id = '{job}'"
        ),
    )
    .await
}

pub(crate) async fn stage_of(url: &str, job: Uuid) -> anyhow::Result<Option<String>> {
    value(
        url,
        &format!("SELECT stage || ' ' || state AS value FROM job_stages WHERE job_id = '{job}'"),
    )
    .await
}

pub(crate) async fn state_of(url: &str, token: Uuid) -> anyhow::Result<Option<String>> {
    value(
        url,
        &format!("SELECT state AS value FROM submissions WHERE token = '{token}'"),
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_claims_at_once_one_may_send() -> anyhow::Result<()> {
    with_database(true, async |url, db| {
        let job = job(url, &json!({})).await?;
        // Some under the same attempt number, some under others: either unique index alone must hold.
        let claims: Vec<Claim> = (0..16)
            .map(|n| Claim {
                attempt: 1 + n % 3,
                ..claim_of(job)
            })
            .collect();
        let verdicts =
            futures::future::try_join_all(claims.iter().map(|claim| db.claim(claim, b"body")))
                .await?;
        let sends = verdicts
            .iter()
            .filter(|verdict| matches!(verdict, Claimed::Claimed { .. }))
            .count();
        assert_eq!(sends, 1, "{verdicts:?}");
        assert!(
            verdicts
                .iter()
                .filter(|verdict| **verdict == Claimed::Occupied)
                .count()
                == 15,
            "{verdicts:?}"
        );
        Ok(())
    })
    .await
}

/// I1 is kept by the index even against code that forgets to ask.
#[tokio::test(flavor = "multi_thread")]
async fn the_slot_index_refuses_a_second_live_submission() -> anyhow::Result<()> {
    with_database(true, async |url, db| {
        let (job, _) = claimed(url, db, &json!({})).await?;
        let insert = format!(
            "INSERT INTO submissions (token, job_id, vendor, account, attempt, state, request_body, request_sha256, \
                send_deadline) \
             VALUES (gen_random_uuid(), '{job}', 'ghostcut', 'default', 2, 'claimed', '', sha256(''), now() + interval '1 h')"
        );
        let error = execute(url, &insert).await.unwrap_err().to_string();
        assert!(error.contains("submissions_slot"), "{error}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_is_refused_whenever_sending_could_be_wrong() -> anyhow::Result<()> {
    with_database(true, async |url, db| {
        let fresh = async || job(url, &json!({})).await;
        let of = async |claim: Claim| db.claim(&claim, b"body").await;

        let stale = claim_of(fresh().await?);
        assert_eq!(of(Claim { epoch: 2, ..stale.clone() }).await?, Claimed::Stale, "another epoch");
        assert_eq!(of(Claim { stage: Stage::LipsyncSubmit, ..stale }).await?, Claimed::Stale, "another stage");

        let waiting = fresh().await?;
        execute(url, &format!("UPDATE job_stages SET state = 'waiting' WHERE job_id = '{waiting}'")).await?;
        assert_eq!(of(claim_of(waiting)).await?, Claimed::Stale, "not dispatched");

        let canceled = fresh().await?;
        execute(url, &format!("UPDATE video_jobs SET status = 'canceled' WHERE id = '{canceled}'")).await?;
        assert_eq!(of(claim_of(canceled)).await?, Claimed::Stale, "canceled");

        let deleted = fresh().await?;
        execute(url, &format!("DELETE FROM video_jobs WHERE id = '{deleted}'")).await?;
        assert_eq!(of(claim_of(deleted)).await?, Claimed::Stale, "deleted");

        let short = claim_of(fresh().await?);
        assert_eq!(of(Claim { send_within_ms: 90_000, ..short }).await?, Claimed::LeaseTooShort, "deadline after the lease");

        let called_back = fresh().await?;
        execute(
            url,
            &format!(
                "INSERT INTO callbacks (vendor, token, job_id, body) VALUES ('ghostcut', gen_random_uuid(), '{called_back}', '')"
            ),
        )
        .await?;
        assert!(matches!(of(claim_of(called_back)).await?, Claimed::NotNow(_)), "a callback waits");

        execute(
            url,
            "INSERT INTO vendors (vendor, account, paused_until, pause_kind, pause_reason) \
             VALUES ('ghostcut', 'default', now() + interval '1 minute', 'throttled', 'test')",
        )
        .await?;
        assert!(matches!(of(claim_of(fresh().await?)).await?, Claimed::NotNow(_)), "the vendor is paused");
        execute(url, "DELETE FROM vendors").await?;

        db.stop_paid("test", "test").await?;
        assert!(matches!(of(claim_of(fresh().await?)).await?, Claimed::NotNow(_)), "paid sends are stopped");
        assert_eq!(resume(db).await?, PaidResumed::Yes);
        assert!(matches!(of(claim_of(fresh().await?)).await?, Claimed::Claimed { .. }), "nothing is in the way");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_found_in_the_row_is_taken_over_and_not_paid_for_again() -> anyhow::Result<()> {
    with_database(true, async |url, db| {
        let found = job(url, &json!({ "ghostcut_task_id": "foreign-1" })).await?;
        assert_eq!(db.claim(&claim_of(found), b"body").await?, Claimed::Imported);
        let row = format!("SELECT state || ' ' || vendor_task_id || ' ' || imported AS value FROM submissions WHERE job_id = '{found}'");
        assert_eq!(values(url, &row).await?, [Some("accepted foreign-1 true".to_owned())]);

        // The replaced application wrote the text `None`; that is no id.
        let none = job(url, &json!({ "ghostcut_task_id": "None" })).await?;
        assert!(matches!(db.claim(&claim_of(none), b"body").await?, Claimed::Claimed { .. }));

        // The same foreign id in another job's row: somebody has to look.
        let copied = job(url, &json!({ "ghostcut_task_id": "foreign-1" })).await?;
        assert_eq!(db.claim(&claim_of(copied), b"body").await?, Claimed::Conflict);
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_compare_and_set_never_overwrites_an_id() -> anyhow::Result<()> {
    with_database(true, async |url, db| {
        let (fresh, token) = claimed(url, db, &json!({ "other_key": 1 })).await?;
        let verdict = db.settle(&settlement(fresh, 1, Some(accepted(token, "w-1")))).await?;
        let Verdict { ledger, metadata, r#move, .. } = verdict;
        assert_eq!((ledger, metadata, r#move), (LedgerVerdict::Written, MetadataVerdict::Set, MoveVerdict::Moved));
        assert_eq!(metadata_id(url, fresh).await?.as_deref(), Some("w-1"));
        let kept = format!("SELECT job_metadata ->> 'other_key' AS value FROM video_jobs WHERE id = '{fresh}'");
        assert_eq!(value(url, &kept).await?.as_deref(), Some("1"), "other keys stay");

        // Somebody wrote an id while ours was on its way.
        let (raced, token) = claimed(url, db, &json!({})).await?;
        let write = format!("UPDATE video_jobs SET job_metadata = '{{\"ghostcut_task_id\":\"foreign-2\"}}' WHERE id = '{raced}'");
        execute(url, &write).await?;
        let verdict = db.settle(&settlement(raced, 1, Some(accepted(token, "w-2")))).await?;
        assert_eq!((verdict.metadata, verdict.r#move), (MetadataVerdict::Other, MoveVerdict::Moved));
        assert_eq!(metadata_id(url, raced).await?.as_deref(), Some("foreign-2"));
        assert_eq!(state_of(url, token).await?.as_deref(), Some("duplicate"));
        let live = format!("SELECT vendor_task_id AS value FROM submissions WHERE job_id = '{raced}' AND ledger_occupies(state)");
        assert_eq!(value(url, &live).await?.as_deref(), Some("foreign-2"), "the job goes on with the id that is there");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_actor_moves_nothing_but_its_fact_counts() -> anyhow::Result<()> {
    with_database(true, async |url, db| {
        // No fact: fenced by the epoch.
        let (job, token) = claimed(url, db, &json!({})).await?;
        assert_eq!(db.settle(&settlement(job, 7, None)).await?.r#move, MoveVerdict::Lost);
        assert_eq!(stage_of(url, job).await?.as_deref(), Some("inpaint.submit dispatched"));

        // The lease ran out, the claim became unknown, the job waits for a search. Then the answer arrives after all.
        db.settle(&settlement(job, 1, Some(Fact::new(token, LedgerState::Unknown)))).await?;
        execute(url, &format!("UPDATE job_stages SET stage = 'inpaint.reconcile', epoch = 9 WHERE job_id = '{job}'")).await?;
        let late = db.settle(&settlement(job, 1, Some(accepted(token, "w-3")))).await?;
        assert_eq!((late.ledger, late.r#move), (LedgerVerdict::Written, MoveVerdict::Moved));
        assert_eq!(stage_of(url, job).await?.as_deref(), Some("inpaint.poll waiting"));

        // The same again changes nothing; a weaker fact does not undo it.
        let again = db.settle(&settlement(job, 1, Some(accepted(token, "w-3")))).await?;
        assert_eq!((again.ledger, again.r#move), (LedgerVerdict::Same, MoveVerdict::Lost));
        let weaker = db.settle(&settlement(job, 1, Some(Fact::new(token, LedgerState::Unknown)))).await?;
        assert_eq!(weaker.ledger, LedgerVerdict::Kept);
        assert_eq!(state_of(url, token).await?.as_deref(), Some("accepted"));

        // Another work for the same token was paid for.
        let second = db.settle(&settlement(job, 1, Some(accepted(token, "w-4")))).await?;
        assert_eq!(second.ledger, LedgerVerdict::Second);
        assert_eq!(metadata_id(url, job).await?.as_deref(), Some("w-3"));
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn late_evidence_of_an_absent_submission_is_a_duplicate_only_if_another_took_its_place()
-> anyhow::Result<()> {
    with_database(true, async |url, db| {
        let absent = async || -> anyhow::Result<(Uuid, Uuid)> {
            let (job, token) = claimed(url, db, &json!({})).await?;
            for state in [LedgerState::Unknown, LedgerState::Absent] {
                let mut fact = settlement(job, 1, Some(Fact::new(token, state)));
                fact.r#move = None;
                db.settle(&fact).await?;
            }
            Ok((job, token))
        };
        let (job, token) = absent().await?;
        let verdict = db
            .settle(&settlement(job, 1, Some(accepted(token, "late-1"))))
            .await?;
        assert_eq!(verdict.metadata, MetadataVerdict::Set);
        assert_eq!(state_of(url, token).await?.as_deref(), Some("accepted"));
        // Whoever brings the evidence: what the work was given is the claim's to say.
        let given = format!("SELECT job_metadata ->> 'ghostcut_video_url' AS value FROM video_jobs WHERE id = '{job}'");
        assert_eq!(value(url, &given).await?.as_deref(), Some("https://bucket.example/source.mp4"));

        let (job, token) = absent().await?;
        let next = Claim {
            attempt: 2,
            ..claim_of(job)
        };
        assert!(matches!(
            db.claim(&next, b"body").await?,
            Claimed::Claimed { .. }
        ));
        let verdict = db
            .settle(&settlement(job, 1, Some(accepted(token, "late-2"))))
            .await?;
        assert_eq!(
            (verdict.metadata, verdict.r#move),
            (MetadataVerdict::Other, MoveVerdict::Lost)
        );
        assert_eq!(state_of(url, token).await?.as_deref(), Some("duplicate"));
        assert_eq!(
            state_of(url, next.token).await?.as_deref(),
            Some("claimed"),
            "the other one goes on"
        );
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_job_may_be_gone_and_the_answer_may_hold_anything() -> anyhow::Result<()> {
    with_database(true, async |url, db| {
        let (job, token) = claimed(url, db, &json!({})).await?;
        execute(url, &format!("DELETE FROM video_jobs WHERE id = '{job}'")).await?;
        let mut fact = accepted(token, "w-5");
        fact.answer = Some(json!({ "msg": "nul \u{0} and \u{1F600}" }));
        fact.charged = Some(1e300);
        let verdict = db.settle(&settlement(job, 1, Some(fact))).await?;
        assert_eq!(
            (verdict.metadata, verdict.r#move),
            (MetadataVerdict::Gone, MoveVerdict::Lost)
        );
        assert_eq!(
            state_of(url, token).await?.as_deref(),
            Some("accepted"),
            "the sweep follows it to its end"
        );
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_settlement_of_a_group_settles_none_of_it() -> anyhow::Result<()> {
    with_database(true, async |url, db| {
        let good = job(url, &json!({})).await?;
        let bad = Fact::new(Uuid::new_v4(), LedgerState::Accepted);
        let group = [settlement(good, 1, None), settlement(good, 1, Some(bad))];
        assert!(
            db.settle_all(&group).await.is_err(),
            "there is no such submission"
        );
        assert_eq!(
            stage_of(url, good).await?.as_deref(),
            Some("inpaint.submit dispatched")
        );
        assert_eq!(db.settle(&group[0]).await?.r#move, MoveVerdict::Moved);
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_has_the_edges_of_the_domain_and_forgets_nothing() -> anyhow::Result<()> {
    with_database(true, async |url, db| {
        for was in LedgerState::ALL {
            let occupies = value(
                url,
                &format!("SELECT ledger_occupies('{was}')::text AS value"),
            )
            .await?;
            assert_eq!(occupies, Some(was.occupies().to_string()), "{was}");
            for becomes in LedgerState::ALL {
                let edge = value(
                    url,
                    &format!("SELECT ledger_edge('{was}', '{becomes}')::text AS value"),
                )
                .await?;
                assert_eq!(
                    edge,
                    Some(was.may_become(*becomes).to_string()),
                    "{was} -> {becomes}"
                );
            }
        }
        let (job, token) = claimed(url, db, &json!({})).await?;
        for (statement, complaint) in [
            ("DELETE FROM submissions", "has no DELETE"),
            ("TRUNCATE submissions", "has no TRUNCATE"),
            (
                "UPDATE submissions SET state = 'succeeded'",
                "may not become",
            ),
            (
                "UPDATE submissions SET request_body = 'other'",
                "intent may not change",
            ),
            ("UPDATE job_events SET kind = 'other'", "append-only"),
        ] {
            let error = execute(url, statement).await.unwrap_err().to_string();
            assert!(error.contains(complaint), "{statement}: {error}");
        }
        db.settle(&settlement(job, 1, Some(accepted(token, "w-6"))))
            .await?;
        let error = execute(url, "UPDATE submissions SET vendor_task_id = 'w-7'")
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains("task id may not change"), "{error}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn dispatch_is_a_visibility_timeout_with_bounds() -> anyhow::Result<()> {
    with_database(true, async |url, db| {
        let lease = Duration::from_secs(60);
        let mut jobs = Vec::new();
        for priority in [2, 1, 0] {
            let job = job(url, &json!({})).await?;
            let set = format!(
                "UPDATE job_stages SET state = 'waiting', due_at = now() - interval '1 s', priority = {priority} \
                 WHERE job_id = '{job}'"
            );
            execute(url, &set).await?;
            jobs.push(job);
        }
        let first = db.pick_due(STAGE, 2, 100, lease, None).await?;
        let ids: Vec<_> = first.iter().map(|row| row.job_id).collect();
        assert!(ids.contains(&jobs[2]) && ids.contains(&jobs[1]), "the most urgent classes go first");
        assert!(db.pick_due(STAGE, 10, 2, lease, None).await?.is_empty(), "two are out, and two may be");

        db.put_back(STAGE, &first, Duration::ZERO).await?;
        let stale = [JobRef { id: first[0].job_id, epoch: first[0].epoch }];
        assert_eq!(db.start(STAGE, &stale, lease).await?.stale, 1, "put back: the message, if it is there, is stale");
        let again = db.pick_due(STAGE, 10, 100, Duration::from_millis(1), None).await?;
        assert_eq!(again.len(), 3);

        let late = [JobRef { id: again[1].job_id, epoch: again[1].epoch }];
        let loaded = db.start(STAGE, &late, lease).await?;
        assert!(loaded.items[0].lease > lease / 2, "what waited in the queue for long has a whole lease: {:?}", loaded.items[0].lease);
        let renewed = db.start(STAGE, &late, Duration::from_millis(1)).await?;
        assert!(renewed.items[0].lease < lease / 2);

        let started = [JobRef { id: again[0].job_id, epoch: again[0].epoch }];
        let loaded = db.start(STAGE, &started, Duration::from_millis(1)).await?;
        assert_eq!((loaded.items.len(), loaded.items[0].starts), (1, 1));
        assert_eq!(db.start(Stage::InpaintPoll, &started, lease).await?.stale, 1, "of another stage");
        let future = [JobRef { id: again[0].job_id, epoch: again[0].epoch + 5 }];
        assert_eq!(db.start(STAGE, &future, lease).await?.from_the_future, [again[0].job_id]);

        let over = db.pick_due(STAGE, 10, 100, lease, None).await?;
        assert_eq!(over.len(), 3, "what was not settled within its lease is due again");
        assert!(db.renew_lease(over[0].job_id, over[0].epoch, lease).await?);
        assert!(!db.renew_lease(over[0].job_id, over[0].epoch - 1, lease).await?, "the lease of an older epoch is lost");

        let paid_by = Some((Vendor::Ghostcut, "default"));
        execute(url, "UPDATE job_stages SET state = 'waiting', due_at = now() - interval '1 s'").await?;
        db.stop_paid("test", "test").await?;
        assert!(db.pick_due(STAGE, 10, 100, lease, paid_by).await?.is_empty(), "stopped");
        resume(db).await?;
        assert_eq!(db.pick_due(STAGE, 10, 100, lease, paid_by).await?.len(), 3);
        Ok(())
    })
    .await
}
