//! A person's decision about an unknown outcome. Everything that can be checked is checked first; what is then written is written by
//! `settle`, which takes it only while the outcome still is unknown.

use anyhow::{Context as _, bail, ensure};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use shared::crash::{self, Point};
use shared::db::{Db, LedgerVerdict, MoveVerdict, UnknownRow, Verdict};
use shared::domain::search::{AROUND, Marker, is_of};
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
    crash::point(Point::DecisionSettled);
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
    match listed(&vendors, vendor, &row).await {
        Ok(None) => {}
        Ok(Some(work)) => bail!(
            "{vendor} lists the work {work} for this submission: adopt it with `producer unknowns adopt {} --task-id {work}`",
            row.token
        ),
        Err(error) if args.force => tracing::warn!("{vendor} was not asked: {error:#}"),
        Err(error) => {
            return Err(error.context("the vendor has to be asked first; --force goes without"));
        }
    }
    let wait = match vendor {
        Vendor::Sync => sync_wait(args, &row)?,
        Vendor::Ghostcut => ghostcut_wait(args, &db, &row).await?,
    };
    if !args.force {
        let (at, why) = wait;
        until(
            at,
            db.now().await?,
            &format!("{why}; --force does not wait"),
        )?;
    }
    let operator = &args.operator;
    let detail = json!({ "action": "confirm_not_accepted", "forced": args.force, "reason": operator.reason });
    let settlement = not_there(about(vendor, &row), &operator.by, "operator", detail);
    // Model: step ConfirmNotAccepted.
    let verdict = db.settle(&settlement).await?;
    crash::point(Point::DecisionSettled);
    tell(
        verdict,
        "the submission counts as not accepted",
        "pays for a new attempt",
    )
}

/// A work of the vendor's list that is this submission's.
async fn listed(
    vendors: &Vendors,
    vendor: Vendor,
    row: &UnknownRow,
) -> anyhow::Result<Option<String>> {
    let works = vendors
        .list(vendor, row.claimed_at - AROUND, row.now + AROUND)
        .await?;
    let work = works.into_iter().find(|work| is_of(work, row.token));
    Ok(work.map(|work| work.task_id))
}

/// While Sync.so may be asked again under the key, that clears it up better than a person can; the last of these requests may be
/// under way when the window ends.
fn sync_wait(
    args: &ConfirmArgs,
    row: &UnknownRow,
) -> anyhow::Result<(DateTime<Utc>, &'static str)> {
    let window = args.protocol.sync_replay_window + args.protocol.send_deadline;
    let until = row.claimed_at + TimeDelta::from_std(window)?;
    Ok((
        until,
        "until then the worker repeats the request under its key, which clears it up",
    ))
}

/// A request that comes late must fail: its source is deleted, and one that was being downloaded has the settle time to show up.
async fn ghostcut_wait(
    args: &ConfirmArgs,
    db: &Db,
    row: &UnknownRow,
) -> anyhow::Result<(DateTime<Utc>, &'static str)> {
    let mut deleted = row.source_deleted_at;
    if deleted.is_none() {
        if let Some(key) = &row.source_key {
            let storage = Storage::new(&args.storage).context("object storage")?;
            storage
                .delete(key)
                .await
                .context("the submission's source cannot be deleted")?;
        }
        crash::point(Point::OperatorSourceDeleted);
        deleted = db.record_source_deleted(row.token).await?;
        crash::point(Point::OperatorDeletionRecorded);
    }
    let settle = TimeDelta::from_std(args.protocol.ghostcut_settle_time)?;
    let until = deleted.unwrap_or(row.send_deadline) + settle;
    Ok((
        until,
        "the source is deleted, and until then a request that came before may still show up",
    ))
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
