//! Why a job waits although nothing is wrong with it: it is due and nothing new may be paid for at its vendor, no worker takes the jobs
//! of its stage, or the last answer has put it off. The API, the page and the commands all ask here. Must not decide anything: the
//! dispatcher asks the database whether an account has room.

mod served;

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use serde::Serialize;
use shared::db::{Db, DbResult, PaidStop, PutOff as LastAnswer, StageRow, VendorStatus};
use shared::domain::admission::{Refusal, SignalKind};
use shared::domain::{Stage, StageState};
use utoipa::ToSchema;
use uuid::Uuid;

pub use served::Served;

use crate::times::told;
use crate::web::redacted;

/// Why jobs stay although they are due, or although they were sent out.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Held {
    /// By what, as a word; `GET /v1/words` says what it means.
    pub by: Refusal,
    /// By which account, such as `sync/default`; null when all paid sends are stopped, or no worker takes the stage.
    pub account: Option<String>,
    /// Until when; null when another end has to come: an operator's word, a work in flight, a higher balance.
    pub until: Option<DateTime<Utc>>,
    /// The same in one sentence.
    pub sentence: String,
}

/// Why a job is not due yet although it has been tried.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct PutOff {
    /// What the vendor's answer says about the account, a word such as `throttled`; `rejects` where the job waits for others to show
    /// whose fault it is. Null when no answer put it off but an error.
    pub answer: Option<String>,
    /// When it is due.
    pub until: DateTime<Utc>,
    /// The same in one sentence, with the vendor's words or the error.
    pub sentence: String,
}

/// Why a job waits; nothing where nothing but its own time, or nobody, keeps it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
pub struct Wait {
    /// Why it stays although it is due; null when nothing holds it.
    pub held: Option<Held>,
    /// Why it is not due yet although it has been tried; null when nothing put it off.
    pub put_off: Option<PutOff>,
}

/// What may hold jobs back at the moment.
#[derive(Debug)]
pub struct Holds {
    stop: Option<PaidStop>,
    accounts: Vec<VendorStatus>,
    served: Served,
}

/// Why the jobs of a list wait.
#[derive(Debug)]
pub struct Waits {
    now: DateTime<Utc>,
    holds: Holds,
    answers: HashMap<Uuid, LastAnswer>,
}

impl Holds {
    /// Of the global stop, of all accounts and of the workers.
    #[must_use]
    pub const fn new(stop: Option<PaidStop>, accounts: Vec<VendorStatus>, served: Served) -> Self {
        Self {
            stop,
            accounts,
            served,
        }
    }

    /// Reads it.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn read(db: &Db) -> DbResult<Self> {
        let (stop, accounts) = (db.paid_stop().await?, db.vendor_status().await?);
        Ok(Self::new(stop, accounts, Served::read(db).await?))
    }

    /// The global stop.
    #[must_use]
    pub const fn stop(&self) -> Option<&PaidStop> {
        self.stop.as_ref()
    }

    /// The accounts.
    #[must_use]
    pub fn accounts(&self) -> &[VendorStatus] {
        &self.accounts
    }

    /// Which workers take what.
    #[must_use]
    pub const fn served(&self) -> &Served {
        &self.served
    }

    /// What holds the jobs that are due in this stage; none when they are dispatched and somebody takes them. One whose outcome is
    /// unknown waits in the same stage and is not held, but it is dispatched as soon as it is due.
    #[must_use]
    pub fn of(&self, stage: Stage) -> Option<Held> {
        self.of_vendor(stage).or_else(|| self.served.lack(stage))
    }

    /// What holds the jobs of this stage that were sent out under a lease that is not over.
    #[must_use]
    pub fn of_sent(&self, stage: Stage) -> Option<Held> {
        let lack = self.served.lack(stage);
        // One that takes nothing new may finish them.
        lack.filter(|_| !self.served.has_in_hand(stage))
    }

    /// What held a job back that was sent out, because others may be let through: what holds all of its stage, or what it was told.
    #[must_use]
    pub fn of_one(&self, stage: Stage, by: Refusal) -> Option<Held> {
        if let Some(held) = self.of(stage) {
            return Some(held);
        }
        let vendor = stage.vendor()?;
        let account = (self.accounts.iter()).find(|account| account.vendor == vendor.as_str())?;
        let name = format!("{}/{}", account.vendor, account.account);
        let why = match by {
            Refusal::Budget => "less is left of the day's budget than it may cost",
            by => by.meaning(),
        };
        Some(Held {
            by,
            until: None,
            sentence: format!("it is not sent to {name} now: {why}; it asks again within a minute"),
            account: Some(name),
        })
    }

    fn of_vendor(&self, stage: Stage) -> Option<Held> {
        let vendor = stage.pays()?;
        if let Some(stop) = &self.stop {
            return Some(Held {
                by: Refusal::Stopped,
                account: None,
                until: None,
                sentence: format!("paid sends are stopped {}", stopped(stop)),
            });
        }
        let ours = || {
            let all = self.accounts.iter();
            all.filter(|account| account.vendor == vendor.as_str())
        };
        // Whose account a job will be sent with is the workers' to say.
        if ours().any(|account| refusal(account).is_none()) {
            return None;
        }
        let account = ours().next()?;
        Some(held(account, refusal(account)?))
    }
}

