//! The bound on paid attempts, for the commands that put jobs back on their way.

/// Whether the bound may be passed.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct AttemptArgs {
    /// Allow one more paid attempt where the bound is reached
    #[arg(long)]
    pub another_attempt: bool,
    /// The bound that the workers have
    #[arg(long, env, default_value_t = 2, value_parser = clap::value_parser!(i32).range(1..))]
    pub max_paid_attempts: i32,
}
