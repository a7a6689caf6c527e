//! A person's decision about an unknown outcome. Everything that can be checked is checked first; what is then written is written by
//! `settle`, which takes it only while the outcome still is unknown.

use anyhow::{Context as _, bail, ensure};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use shared::db::{Db, LedgerVerdict, MoveVerdict, UnknownRow, Verdict};
use shared::domain::search::{AROUND, Marker, is_of, weigh};
use shared::domain::{LedgerState, Vendor};
use shared::storage::Storage;

use super::show::find;
use super::{AdoptArgs, ConfirmArgs};
use crate::booking::{About, found, not_there};
use crate::vendors::Vendors;

/// The vendor has the work.
pub(super) async fn adopt(args: &AdoptArgs) -> anyhow::Result<()> {
    let db = Db::new(&args.database)?;
    let row = find(&db, args.token).await?;
    let vendor: Vendor = row.vendor.parse()?;
    let vendors = args.accounts.vendors()?;
    check_account(&vendors, vendor, &row)?;
    ensure!(
        matches!(state(&row)?, LedgerState::Unknown | LedgerState::Absent),
        "the submission is {}, not unknown: nothing is to be decided",
        row.state
    );
    let works = vendors
        .status(vendor, std::slice::from_ref(&args.task_id))
        .await?;
    let work = works.first().with_context(|| {
        format!(
            "{vendor} does not know a work {}; is that its id?",
            args.task_id
        )
    })?;
    if !is_of(work, row.token) {
        // Another customer's result, perhaps: no force helps.
        if let Some(marker) = Marker::of(work) {
            bail!(
                "the work {} belongs to another submission: {} of job {}",
                work.task_id,
                marker.token,
                marker.job
            );
        }
        ensure!(
            args.force,
            "the vendor shows neither our name nor our URL with the work {}; --force adopts it nevertheless",
            work.task_id
        );
    }
    let operator = &args.operator;
    let detail = json!({ "action": "adopt", "task_id": work.task_id, "forced": args.force, "reason": operator.reason });
    let settlement = found(about(vendor, &row), work, &operator.by, "operator", detail);
    // Model: step Adopt.
    let verdict = db.settle(&settlement).await?;
    let done = format!("{vendor}'s work {} is booked", work.task_id);
    tell(verdict, &done, "is polled next")
}

/// The vendor never got the request.
pub(super) async fn confirm_not_accepted(args: &ConfirmArgs) -> anyhow::Result<()> {
    let db = Db::new(&args.database)?;
    let row = find(&db, args.token).await?;
    let vendor: Vendor = row.vendor.parse()?;
    let vendors = args.accounts.vendors()?;
    check_account(&vendors, vendor, &row)?;
    ensure!(
        state(&row)? == LedgerState::Unknown,
        "the submission is {}, not unknown: nothing is to be decided",
        row.state
    );
    until(
        row.send_deadline,
        row.now,
        "until then the request may still be sent",
    )?;
    if !args.force {
        let (at, why) = earliest(args, vendor, &row)?;
        until(at, row.now, why)?;
    }
    match absence(&db, &vendors, vendor, &row).await {
        Ok(None) => {}
        Ok(Some(work)) => bail!(
            "{vendor} lists the work {work} for this submission: adopt it with `producer unknowns adopt {} --task-id {work}`",
            row.token
        ),
        Err(error) if args.force => {
            tracing::warn!("nothing proves that it is not there: {error:#}")
        }
        Err(error) => {
            return Err(
                error.context("the vendor's list has to prove it first; --force goes without")
            );
        }
    }
    if vendor == Vendor::Ghostcut {
        delete_source(args, &db, &row).await?;
    }
    let operator = &args.operator;
    let detail = json!({ "action": "confirm_not_accepted", "forced": args.force, "reason": operator.reason });
    let settlement = not_there(about(vendor, &row), &operator.by, "operator", detail);
    // Model: step ConfirmNotAccepted.
    let verdict = db.settle(&settlement).await?;
    tell(
        verdict,
        "the submission counts as not accepted",
        "pays for a new attempt",
    )
}

