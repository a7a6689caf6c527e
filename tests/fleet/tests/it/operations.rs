//! What operators do to jobs, at the database: cancel against claim and settle, retry by what the ledger says, replay of dead
//! letters against everything that may happen to their jobs meanwhile.

use std::time::Duration;

use serde_json::{Value, json};
use shared::db::{
    Canceled, Candidate, Claim, Claimed, Db, Discarded, Fact, LedgerVerdict, LetterFilter,
    MetadataVerdict, Move, MoveState, MoveVerdict, Pace, Plan, RestartOrder, Resumed, Settlement,
};
use shared::domain::intake::NewJob;
use shared::domain::message::JobRef;
use shared::domain::outcome::Reason;
use shared::domain::resume::{How, Refusal};
use shared::domain::transition::accepted_from;
use shared::domain::{JobStatus, LedgerState, Stage, Vendor};
use uuid::Uuid;

use crate::sql::{execute, value, values, with_database};

/// A job of inpainting alone, dispatched in `inpaint.submit` under epoch 5 for a minute.
pub(crate) async fn job(url: &str, db: &Db) -> anyhow::Result<Uuid> {
    create(url, db, &request()).await
}

fn request() -> Value {
    json!({
        "user_id": Uuid::from_u128(7),
        "video_url": "s3://ours/talk.mp4",
        "effects": [{ "type": "text", "startTime": 0, "endTime": 2,
            "region": { "x": 0.1, "y": 0.8, "width": 0.8, "height": 0.15 } }],
    })
}

async fn create(url: &str, db: &Db, request: &Value) -> anyhow::Result<Uuid> {
    let job = NewJob::from_request(request, 10, |_| true).map_err(|f| anyhow::anyhow!("{f:?}"))?;
    let id = Uuid::new_v4();
    db.create_job(id, &job, None, "test").await?;
    execute(
        url,
        &format!(
            "UPDATE job_stages SET state = 'dispatched', due_at = now() + interval '1 minute', epoch = 5 WHERE job_id = '{id}'; \
             UPDATE video_jobs SET status = 'processing' WHERE id = '{id}'"
        ),
    )
    .await?;
    Ok(id)
}

fn claim_of(job: Uuid, epoch: i64, attempt: i32) -> Claim {
    Claim {
        job,
        stage: Stage::InpaintSubmit,
        epoch,
        actor: "test".to_owned(),
        vendor: Vendor::Ghostcut,
        account: "default".to_owned(),
        attempt,
        token: Uuid::new_v4(),
        source_key: None,
        source_url: None,
        metadata: None,
        send_within_ms: 30_000,
        cost_reserved: Some(1.0),
    }
}

fn fact(token: Uuid, state: LedgerState) -> Fact {
    let mut fact = Fact::new(token, state);
    if state == LedgerState::Accepted {
        fact.task_id = Some(format!("work-{token}"));
    }
    fact
}

/// What a worker in `inpaint.submit` under epoch 5 settles.
fn settlement(job: Uuid, fact: Option<Fact>) -> Settlement {
    Settlement {
        job,
        stage: Stage::InpaintSubmit,
        epoch: 5,
        actor: "test".to_owned(),
        fact,
        r#move: Some(Move {
            state: MoveState::Waiting,
            stage: Some(Stage::InpaintPoll),
            delay_ms: 60_000,
            tries: Some(0),
            reason: None,
            from: accepted_from(Stage::InpaintSubmit),
        }),
        job_patch: None,
        event: None,
        signal: None,
    }
}

/// Only a fact, as the ledger sweep brings it.
fn only(job: Uuid, fact: Fact) -> Settlement {
    Settlement {
        r#move: None,
        ..settlement(job, Some(fact))
    }
}

/// A job whose submission has gone through these states after the claim.
async fn submitted(url: &str, db: &Db, states: &[LedgerState]) -> anyhow::Result<(Uuid, Uuid)> {
    let job = job(url, db).await?;
    let claim = claim_of(job, 5, 1);
    let claimed = db.claim(&claim, b"body").await?;
    assert!(matches!(claimed, Claimed::Claimed { .. }), "{claimed:?}");
    let cost = format!(
        "UPDATE submissions SET cost_reserved = 3 WHERE token = '{}'",
        claim.token
    );
    execute(url, &cost).await?;
    for state in states {
        db.settle(&only(job, fact(claim.token, *state))).await?;
    }
    Ok((job, claim.token))
}

