//! What brings a process to its crash point: a job, perhaps a fault, perhaps an act from outside, and how it must end.

use anyhow::Context as _;
use fleet::{
    Api, DEADLINE, Environment, Expectation, Fleet, Kind, Process, Receiver, Service, eventually,
};
use rustix::process::Signal;
use sandbox::{Fault, FaultRule, Operation, Vendor as Payee, When};
use serde_json::Value;
use uuid::Uuid;

use super::acts;
use crate::adoption::insert;
use crate::callbacks::called_only;
use crate::sql::{execute, value};

/// Two parts and a bit.
const LARGE_BYTES: u64 = 17 << 20;
/// The lease is renewed after a third of it, and the fast lease is ten seconds.
const LONGER_THAN_A_THIRD_OF_THE_LEASE_MS: u64 = 4_500;
/// Epochs that no row of a test comes to.
const FAR_AHEAD: i64 = 1_000_000;
/// Enough for the job to be canceled before its work is done.
const SLOW_WORK_MS: u64 = 2_500;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Story {
    /// Nothing else goes wrong.
    Lipsync,
    /// The same at GhostCut, with a video in our bucket.
    Inpaint,
    /// Its video is elsewhere.
    Imported,
    /// Both vendors.
    Both,
    /// Inpainting, when GhostCut has another work by which its list is known to be complete.
    InpaintAfterAnother,
    /// The job comes through the HTTP API, under a key.
    Api,
    /// Another application has put two jobs into the table.
    Adopted,
    /// Nothing but GhostCut's callback makes the poll due.
    CalledBack,
    /// GhostCut's answer is lost, and nothing but its callback clears that up.
    HealedByCallback,
    /// The database forgets what was accepted before GhostCut calls back.
    ForgottenCalledBack,
    /// The database forgets a work of a job that is completed, and the audit on the timer finds it.
    ForgottenAudited,
    /// What is old is removed on the timer.
    Swept,
    /// Sync.so has the work and does not list it, so that the job is parked. After the crash it does.
    Lost,
    /// The same, but it does as soon as the job is parked.
    Found,
    /// The broker's confirms are too late for the producer.
    Unconfirmed,
    /// GhostCut cannot read the input: paid, dead.
    GivenUp,
    /// The job is canceled while GhostCut works.
    Canceled,
    /// The same by an operation of an operator.
    Operated,
    /// SIGTERM.
    ToldToStop,
    /// An operator asks the worker to be quiet.
    Quieted,
    /// A message is newer than its row.
    FromTheFuture,
    /// A message is for a job that there is not.
    NobodyKnows,
    /// The work fails and is redone.
    Redone,
    /// The same, but its source is gone meanwhile.
    RedoneWithoutSource,
    SyncAnswerLost,
    /// Sync.so refuses at first for its rate limit, and takes the repetition.
    SyncThrottled,
    /// The answer is lost and the time for replays is over.
    SyncTooOld,
    GhostcutAnswerLost,
    /// The request is lost; GhostCut has another work.
    GhostcutRequestLost,
    LargeResult,
    SlowResult,
    /// The job's submitter wants to know when it has ended.
    Told,
}

impl Story {
    const fn kind(self) -> Kind {
        match self {
            Self::Both => Kind::Both,
            Self::Inpaint
            | Self::Imported
            | Self::InpaintAfterAnother
            | Self::GivenUp
            | Self::Canceled
            | Self::Operated
            | Self::Redone
            | Self::RedoneWithoutSource
            | Self::CalledBack
            | Self::HealedByCallback
            | Self::ForgottenCalledBack
            | Self::ForgottenAudited
            | Self::GhostcutAnswerLost
            | Self::GhostcutRequestLost => Kind::Inpaint,
            _ => Kind::Lipsync,
        }
    }

