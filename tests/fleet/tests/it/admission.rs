//! Who may send: limits, pauses, the circuit and the money, as the database decides them. Each test fails when its guard is taken
//! out.

use std::time::Duration;

use serde_json::{Value, json};
use shared::db::{
    Claim, Claimed, Db, Fact, MoveState, MoveVerdict, SendAgain, Settlement, Signal, VendorChange,
    Verdict,
};
use shared::domain::admission::{Refusal, SignalKind};
use shared::domain::{LedgerState, Vendor};

use crate::ledger::{STAGE, accepted, again_of, claim_of, job, settlement};
use crate::sql::{execute, value, with_database};

const ACCOUNT: &str = "default";
const MAX_FAILURES: u32 = 3;
const MAX_REJECTS: u32 = 3;
/// Longer than a test: it ends when a test moves the clock.
const OPEN_MS: u64 = 3_600_000;

pub(crate) async fn change(db: &Db, change: Value) -> anyhow::Result<()> {
    db.change_vendor(&VendorChange {
        vendor: Vendor::Ghostcut,
        account: ACCOUNT.to_owned(),
        change,
        if_version: None,
        action: "vendor_limited",
        by: "test".to_owned(),
        reason: "test".to_owned(),
    })
    .await?;
    Ok(())
}

/// Claims for fresh jobs, all at once; those that were let through, and why the others were not.
pub(crate) async fn claims(
    url: &str,
    db: &Db,
    n: usize,
) -> anyhow::Result<(Vec<Claim>, Vec<Refusal>)> {
    let mut claims = Vec::new();
    for _ in 0..n {
        claims.push(claim_of(job(url, &json!({})).await?));
    }
    let verdicts =
        futures::future::try_join_all(claims.iter().map(|claim| db.claim(claim, b"body"))).await?;
    let (mut through, mut refused) = (Vec::new(), Vec::new());
    for (claim, verdict) in claims.into_iter().zip(verdicts) {
        match verdict {
            Claimed::Claimed { .. } => through.push(claim),
            Claimed::NotNow(why) => refused.push(why.why),
            other => anyhow::bail!("{other:?}"),
        }
    }
    Ok((through, refused))
}

pub(crate) async fn one(url: &str, db: &Db) -> anyhow::Result<Result<Claim, Refusal>> {
    let (mut through, refused) = claims(url, db, 1).await?;
    Ok(through.pop().ok_or_else(|| refused[0]))
}

/// Whether a redo may be sent by this account; the redone work is another account's, so that it does not count.
async fn permit(url: &str, db: &Db) -> anyhow::Result<Option<Refusal>> {
    let job = job(url, &json!({})).await?;
    let mut claim = claim_of(job);
    claim.account = "another".to_owned();
    let claimed = db.claim(&claim, b"body").await?;
    anyhow::ensure!(matches!(claimed, Claimed::Claimed { .. }), "{claimed:?}");
    let fact = accepted(claim.token, &format!("w-{}", claim.token));
    let mut only = settlement(job, 1, Some(fact));
    only.r#move = None;
    db.settle(&only).await?;
    let refused = db
        .take_send_permit(&SendAgain {
            account: ACCOUNT.to_owned(),
            ..again_of(&claim)
        })
        .await?;
    Ok(refused.map(|refused| refused.why))
}

/// The settlement of a claim with what its answer says about the account.
fn answered(claim: &Claim, fact: Fact, kind: SignalKind, reason: &str) -> Settlement {
    let mut settlement = settlement(claim.job, 1, Some(fact));
    settlement.signal = Some(Signal {
        vendor: Vendor::Ghostcut,
        account: ACCOUNT.to_owned(),
        kind,
        token: Some(claim.token),
        reason: reason.to_owned(),
        ms: OPEN_MS,
        max_failures: MAX_FAILURES,
        max_rejects: MAX_REJECTS,
        open_ms: OPEN_MS,
        open_cap_ms: 8 * OPEN_MS,
    });
    settlement
}

async fn answer(
    db: &Db,
    claim: &Claim,
    state: LedgerState,
    kind: SignalKind,
) -> anyhow::Result<Verdict> {
    let mut fact = Fact::new(claim.token, state);
    if state == LedgerState::Accepted {
        fact = accepted(claim.token, &format!("w-{}", claim.token));
    }
    Ok(db.settle(&answered(claim, fact, kind, "HTTP 500")).await?)
}