/// Gives the job up under epoch 5.
pub(crate) async fn give_up(db: &Db, job: Uuid, error: &str) -> anyhow::Result<()> {
    let verdict = db
        .settle(&Settlement {
            r#move: Some(Move {
                state: MoveState::Dead,
                stage: None,
                delay_ms: 0,
                tries: None,
                reason: Some(Reason::TriesExhausted.as_str()),
                from: &[],
            }),
            job_patch: Some(shared::db::JobPatch {
                status: Some(JobStatus::Failed),
                error: Some(error.to_owned()),
                ..shared::db::JobPatch::default()
            }),
            ..settlement(job, None)
        })
        .await?;
    assert_eq!(verdict.r#move, MoveVerdict::Moved);
    Ok(())
}

async fn cancel(db: &Db, job: Uuid) -> anyhow::Result<Canceled> {
    let mut canceled = db.cancel_jobs(&[job], "ann", "test").await?;
    Ok(canceled.remove(0).1)
}

fn order(another_attempt: bool) -> RestartOrder {
    RestartOrder {
        by: "ann".to_owned(),
        reason: "test".to_owned(),
        operation: None,
        another_attempt,
    }
}

const LEASE: Duration = Duration::from_secs(60);

const fn retry_of(job: Uuid) -> Candidate {
    Candidate {
        job,
        letter_epoch: None,
    }
}

const fn replay_of(job: Uuid) -> Candidate {
    Candidate {
        job,
        letter_epoch: Some(5),
    }
}

async fn restart(db: &Db, candidate: Candidate) -> anyhow::Result<Plan> {
    let mut plans = db
        .restart(&order(false), &[candidate], &mut Pace::default())
        .await?;
    Ok(plans.remove(0))
}

async fn stage_of(url: &str, job: Uuid) -> anyhow::Result<Option<String>> {
    let query = format!(
        "SELECT concat_ws(' ', stage, state, epoch) AS value FROM job_stages WHERE job_id = '{job}'"
    );
    value(url, &query).await
}

async fn status_of(url: &str, job: Uuid) -> anyhow::Result<Option<String>> {
    value(
        url,
        &format!("SELECT status AS value FROM video_jobs WHERE id = '{job}'"),
    )
    .await
}