    /// What goes wrong besides the crash, once.
    fn fault(self) -> Option<FaultRule> {
        let (sync, ghostcut) = (Payee::Sync, Payee::Ghostcut);
        let ends_in = |code| Fault::Statuses {
            codes: vec![0, code],
            step_ms: None,
            progress: None,
        };
        let (vendor, operation, fault) = match self {
            Self::GivenUp => (ghostcut, Operation::Process, ends_in(3)),
            Self::Redone | Self::RedoneWithoutSource => (ghostcut, Operation::Process, ends_in(43)),
            Self::Canceled | Self::Operated => {
                let ms = SLOW_WORK_MS;
                (ghostcut, Operation::Process, Fault::Duration { ms })
            }
            Self::SyncAnswerLost | Self::SyncTooOld | Self::Lost | Self::Found => {
                (sync, Operation::Submit, Fault::LoseAnswer)
            }
            Self::SyncThrottled => {
                let fault = Fault::Status {
                    status: 429,
                    error_code: Some("rate_limit_exceeded".to_owned()),
                    body: None,
                    when: When::Before,
                };
                (sync, Operation::Submit, fault)
            }
            Self::GhostcutAnswerLost | Self::HealedByCallback => {
                (ghostcut, Operation::Submit, Fault::LoseAnswer)
            }
            Self::GhostcutRequestLost => (ghostcut, Operation::Submit, Fault::LoseRequest),
            Self::LargeResult => {
                let bytes = LARGE_BYTES;
                (sync, Operation::Process, Fault::ResultSize { bytes })
            }
            Self::SlowResult => {
                let (ms, when) = (LONGER_THAN_A_THIRD_OF_THE_LEASE_MS, When::Before);
                (sync, Operation::Result, Fault::Delay { ms, when })
            }
            _ => return None,
        };
        Some(FaultRule::new(vendor, operation, fault).times(1))
    }

    /// What goes wrong until [`Story::release`].
    fn standing_fault(self) -> Option<FaultRule> {
        let (vendor, operation, fault) = match self {
            // Refused, so that it is repeated.
            Self::ForgottenCalledBack => {
                (Payee::Ghostcut, Operation::Callback, Fault::BadSignature)
            }
            Self::Lost | Self::Found => {
                let contains = String::new();
                (Payee::Sync, Operation::List, Fault::DropItems { contains })
            }
            Self::RedoneWithoutSource => (Payee::Ghostcut, Operation::Status, Fault::LoseRequest),
            // The row is still there when the message comes.
            Self::FromTheFuture => (Payee::Sync, Operation::Status, Fault::LoseRequest),
            _ => return None,
        };
        Some(FaultRule::new(vendor, operation, fault))
    }

    fn release(self, fleet: &Fleet) {
        let faults = fleet.sandbox.faults();
        for standing in faults
            .rules()
            .iter()
            .filter(|active| active.rule.count.is_none())
        {
            faults.remove(standing.id);
        }
    }

