//! Commands of operators: one that kills itself at a crash point, and the same command again, while a fleet goes on. What the first
//! did is not done twice, and what it left is done.

use anyhow::Context as _;
use fleet::{DEADLINE, Environment, Expectation, Fleet, Kind, Process, Service, eventually};
use sandbox::{Fault, FaultRule, Operation, SandboxConfig, Vendor as Payee};
use shared::crash::Point;
use shared::domain::Vendor;
use shared::storage::{Container, Key};
use uuid::Uuid;

use super::{acts, crashed_at, take_all};
use crate::callbacks::{services, stop};
use crate::command::{Ended, producer};
use crate::sql::{execute, value};
use crate::unknowns;

/// What is worked through in one transaction (`PIECE` of letters and of jobs).
const PIECE: usize = 100;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Errand {
    /// Book what the ledger has forgotten: two works.
    Audit,
    /// Replay dead letters in two pieces; what can be replayed is the first and the last of them.
    Replay,
    /// Discard the same.
    Discard,
    /// Cancel two jobs, in two pieces, while their works are not polled.
    Cancel,
    /// Resume two parked jobs, in two pieces.
    Resume,
    /// Retry two dead jobs, in two pieces.
    Retry,
    /// Begin an operation that retries two dead jobs.
    Operate,
    /// Adopt a work that the vendor does not list.
    Adopt,
    /// Say that a request was not accepted.
    Confirm,
    /// Remove what is old: the bytes and the source of a submission.
    Sweep,
    /// Ask the only worker to be quiet.
    Quiet,
}

/// Where the first command is killed.
#[derive(Clone, Copy, Debug)]
struct Walk(Point, Errand);

const WALKS: &[Walk] = &[
    Walk(Point::AuditBegun, Errand::Audit),
    Walk(Point::AuditRepaired, Errand::Audit),
    Walk(Point::AuditCompared, Errand::Audit),
    Walk(Point::OperationNoted, Errand::Replay),
    Walk(Point::LettersReplayed, Errand::Replay),
    Walk(Point::OperationNoted, Errand::Discard),
    Walk(Point::LettersDiscarded, Errand::Discard),
    Walk(Point::OperationNoted, Errand::Cancel),
    Walk(Point::JobsChanged, Errand::Cancel),
    Walk(Point::JobsChanged, Errand::Resume),
    Walk(Point::JobsChanged, Errand::Retry),
    Walk(Point::OperationBegun, Errand::Operate),
    Walk(Point::DecisionSettled, Errand::Adopt),
    Walk(Point::OperatorSourceDeleted, Errand::Confirm),
    Walk(Point::OperatorDeletionRecorded, Errand::Confirm),
    Walk(Point::DecisionSettled, Errand::Confirm),
    Walk(Point::OldRemoved, Errand::Sweep),
    Walk(Point::OldSourceDeleted, Errand::Sweep),
    Walk(Point::WorkerOrdered, Errand::Quiet),
];

/// The points that are walked here.
pub(super) fn points() -> impl Iterator<Item = &'static Point> {
    WALKS.iter().map(|Walk(point, _)| point)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_crash_point_of_a_command_is_survived() -> anyhow::Result<()> {
    take_all(WALKS, take).await
}

async fn take(walk: &Walk) -> anyhow::Result<()> {
    let Walk(point, errand) = *walk;
    fleet::run(SandboxConfig::default(), async |fleet| {
        let environment = errand.environment(fleet);
        let mut ready = errand.prepare(fleet, &environment).await?;
        let mark = fleet.folder().join("mark");
        let armed = environment
            .clone()
            .with("CRASH_POINT", format!("{point:?}"))
            .with("CRASH_MARK", mark.to_string_lossy());
        let mut victim = Process::start(
            "victim",
            "producer",
            &ready.args,
            armed.variables(),
            fleet.folder(),
        )?;
        crashed_at(&mut victim, point, &mark).await?;
        let args: Vec<&str> = ready.args.iter().map(String::as_str).collect();
        errand.again(&environment, &args).await?;
        errand.end(fleet, &environment, &mut ready.jobs).await?;
        let books = fleet.books(&ready.jobs).await?;
        anyhow::ensure!(books.balanced(), "{:#?}", books.differences);
        stop(ready.running).await
    })
    .await
}

