//! `producer unknowns`: submissions whose outcome is unknown, and what a person can decide about them.
//!
//! Every decision goes through the same `settle` as a vendor's own answer, so it holds against workers and callbacks that come at the
//! same time, and is harmless twice.

mod decide;
mod show;

use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;
use shared::config::{DatabaseConfig, ProtocolConfig, StorageConfig};
use shared::domain::Vendor;
use uuid::Uuid;

use super::accounts::AccountArgs;
use super::operator::OperatorArgs;
use super::output::OutputArgs;

const EXAMPLES: &str = "Examples:
  Which outcomes are unknown, and what is known about one of them:
    producer unknowns list
    producer unknowns show 6f0f9d0a-0f8b-4a1e-9d0a-0f8b00000001

  `show` says what to look for in the vendor's dashboard. The work is there, with the id 488026661:
    producer unknowns adopt 6f0f9d0a-0f8b-4a1e-9d0a-0f8b00000001 --task-id 488026661 --reason 'seen in the dashboard'

  It is not there, and the vendor's support says so too:
    producer unknowns confirm-not-accepted 6f0f9d0a-0f8b-4a1e-9d0a-0f8b00000001 --reason 'support, ticket 4711'

Exit status: 0 done, 1 refused; the message says what to do. 3 there is no such submission, 4 the vendor, the bucket or the database
failed.";

const ADOPT_EXAMPLE: &str = "Example:
  producer unknowns adopt 6f0f9d0a-0f8b-4a1e-9d0a-0f8b00000001 --task-id 488026661 --reason 'seen in the dashboard'

The vendor is asked for the work first; one that shows another submission's name is refused, whatever is forced.";

const CONFIRM_EXAMPLE: &str = "Example:
  producer unknowns confirm-not-accepted 6f0f9d0a-0f8b-4a1e-9d0a-0f8b00000001 --reason 'support, ticket 4711'

At Sync.so it decides once the request is not repeated any more (SYNC_REPLAY_WINDOW after the claim). At GhostCut it takes two
runs: the first, from GHOSTCUT_SETTLE_TIME after the send deadline on, deletes the submission's source, so that a late request can
only fail; the second, as much later, decides. Each says when the next one is due. The times are the fleet's, if they are longer
than those set here. --force waits for neither, and asks for no list that proves it.

If the vendor has the work after all, it is paid for twice: nothing can take that back.";

/// Submissions whose outcome is unknown: list, look at, decide
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct UnknownsArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: UnknownsCommand,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum UnknownsCommand {
    /// List them, oldest first
    #[command(after_help = EXAMPLES)]
    List {
        /// Only at this vendor: sync or ghostcut
        #[arg(long)]
        vendor: Option<Vendor>,
        /// Only those claimed so long ago, such as 2h
        #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = humantime::parse_duration)]
        older_than: Duration,
        /// How to print.
        #[command(flatten)]
        output: OutputArgs,
        /// Database.
        #[command(flatten)]
        database: DatabaseConfig,
    },
    /// Show everything that is known about a submission
    #[command(after_help = EXAMPLES)]
    Show {
        /// The submission
        #[arg(value_parser = crate::cli::id::id)]
        token: Uuid,
        /// How to print.
        #[command(flatten)]
        output: OutputArgs,
        /// Database.
        #[command(flatten)]
        database: DatabaseConfig,
    },
    /// The vendor has the work: book it under its id, and let the job go on
    #[command(after_help = ADOPT_EXAMPLE)]
    Adopt(Box<AdoptArgs>),
    /// The vendor never got the request: let the job pay for a new attempt
    #[command(after_help = CONFIRM_EXAMPLE)]
    ConfirmNotAccepted(Box<ConfirmArgs>),
}

/// Adopting a work.
#[derive(Debug, clap::Args)]
pub struct AdoptArgs {
    /// The vendor's id of the work: GhostCut's work id, Sync.so's generation id
    #[arg(long)]
    pub task_id: String,
    /// Adopt it although the vendor does not show that it is this submission's
    #[arg(long)]
    pub force: bool,
    /// What every decision needs.
    #[command(flatten)]
    pub decision: DecisionArgs,
}

/// Deciding that there is no work.
#[derive(Debug, clap::Args)]
pub struct ConfirmArgs {
    /// Do not wait for the replay window (Sync.so) or the settle time (GhostCut), and go without a list that proves it
    #[arg(long)]
    pub force: bool,
    /// What every decision needs.
    #[command(flatten)]
    pub decision: DecisionArgs,
}

/// What every decision needs.
#[derive(Debug, clap::Args)]
pub struct DecisionArgs {
    /// The submission
    #[arg(value_parser = crate::cli::id::id)]
    pub token: Uuid,
    /// How to print.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Who and why.
    #[command(flatten)]
    pub operator: OperatorArgs,
    /// Database.
    #[command(flatten)]
    pub database: DatabaseConfig,
    /// Object storage.
    #[command(flatten)]
    pub storage: StorageConfig,
    /// The vendors.
    #[command(flatten)]
    pub accounts: AccountArgs,
    /// Times of the protocol.
    #[command(flatten)]
    pub protocol: ProtocolConfig,
}

/// Runs a subcommand.
///
/// # Errors
/// Why it was refused or failed, and what to do.
pub async fn run(args: UnknownsArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        UnknownsCommand::List {
            vendor,
            older_than,
            output,
            database,
        } => show::list(vendor, older_than, output, &database).await?,
        UnknownsCommand::Show {
            token,
            output,
            database,
        } => show::show(token, output, &database).await?,
        UnknownsCommand::Adopt(args) => decide::adopt(&args).await?,
        UnknownsCommand::ConfirmNotAccepted(args) => decide::confirm_not_accepted(&args).await?,
    }
    Ok(ExitCode::SUCCESS)
}