async fn wasted(url: &str, token: Uuid) -> anyhow::Result<Option<String>> {
    let query = format!(
        "SELECT trim_scale(cost_wasted)::text AS value FROM submissions WHERE token = '{token}'"
    );
    value(url, &query).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canceled_job_is_not_paid_for_and_what_was_paid_is_followed() -> anyhow::Result<()> {
    with_database(true, async |url, db| {
        use LedgerState as L;
        // Before the claim: the worker that is about to pay is refused, before and after its row went.
        let before = job(url, db).await?;
        assert_eq!(cancel(db, before).await?, Canceled::Now);
        assert_eq!(
            db.claim(&claim_of(before, 5, 1), b"body").await?,
            Claimed::Stale
        );
        assert_eq!(stage_of(url, before).await?, None);
        assert_eq!(
            cancel(db, before).await?,
            Canceled::Before,
            "twice is harmless"
        );

        // Between claim and answer: followed until the answer is there, then swept, and booked as wasted.
        let (sending, token) = submitted(url, db, &[]).await?;
        assert_eq!(cancel(db, sending).await?, Canceled::Following);
        assert_eq!(
            stage_of(url, sending).await?.as_deref(),
            Some("inpaint.submit dispatched 5")
        );
        let verdict = db
            .settle(&settlement(sending, Some(fact(token, L::Accepted))))
            .await?;
        assert_eq!(
            (verdict.ledger, verdict.metadata),
            (LedgerVerdict::Written, MetadataVerdict::Set)
        );
        assert_eq!(status_of(url, sending).await?.as_deref(), Some("canceled"));
        db.settle(&only(sending, fact(token, L::Succeeded))).await?;
        assert_eq!(wasted(url, token).await?.as_deref(), Some("3"));

        // The answer was lost: the search goes on; proved absent, nothing new is paid for.
        let (lost, token) = submitted(url, db, &[L::Unknown]).await?;
        assert_eq!(cancel(db, lost).await?, Canceled::Following);
        db.settle(&only(lost, fact(token, L::Absent))).await?;
        assert_eq!(
            db.claim(&claim_of(lost, 5, 2), b"body").await?,
            Claimed::Stale
        );

        // While the vendor works: the stage goes, the fact counts, the move is lost.
        let (paid, token) = submitted(url, db, &[L::Accepted]).await?;
        assert_eq!(cancel(db, paid).await?, Canceled::Now);
        assert_eq!(stage_of(url, paid).await?, None);
        let unfollowed = db
            .unfollowed(Vendor::Ghostcut, "default", None, 100)
            .await?;
        assert!(
            unfollowed.iter().any(|line| line.token == token),
            "the sweep follows it"
        );
        let verdict = db
            .settle(&settlement(paid, Some(fact(token, L::Succeeded))))
            .await?;
        assert_eq!(
            (verdict.ledger, verdict.r#move),
            (LedgerVerdict::Written, MoveVerdict::Lost)
        );
        assert_eq!(wasted(url, token).await?.as_deref(), Some("3"));

        // After the vendor has finished: wasted at once.
        let (finished, token) = submitted(url, db, &[L::Accepted, L::Succeeded]).await?;
        assert_eq!(wasted(url, token).await?, None);
        assert_eq!(cancel(db, finished).await?, Canceled::Now);
        assert_eq!(wasted(url, token).await?.as_deref(), Some("3"));

        // By hand, while it stood still: nobody else would end its stage.
        let stands = job(url, db).await?;
        let by_hand = format!(
            "UPDATE job_stages SET state = 'parked', reason = 'outcome_undecided', due_at = NULL WHERE job_id = '{stands}'; \
             UPDATE video_jobs SET status = 'canceled' WHERE id = '{stands}'"
        );
        execute(url, &by_hand).await?;
        assert_eq!(cancel(db, stands).await?, Canceled::Now);
        assert_eq!(stage_of(url, stands).await?, None);

        let done = job(url, db).await?;
        execute(
            url,
            &format!("UPDATE video_jobs SET status = 'completed' WHERE id = '{done}'"),
        )
        .await?;
        assert_eq!(
            cancel(db, done).await?,
            Canceled::Finished("completed".to_owned())
        );
        assert_eq!(cancel(db, Uuid::new_v4()).await?, Canceled::Gone);
        let trail = format!(
            "SELECT concat_ws(' ', kind, actor, detail ->> 'reason') AS value FROM job_events \
                             WHERE job_id = '{paid}' AND kind = 'canceled'"
        );
        assert_eq!(
            values(url, &trail).await?,
            [Some("canceled ann test".to_owned())],
            "who and why"
        );
        Ok(())
    })
    .await
}

/// Whoever is first: either nothing is claimed, or what is claimed keeps its stage.
#[tokio::test(flavor = "multi_thread")]
async fn cancel_and_claim_at_once_leave_no_claim_without_a_stage() -> anyhow::Result<()> {
    with_database(true, async |url, db| {
        let (mut refused, mut following) = (0, 0);
        for _ in 0..40 {
            let job = job(url, db).await?;
            let claim = claim_of(job, 5, 1);
            let (claimed, canceled) = tokio::join!(db.claim(&claim, b"body"), cancel(db, job));
            match (claimed?, canceled?) {
                (Claimed::Stale, Canceled::Now) => refused += 1,
                (Claimed::Claimed { .. }, Canceled::Following) => following += 1,
                other => panic!("{other:?}"),
            }
            assert_eq!(status_of(url, job).await?.as_deref(), Some("canceled"));
        }
        let alone = "SELECT count(*)::text AS value FROM submissions s WHERE state = 'claimed' \
                     AND NOT EXISTS (SELECT FROM job_stages st WHERE st.job_id = s.job_id)";
        assert_eq!(
            value(url, alone).await?.as_deref(),
            Some("0"),
            "{refused} refused, {following} followed"
        );
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_goes_where_the_ledger_says_and_never_pays_what_may_be_paid() -> anyhow::Result<()>
{
    with_database(true, async |url, db| {
        use LedgerState as L;
        let table: [(&[L], Stage, How); 8] = [
            (&[], Stage::InpaintReconcile, How::Search),
            (&[L::Unknown], Stage::InpaintReconcile, How::Search),
            (&[L::Accepted], Stage::InpaintPoll, How::Poll),
            (
                &[L::Accepted, L::Succeeded],
                Stage::InpaintStore,
                How::Store,
            ),
            (&[L::Accepted, L::Failed], Stage::InpaintSubmit, How::Submit),
            (&[L::NotSent], Stage::InpaintSubmit, How::Submit),
            (&[L::Rejected], Stage::InpaintSubmit, How::Submit),
            (&[L::Unknown, L::Absent], Stage::InpaintSubmit, How::Submit),
        ];
        for (states, stage, how) in table {
            let (job, token) = submitted(url, db, states).await?;
            cancel(db, job).await?;
            let dry = db
                .plan_restart(&order(false), &[retry_of(job)])
                .await?
                .remove(0);
            assert_eq!(
                status_of(url, job).await?.as_deref(),
                Some("canceled"),
                "a preview changes nothing"
            );
            let plan = restart(db, retry_of(job)).await?;
            assert_eq!(dry.to, plan.to);
            let to = plan.to.map_err(|refusal| anyhow::anyhow!("{refusal}"))?;
            assert_eq!((to.stage, to.how), (stage, how), "{states:?}");
            assert_eq!(plan.last_cost, (how == How::Submit).then_some(3.0));
            assert_eq!(
                stage_of(url, job).await?,
                Some(format!("{stage} waiting 6"))
            );
            assert_eq!(status_of(url, job).await?.as_deref(), Some("processing"));
            assert_eq!(wasted(url, token).await?, None, "used after all");
            assert_eq!(
                restart(db, retry_of(job)).await?.to,
                Err(Refusal::GoesOn),
                "twice is harmless"
            );
        }
        // Nothing was ever sent: from the beginning.
        let fresh = job(url, db).await?;
        cancel(db, fresh).await?;
        assert_eq!(
            restart(db, retry_of(fresh)).await?.to.map(|to| to.stage),
            Ok(Stage::SourceImport)
        );
        // An id in the row that the ledger does not know was paid for by somebody else.
        let foreign = job(url, db).await?;
        cancel(db, foreign).await?;
        let write = "job_metadata = job_metadata || '{\"ghostcut_task_id\":\"foreign-1\"}'";
        execute(
            url,
            &format!("UPDATE video_jobs SET {write} WHERE id = '{foreign}'"),
        )
        .await?;
        let to = restart(db, retry_of(foreign))
            .await?
            .to
            .map(|to| (to.stage, to.how));
        assert_eq!(to, Ok((Stage::InpaintSubmit, How::Poll)));

        let done = job(url, db).await?;
        assert_eq!(restart(db, retry_of(done)).await?.to, Err(Refusal::GoesOn));
        execute(
            url,
            &format!("UPDATE video_jobs SET status = 'completed' WHERE id = '{done}'"),
        )
        .await?;
        assert_eq!(
            restart(db, retry_of(done)).await?.to,
            Err(Refusal::Completed)
        );
        assert_eq!(
            restart(db, retry_of(Uuid::new_v4())).await?.to,
            Err(Refusal::JobGone)
        );
        let broken = job(url, db).await?;
        cancel(db, broken).await?;
        execute(
            url,
            &format!("UPDATE video_jobs SET processing_config = '[]' WHERE id = '{broken}'"),
        )
        .await?;
        assert_eq!(
            restart(db, retry_of(broken)).await?.to,
            Err(Refusal::InvalidJob)
        );
        Ok(())
    })
    .await
}

/// What PostgreSQL takes and we cannot read stands between two others of a piece: they go on.
#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_row_keeps_no_other_from_being_put_back() -> anyhow::Result<()> {
    with_database(true, async |url, db| {
        let mut candidates = Vec::new();
        for sets in [
            "status = 'failed'",
            r#"processing_config = '{"effects": 1e400}'"#,
            r#"segments_data = '{"segments": -1e400}'"#,
            r#"job_metadata = ('{"deep": ' || repeat('[', 200) || repeat(']', 200) || '}')::jsonb"#,
            "status = 'failed'",
        ] {
            let job = job(url, db).await?;
            give_up(db, job, "no route").await?;
            let sets = format!("UPDATE video_jobs SET {sets} WHERE id = '{job}'");
            execute(url, &sets).await?;
            candidates.push(replay_of(job));
        }
        let came_to = |plans: Vec<Plan>| -> Vec<_> {
            let stages = plans.into_iter().map(|plan| plan.to.map(|to| to.stage));
            stages.collect()
        };
        let unreadable = Err(Refusal::InvalidJob);
        let anew = Ok(Stage::InpaintSubmit);
        let expected = [anew, unreadable, unreadable, unreadable, anew];
        let planned = db.plan_restart(&order(false), &candidates).await?;
        assert_eq!(came_to(planned), expected, "the preview");
        let done = db
            .restart(&order(false), &candidates, &mut Pace::default())
            .await?;
        assert_eq!(came_to(done), expected);
        Ok(())
    })
    .await
}

/// Several claims of one instant are more than a page: none is skipped.
#[tokio::test(flavor = "multi_thread")]
async fn the_sweep_pages_through_submissions_of_one_instant() -> anyhow::Result<()> {
    with_database(true, async |url, db| {
        let mut paid = Vec::new();
        for _ in 0..5 {
            let (job, token) = submitted(url, db, &[LedgerState::Accepted]).await?;
            cancel(db, job).await?;
            paid.push(token);
        }
        execute(
            url,
            "UPDATE submissions SET claimed_at = '2026-11-22 12:00:00Z', send_deadline = '2026-11-22 12:01:00Z'",
        )
        .await?;
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = db.unfollowed(Vendor::Ghostcut, "default", after, 2).await?;
            let Some(last) = page.last() else { break };
            after = Some((last.claimed_at, last.token));
            seen.extend(page.iter().map(|line| line.token));
        }
        paid.sort_unstable();
        assert_eq!(seen, paid);
        Ok(())
    })
    .await
}

/// An epoch below one that was dispatched would make an old message look like one from the future, which stops all paid sends.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_from_before_the_cancel_is_stale_after_the_retry() -> anyhow::Result<()> {
    with_database(true, async |url, db| {
        let canceled = job(url, db).await?;
        cancel(db, canceled).await?;
        let discarded = job(url, db).await?;
        give_up(db, discarded, "e").await?;
        let letter = db
            .letters(&LetterFilter::default(), None, 1)
            .await?
            .remove(0)
            .id;
        assert_eq!(
            db.discard_letters(&[letter], "ann", "test").await?,
            [(letter, Discarded::Discarded)]
        );
        for job in [canceled, discarded] {
            assert_eq!(stage_of(url, job).await?, None);
            assert!(restart(db, retry_of(job)).await?.to.is_ok());
            let loaded = db
                .start(Stage::InpaintSubmit, &[JobRef { id: job, epoch: 5 }], LEASE)
                .await?;
            assert_eq!(
                (loaded.stale, loaded.from_the_future, loaded.unknown),
                (1, vec![], vec![])
            );
        }
        let unknown = Uuid::new_v4();
        let loaded = db
            .start(
                Stage::InpaintSubmit,
                &[JobRef {
                    id: unknown,
                    epoch: 5,
                }],
                LEASE,
            )
            .await?;
        assert_eq!(loaded.unknown, [unknown]);
        // Deleted, but it was there: nothing to keep.
        execute(
            url,
            &format!("DELETE FROM video_jobs WHERE id = '{canceled}'"),
        )
        .await?;
        let loaded = db
            .start(
                Stage::InpaintSubmit,
                &[JobRef {
                    id: canceled,
                    epoch: 5,
                }],
                LEASE,
            )
            .await?;
        assert_eq!((loaded.stale, loaded.unknown), (1, vec![]));
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn another_attempt_is_exactly_one_more() -> anyhow::Result<()> {
    with_database(true, async |url, db| {
        let (job, _) = submitted(url, db, &[LedgerState::Accepted, LedgerState::Failed]).await?;
        let second = claim_of(job, 5, 2);
        assert!(matches!(
            db.claim(&second, b"body").await?,
            Claimed::Claimed { .. }
        ));
        for state in [LedgerState::Accepted, LedgerState::Failed] {
            db.settle(&only(job, fact(second.token, state))).await?;
        }
        give_up(db, job, "2 paid attempts have failed").await?;
        assert_eq!(
            restart(db, replay_of(job)).await?.to,
            Err(Refusal::AttemptsExhausted)
        );
        // The bound is what the last worker to start has.
        db.record_paid_attempts(3, "worker").await?;
        let planned = db.plan_restart(&order(false), &[replay_of(job)]).await?;
        assert!(planned[0].to.is_ok(), "{planned:?}");
        db.record_paid_attempts(2, "worker").await?;
        let more = db
            .restart(&order(true), &[replay_of(job)], &mut Pace::default())
            .await?
            .remove(0);
        assert_eq!(
            more.to.map(|to| (to.stage, to.how)),
            Ok((Stage::InpaintSubmit, How::Submit))
        );
        let picked = db
            .pick_due(Stage::InpaintSubmit, 10, 10, Duration::from_secs(60), None)
            .await?;
        let loaded = db
            .start(
                Stage::InpaintSubmit,
                &[JobRef {
                    id: job,
                    epoch: picked[0].epoch,
                }],
                LEASE,
            )
            .await?;
        assert_eq!(
            (loaded.items[0].attempts, loaded.items[0].failed_attempts),
            (2, 1),
            "one counts, and two are allowed"
        );
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_is_replayed_once_whoever_tries_and_not_while_its_job_moves() -> anyhow::Result<()>
{
    with_database(true, async |url, db| {
        let mut jobs = Vec::new();
        for number in 0..30 {
            let job = job(url, db).await?;
            give_up(db, job, &format!("try {number} of https://a.example/{number}?sig=S failed")).await?;
            jobs.push(job);
        }
        let groups = db.letter_groups(&LetterFilter::default(), None, 10).await?;
        let [group] = &groups[..] else { panic!("not one group: {groups:?}") };
        assert_eq!((group.error_class.as_str(), group.letters), ("try <n> of <url a.example> failed", 30));

        // Two at once, over the same selection in different orders.
        let forth: Vec<_> = jobs.iter().copied().map(replay_of).collect();
        let back: Vec<_> = forth.iter().rev().copied().collect();
        let (order, mut pace, mut other) = (order(false), Pace::default(), Pace::default());
        let (one, two) = tokio::join!(db.restart(&order, &forth, &mut pace), db.restart(&order, &back, &mut other));
        let (mut replayed, mut refused) = (Vec::new(), 0);
        for plan in one?.into_iter().chain(two?) {
            match plan.to {
                Ok(_) => replayed.push(plan.job),
                Err(refusal) => {
                    assert_eq!(refusal, Refusal::MovedOn);
                    refused += 1;
                }
            }
        }
        replayed.sort_unstable();
        jobs.sort_unstable();
        assert_eq!((replayed, refused), (jobs.clone(), 30), "each exactly once");
        let open = db.letters(&LetterFilter::default(), None, 100).await?;
        assert!(open.is_empty(), "all are closed");
        let closed = db.letter(group.first).await?.unwrap();
        assert_eq!((closed.resolution.as_deref(), closed.resolved_by.as_deref(), closed.note.as_deref()),
            (Some("replayed"), Some("ann"), Some("test")));

        // It moves: dispatched, later dead again under another letter. The old one moves nothing.
        let picked = db.pick_due(Stage::InpaintSubmit, 1, 100, Duration::from_secs(60), None).await?[0];
        assert_eq!(restart(db, replay_of(picked.job_id)).await?.to, Err(Refusal::MovedOn));
        let again = format!("UPDATE job_stages SET state = 'dead', due_at = NULL, reason = 'x', epoch = 20 WHERE job_id = '{0}'; \
            UPDATE video_jobs SET status = 'failed' WHERE id = '{0}'", picked.job_id);
        execute(url, &again).await?;
        assert_eq!(restart(db, replay_of(picked.job_id)).await?.to, Err(Refusal::MovedOn));
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paced_replay_is_spread_over_time() -> anyhow::Result<()> {
    with_database(true, async |url, db| {
        let mut candidates = Vec::new();
        for _ in 0..3 {
            let job = job(url, db).await?;
            give_up(db, job, "e").await?;
            candidates.push(replay_of(job));
        }
        let mut pace = Pace { next: Duration::ZERO, step: Duration::from_secs(100) };
        // The one that is refused takes no place in the line.
        candidates.insert(1, replay_of(Uuid::new_v4()));
        db.restart(&order(false), &candidates[..2], &mut pace).await?;
        db.restart(&order(false), &candidates[2..], &mut pace).await?;
        assert_eq!(pace.next, Duration::from_secs(300));
        let due = "SELECT round(extract(epoch FROM due_at - now()) / 100)::text AS value FROM job_stages ORDER BY due_at";
        assert_eq!(values(url, due).await?, ["0", "1", "2"].map(|text| Some(text.to_owned())));
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_job_is_resumed_once_where_it_stands() -> anyhow::Result<()> {
    with_database(true, async |url, db| {
        let resume = async |job| -> anyhow::Result<Resumed> {
            Ok(db.resume_jobs(&[job], "ann", "test").await?.remove(0).1)
        };
        let job = job(url, db).await?;
        assert_eq!(resume(job).await?, Resumed::Stays("dispatched".to_owned()));
        let park = format!("UPDATE job_stages SET state = 'parked', due_at = NULL, reason = 'out_of_points' WHERE job_id = '{job}'");
        execute(url, &park).await?;
        let (one, two) = tokio::join!(resume(job), resume(job));
        let mut both = [one?, two?];
        both.sort_by_key(|resumed| *resumed != Resumed::Now);
        assert_eq!(both, [Resumed::Now, Resumed::Stays("waiting".to_owned())]);
        assert_eq!(stage_of(url, job).await?.as_deref(), Some("inpaint.submit waiting 6"));
        // One that waits for its time gets its tries back: who resumes again and again must not use them up.
        let later = format!("UPDATE job_stages SET due_at = now() + interval '1 hour', tries = 5, starts = 2 WHERE job_id = '{job}'");
        execute(url, &later).await?;
        assert_eq!(resume(job).await?, Resumed::Now);
        let due = format!("SELECT (due_at <= clock_timestamp()) || ' ' || tries || ' ' || starts AS value FROM job_stages WHERE job_id = '{job}'");
        assert_eq!(value(url, &due).await?.as_deref(), Some("true 0 0"));
        cancel(db, job).await?;
        assert_eq!(resume(job).await?, Resumed::Over);
        assert_eq!(resume(Uuid::new_v4()).await?, Resumed::Gone);
        Ok(())
    })
    .await
}

/// Filters, pages, and that grouping reads an index and not the table.
#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_grouped_filtered_and_paged() -> anyhow::Result<()> {
    with_database(true, async |url, db| {
        execute(
            url,
            "INSERT INTO dead_letters (stage, reason, error, body) \
             SELECT 'inpaint.poll', 'undecidable', 'code ' || n || ' of ' || gen_random_uuid(), '\\xff' FROM generate_series(1, 25) n; \
             INSERT INTO dead_letters (reason, error, body) VALUES ('undecidable', NULL, 'x'); \
             UPDATE dead_letters SET resolved_at = now(), resolution = 'discarded' WHERE id = 25; ANALYZE dead_letters",
        )
        .await?;
        let all = LetterFilter::default();
        let groups = db.letter_groups(&all, None, 1).await?;
        assert_eq!((groups[0].stage.as_str(), groups[0].error_class.as_str(), groups[0].letters),
            ("inpaint.poll", "code <n> of <id>", 24));
        let key = (groups[0].stage.clone(), groups[0].error_class.clone(), groups[0].reason.clone());
        let next = db.letter_groups(&all, Some(&key), 10).await?;
        assert_eq!((next.len(), next[0].stage.as_str(), next[0].error_class.as_str()), (1, "unknown", "undecidable"));
        let of = LetterFilter { stage: Some("inpaint.poll".to_owned()), class: Some(key.1), ..all.clone() };
        let (mut before, mut seen) = (None, Vec::new());
        loop {
            let page = db.letters(&of, before, 10).await?;
            let Some(last) = page.last() else { break };
            before = Some(last.id);
            seen.extend(page.iter().map(|letter| letter.id));
        }
        assert_eq!(seen, (1..=24).rev().collect::<Vec<i64>>());
        let count = async |filter: LetterFilter| db.letters(&filter, None, 100).await.map(|letters| letters.len());
        assert_eq!(count(LetterFilter { closed: true, ..all.clone() }).await?, 26);
        assert_eq!(count(LetterFilter { ids: vec![3, 25], ..all.clone() }).await?, 1);
        assert_eq!(count(LetterFilter { upto: Some(5), ..all.clone() }).await?, 5);
        let later = next[0].newest + Duration::from_secs(1);
        assert_eq!(count(LetterFilter { since: Some(later), ..all.clone() }).await?, 0);
        assert_eq!(count(LetterFilter { user: Some(Uuid::nil()), ..all.clone() }).await?, 0);
        assert_eq!(count(LetterFilter { reason: Some("undecidable".to_owned()), ..all }).await?, 25);
        let plan = "SET enable_seqscan = off; CREATE TEMP TABLE plan (value text); DO $$ DECLARE line text; BEGIN \
            FOR line IN EXPLAIN SELECT coalesce(l.stage, 'unknown'), l.error_class, l.reason, count(*), min(l.id), max(l.received_at) \
                FROM dead_letters l WHERE l.resolved_at IS NULL GROUP BY 1, 2, 3 ORDER BY 1, 2, 3 LIMIT 10 \
            LOOP RAISE NOTICE '%', line; IF line LIKE '%dead_letters_groups%' THEN RETURN; END IF; END LOOP; \
            RAISE 'the groups are not read from their index'; END $$";
        execute(url, plan).await?;
        assert_eq!(db.discard_letters(&[1, 25, 99], "ann", "test").await?.len(), 3);
        assert_eq!(db.letter(1).await?.map(|letter| (letter.resolution, letter.body)),
            Some((Some("discarded".to_owned()), Some(vec![0xff]))));
        Ok(())
    })
    .await
}

/// The row that had the class may be gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_retried_job_is_as_urgent_as_before() -> anyhow::Result<()> {
    with_database(true, async |url, db| {
        for class in [0, 2] {
            let priority = if class == 0 { "high" } else { "low" };
            let mut request = request();
            request["priority"] = json!(priority);
            let job = create(url, db, &request).await?;
            let is = async |expected: i32| {
                let query = format!(
                    "SELECT priority::text AS value FROM job_stages WHERE job_id = '{job}'"
                );
                assert_eq!(value(url, &query).await?, Some(expected.to_string()));
                anyhow::Ok(())
            };
            is(class).await?;
            assert_eq!(cancel(db, job).await?, Canceled::Now);
            assert_eq!(stage_of(url, job).await?, None, "the row is gone");
            assert!(restart(db, retry_of(job)).await?.to.is_ok());
            is(class).await?;

            // It is there, and somebody has changed it since.
            let dispatched = "UPDATE job_stages SET state = 'dispatched', epoch = 5, stage = 'inpaint.submit', priority = 1";
            execute(url, &format!("{dispatched} WHERE job_id = '{job}'")).await?;
            give_up(db, job, "e").await?;
            assert!(restart(db, replay_of(job)).await?.to.is_ok());
            is(1).await?;
        }
        Ok(())
    })
    .await
}
