//! A person's decision about an unknown outcome, from the command line.

use anyhow::Context as _;
use serde_json::json;
use shared::db::Db;
use shared::storage::Storage;
use uuid::Uuid;

use super::{AdoptArgs, ConfirmArgs, DecisionArgs};
use crate::cli::exit::NotFound;
use crate::cli::output::OutputArgs;
use crate::decisions::{Decider, Decision, DecisionError, Surface};

/// The vendor has the work.
pub(super) async fn adopt(args: &AdoptArgs) -> anyhow::Result<()> {
    let (decider, decision) = args.decision.read(args.force)?;
    let told = decider.adopt(&decision, &args.task_id).await;
    print(args.decision.output, decision.token, told)
}

/// The vendor never got the request.
pub(super) async fn confirm_not_accepted(args: &ConfirmArgs) -> anyhow::Result<()> {
    let (decider, decision) = args.decision.read(args.force)?;
    let told = decider.confirm_not_accepted(&decision).await;
    print(args.decision.output, decision.token, told)
}

impl DecisionArgs {
    fn read(&self, force: bool) -> anyhow::Result<(Decider, Decision)> {
        let decider = Decider {
            db: Db::new(&self.database)?,
            vendors: self.accounts.vendors()?,
            storage: Storage::new(&self.storage).context("object storage")?,
            protocol: self.protocol.clone(),
        };
        let decision = Decision {
            token: self.token,
            by: self.operator.by.clone(),
            reason: self.operator.reason.clone(),
            force,
            surface: Surface::CommandLine,
        };
        Ok((decider, decision))
    }
}

fn print(
    output: OutputArgs,
    token: Uuid,
    decided: Result<String, DecisionError>,
) -> anyhow::Result<()> {
    let told = match decided {
        Ok(told) => told,
        Err(error @ DecisionError::Gone(_)) => return Err(NotFound(error.to_string()).into()),
        Err(error) => return Err(error.into()),
    };
    output.print(&json!({ "token": token, "outcome": told }), |_| {
        told.clone()
    })
}