/// The work of the vendor's list that is this submission's, if there is one. An error: that none is listed proves nothing.
async fn absence(
    db: &Db,
    vendors: &Vendors,
    vendor: Vendor,
    row: &UnknownRow,
) -> anyhow::Result<Option<String>> {
    let from = row.claimed_at - AROUND;
    let works = vendors.list(vendor, from, row.now + AROUND).await?;
    if let Some(work) = works.iter().find(|work| is_of(work, row.token)) {
        return Ok(Some(work.task_id.clone()));
    }
    let known = db
        .known_works(vendor, &row.account, from, row.now, row.token)
        .await?;
    let evidence = weigh(&works, &known, row.send_deadline);
    ensure!(
        evidence.controls > 0,
        "{vendor} lists {} works of that time and none of them is known to be ours, so the list is not proved to show ours",
        works.len()
    );
    ensure!(
        evidence.undecidable == 0,
        "{vendor} lists {} works that may be anybody's, this submission's too",
        evidence.undecidable
    );
    Ok(None)
}

/// From when on a person can decide better than the fleet, and why not before. The last repetition to Sync.so may be under way when
/// the window ends. A work at GhostCut that shows up late needs its source, which is deleted next.
fn earliest(
    args: &ConfirmArgs,
    vendor: Vendor,
    row: &UnknownRow,
) -> anyhow::Result<(DateTime<Utc>, &'static str)> {
    let protocol = &args.protocol;
    Ok(match vendor {
        Vendor::Sync => (
            row.claimed_at
                + TimeDelta::from_std(protocol.sync_replay_window + protocol.send_deadline)?,
            "until then the worker repeats the request under its key, which clears it up; --force does not wait",
        ),
        Vendor::Ghostcut => (
            row.send_deadline + TimeDelta::from_std(protocol.ghostcut_settle_time)?,
            "until then the work may still show up, and nothing is deleted; --force does not wait",
        ),
    })
}

/// A request that comes late must fail: its source is deleted, and one that was being downloaded has the settle time to show up.
async fn delete_source(args: &ConfirmArgs, db: &Db, row: &UnknownRow) -> anyhow::Result<()> {
    let mut deleted = row.source_deleted_at;
    if deleted.is_none() {
        if let Some(key) = &row.source_key {
            let storage = Storage::new(&args.storage).context("object storage")?;
            storage
                .delete(key)
                .await
                .context("the submission's source cannot be deleted")?;
        }
        // Killed here: the object is deleted again and the settle time counts from then.
        deleted = db.record_source_deleted(row.token).await?;
    }
    if args.force {
        return Ok(());
    }
    let settle = TimeDelta::from_std(args.protocol.ghostcut_settle_time)?;
    let at = deleted.unwrap_or(row.send_deadline) + settle;
    ensure!(
        db.now().await? >= at,
        "the source is deleted, so that a late request can only fail; run this again at {}: a request that came before may still \
         show up (--force does not wait)",
        at.format("%Y-%m-%d %H:%M:%S UTC")
    );
    Ok(())
}

fn until(at: DateTime<Utc>, now: DateTime<Utc>, why: &str) -> anyhow::Result<()> {
    ensure!(
        now >= at,
        "too early: run this again at {} ({why})",
        at.format("%Y-%m-%d %H:%M:%S UTC")
    );
    Ok(())
}

fn check_account(vendors: &Vendors, vendor: Vendor, row: &UnknownRow) -> anyhow::Result<()> {
    let ours = vendors.account(vendor);
    ensure!(
        row.account == ours,
        "the submission was for the account `{}`, these settings are for `{ours}`: set {}_ACCOUNT and its keys",
        row.account,
        row.vendor.to_uppercase()
    );
    Ok(())
}

fn about(vendor: Vendor, row: &UnknownRow) -> About {
    About {
        vendor,
        job: row.job_id,
        token: row.token,
    }
}

fn state(row: &UnknownRow) -> anyhow::Result<LedgerState> {
    Ok(row.state.parse()?)
}

/// Says what `settle` made of it.
fn tell(verdict: Verdict, done: &str, next: &str) -> anyhow::Result<()> {
    match verdict.ledger {
        LedgerVerdict::Written | LedgerVerdict::Same => {}
        LedgerVerdict::Kept => {
            bail!("meanwhile the outcome became known: look again with `producer unknowns show`")
        }
        LedgerVerdict::Second => {
            bail!("the submission has another work already: this one was paid for too")
        }
        LedgerVerdict::Taken => {
            bail!("that work belongs to another submission; the trail of the job says so now")
        }
        LedgerVerdict::None => bail!("nothing was written"),
    }
    match verdict.r#move {
        MoveVerdict::Moved => tracing::info!("{done}; the job {next}"),
        MoveVerdict::Lost | MoveVerdict::Held | MoveVerdict::None => {
            tracing::info!("{done}; the job does not wait for it and stays where it is");
        }
    }
    Ok(())
}