/// A rejection that would fail the job.
pub(crate) async fn reject(db: &Db, claim: &Claim, reason: &str) -> anyhow::Result<MoveVerdict> {
    let fact = Fact::new(claim.token, LedgerState::Rejected);
    let mut settlement = answered(claim, fact, SignalKind::Rejects, reason);
    if let Some(mv) = &mut settlement.r#move {
        (mv.state, mv.stage) = (MoveState::Done, None);
    }
    Ok(db.settle(&settlement).await?.r#move)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cap_is_exact_and_counts_what_is_unknown() -> anyhow::Result<()> {
    with_database(true, async |url, db| {
        change(db, json!({ "max_in_flight": 5 })).await?;
        let (through, refused) = claims(url, db, 30).await?;
        assert_eq!((through.len(), refused), (5, vec![Refusal::Full; 25]));
        assert_eq!(
            permit(url, db).await?,
            None,
            "a replay is in flight already"
        );

        // An unknown outcome may hold a slot at the vendor, a refused request does not.
        answer(db, &through[0], LedgerState::Unknown, SignalKind::Fails).await?;
        assert_eq!(claims(url, db, 3).await?.0.len(), 0);
        reject(db, &through[1], "no").await?;
        answer(db, &through[2], LedgerState::Accepted, SignalKind::Works).await?;
        assert_eq!(
            claims(url, db, 3).await?.0.len(),
            1,
            "one slot became free, an accepted work holds its own"
        );
        change(db, json!({ "max_in_flight": null })).await?;
        assert_eq!(claims(url, db, 3).await?.0.len(), 3);
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rate_is_exact_and_counts_replays() -> anyhow::Result<()> {
    with_database(true, async |url, db| {
        change(db, json!({ "max_per_minute": 0.001, "burst": 4 })).await?;
        assert_eq!(permit(url, db).await?, None);
        let (through, refused) = claims(url, db, 20).await?;
        assert_eq!((through.len(), refused), (3, vec![Refusal::Rate; 17]));
        assert_eq!(permit(url, db).await?, Some(Refusal::Rate));

        // Two tokens' worth of time, seen from the bucket.
        execute(
            url,
            "UPDATE vendors SET refilled_at = refilled_at - interval '2000 minutes'",
        )
        .await?;
        assert_eq!(claims(url, db, 20).await?.0.len(), 2);
        // However long nothing was sent, no more than the bucket holds.
        execute(
            url,
            "UPDATE vendors SET refilled_at = refilled_at - interval '1 year'",
        )
        .await?;
        assert_eq!(claims(url, db, 20).await?.0.len(), 4);
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_budget_is_exact_and_holds_back_only_what_is_new() -> anyhow::Result<()> {
    with_database(true, async |url, db| {
        // Each claim reserves 2.
        change(db, json!({ "daily_budget": 9 })).await?;
        let (through, refused) = claims(url, db, 20).await?;
        assert_eq!((through.len(), refused), (4, vec![Refusal::Budget; 16]));
        assert_eq!(
            permit(url, db).await?,
            None,
            "its money is reserved already"
        );

        // What was not taken costs nothing, what was charged counts as charged.
        reject(db, &through[0], "no").await?;
        assert_eq!(claims(url, db, 5).await?.0.len(), 1);
        answer(db, &through[1], LedgerState::Accepted, SignalKind::Works).await?;
        let mut ended = settlement(
            through[1].job,
            9,
            Some(Fact {
                charged: Some(0.5),
                ..Fact::new(through[1].token, LedgerState::Succeeded)
            }),
        );
        ended.r#move = None;
        db.settle(&ended).await?;
        assert_eq!(claims(url, db, 5).await?.0.len(), 1, "8 - 2 + 0.5 + 2");

        // Yesterday's money is not today's.
        assert_eq!(claims(url, db, 5).await?.0.len(), 0);
        execute(
            url,
            "UPDATE submissions SET claimed_at = claimed_at - interval '1 day'",
        )
        .await?;
        assert_eq!(claims(url, db, 5).await?.0.len(), 4);
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_low_balance_holds_back_what_is_new_and_one_too_old_does_not() -> anyhow::Result<()> {
    with_database(true, async |url, db| {
        let hour = Duration::from_secs(3600);
        let balance = async |points, valid| {
            db.record_balance(Vendor::Ghostcut, ACCOUNT, points, valid)
                .await
        };
        change(db, json!({ "balance_floor": 10 })).await?;
        assert!(one(url, db).await?.is_ok(), "nobody has read it yet");
        balance(9.0, hour).await?;
        assert_eq!(one(url, db).await?.unwrap_err(), Refusal::Floor);
        assert_eq!(permit(url, db).await?, None, "a redo costs no new work");
        balance(9.0, Duration::ZERO).await?;
        assert!(one(url, db).await?.is_ok(), "not read for too long");
        balance(10.0, hour).await?;
        let claim = one(url, db).await?.unwrap();

        // The vendor says that there is no credit. A balance above the floor ends that, one below does not.
        answer(db, &claim, LedgerState::Rejected, SignalKind::OutOfCredit).await?;
        balance(5.0, hour).await?;
        assert_eq!(one(url, db).await?.unwrap_err(), Refusal::OutOfCredit);
        assert_eq!(permit(url, db).await?, Some(Refusal::OutOfCredit));
        balance(50.0, hour).await?;
        assert!(one(url, db).await?.is_ok());
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn after_failures_in_a_row_one_probe_decides() -> anyhow::Result<()> {
    with_database(true, async |url, db| {
        let fails = SignalKind::Fails;
        let (sent, _) = claims(url, db, 8).await?;
        // Not in a row: an answer in between.
        for (n, claim) in sent[..4].iter().enumerate() {
            let (state, kind) = if n == 1 { (LedgerState::Accepted, SignalKind::Works) } else { (LedgerState::Unknown, fails) };
            answer(db, claim, state, kind).await?;
        }
        assert!(one(url, db).await?.is_ok());
        answer(db, &sent[4], LedgerState::Unknown, fails).await?;
        let (through, refused) = claims(url, db, 5).await?;
        assert_eq!((through.len(), refused), (0, vec![Refusal::Circuit; 5]));
        assert_eq!(permit(url, db).await?, Some(Refusal::Circuit));

        let later = "UPDATE vendors SET open_until = now() - interval '1 s'";
        let open_for = "SELECT round(extract(epoch FROM open_until - now()) / 3600)::text AS value FROM vendors";
        assert_eq!(value(url, open_for).await?.as_deref(), Some("1"));
        execute(url, later).await?;
        let (probe, refused) = claims(url, db, 10).await?;
        assert_eq!((probe.len(), refused), (1, vec![Refusal::Circuit; 9]), "one probe");
        assert_eq!(permit(url, db).await?, Some(Refusal::Circuit), "a replay is not a second one");
        // The end of a call from before says nothing; the probe's does, and the next wait is longer.
        answer(db, &sent[5], LedgerState::Unknown, fails).await?;
        assert_eq!(value(url, "SELECT (probe_until > now())::text AS value FROM vendors").await?.as_deref(), Some("true"));
        answer(db, &probe[0], LedgerState::Unknown, fails).await?;
        assert_eq!(value(url, open_for).await?.as_deref(), Some("2"));

        // The probe died: after its send deadline there is another one. This time it is a replay, and works.
        execute(url, later).await?;
        assert_eq!(claims(url, db, 3).await?.0.len(), 1);
        execute(url, "UPDATE vendors SET probe_until = now() - interval '1 s'").await?;
        let (probe, _) = claims(url, db, 3).await?;
        answer(db, &probe[0], LedgerState::Accepted, SignalKind::Works).await?;
        assert_eq!(claims(url, db, 5).await?.0.len(), 5);
        let trail = "SELECT string_agg(action, ' ' ORDER BY id) AS value FROM operator_events";
        assert_eq!(value(url, trail).await?.as_deref(), Some("circuit_opened circuit_closed"));
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn many_jobs_rejected_for_one_reason_wait_instead_of_failing() -> anyhow::Result<()> {
    with_database(true, async |url, db| {
        let (sent, _) = claims(url, db, 8).await?;
        // A page of somebody between us and the vendor, which reads otherwise each time.
        let edges = ["iad::ysqxxv", "fra::kkqa", "lhr::pq", "sfo::zz", "gru::abc", "hnd::x"];
        let not_found = |n: usize| format!("HTTP 404 without a code: not found at {} (trace {n}a8b)", edges[n]);
        // Alone it is the job's fault; and so is another reason.
        assert_eq!(reject(db, &sent[0], &not_found(0)).await?, MoveVerdict::Moved);
        assert_eq!(reject(db, &sent[1], "code 4001: illegal parameter").await?, MoveVerdict::Moved);
        // One after the other for one reason: the first may be at fault, the others wait.
        assert_eq!(reject(db, &sent[2], &not_found(1)).await?, MoveVerdict::Moved);
        assert_eq!(reject(db, &sent[3], &not_found(2)).await?, MoveVerdict::Held);
        assert!(one(url, db).await?.is_ok(), "two are not enough to stop the others");
        assert_eq!(reject(db, &sent[4], &not_found(3)).await?, MoveVerdict::Held);
        assert_eq!(one(url, db).await?.unwrap_err(), Refusal::Circuit);
        let held = format!(
            "SELECT s.state || ' ' || j.status AS value FROM job_stages s JOIN video_jobs j ON j.id = s.job_id \
             WHERE s.job_id = '{}'", sent[4].job
        );
        assert_eq!(value(url, &held).await?.as_deref(), Some("waiting processing"));

        // The probe is rejected like the others: it waits as well. Then the vendor takes work again.
        let later = "UPDATE vendors SET open_until = now() - interval '1 s'";
        execute(url, later).await?;
        let probe = one(url, db).await?.unwrap();
        assert_eq!(reject(db, &probe, &not_found(4)).await?, MoveVerdict::Held);
        assert_eq!(one(url, db).await?.unwrap_err(), Refusal::Circuit);
        execute(url, later).await?;
        let probe = one(url, db).await?.unwrap();
        answer(db, &probe, LedgerState::Accepted, SignalKind::Works).await?;
        let claim = one(url, db).await?.unwrap();
        assert_eq!(reject(db, &claim, &not_found(5)).await?, MoveVerdict::Moved, "it is the job's fault again");
        Ok(())
    })
    .await
}

/// `concurrency_limit_reached`: no more in flight than the vendor was seen to have, and nothing is paused.
#[tokio::test(flavor = "multi_thread")]
async fn full_slots_at_the_vendor_are_a_cap_and_no_pause() -> anyhow::Result<()> {
    with_database(true, async |url, db| {
        let (sent, _) = claims(url, db, 4).await?;
        for claim in &sent[..2] {
            answer(db, claim, LedgerState::Accepted, SignalKind::Works).await?;
        }
        answer(db, &sent[2], LedgerState::Unknown, SignalKind::Slots).await?;
        assert_eq!(one(url, db).await?.unwrap_err(), Refusal::Full);
        assert_eq!(
            permit(url, db).await?,
            None,
            "what waits for a slot asks for it again"
        );
        // `rate_limit_exceeded` stops replays too.
        answer(db, &sent[3], LedgerState::Unknown, SignalKind::Throttled).await?;
        assert_eq!(permit(url, db).await?, Some(Refusal::Throttled));
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_by_hand_outlasts_what_the_vendor_says() -> anyhow::Result<()> {
    with_database(true, async |url, db| {
        let claim = one(url, db).await?.unwrap();
        change(
            db,
            json!({ "hold_ms": null, "held_reason": "r", "held_by": "b" }),
        )
        .await?;
        assert_eq!(one(url, db).await?.unwrap_err(), Refusal::Manual);
        assert_eq!(permit(url, db).await?, Some(Refusal::Manual));
        answer(db, &claim, LedgerState::Accepted, SignalKind::Works).await?;
        assert_eq!(one(url, db).await?.unwrap_err(), Refusal::Manual);
        change(
            db,
            json!({ "held_until": null, "held_reason": null, "held_by": null }),
        )
        .await?;
        assert!(one(url, db).await?.is_ok());
        for statement in [
            "UPDATE operator_events SET actor = 'x'",
            "DELETE FROM operator_events",
        ] {
            let error = execute(url, statement).await.unwrap_err().to_string();
            assert!(error.contains("append-only"), "{error}");
        }
        Ok(())
    })
    .await
}

/// A full account must not make the fleet spin, and what is not known must be cleared up whatever is full: that makes room.
#[tokio::test(flavor = "multi_thread")]
async fn no_more_is_dispatched_than_there_is_room_for_but_what_is_unknown_is() -> anyhow::Result<()>
{
    with_database(true, async |url, db| {
        let lease = Duration::from_secs(60);
        let pick = async || {
            let by = Some((Vendor::Ghostcut, ACCOUNT));
            let picked = db.pick_due(STAGE, 100, 100, lease, by).await?;
            anyhow::Ok(picked.iter().map(|row| row.job_id).collect::<Vec<_>>())
        };
        let (unknown, _) = claims(url, db, 2).await?;
        for claim in &unknown {
            let mut settlement = answered(
                claim,
                Fact::new(claim.token, LedgerState::Unknown),
                SignalKind::Fails,
                "",
            );
            settlement.r#move = None;
            db.settle(&settlement).await?;
        }
        for _ in 0..6 {
            job(url, &json!({})).await?;
        }
        let due = "UPDATE job_stages SET state = 'waiting', due_at = now() - interval '1 s'";
        execute(url, due).await?;
        change(db, json!({ "max_in_flight": 5 })).await?;
        let picked = pick().await?;
        assert_eq!(
            picked.len(),
            2 + 3,
            "the unknown ones, and as many as there is room for"
        );
        assert!(unknown.iter().all(|claim| picked.contains(&claim.job)));
        assert_eq!(pick().await?.len(), 0, "those on their way use the room");

        let refusing = [
            json!({ "max_in_flight": 2 }),
            json!({ "max_in_flight": null, "daily_budget": 4 }),
            json!({ "daily_budget": null, "hold_ms": null, "held_reason": "r", "held_by": "b" }),
        ];
        for refusal in refusing {
            change(db, refusal.clone()).await?;
            execute(url, due).await?;
            assert_eq!(pick().await?.len(), 2, "only the unknown ones: {refusal}");
        }
        change(
            db,
            json!({ "held_until": null, "held_reason": null, "held_by": null }),
        )
        .await?;
        change(db, json!({ "max_per_minute": 0.001, "burst": 1 })).await?;
        execute(url, due).await?;
        assert_eq!(pick().await?.len(), 2 + 1, "one token");
        change(db, json!({ "max_per_minute": null })).await?;
        execute(url, due).await?;
        assert_eq!(pick().await?.len(), 8);
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn costs_are_what_was_charged_else_what_was_expected() -> anyhow::Result<()> {
    with_database(true, async |url, db| {
        let (sent, _) = claims(url, db, 6).await?;
        let end = async |claim: &Claim, state, charged| {
            let mut ended = settlement(
                claim.job,
                9,
                Some(Fact {
                    charged,
                    ..Fact::new(claim.token, state)
                }),
            );
            ended.r#move = None;
            db.settle(&ended).await
        };
        for claim in &sent[1..] {
            answer(db, claim, LedgerState::Accepted, SignalKind::Works).await?;
        }
        reject(db, &sent[0], "no").await?;
        end(&sent[1], LedgerState::Succeeded, Some(1.5)).await?;
        end(&sent[2], LedgerState::Succeeded, None).await?;
        end(&sent[3], LedgerState::Failed, Some(0.25)).await?;
        // Nobody waits for this one's result any more.
        execute(
            url,
            &format!(
                "UPDATE video_jobs SET status = 'canceled' WHERE id = '{}'",
                sent[4].job
            ),
        )
        .await?;
        end(&sent[4], LedgerState::Succeeded, Some(1.0)).await?;

        let days = db.cost_days(1, false).await?;
        let [day] = &days[..] else { panic!("{days:?}") };
        assert_eq!(
            (
                day.vendor.as_str(),
                day.submissions,
                day.reserved,
                day.charged,
                day.wasted
            ),
            ("ghostcut", 5, 2.0, 1.5 + 2.0 + 0.25 + 1.0, 0.25 + 1.0)
        );
        // Money outlives the job, and so does whose it was (in these tests a job is its own user).
        execute(
            url,
            &format!("DELETE FROM video_jobs WHERE id = '{}'", sent[1].job),
        )
        .await?;
        let users = db.cost_days(1, true).await?;
        let of = |claim: &Claim| {
            users
                .iter()
                .find(|day| day.user_id == Some(claim.job))
                .map(|day| day.charged)
        };
        assert_eq!((of(&sent[1]), of(&sent[2])), (Some(1.5), Some(2.0)));
        let total = db.cost_totals().await?;
        assert_eq!(
            (total[0].charged, total[0].wasted),
            (day.charged, day.wasted)
        );
        Ok(())
    })
    .await
}