/// A fleet that goes on, and a command for it.
struct Ready {
    running: Vec<Service>,
    jobs: Vec<Expectation>,
    args: Vec<String>,
}

impl Errand {
    fn environment(self, fleet: &Fleet) -> Environment {
        let environment = fleet.environment.clone();
        match self {
            Self::Cancel | Self::Resume => environment.with("GHOSTCUT_POLL_SCHEDULE", "10m"),
            Self::Adopt => environment.with("SYNC_REPLAY_WINDOW", "0s"),
            Self::Confirm => environment.with("GHOSTCUT_SETTLE_TIME", "0s"),
            _ => environment,
        }
    }

    /// Brings the fleet to where the command is wanted.
    async fn prepare(self, fleet: &Fleet, environment: &Environment) -> anyhow::Result<Ready> {
        // A job that is parked by hand is not to be taken before that.
        let mut running = Vec::new();
        if self != Self::Confirm {
            running = services(environment).await?;
        }
        let (jobs, mut args) = match self {
            Self::Audit => {
                let jobs = vec![fleet.submit_kind(Kind::Both, 0).await?];
                fleet.wait_for(&jobs).await?;
                acts::forget(fleet, &jobs).await?;
                let args = ["audit", "--since", "1h", "--repair"].map(str::to_owned);
                (jobs, args.to_vec())
            }
            Self::Replay | Self::Discard => {
                let jobs = dead(fleet).await?;
                let action = if self == Self::Replay {
                    "replay"
                } else {
                    "discard"
                };
                let args = ["dead-letters", action, "--all"].map(str::to_owned);
                (jobs, args.to_vec())
            }
            Self::Retry => {
                let jobs = dead(fleet).await?;
                let args = apart("retry", &jobs);
                (jobs, args)
            }
            Self::Operate => {
                let jobs = dead(fleet).await?;
                let args = ["operations", "start", "retry", "--all", "--wait"].map(str::to_owned);
                (jobs, args.to_vec())
            }
            Self::Cancel | Self::Resume => {
                let jobs = polled_later(fleet).await?;
                if self == Self::Resume {
                    let park = "UPDATE job_stages SET state = 'parked', due_at = NULL, reason = 'vendor_needs_operator'";
                    execute(&fleet.database.url, park).await?;
                }
                let action = if self == Self::Resume {
                    "resume"
                } else {
                    "cancel"
                };
                let args = apart(action, &jobs);
                (jobs, args)
            }
            Self::Adopt => unlisted(fleet).await?,
            Self::Confirm => never_sent(fleet).await?,
            Self::Sweep => {
                let jobs = vec![fleet.submit_kind(Kind::Inpaint, 0).await?];
                fleet.wait_for(&jobs).await?;
                let aged = "UPDATE submissions SET settled_at = settled_at - interval '40 days'";
                execute(&fleet.database.url, aged).await?;
                (jobs, vec!["retention".to_owned()])
            }
            Self::Quiet => {
                let jobs = vec![fleet.submit_kind(Kind::Inpaint, 0).await?];
                // It is in the list from its first heartbeat on.
                let there = "SELECT name AS value FROM workers";
                acts::seen(&fleet.database.url, there, "worker-1").await?;
                let args = ["workers", "quiet", "worker-1"].map(str::to_owned);
                (jobs, args.to_vec())
            }
        };
        if running.is_empty() {
            running = services(environment).await?;
        }
        // What settings say needs no reason.
        if self != Self::Sweep {
            args.extend(["--reason", "a test"].map(str::to_owned));
        }
        Ok(Ready {
            running,
            jobs,
            args,
        })
    }

