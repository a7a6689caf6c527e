//! `producer workers`: who works, and what is asked of a worker.

use std::process::ExitCode;

use clap::Subcommand;
use clap::builder::NonEmptyStringValueParser;
use shared::config::DatabaseConfig;
use shared::db::{Db, WorkerOrdered, WorkerRow};
use shared::domain::worker_order::{Ordered, WorkerOrder, WorkerState};

use super::exit::{NotFound, Usage};
use super::operator::OperatorArgs;
use super::output::{OutputArgs, table};
use crate::times::told;
use crate::web::{WorkerDocument, WorkerList, worker_refusal};

const EXAMPLES: &str = "\
Examples:
  producer workers
  producer workers quiet worker-3 --reason 'its disk is full'
  producer workers resume worker-3 --reason 'disk cleared'
  producer workers stop worker-3 --reason 'the machine goes'

States: running; quiet (it takes nothing new, as it was asked); draining (told to stop, finishing what is in hand); lost (not seen for
three heartbeats: it was killed, or cannot reach the database. What it had in hand is due again after its lease); stopped (it has
ended as it should). Lost workers are shown for a day, stopped ones for an hour.

A worker does what is asked with its next heartbeat, within its WORKER_HEARTBEAT (10s). A quiet one finishes what it has in hand,
however long that takes; one that is stopped gives back what is not finished within its STOP_GRACE, and ends with 0. One that is
started anew is asked nothing, also under the same name.

Exit status: 0 done, or asked already; 1 refused: it is lost, or was told to stop; 2 several have that name; 3 there is no such worker.";

/// Show the workers; let one take nothing new, go on, or stop
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct WorkersArgs {
    /// How to print.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Database.
    #[command(flatten)]
    pub database: DatabaseConfig,
    /// What to ask; without it, the workers are shown.
    #[command(subcommand)]
    pub command: Option<WorkersCommand>,
}

/// What is asked of a worker.
#[derive(Debug, Subcommand)]
pub enum WorkersCommand {
    /// Show the workers, as without a subcommand
    #[command(after_help = "Example:\n  producer workers list")]
    List,
    /// Take nothing new and finish what is in hand, until resumed
    #[command(after_help = EXAMPLES)]
    Quiet(OrderArgs),
    /// Take work again
    #[command(after_help = EXAMPLES)]
    Resume(OrderArgs),
    /// Finish what is in hand and end, as on SIGTERM; cannot be taken back
    #[command(after_help = EXAMPLES)]
    Stop(OrderArgs),
}

/// Whom to ask, and why.
#[derive(Debug, clap::Args)]
pub struct OrderArgs {
    /// The worker's name, or its id (`--json` shows ids)
    #[arg(value_name = "NAME_OR_ID", value_parser = NonEmptyStringValueParser::new())]
    pub worker: String,
    /// Who and why.
    #[command(flatten)]
    pub operator: OperatorArgs,
}