impl Waits {
    /// Reads why these jobs wait. Asks for no more than they need: nothing for those that have ended.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn read(db: &Db, jobs: &[(Uuid, Option<&StageRow>)]) -> DbResult<Self> {
        let moving = || {
            let all = jobs.iter();
            all.filter_map(|(job, stage)| stage.filter(|row| moves(row)).map(|row| (*job, row)))
        };
        // The database's clock says what is due.
        let now = match moving().next() {
            Some(_) => db.now().await?,
            None => Utc::now(),
        };
        let is_paying = |row: &StageRow| {
            let pays = stage_of(row).is_some_and(|stage| stage.pays().is_some());
            pays && is_due(row, now) || refused(row).is_some()
        };
        let holds = if moving().any(|(_, row)| is_paying(row)) {
            Holds::read(db).await?
        } else if moving().any(|(_, row)| is_due(row, now) || is_sent(row)) {
            Holds::new(None, Vec::new(), Served::read(db).await?)
        } else {
            Holds::new(None, Vec::new(), Served::default())
        };
        let later: Vec<_> = moving()
            .filter(|(_, row)| !is_due(row, now) && !is_sent(row))
            .map(|(job, _)| job)
            .collect();
        let answers = if later.is_empty() {
            HashMap::new()
        } else {
            db.put_off(&later).await?
        };
        Ok(Self {
            now,
            holds,
            answers,
        })
    }

    /// Why one of them waits.
    #[must_use]
    pub fn of(&self, job: Uuid, stage: Option<&StageRow>) -> Wait {
        let Some(row) = stage.filter(|row| moves(row)) else {
            return Wait::default();
        };
        if let Some(by) = refused(row) {
            let held = stage_of(row).and_then(|stage| self.holds.of_one(stage, by));
            return Wait {
                held,
                put_off: None,
            };
        }
        if is_due(row, self.now) || is_sent(row) {
            let of = if is_due(row, self.now) {
                Holds::of
            } else {
                Holds::of_sent
            };
            return Wait {
                held: stage_of(row).and_then(|stage| of(&self.holds, stage)),
                put_off: None,
            };
        }
        let answer = self.answers.get(&job);
        Wait {
            held: None,
            put_off: answer.and_then(|answer| put_off(row, answer)),
        }
    }
}

/// Whether it moves by itself: exactly then it is due at a time. One whose lease is over is due again.
fn moves(row: &StageRow) -> bool {
    row.due_at.is_some()
}

fn is_due(row: &StageRow, now: DateTime<Utc>) -> bool {
    row.due_at.is_some_and(|due| due <= now)
}

/// Whether it was sent out: it is with a worker, or in the queue of its stage.
fn is_sent(row: &StageRow) -> bool {
    row.state == StageState::Dispatched.as_str()
}

fn stage_of(row: &StageRow) -> Option<Stage> {
    row.stage.parse().ok()
}

/// Why the job was not let through when it came to send. It asks again and again, so it is mostly neither due nor put off.
fn refused(row: &StageRow) -> Option<Refusal> {
    row.reason.as_deref()?.parse().ok()
}

/// Why an account sends nothing new now: as the database says, or the rate.
fn refusal(account: &VendorStatus) -> Option<Refusal> {
    match &account.refusal {
        Some(word) => word.parse().ok(),
        None => account.rate_until.map(|_| Refusal::Rate),
    }
}

