//! Jobs that a vendor rejects again and again, beside others that it would take.

use std::time::Duration;

use serde_json::json;
use shared::db::{Claim, Claimed, Db, MoveVerdict};
use shared::domain::Vendor;
use uuid::Uuid;

use crate::admission::{claims, reject};
use crate::ledger::{STAGE, claim_of, job, stage_of};
use crate::sql::{execute, value, with_database};

const NOT_FOUND: &str = "HTTP 404 without a code: not found";
/// The circuit may be tried again.
const LATER: &str =
    "UPDATE vendors SET open_until = now() - interval '1 s' WHERE open_until IS NOT NULL";

/// The next attempt of a job that was held is rejected for the usual reason; it is dispatched anew before.
async fn rejected_again(
    url: &str,
    db: &Db,
    job: Uuid,
    attempt: i32,
) -> anyhow::Result<MoveVerdict> {
    let dispatched = format!(
        "{LATER}; UPDATE job_stages SET state = 'dispatched', epoch = 1, due_at = now() + interval '1 minute' \
         WHERE job_id = '{job}'"
    );
    execute(url, &dispatched).await?;
    let claim = Claim {
        attempt,
        ..claim_of(job)
    };
    let claimed = db.claim(&claim, b"body").await?;
    anyhow::ensure!(matches!(claimed, Claimed::Claimed { .. }), "{claimed:?}");
    reject(db, &claim, NOT_FOUND).await
}

/// A vendor that rejects two jobs for one reason is not proved to reject everybody: each of them may be at fault itself, and one
/// that is must not wait for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_rejected_three_times_is_at_fault_itself() -> anyhow::Result<()> {
    with_database(true, async |url, db| {
        let (first, _) = claims(url, db, 1).await?;
        assert_eq!(
            reject(db, &first[0], NOT_FOUND).await?,
            MoveVerdict::Moved,
            "alone it is the job's fault"
        );
        let job = job(url, &json!({})).await?;
        let mut verdicts = Vec::new();
        for attempt in 1..=3 {
            verdicts.push(rejected_again(url, db, job, attempt).await?);
        }
        assert_eq!(
            verdicts,
            [MoveVerdict::Held, MoveVerdict::Held, MoveVerdict::Moved]
        );
        assert_eq!(stage_of(url, job).await?, None, "it has ended");
        Ok(())
    })
    .await
}

/// After an open circuit one job is let through. One whose body is what the vendor rejects would keep it open for everybody.
#[tokio::test(flavor = "multi_thread")]
async fn the_probe_is_the_job_that_was_rejected_least() -> anyhow::Result<()> {
    with_database(true, async |url, db| {
        let (first, _) = claims(url, db, 1).await?;
        reject(db, &first[0], NOT_FOUND).await?;
        let (often, once, fresh) = (
            job(url, &json!({})).await?,
            job(url, &json!({})).await?,
            job(url, &json!({})).await?,
        );
        for (job, attempt) in [(often, 1), (often, 2), (once, 1)] {
            assert_eq!(
                rejected_again(url, db, job, attempt).await?,
                MoveVerdict::Held
            );
        }
        let open = "SELECT open_kind AS value FROM vendors";
        assert_eq!(value(url, open).await?.as_deref(), Some("rejects"));
        let due = |job: Uuid, seconds: i32, priority: i32| {
            format!(
                "UPDATE job_stages SET state = 'waiting', due_at = now() - interval '{seconds} s', priority = {priority} \
                 WHERE job_id = '{job}'; "
            )
        };
        let pick = async || {
            let by = Some((Vendor::Ghostcut, "default"));
            let lease = Duration::from_secs(60);
            let picked = db.pick_due(STAGE, 100, 100, lease, by).await?;
            anyhow::Ok(picked.iter().map(|row| row.job_id).collect::<Vec<_>>())
        };
        // The one that was rejected most is the most urgent and the oldest.
        let line = [due(often, 300, 0), due(once, 200, 1), due(fresh, 100, 2)].concat();
        execute(url, &line).await?;
        assert!(pick().await?.is_empty(), "the circuit is open");
        execute(url, LATER).await?;
        assert_eq!(pick().await?, [fresh]);
        let gone = format!("DELETE FROM job_stages WHERE job_id = '{fresh}'");
        execute(url, &gone).await?;
        assert_eq!(pick().await?, [once]);

        // Where many may be sent, they go in the usual order.
        execute(
            url,
            "UPDATE vendors SET open_until = NULL, open_kind = NULL, opened_at = NULL",
        )
        .await?;
        execute(url, &[due(often, 300, 1), due(once, 200, 1)].concat()).await?;
        let set = json!({ "max_in_flight": 1 });
        crate::admission::change(db, set).await?;
        assert_eq!(pick().await?, [often]);
        Ok(())
    })
    .await
}