/// Shows the workers, or asks one.
///
/// # Errors
/// When the database is away, no or more than one worker has that name, or it does not take the order.
pub async fn run(args: WorkersArgs) -> anyhow::Result<ExitCode> {
    let db = Db::new(&args.database)?;
    match args.command {
        None | Some(WorkersCommand::List) => {
            let list = WorkerList::new(db.workers().await?);
            args.output.print(&list, human)?;
        }
        Some(WorkersCommand::Quiet(order)) => {
            ask(&db, WorkerOrder::Quiet, order, args.output).await?;
        }
        Some(WorkersCommand::Resume(order)) => {
            ask(&db, WorkerOrder::Resume, order, args.output).await?;
        }
        Some(WorkersCommand::Stop(order)) => {
            ask(&db, WorkerOrder::Stop, order, args.output).await?
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn ask(
    db: &Db,
    order: WorkerOrder,
    args: OrderArgs,
    output: OutputArgs,
) -> anyhow::Result<()> {
    let OperatorArgs { reason, by } = &args.operator;
    let workers = db.workers().await?;
    let found = find(&workers, &args.worker)?;
    let ordered = db.order_worker(found.id, order, by, reason).await?;
    let WorkerOrdered::Answered(answer, row) = ordered else {
        return Err(NotFound(format!("{} has stopped", args.worker)).into());
    };
    if let Some(why) = worker_refusal(answer, &row) {
        anyhow::bail!("{}: {why}", row.name);
    }
    let document = WorkerDocument::from(*row);
    output.print(&document, |worker| said(order, answer, worker))
}

/// The worker of this id or name, unless it has stopped; of several with one name the one that is not lost.
fn find<'a>(workers: &'a [WorkerRow], wanted: &str) -> anyhow::Result<&'a WorkerRow> {
    let is_wanted =
        |row: &&WorkerRow| row.name == wanted || row.id.to_string().eq_ignore_ascii_case(wanted);
    let is_here = |row: &&WorkerRow| row.state != WorkerState::Stopped.as_str();
    let named: Vec<_> = workers.iter().filter(is_here).filter(is_wanted).collect();
    let live = |row: &&&WorkerRow| row.state != WorkerState::Lost.as_str();
    let live: Vec<_> = named.iter().filter(live).copied().collect();
    match (&live[..], &named[..]) {
        ([one], _) => Ok(one),
        // Refused, and told why.
        ([], [.., last]) => Ok(last),
        ([], []) => {
            let told = format!(
                "there is no worker {wanted} that runs; `producer workers` shows them, and for an hour those that have stopped"
            );
            Err(NotFound(told).into())
        }
        (several, _) => {
            let ids: Vec<_> = several.iter().map(|row| row.id.to_string()).collect();
            let told = format!(
                "{} workers are called {wanted}; name one of them by its id: {}",
                ids.len(),
                ids.join(", ")
            );
            Err(Usage(told).into())
        }
    }
}

fn said(order: WorkerOrder, answer: Ordered, worker: &WorkerDocument) -> String {
    let name = &worker.name;
    let before = match &worker.asked {
        _ if answer != Ordered::Same => None,
        Some(asked) => Some(format!(
            "{name} was asked so already, by {} at {} ({}); that reason stays",
            asked.by,
            told(asked.at),
            asked.reason
        )),
        None if order == WorkerOrder::Resume => Some(format!("{name} was not asked to be quiet")),
        None => Some(format!("{name} stops already")),
    };
    before.unwrap_or_else(|| {
        let what = match order {
            WorkerOrder::Quiet => "takes nothing new and finishes what it has in hand",
            WorkerOrder::Resume => "takes work again",
            WorkerOrder::Stop => "finishes what it has in hand and ends",
        };
        format!("{name} {what}, from its next heartbeat on; `producer workers` shows when it does")
    })
}

/// Whether it is ready, as far as it can still be known.
fn ready(worker: &WorkerDocument) -> String {
    let is_gone = [WorkerState::Lost, WorkerState::Stopped]
        .iter()
        .any(|state| worker.state == state.as_str());
    match &worker.why_not_ready {
        _ if is_gone => "-".to_owned(),
        Some(why) => why.clone(),
        None => "ready".to_owned(),
    }
}

fn human(list: &WorkerList) -> String {
    if list.workers().is_empty() {
        return "no workers".to_owned();
    }
    let rows = list.workers().iter().map(|worker| {
        let in_hand = worker.in_hand.as_array().into_iter().flatten();
        let in_hand: Vec<_> = in_hand
            .map(|one| {
                format!(
                    "{} {}",
                    one["count"],
                    one["stage"].as_str().unwrap_or_default()
                )
            })
            .collect();
        let at = |time: chrono::DateTime<chrono::Utc>| told(time).to_string();
        [
            worker.name.clone(),
            worker.state.clone(),
            worker.asked.as_ref().map_or_else(
                || "-".to_owned(),
                |asked| format!("{} ({}: {})", asked.what, asked.by, asked.reason),
            ),
            worker.version.clone(),
            at(worker.started_at),
            at(worker.stopped_at.unwrap_or(worker.seen_at)),
            match in_hand.is_empty() {
                true => "nothing".to_owned(),
                false => in_hand.join(", "),
            },
            worker
                .last_delivery_at
                .map_or_else(|| "never".to_owned(), at),
            ready(worker),
        ]
    });
    table(
        [
            "WORKER",
            "STATE",
            "ASKED",
            "VERSION",
            "STARTED",
            "SEEN",
            "IN HAND",
            "LAST DELIVERY",
            "READY",
        ],
        rows,
    )
}
