//! `producer find`.

use std::collections::BTreeSet;
use std::process::ExitCode;

use clap::builder::NonEmptyStringValueParser;
use shared::config::DatabaseConfig;
use shared::db::{Db, Found};
use shared::domain::find::Sought;
use uuid::Uuid;

use super::exit::{Exit, NotFound, Usage};
use super::output::{OutputArgs, table};

const EXAMPLES: &str = "Examples:
  The job of a work that a vendor's dashboard shows:  producer find 1048576
  The beginning of an id, from a screenshot:          producer find 7b0c6c7e
  A marker or a URL that a vendor was given:          producer find gf-7b0c6c7e-0f8b-4a1e-9d0a-0f8b00000001-1-6f0f9d0a-0f8b-4a1e-9d0a-0f8b00000001

At most ten of each kind. `producer jobs list --text` finds by names and errors.

Exit status: 0 something was found, 3 nothing was.";

/// Find jobs, submissions and users by whatever id you have
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct FindArgs {
    /// A job's id, a submission's token or marker (gf-...), a user's id, six or more digits that one begins with, or a vendor's id
    #[arg(value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
    pub id: String,
    /// How to print.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Database.
    #[command(flatten)]
    pub database: DatabaseConfig,
}

/// Finds it.
///
/// # Errors
/// When the database is away.
pub async fn run(args: FindArgs) -> anyhow::Result<ExitCode> {
    let db = Db::new(&args.database)?;
    let found = db.find(&Sought::read(&args.id)).await?;
    args.output.print(&found, human)?;
    let nothing = found.jobs.is_empty() && found.submissions.is_empty() && found.users.is_empty();
    Ok(if nothing { Exit::NotFound } else { Exit::Done }.into())
}

/// The job of an id, whole or not: of its own, of a submission, or of a vendor's.
///
/// # Errors
/// When no job has it, or more than one; when the database is away.
pub(super) async fn job(db: &Db, id: &str) -> anyhow::Result<Uuid> {
    let found = db.find(&Sought::read(id)).await?;
    let jobs = found.jobs.iter().map(|job| job.id);
    let submissions = found.submissions.iter().map(|one| one.job_id);
    let jobs: BTreeSet<Uuid> = jobs.chain(submissions).collect();
    match jobs.iter().collect::<Vec<_>>()[..] {
        [only] => Ok(*only),
        [] => Err(NotFound(format!(
            "there is no job {id}; `producer jobs list --text` looks for names"
        ))
        .into()),
        [..] => {
            let told = format!(
                "at least {} jobs have ids like {id}: `producer find {id}` lists them",
                jobs.len()
            );
            Err(Usage(told).into())
        }
    }
}

fn human(found: &Found) -> String {
    let jobs = found.jobs.iter().map(|job| {
        let says = format!("{}, {}", job.status, job.name);
        [
            "job".to_owned(),
            job.id.to_string(),
            job.id.to_string(),
            says,
        ]
    });
    let submissions = found.submissions.iter().map(|one| {
        let work = one.vendor_task_id.as_ref();
        let work = work.map_or_else(String::new, |work| format!(", work {work}"));
        let says = format!(
            "{} attempt {}, {}{work}",
            one.vendor, one.attempt, one.state
        );
        [
            "submission".to_owned(),
            one.token.to_string(),
            one.job_id.to_string(),
            says,
        ]
    });
    let users = found.users.iter().map(|user| {
        let says = "owner of jobs: producer jobs list --user".to_owned();
        ["user".to_owned(), user.to_string(), String::new(), says]
    });
    let rows: Vec<_> = jobs.chain(submissions).chain(users).collect();
    match rows.is_empty() {
        true => "nothing has this id".to_owned(),
        false => table(["KIND", "ID", "JOB", "WHAT"], rows),
    }
}