    /// The settings of this fleet.
    pub(super) fn environment(self, fleet: &Fleet) -> anyhow::Result<Environment> {
        Ok(match self {
            Self::SyncTooOld | Self::Lost | Self::Found => {
                patient(fleet.environment.clone()).with("SYNC_REPLAY_WINDOW", "0s")
            }
            Self::CalledBack | Self::HealedByCallback | Self::ForgottenCalledBack => {
                patient(called_only(fleet)?)
            }
            Self::ForgottenAudited => {
                patient(fleet.environment.clone()).with("AUDIT_INTERVAL", "1h")
            }
            Self::Told => patient(fleet.environment.clone())
                .with("NOTICE_SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
                .with("NOTICE_TIMEOUT", "1s"),
            Self::Swept => patient(fleet.environment.clone()).with("RETENTION_INTERVAL", "1h"),
            _ => patient(fleet.environment.clone()),
        })
    }

    /// The settings of the process that crashes.
    pub(super) fn environment_of_victim(self, fleet: Environment) -> Environment {
        match self {
            Self::Unconfirmed => fleet.with("CONFIRM_TIMEOUT", "1us"),
            _ => fleet,
        }
    }

    /// Jobs that are over before the crash, and the fault.
    pub(super) async fn prepare(
        self,
        fleet: &Fleet,
        environment: &Environment,
    ) -> anyhow::Result<Vec<Expectation>> {
        let mut before = Vec::new();
        if matches!(
            self,
            Self::InpaintAfterAnother | Self::GhostcutRequestLost | Self::ForgottenAudited
        ) {
            let environment = environment.clone().with("AUDIT_INTERVAL", "0s");
            let services = [
                Service::worker(&environment, "before")?,
                Service::producer(&environment)?,
            ];
            before.push(fleet.submit_kind(Kind::Inpaint, 2).await?);
            fleet.wait_for(&before).await?;
            for service in services {
                service.stop().await?;
            }
        }
        if self == Self::ForgottenAudited {
            acts::forget(fleet, &before).await?;
        }
        for rule in self.fault().into_iter().chain(self.standing_fault()) {
            fleet.sandbox.faults().add(rule)?;
        }
        acts::call_again_soon(fleet);
        Ok(before)
    }

    fn request(self, fleet: &Fleet) -> Value {
        fleet
            .media
            .request(self.kind(), usize::from(self == Self::Imported))
    }

    /// Submits the job and does what leads to the crash. The job of [`Story::Api`] is not known yet.
    pub(super) async fn begin(
        self,
        fleet: &Fleet,
        victim: &mut Process,
    ) -> anyhow::Result<Vec<Expectation>> {
        if self == Self::Api {
            let answer = self.post(fleet, victim).await;
            anyhow::ensure!(answer.is_err(), "the producer answered: {answer:?}");
            return Ok(Vec::new());
        }
        if self == Self::Adopted {
            let row = async || insert(fleet, self.kind(), "status = 'queued'").await;
            return Ok(vec![row().await?, row().await?]);
        }
        if self == Self::ForgottenAudited {
            return Ok(Vec::new());
        }
        let mut request = self.request(fleet);
        if self == Self::Told {
            request["callback_url"] = Receiver::start().await?.url("/end").into();
        }
        let job = fleet.submit(&request).await?;
        let mut expected = Expectation::completed(job, self.kind());
        match self {
            Self::GivenUp => {
                expected.status = "failed";
                expected.stage_state = Some("dead");
            }
            Self::Canceled | Self::Operated => {
                expected.status = "canceled";
                let accepted =
                    "SELECT state AS value FROM submissions WHERE vendor_task_id IS NOT NULL";
                eventually(DEADLINE, async || {
                    let state = value(&fleet.database.url, accepted).await?;
                    state.context("nothing is accepted")
                })
                .await?;
                if self == Self::Operated {
                    acts::cancel_all(fleet).await?;
                } else {
                    let cancel =
                        format!("UPDATE video_jobs SET status = 'canceled' WHERE id = '{job}'");
                    execute(&fleet.database.url, &cancel).await?;
                }
            }
            Self::ToldToStop => {
                victim.started().await?;
                let at_work = |truth: &sandbox::Truth| truth.paid(Payee::Sync) == 1;
                let at_work = fleet.sandbox.truth().wait_until(DEADLINE, at_work).await;
                anyhow::ensure!(at_work, "nothing was submitted");
                victim.signal(Signal::TERM)?;
            }
            Self::Quieted => acts::quiet(&fleet.environment, "victim").await?,
            Self::FromTheFuture => {
                let row = fleet
                    .db
                    .job_stage(job)
                    .await?
                    .context("the job has no row")?;
                acts::publish(fleet, job, row.epoch + FAR_AHEAD).await?;
            }
            Self::NobodyKnows => acts::publish(fleet, Uuid::new_v4(), 1).await?,
            Self::ForgottenCalledBack => {
                acts::polled_later(fleet, job).await?;
                acts::forget_acceptance(fleet, &expected).await?;
                self.release(fleet);
            }
            Self::Lost => acts::parked(fleet, job).await?,
            Self::Found => {
                acts::parked(fleet, job).await?;
                self.release(fleet);
            }
            Self::RedoneWithoutSource => {
                acts::polled_later(fleet, job).await?;
                acts::delete_source(fleet, job).await?;
                self.release(fleet);
            }
            _ => {}
        }
        Ok(vec![expected])
    }

    async fn post(self, fleet: &Fleet, producer: &mut Process) -> anyhow::Result<Uuid> {
        let started = producer.started().await?;
        let api = Api::new(started["http"].as_str().context("no address")?)?;
        api.submit(&self.request(fleet), "the-key").await
    }

    /// What a client or an operator does after the crash, and what is to be seen besides the books.
    pub(super) async fn end(
        self,
        fleet: &Fleet,
        environment: &Environment,
        heir: &mut Process,
        jobs: &mut Vec<Expectation>,
    ) -> anyhow::Result<()> {
        let url = &fleet.database.url;
        match self {
            // The client asks again under its key. The books have no place for a second job.
            Self::Api => {
                let job = self.post(fleet, heir).await?;
                jobs.push(Expectation::completed(job, self.kind()));
            }
            Self::FromTheFuture => {
                let stopped = "SELECT name AS value FROM settings WHERE name = 'stop_paid'";
                acts::seen(url, stopped, "stop_paid").await?;
                self.release(fleet);
                // The message comes again, and stops them again.
                eventually(DEADLINE, async || {
                    let none = std::time::Duration::ZERO;
                    fleet.db.resume_paid("test", "test", none, true).await?;
                    let job = fleet
                        .db
                        .job(jobs[0].job)
                        .await?
                        .context("the job is gone")?;
                    anyhow::ensure!(job.status == "completed", "the job is {}", job.status);
                    Ok(())
                })
                .await?;
            }
            // Paid for nothing, and followed to its end.
            Self::Canceled | Self::Operated => {
                let booked = "SELECT count(*)::text AS value FROM submissions \
                              WHERE state = 'succeeded' AND cost_wasted IS NOT NULL";
                acts::seen(url, booked, "1").await?;
                if self == Self::Operated {
                    let once =
                        "SELECT concat_ws(' ', state, done, changed) AS value FROM operations";
                    acts::seen(url, once, "done 1 1").await?;
                }
            }
            Self::GivenUp | Self::NobodyKnows => {
                fleet.wait_for(jobs).await?;
                let letters = "SELECT count(*)::text AS value FROM dead_letters";
                acts::seen(url, letters, "1").await?;
            }
            Self::Redone | Self::RedoneWithoutSource => {
                fleet.wait_for(jobs).await?;
                let attempts = "SELECT max(attempt)::text AS value FROM submissions";
                acts::seen(url, attempts, "1").await?;
            }
            Self::CalledBack | Self::HealedByCallback => acts::called_back(fleet).await?,
            Self::ForgottenCalledBack => acts::rebuild(fleet, environment).await?,
            Self::ForgottenAudited => {
                // An audit that was not finished is made again after five minutes, one that was after an hour.
                let earlier = "UPDATE audits SET started_at = started_at - interval '10 minutes'";
                execute(url, earlier).await?;
                let made = "SELECT open::text AS value FROM audits WHERE finished_at IS NOT NULL AND error IS NULL";
                acts::seen(url, made, "1").await?;
                acts::rebuild(fleet, environment).await?;
            }
            Self::Told => {
                let told = "SELECT state || ' ' || (tries > 1) AS value FROM notices";
                acts::seen(url, told, "delivered true").await?;
            }
            Self::Swept => {
                // A sweep that gives no sign for five minutes is taken to be dead.
                let silent = "UPDATE settings SET changed_at = changed_at - interval '6 minutes' WHERE name = 'retention'";
                execute(url, silent).await?;
                let made = "SELECT (value ? 'succeeded_at')::text AS value FROM settings WHERE name = 'retention'";
                acts::seen(url, made, "true").await?;
            }
            // A parked job does not go on by itself.
            Self::Lost | Self::Found => {
                self.release(fleet);
                fleet.wait_for(jobs).await?;
            }
            _ => {}
        }
        Ok(())
    }
}

/// As fast as other fleets but for answers, which come late where many walks share a processor.
fn patient(fleet: Environment) -> Environment {
    fleet
        .with("VENDOR_REQUEST_TIMEOUT", "4s")
        .with("SEND_DEADLINE", "4500ms")
        // Leaves a second and a half to look at a job's files, where ten seconds would leave a fifth of one.
        .with("STAGE_LEASE", "13s")
}