fn held(account: &VendorStatus, by: Refusal) -> Held {
    let name = format!("{}/{}", account.vendor, account.account);
    let until = match by {
        // They end with any work, and with a reading of the balance, not at the time until which they are known.
        Refusal::Full | Refusal::Floor => None,
        Refusal::Rate => account.rate_until,
        _ => account.refusal_until,
    };
    let reason = account.refusal_reason.as_ref();
    let reason = reason.map_or_else(String::new, |reason| format!(": {reason}"));
    let ends = match (by, until) {
        (Refusal::Full | Refusal::Floor | Refusal::Rate, _) => String::new(),
        (_, Some(until)) => format!(", until {}", told(until)),
        (_, None) => ", until somebody resumes it".to_owned(),
    };
    let behind = match account.circuit_open && by != Refusal::Circuit {
        true => "; behind it, the circuit is open",
        false => "",
    };
    Held {
        by,
        until,
        sentence: format!(
            "nothing new is sent to {name}: {}{reason}{ends}{behind}",
            by.meaning()
        ),
        account: Some(name),
    }
}

fn put_off(row: &StageRow, last: &LastAnswer) -> Option<PutOff> {
    let until = row.due_at?;
    let said = last.said.clone().map(redacted).unwrap_or_default();
    let vendor = row.stage.parse().ok().and_then(Stage::vendor);
    // No answer is none.
    let answer = last.answer.clone();
    let answer = answer.filter(|answer| answer != SignalKind::Fails.as_str());
    let sentence = match (&answer, vendor) {
        (Some(answer), Some(vendor)) => format!("{vendor} answered {answer}: {said}"),
        _ => said,
    };
    Some(PutOff {
        answer,
        until,
        sentence: format!("it waits until {}: {sentence}", told(until)),
    })
}

/// Since when paid sends are stopped, by whom and why.
#[must_use]
pub fn stopped(stop: &PaidStop) -> String {
    let audit = if stop.audit_first {
        "; an audit comes first"
    } else {
        ""
    };
    format!(
        "since {} by {}: {}{audit}",
        told(stop.at),
        stop.by,
        stop.reason
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(vendor: &str, name: &str, refusal: Option<&str>) -> VendorStatus {
        VendorStatus {
            vendor: vendor.to_owned(),
            account: name.to_owned(),
            version: 1,
            in_flight: 0,
            in_flight_cap: None,
            max_in_flight: None,
            max_per_minute: None,
            burst: None,
            daily_budget: None,
            spent_today: 0.0,
            balance_floor: None,
            balance: None,
            balance_at: None,
            refusal: refusal.map(str::to_owned),
            refusal_reason: None,
            refusal_until: None,
            rate_until: None,
            slots: None,
            slots_until: None,
            circuit_open: false,
        }
    }

    #[test]
    fn jobs_are_held_where_every_account_of_their_vendor_refuses() {
        let by = |accounts: Vec<VendorStatus>, stage| {
            let holds = Holds::new(None, accounts, Served::by_all());
            holds.of(stage).map(|held| held.by)
        };
        let paused = || account("sync", "a", Some("manual"));
        assert_eq!(
            by(vec![paused()], Stage::LipsyncSubmit),
            Some(Refusal::Manual)
        );
        let open = account("sync", "b", None);
        assert_eq!(by(vec![paused(), open], Stage::LipsyncSubmit), None);
        let others = account("ghostcut", "a", None);
        assert_eq!(
            by(vec![paused(), others], Stage::LipsyncSubmit),
            Some(Refusal::Manual)
        );
        for stage in [
            Stage::InpaintSubmit,
            Stage::LipsyncPoll,
            Stage::InpaintReconcile,
        ] {
            assert_eq!(by(vec![paused()], stage), None, "{stage}");
        }
        assert_eq!(
            by(Vec::new(), Stage::LipsyncSubmit),
            None,
            "nobody refuses yet"
        );
        let mut fast = account("sync", "a", None);
        fast.rate_until = Some(Utc::now());
        assert_eq!(by(vec![fast], Stage::LipsyncSubmit), Some(Refusal::Rate));
    }

    #[test]
    fn the_sentence_says_until_when_only_where_that_is_known() {
        let until = "2101-02-03T04:05:06Z".parse().ok();
        for (refusal, until, ends) in [
            ("budget", until, "is used up, until 2101-02-03 04:05:06 UTC"),
            ("full", until, "are in flight"),
            ("floor", until, "below its floor"),
            ("manual", None, "by an operator, until somebody resumes it"),
        ] {
            let mut account = account("ghostcut", "default", Some(refusal));
            account.refusal_until = until;
            let holds = Holds::new(None, vec![account], Served::by_all());
            let held = holds.of(Stage::InpaintSubmit).unwrap();
            assert!(held.sentence.ends_with(ends), "{}", held.sentence);
            assert_eq!(
                held.until.is_some(),
                held.sentence.contains("until 2101"),
                "{held:?}"
            );
        }
    }
}
