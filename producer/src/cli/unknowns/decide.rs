//! A person's decision about an unknown outcome, from the command line.

use anyhow::Context as _;
use shared::db::Db;
use shared::storage::Storage;

use super::{AdoptArgs, ConfirmArgs};
use crate::decisions::{Decider, Decision};

/// The vendor has the work.
pub(super) async fn adopt(args: &AdoptArgs) -> anyhow::Result<()> {
    let decider = Decider {
        db: Db::new(&args.database)?,
        vendors: args.accounts.vendors()?,
        storage: Storage::new(&args.storage).context("object storage")?,
        protocol: args.protocol.clone(),
    };
    let decision = Decision {
        token: args.token,
        by: args.operator.by.clone(),
        reason: args.operator.reason.clone(),
        force: args.force,
    };
    let told = decider.adopt(&decision, &args.task_id).await?;
    tracing::info!("{told}");
    Ok(())
}

/// The vendor never got the request.
pub(super) async fn confirm_not_accepted(args: &ConfirmArgs) -> anyhow::Result<()> {
    let decider = Decider {
        db: Db::new(&args.database)?,
        vendors: args.accounts.vendors()?,
        storage: Storage::new(&args.storage).context("object storage")?,
        protocol: args.protocol.clone(),
    };
    let decision = Decision {
        token: args.token,
        by: args.operator.by.clone(),
        reason: args.operator.reason.clone(),
        force: args.force,
    };
    let told = decider.confirm_not_accepted(&decision).await?;
    tracing::info!("{told}");
    Ok(())
}
