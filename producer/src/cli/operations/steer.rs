//! `producer operations continue` and `stop`.

use std::process::ExitCode;

use shared::config::DatabaseConfig;
use shared::db::{Db, Steered};

use super::show::shown;
use crate::cli::exit::NotFound;
use crate::cli::operator::OperatorArgs;
use crate::cli::output::OutputArgs;

const EXAMPLES: &str = "Examples:
  producer operations continue 7 --reason 'the canaries got through' --wait
  producer operations stop 7 --reason 'the wrong filter'";

/// Which, who and why.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct SteerArgs {
    /// Its number
    pub id: i64,
    /// Follow it until it is over or waits for a person
    #[arg(long)]
    pub wait: bool,
    /// Who and why.
    #[command(flatten)]
    pub operator: OperatorArgs,
    /// Output.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Database.
    #[command(flatten)]
    pub database: DatabaseConfig,
}

pub(super) async fn go_on(args: SteerArgs) -> anyhow::Result<ExitCode> {
    let db = Db::new(&args.database)?;
    let OperatorArgs { by, reason } = &args.operator;
    let steered = db.continue_operation(args.id, by, reason).await?;
    told(args.id, steered)?;
    shown(&db, args.id, args.wait, args.output).await
}

pub(super) async fn stop(args: SteerArgs) -> anyhow::Result<ExitCode> {
    let db = Db::new(&args.database)?;
    let OperatorArgs { by, reason } = &args.operator;
    let steered = db.stop_operation(args.id, by, reason).await?;
    told(args.id, steered)?;
    shown(&db, args.id, false, args.output).await
}

fn told(id: i64, steered: Steered) -> anyhow::Result<()> {
    match steered {
        Steered::Yes => Ok(()),
        Steered::Not(state) => anyhow::bail!("nothing is done: operation {id} is {state}"),
        Steered::Gone => Err(NotFound(format!("there is no operation {id}")).into()),
    }
}
