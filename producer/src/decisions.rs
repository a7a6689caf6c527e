//! A person's decision about an unknown outcome, for the command line and for the HTTP API. Everything that can be checked is
//! checked first; what is then written is written by `settle`, which takes it only while the outcome still is unknown.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use shared::config::ProtocolConfig;
use shared::crash::{self, Point};
use shared::db::{
    Db, DbError, FleetTimes, LedgerVerdict, MoveVerdict, UnknownFilter, UnknownRow, Verdict,
};
use shared::domain::classify::ErrorClass;
use shared::domain::search::{AROUND, Marker, is_of, weigh};
use shared::domain::{LedgerState, Vendor};
use shared::storage::{Storage, StorageError};
use shared::telemetry::chain;
use shared::vendor::VendorError;
use uuid::Uuid;

use crate::booking::{About, found, not_there};
use crate::times;
use crate::vendors::Vendors;

/// What deciding needs. Cheap to clone.
#[derive(Clone)]
pub struct Decider {
    /// Database.
    pub db: Db,
    /// The accounts that are asked first.
    pub vendors: Vendors,
    /// Where a submission's own source is deleted.
    pub storage: Storage,
    /// Times of the protocol here. Those that the fleet runs with count where they are longer.
    pub protocol: ProtocolConfig,
}

/// Where a person decides: a refusal advises in the words of that place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Surface {
    /// `producer unknowns`.
    CommandLine,
    /// `/v1/unknowns`, for programs and for the page: in words that both have.
    Http,
}

impl Surface {
    /// What goes without a proof.
    const fn force(self) -> &'static str {
        match self {
            Self::CommandLine => "--force",
            Self::Http => "force",
        }
    }

    /// How to look again.
    fn show(self, token: Uuid) -> String {
        match self {
            Self::CommandLine => format!("look again with `producer unknowns show {token}`"),
            Self::Http => format!("look at submission {token} again"),
        }
    }

    /// With what it is adopted.
    fn adopt(self, token: Uuid, work: &str) -> String {
        match self {
            Self::CommandLine => format!("`producer unknowns adopt {token} --task-id {work}`"),
            Self::Http => format!("its id {work}"),
        }
    }
}

/// A decision.
#[derive(Clone, Debug)]
pub struct Decision {
    /// About this submission.
    pub token: Uuid,
    /// Who.
    pub by: String,
    /// Why.
    pub reason: String,
    /// Go without what is otherwise waited for or asked first.
    pub force: bool,
    /// Where it was made.
    pub surface: Surface,
}

