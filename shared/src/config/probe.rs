//! How closely the files of a job are looked at before anything is paid for.

use std::time::Duration;

/// How closely the files of a job are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ProbeLevel {
    /// Only whether objects of our own bucket exist
    Off,
    /// Whether each file answers, is not empty, not an error page, not too large, and of a format that the vendor takes
    Reachable,
    /// Also how long it lasts, where its container tells: a few small reads for each file
    Full,
}

/// How a producer looks at the files of a new job.
#[derive(Clone, Copy, Debug, clap::Args)]
#[command(next_help_heading = "Input files")]
pub struct IntakeProbe {
    /// How closely to look at the files of a new job before it is taken
    #[arg(long, env, value_enum, default_value = "full")]
    pub intake_probe: ProbeLevel,
    /// Time for a foreign file to answer; after it the job is taken, and a worker looks before it pays
    #[arg(long, env, default_value = "5s", value_parser = humantime::parse_duration)]
    pub intake_probe_timeout: Duration,
}

/// How a worker looks at the files of a job.
#[derive(Clone, Copy, Debug, clap::Args)]
#[command(next_help_heading = "Input files")]
pub struct SubmitProbe {
    /// How closely to look at the files of a job before a vendor is paid, unless intake has just done so
    #[arg(long, env, value_enum, default_value = "full")]
    pub submit_probe: ProbeLevel,
}
