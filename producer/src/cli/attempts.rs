//! Passing the bound on paid attempts, for the commands that put jobs back on their way. The bound itself is the workers'
//! (`MAX_PAID_ATTEMPTS`), which tell the database.

/// Whether the bound may be passed.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct AttemptArgs {
    /// Allow one more paid attempt where the bound is reached
    #[arg(long)]
    pub another_attempt: bool,
}
