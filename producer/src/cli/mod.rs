//! The command line of `producer`. One file per command: its arguments, and `run`, which does it and prints through `output`.

pub mod accounts;
pub mod attempts;
pub mod audit;
pub mod completions;
pub mod costs;
pub mod dead_letters;
pub mod doctor;
pub mod exit;
pub mod find;
pub mod id;
mod job_trail;
pub mod jobs;
pub mod migrate;
pub mod notices;
pub mod operations;
pub mod operator;
pub mod output;
pub mod paid;
mod progress;
pub mod retention;
pub mod series;
pub mod short;
pub mod since;
pub mod status;
pub mod submit;
pub mod tokens;
pub mod trail;
pub mod unknowns;
pub mod vendors;
pub mod workers;

use clap::{Parser, Subcommand};
use shared::telemetry::LogConfig;

use crate::config::ServeConfig;
use costs::CostsArgs;
use submit::SubmitArgs;
use vendors::VendorsArgs;

const SERVE_EXAMPLE: &str = "Example:
  With the settings in the environment, and another address for the API:
    producer serve --http-addr 0.0.0.0:8080

Stops when it gets SIGTERM, and at once when it gets another one. Exit status: 0 stopped as it was told, 2 settings are missing, wrong
or contradict each other, 4 the database has another schema or is away, an address cannot be bound, or the broker stayed away for
BROKER_RECONNECT_BOUND: whatever started it should start it again.";

/// Takes video jobs in, dispatches their stages to the workers and follows every paid submission.
#[derive(Debug, Parser)]
#[command(version, after_help = exit::TABLE)]
pub struct Cli {
    /// Logs.
    #[command(flatten)]
    pub log: LogConfig,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the service: HTTP API, dispatch, sweeps, dead-letter ingest
    #[command(after_help = SERVE_EXAMPLE)]
    Serve(Box<ServeConfig>),
    /// Apply the database migrations that are missing
    Migrate(migrate::MigrateArgs),
    /// Upload files, create jobs and follow them
    Submit(Box<SubmitArgs>),
    /// Show the accounts at the vendors; limit, pause and resume them
    Vendors(Box<VendorsArgs>),
    /// Show what was spent, by day and vendor
    Costs(CostsArgs),
    /// Look at jobs; resume, cancel or retry them
    #[command(subcommand)]
    Jobs(jobs::JobsCommand),
    /// Find jobs, submissions and users by whatever id you have
    Find(find::FindArgs),
    /// Look at what was given up; replay or discard it
    #[command(subcommand, after_help = dead_letters::EXAMPLES)]
    DeadLetters(dead_letters::DeadLettersCommand),
    /// Notices that jobs have ended: list, look at, send again
    #[command(subcommand)]
    Notices(notices::NoticesCommand),
    /// Do something to many jobs or dead letters at once, in the background
    #[command(subcommand)]
    Operations(operations::OperationsCommand),
    /// Show the workers; let one take nothing new, go on, or stop
    Workers(workers::WorkersArgs),
    /// Show what operators did to the fleet and to jobs: who, when and why
    Trail(trail::TrailArgs),
    /// Stop every paid send of the fleet; polling and storing go on
    StopPaid(paid::StopArgs),
    /// Allow paid sends again
    ResumePaid(Box<paid::ResumeArgs>),
    /// Check what can be wrong before it costs money
    Doctor(Box<doctor::DoctorArgs>),
    /// Show what stands still or waits for a person
    Status(status::StatusArgs),
    /// Show what happened minute by minute
    Series(series::SeriesArgs),
    /// Submissions whose outcome is unknown: list, look at, decide
    Unknowns(unknowns::UnknownsArgs),
    /// Compare the ledger with the vendors' own lists
    Audit(Box<audit::AuditArgs>),
    /// Remove what is old, or say what would go
    Retention(Box<retention::RetentionArgs>),
    /// Who may use the HTTP API: create, list and revoke access tokens
    Tokens(Box<tokens::TokensArgs>),
    /// Print what makes a shell complete these commands
    Completions(completions::CompletionsArgs),
}