    /// The same command again, until it has nothing more to say.
    async fn again(self, environment: &Environment, args: &[&str]) -> anyhow::Result<()> {
        let good = |ended: &Ended| match self {
            // It says what it had to do.
            Self::Audit => matches!(ended.code, Some(0 | 1)),
            Self::Replay | Self::Discard | Self::Sweep | Self::Operate | Self::Quiet => {
                ended.code == Some(0)
            }
            // There are ids of no job among them.
            Self::Cancel | Self::Resume | Self::Retry => ended.code == Some(1),
            Self::Adopt => ended.stderr.contains("not unknown"),
            Self::Confirm => ended.code == Some(0) || ended.stderr.contains("not unknown"),
        };
        eventually(DEADLINE, async || {
            let ended = producer(environment, args).await?;
            anyhow::ensure!(good(&ended), "{ended:?}");
            Ok(())
        })
        .await
    }

    /// What is to be seen besides the books, and how the jobs should end.
    async fn end(
        self,
        fleet: &Fleet,
        environment: &Environment,
        jobs: &mut [Expectation],
    ) -> anyhow::Result<()> {
        let url = &fleet.database.url;
        let open = "SELECT count(*)::text AS value FROM dead_letters WHERE resolved_at IS NULL";
        match self {
            Self::Audit => {
                let audit = producer(environment, &["audit", "--since", "1h"]).await?;
                anyhow::ensure!(audit.code == Some(0), "all is booked: {audit:?}");
            }
            Self::Replay | Self::Retry | Self::Operate => {
                for job in jobs.iter_mut() {
                    *job =
                        Expectation::completed(job.job, Kind::Inpaint).paying(Vendor::Ghostcut, 2);
                }
                fleet.wait_for(jobs).await?;
                let once = "SELECT count(*) || ' of ' || count(DISTINCT job_id) AS value FROM job_events \
                            WHERE kind IN ('replayed', 'retried')";
                acts::seen(url, once, "2 of 2").await?;
                acts::seen(url, open, &PIECE.to_string()).await?;
            }
            Self::Discard => {
                for job in jobs.iter_mut() {
                    job.stage_state = None;
                }
                acts::seen(url, open, "0").await?;
            }
            // Paid for nothing, and followed to their end.
            Self::Cancel => {
                for job in jobs.iter_mut() {
                    job.status = "canceled";
                }
                let booked = "SELECT count(*)::text AS value FROM submissions \
                              WHERE state = 'succeeded' AND cost_wasted IS NOT NULL";
                acts::seen(url, booked, "2").await?;
            }
            Self::Resume | Self::Adopt | Self::Confirm => fleet.wait_for(jobs).await?,
            Self::Quiet => {
                let once = "SELECT w.quiet || ' ' || count(*) AS value FROM workers w, operator_events GROUP BY w.quiet";
                acts::seen(url, once, "true 1").await?;
                let args = ["workers", "resume", "worker-1", "--reason", "a test"];
                producer(environment, &args)
                    .await?
                    .said(0, "takes work again");
                fleet.wait_for(jobs).await?;
            }
            Self::Sweep => {
                let swept = "SELECT count(*)::text AS value FROM submissions \
                             WHERE request_body = '' AND source_deleted_at IS NOT NULL";
                acts::seen(url, swept, "1").await?;
            }
        }
        Ok(())
    }
}

