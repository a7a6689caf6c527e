//! The bound on paid attempts, for the commands that put jobs back on their way.

use shared::db::{Db, DbResult, RunBy};

/// Whether the bound may be passed.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct AttemptArgs {
    /// Allow one more paid attempt where the bound is reached
    #[arg(long)]
    pub another_attempt: bool,
    /// The bound, as long as no worker has told the database which one it runs with
    #[arg(long, env, default_value_t = 2, value_parser = clap::value_parser!(i32).range(1..))]
    pub max_paid_attempts: i32,
}

impl AttemptArgs {
    /// The bound that the workers have: a replay that is let through here and refused there would help nobody.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn bound(&self, db: &Db) -> DbResult<i32> {
        let told = db.times_of(RunBy::Worker).await?;
        Ok(told.map_or(self.max_paid_attempts, |times| times.max_paid_attempts))
    }
}