/// Why a decision was not written.
#[derive(Debug, thiserror::Error)]
pub enum DecisionError {
    /// There is no such submission.
    #[error("there is no submission {0}; `producer unknowns list` shows those that are unknown")]
    Gone(Uuid),
    /// It cannot be decided so, or not yet; says what to do.
    #[error("{0}")]
    Refused(String),
    /// That the vendor's list does not show the work proves nothing.
    #[error("the vendor's list has to prove it first: {0}")]
    Unproved(String),
    /// The vendor does not answer.
    #[error("the vendor has to be asked first")]
    Vendor(#[from] VendorError),
    /// The submission's source cannot be deleted.
    #[error("the submission's source cannot be deleted")]
    Storage(#[from] StorageError),
    /// The database does not answer.
    #[error("the database failed")]
    Database(#[from] DbError),
}

type Decided = Result<String, DecisionError>;

fn refused<T>(why: impl Into<String>) -> Result<T, DecisionError> {
    Err(DecisionError::Refused(why.into()))
}

impl Decider {
    /// The vendor has the work: books it under its id. Says in words what the job does now.
    ///
    /// # Errors
    /// Why nothing was written.
    pub async fn adopt(&self, decision: &Decision, task_id: &str) -> Decided {
        let (row, vendor) = self.find(decision.token).await?;
        let state = state(&row)?;
        if !matches!(state, LedgerState::Unknown | LedgerState::Absent) {
            return refused(format!(
                "the submission is {state}, not unknown: nothing is to be decided"
            ));
        }
        let works = match self.vendors.status(vendor, &[task_id.to_owned()]).await {
            Err(error) if error.class() == ErrorClass::Protocol => {
                return refused(format!(
                    "{vendor} does not take `{task_id}` for the id of a work: {}",
                    chain(&error)
                ));
            }
            answer => answer?,
        };
        let Some(work) = works.first() else {
            return refused(format!(
                "{vendor} does not know a work {task_id}; is that its id?"
            ));
        };
        if !is_of(work, row.token) {
            // Another customer's result, perhaps: no force helps.
            if let Some(marker) = Marker::of(work) {
                return refused(format!(
                    "the work {} belongs to another submission: {} of job {}",
                    work.task_id, marker.token, marker.job
                ));
            }
            if !decision.force {
                return refused(format!(
                    "the vendor shows neither our name nor our URL with the work {}; {} adopts it nevertheless",
                    work.task_id,
                    decision.surface.force()
                ));
            }
        }
        let detail = json!({ "action": "adopt", "task_id": work.task_id, "forced": decision.force, "reason": decision.reason });
        let settlement = found(about(vendor, &row), work, &decision.by, "operator", detail);
        // Model: step Adopt.
        let verdict = self.db.settle(&settlement).await?;
        crash::point(Point::DecisionSettled);
        let done = format!("{vendor}'s work {} is booked", work.task_id);
        told(verdict, decision, &done, "is polled next")
    }

    /// The vendor never got the request: lets the job pay for a new attempt. Says in words what the job does now.
    ///
    /// # Errors
    /// Why nothing was written.
    pub async fn confirm_not_accepted(&self, decision: &Decision) -> Decided {
        let (row, vendor) = self.find(decision.token).await?;
        let state = state(&row)?;
        // A callback that came to nothing keeps the job of an absent one from paying, until somebody has looked.
        let is_open = match state {
            LedgerState::Unknown => true,
            LedgerState::Absent => self.db.has_failed_callbacks(row.token).await?,
            _ => false,
        };
        if !is_open {
            return refused(format!(
                "the submission is {state}, not unknown: nothing is to be decided"
            ));
        }
        let times = self
            .db
            .fleet_times(FleetTimes::from(&self.protocol))
            .await?;
        if !decision.force {
            self.in_time(vendor, &row, &times, decision)?;
        } else if row.now < row.send_deadline {
            return refused(format!(
                "too early: run this again at {}; until then the request may still be sent, whoever says otherwise",
                moment(row.send_deadline)
            ));
        }
        match self.absence(vendor, &row).await {
            Ok(None) => {}
            Ok(Some(work)) => {
                return refused(format!(
                    "{vendor} lists the work {work} for this submission: adopt it with {}",
                    decision.surface.adopt(row.token, &work)
                ));
            }
            Err(error @ (DecisionError::Unproved(_) | DecisionError::Vendor(_)))
                if decision.force =>
            {
                tracing::warn!(
                    error = chain(&error),
                    "nothing proves that the work is not there"
                );
            }
            Err(DecisionError::Unproved(why)) => {
                let force = decision.surface.force();
                return Err(DecisionError::Unproved(format!(
                    "{why}. Look for the work at the vendor's dashboard, or wait; only who is sure that it is not there goes on with \
                     {force}: if it is there, it is paid for twice"
                )));
            }
            Err(error) => return Err(error),
        }
        if vendor == Vendor::Ghostcut {
            self.delete_source(&row, decision, &times).await?;
        }
        let detail = json!({ "action": "confirm_not_accepted", "forced": decision.force, "reason": decision.reason });
        let settlement = not_there(about(vendor, &row), &decision.by, "operator", detail);
        // Killed after it: the search goes on as if nobody had called back, and the decision can be made again.
        self.db.dismiss_callbacks(row.token, row.now).await?;
        // Model: step ConfirmNotAccepted.
        let verdict = self.db.settle(&settlement).await?;
        crash::point(Point::DecisionSettled);
        let done = "the submission counts as not accepted";
        let told = told(verdict, decision, done, "pays for a new attempt")?;
        Ok(if state == LedgerState::Absent {
            format!("{done}; its job pays for a new attempt once it is resumed")
        } else {
            told
        })
    }

    async fn find(&self, token: Uuid) -> Result<(UnknownRow, Vendor), DecisionError> {
        let filter = UnknownFilter {
            token: Some(token),
            ..UnknownFilter::default()
        };
        let row = self.db.unknowns(filter).await?.pop();
        let row = row.ok_or(DecisionError::Gone(token))?;
        let vendor: Vendor = row.vendor.parse().map_err(DbError::from)?;
        let ours = self.vendors.account(vendor);
        if row.account != ours {
            return refused(format!(
                "the submission was for the account `{}`, these settings are for `{ours}`: set {}_ACCOUNT and its keys",
                row.account,
                row.vendor.to_uppercase()
            ));
        }
        Ok((row, vendor))
    }

    /// The work of the vendor's list that is this submission's, if there is one. An error: that none is listed proves nothing.
    async fn absence(
        &self,
        vendor: Vendor,
        row: &UnknownRow,
    ) -> Result<Option<String>, DecisionError> {
        let from = row.claimed_at - AROUND;
        let works = self.vendors.list(vendor, from, row.now + AROUND).await?;
        if let Some(work) = works.iter().find(|work| is_of(work, row.token)) {
            return Ok(Some(work.task_id.clone()));
        }
        let known = self
            .db
            .known_works(vendor, &row.account, from, row.now, row.token)
            .await?;
        let evidence = weigh(&works, &known, row.send_deadline);
        if evidence.controls == 0 {
            return Err(DecisionError::Unproved(format!(
                "{vendor} lists {} works from around that time, and besides this submission none of them is known to be ours, so the \
                 list is not proved to show ours",
                works.len()
            )));
        }
        if evidence.undecidable > 0 {
            return Err(DecisionError::Unproved(format!(
                "{vendor} lists {} works that may be anybody's, this submission's too",
                evidence.undecidable
            )));
        }
        Ok(None)
    }

    /// Refuses a decision that the fleet can still take better, with every time that is to come: whoever waits for one must not be
    /// told of the next one then.
    fn in_time(
        &self,
        vendor: Vendor,
        row: &UnknownRow,
        times: &FleetTimes,
        decision: &Decision,
    ) -> Result<(), DecisionError> {
        let force = decision.surface.force();
        let from = times.decidable_from(vendor, row.claimed_at, row.send_deadline);
        if row.now >= from {
            return Ok(());
        }
        let from_text = moment(from);
        match vendor {
            Vendor::Sync => refused(format!(
                "too early: run this again at {from_text}; until then the worker repeats the request under its key, which clears it up \
                 (not while paid sends or the account are stopped); {force} does not wait"
            )),
            Vendor::Ghostcut => refused(format!(
                "too early: run this again at {from_text}, which deletes the source if the list does not show the work, and a last \
                 time at {}, which decides; until then the work may still show up; {force} does not wait",
                moment(from + delta(times.ghostcut_settle_time))
            )),
        }
    }

    /// A request that comes late must fail: its source is deleted, and one that was being downloaded has the settle time to show
    /// up.
    async fn delete_source(
        &self,
        row: &UnknownRow,
        decision: &Decision,
        times: &FleetTimes,
    ) -> Result<(), DecisionError> {
        let mut deleted = row.source_deleted_at;
        if deleted.is_none() {
            if let Some(key) = &row.source_key {
                self.storage.delete(key).await?;
            }
            // Killed here: the object is deleted again, and the settle time counts from then.
            crash::point(Point::OperatorSourceDeleted);
            let (by, reason) = (&decision.by, &decision.reason);
            deleted = self
                .db
                .record_source_deleted_by(row.token, by, reason)
                .await?;
            crash::point(Point::OperatorDeletionRecorded);
        }
        if decision.force {
            return Ok(());
        }
        let at = deleted.unwrap_or(row.send_deadline) + delta(times.ghostcut_settle_time);
        if self.db.now().await? < at {
            return refused(format!(
                "the source is deleted, so that a late request can only fail; nothing is decided yet: run this again at {}, a last time. \
                 A request that came before may still show up until then ({} does not wait)",
                moment(at),
                decision.surface.force()
            ));
        }
        Ok(())
    }
}

/// Settings are far below what a time can be moved by.
fn delta(duration: std::time::Duration) -> TimeDelta {
    TimeDelta::from_std(duration).unwrap_or(TimeDelta::days(365))
}

fn moment(at: DateTime<Utc>) -> String {
    // The next second: run then, it must not be too early again.
    let at = at + TimeDelta::milliseconds(999);
    times::told(at).to_string()
}

fn about(vendor: Vendor, row: &UnknownRow) -> About {
    About {
        vendor,
        job: row.job_id,
        token: row.token,
    }
}

fn state(row: &UnknownRow) -> Result<LedgerState, DecisionError> {
    Ok(row.state.parse().map_err(DbError::from)?)
}

/// What `settle` made of it.
fn told(verdict: Verdict, decision: &Decision, done: &str, next: &str) -> Decided {
    match verdict.ledger {
        LedgerVerdict::Written | LedgerVerdict::Same => {}
        LedgerVerdict::Kept => {
            let again = decision.surface.show(decision.token);
            return refused(format!("meanwhile the outcome became known: {again}"));
        }
        LedgerVerdict::Second => {
            return refused("the submission has another work already: this one was paid for too");
        }
        LedgerVerdict::Taken => {
            return refused(
                "that work belongs to another submission; the trail of the job says so now",
            );
        }
        LedgerVerdict::None => return refused("nothing was written"),
    }
    Ok(match verdict.r#move {
        MoveVerdict::Moved => format!("{done}; the job {next}"),
        MoveVerdict::Lost | MoveVerdict::Held | MoveVerdict::None => {
            format!("{done}; the job does not wait for it and stays where it is")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_is_in_the_words_of_where_it_is_read() {
        let token = Uuid::from_u128(7);
        for surface in [Surface::CommandLine, Surface::Http] {
            let is_command = surface == Surface::CommandLine;
            for advice in [surface.show(token), surface.adopt(token, "w")] {
                assert_eq!(advice.contains("`producer unknowns "), is_command);
                // A person reads it on the page, too.
                assert!(is_command || !advice.contains(['`', '"', '/']), "{advice}");
            }
            assert_eq!(surface.force() == "--force", is_command);
        }
        assert!(Surface::Http.show(token).contains(&token.to_string()));
        assert!(Surface::Http.adopt(token, "w").ends_with('w'));
    }
}