/// Two jobs whose inputs GhostCut could not read, paid for and given up. Between their dead letters are others, so many that the
/// second is in another piece.
async fn dead(fleet: &Fleet) -> anyhow::Result<Vec<Expectation>> {
    let unreadable = Fault::Statuses {
        codes: vec![0, 3],
        step_ms: None,
        progress: None,
    };
    let rule = FaultRule::new(Payee::Ghostcut, Operation::Process, unreadable).times(2);
    fleet.sandbox.faults().add(rule)?;
    let mut jobs = Vec::new();
    for number in [0, 2] {
        let job = Expectation {
            status: "failed",
            stage_state: Some("dead"),
            ..fleet.submit_kind(Kind::Inpaint, number).await?
        };
        fleet.wait_for(std::slice::from_ref(&job)).await?;
        jobs.push(job);
        if number == 0 {
            let others = format!(
                "INSERT INTO dead_letters (reason, body) SELECT 'undecidable', 'nothing' FROM generate_series(1, {PIECE})"
            );
            execute(&fleet.database.url, &others).await?;
        }
    }
    Ok(jobs)
}

/// Two jobs with works that are done and will be asked for by and by.
async fn polled_later(fleet: &Fleet) -> anyhow::Result<Vec<Expectation>> {
    let mut jobs = Vec::new();
    for number in [0, 2] {
        let job = fleet.submit_kind(Kind::Inpaint, number).await?;
        acts::polled_later(fleet, job.job).await?;
        jobs.push(job);
    }
    let done = |truth: &sandbox::Truth| {
        let works = truth.works(Payee::Ghostcut);
        works.iter().all(|work| work.finished_at.is_some())
    };
    let done = fleet.sandbox.truth().wait_until(DEADLINE, done).await;
    anyhow::ensure!(done, "the works are not done");
    Ok(jobs)
}

/// `producer jobs` for two jobs, with so many ids of no job between them that they are in two pieces.
fn apart(action: &str, jobs: &[Expectation]) -> Vec<String> {
    let mut ids: Vec<Uuid> = jobs.iter().map(|job| job.job).collect();
    ids.splice(1..1, std::iter::repeat_with(Uuid::new_v4).take(PIECE));
    let ids = ids.iter().map(Uuid::to_string);
    ["jobs", action]
        .map(str::to_owned)
        .into_iter()
        .chain(ids)
        .collect()
}

/// A job that is parked because Sync.so's answer was lost and its list does not show the work, and the command that adopts it.
async fn unlisted(fleet: &Fleet) -> anyhow::Result<(Vec<Expectation>, Vec<String>)> {
    let contains = String::new();
    let hidden = FaultRule::new(Payee::Sync, Operation::List, Fault::DropItems { contains });
    let lost = FaultRule::new(Payee::Sync, Operation::Submit, Fault::LoseAnswer).times(1);
    for rule in [hidden, lost] {
        fleet.sandbox.faults().add(rule)?;
    }
    let job = fleet.submit_kind(Kind::Lipsync, 0).await?;
    acts::parked(fleet, job.job).await?;
    let token = "SELECT token::text AS value FROM submissions";
    let token = value(&fleet.database.url, token)
        .await?
        .context("nothing is claimed")?;
    let work = fleet.sandbox.truth().works(Payee::Sync).remove(0).id;
    let args = ["unknowns", "adopt", &token, "--task-id", &work].map(str::to_owned);
    Ok((vec![job], args.to_vec()))
}

/// A job that is parked because of a request to GhostCut that was never sent, and the command that says so.
async fn never_sent(fleet: &Fleet) -> anyhow::Result<(Vec<Expectation>, Vec<String>)> {
    let (token, container) = (Uuid::new_v4(), Container::Mp4);
    let key = Key::SubmissionSource { token, container }.to_string();
    fleet
        .storage
        .put(&key, "video/mp4", "source".into())
        .await?;
    let (job, token) = unknowns::parked(fleet, Kind::Inpaint, Some(key)).await?;
    let past = "UPDATE submissions SET claimed_at = claimed_at - interval '2 hours', send_deadline = now() - interval '1 minute'";
    execute(&fleet.database.url, past).await?;
    // No other work proves that the vendor's list is whole.
    let args = [
        "unknowns",
        "confirm-not-accepted",
        &token.to_string(),
        "--force",
    ]
    .map(str::to_owned);
    Ok((vec![job], args.to_vec()))
}
