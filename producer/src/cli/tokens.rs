//! `producer tokens`: who may use the HTTP API. Works on the database and needs no token itself: whoever reaches the database
//! may do everything anyway.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use chrono::{DateTime, Utc};
use clap::Subcommand;
use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use serde_json::json;
use shared::config::DatabaseConfig;
use shared::db::{Db, NewToken, Revoked, TokenRow};
use shared::domain::access::{Role, is_name};

use super::exit::NotFound;
use super::operator::OperatorArgs;
use super::output::{OutputArgs, table};
use crate::secrets;
use crate::times::told;

/// Nobody plans further ahead; without it a slip of the keyboard would be an error of the database.
const LONGEST_LIFE: Duration = Duration::from_secs(10 * 366 * 24 * 3600);

const EXAMPLES: &str = "Examples:
  producer tokens create ann --role operate --reason 'on call' --expires-in 90d
  producer tokens create shop --role submit --reason 'the shop puts jobs in' > shop.token
  producer tokens list
  producer tokens revoke ann --reason 'left the team'

Roles:
  submit   put jobs in, look at a job by its id
  read     see everything, preview what an operation would do, change nothing
  operate  see everything; act on jobs, dead letters, unknown outcomes, workers, accounts and the global stop
  admin    everything

A token goes into the header `Authorization: Bearer gf_…`. It is shown once and kept as a hash. As soon as there is one token,
every request of the API needs one, of whatever role it is: clients without one are shut out from then on, and revoking the last
token does not open it again.

Exit status: 0 done, 1 the name is taken, 3 there is no such token.";

/// Who may use the HTTP API: create, list and revoke access tokens
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct TokensArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: TokensCommand,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum TokensCommand {
    /// Make a token and print it, once
    #[command(after_help = EXAMPLES)]
    Create(CreateArgs),
    /// List tokens: what they are for, who made them, when they were used
    #[command(after_help = EXAMPLES)]
    List {
        /// How to print.
        #[command(flatten)]
        output: OutputArgs,
        /// Database.
        #[command(flatten)]
        database: DatabaseConfig,
    },
    /// End a token and every session of it, at once and for good
    #[command(after_help = EXAMPLES)]
    Revoke {
        /// Its name
        #[arg(value_parser = name)]
        name: String,
        /// How to print.
        #[command(flatten)]
        output: OutputArgs,
        /// Who and why.
        #[command(flatten)]
        operator: OperatorArgs,
        /// Database.
        #[command(flatten)]
        database: DatabaseConfig,
    },
}

/// A token to be made.
#[derive(Debug, clap::Args)]
pub struct CreateArgs {
    /// What the trail will call whoever uses it; a name is never given twice
    #[arg(value_parser = name)]
    pub name: String,
    /// What it is for
    #[arg(long, value_parser = PossibleValuesParser::new(Role::ALL.iter().map(|role| role.as_str())).try_map(|role| role.parse::<Role>()))]
    pub role: Role,
    /// How long it is good, such as `90d` [default: until revoked]
    #[arg(long, value_name = "TIME", value_parser = life)]
    pub expires_in: Option<Duration>,
    /// How to print.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Who and why.
    #[command(flatten)]
    pub operator: OperatorArgs,
    /// Database.
    #[command(flatten)]
    pub database: DatabaseConfig,
}

fn name(text: &str) -> Result<String, String> {
    if is_name(text) {
        return Ok(text.to_owned());
    }
    Err("must be 1 to 64 letters, digits and `._@-`, and begin with a letter or digit".to_owned())
}

fn life(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(life) if !life.is_zero() && life <= LONGEST_LIFE => Ok(life),
        _ => Err("must be a time such as `12h` or `90d`, at most ten years".to_owned()),
    }
}

/// Runs a subcommand.
///
/// # Errors
/// When the database is away, the name is taken, or there is no such token.
pub async fn run(args: TokensArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        TokensCommand::Create(args) => create(&args).await?,
        TokensCommand::List { output, database } => {
            let tokens = Db::new(&database)?.tokens().await?;
            output.print(&json!({ "tokens": tokens }), |_| human(&tokens))?;
        }
        TokensCommand::Revoke {
            name,
            output,
            operator: OperatorArgs { reason, by },
            database,
        } => {
            let db = Db::new(&database)?;
            let now = match db.revoke_token(&name, &by, &reason).await? {
                Revoked::Now => true,
                Revoked::Before => false,
                Revoked::Unknown => {
                    return Err(NotFound(format!("there is no token `{name}`")).into());
                }
            };
            output.print(&json!({ "name": name, "revoked_now": now }), |_| {
                if now {
                    format!("the token `{name}` is revoked")
                } else {
                    format!("the token `{name}` was revoked before")
                }
            })?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn create(args: &CreateArgs) -> anyhow::Result<()> {
    let fresh = secrets::fresh(secrets::Kind::Token).context("no random bytes")?;
    let db = Db::new(&args.database)?;
    if db.tokens().await?.is_empty() {
        writeln!(
            std::io::stderr(),
            "this is the first token: from now on, and for good, the API answers nobody without one, on this machine neither"
        )?;
    }
    let made = db
        .create_token(&NewToken {
            name: &args.name,
            sha256: fresh.sha256,
            role: args.role,
            life: args.expires_in,
            by: &args.operator.by,
            reason: &args.operator.reason,
        })
        .await?;
    anyhow::ensure!(
        made,
        "there is or was a token `{}`; take another name, so that the trail stays clear",
        args.name
    );
    tracing::info!(token.name = args.name, role = %args.role, "the token is shown this once; every request of the API now needs one");
    let document = json!({ "name": args.name, "role": args.role, "token": fresh.secret.expose() });
    // Alone on its line, for `> file` and `$(…)`.
    args.output
        .print(&document, |_| fresh.secret.expose().to_owned())
}

fn human(tokens: &[TokenRow]) -> String {
    let time =
        |at: Option<DateTime<Utc>>| at.map_or_else(|| "-".to_owned(), |at| told(at).to_string());
    let rows = tokens.iter().map(|token| {
        [
            token.name.clone(),
            token.role.clone(),
            token.state.clone(),
            time(Some(token.created_at)),
            token.created_by.clone(),
            time(token.last_used_at),
            time(token.expires_at),
            token.reason.clone().unwrap_or_else(|| "-".to_owned()),
        ]
    });
    table(
        [
            "NAME",
            "ROLE",
            "STATE",
            "CREATED",
            "BY",
            "LAST USED",
            "EXPIRES",
            "REASON",
        ],
        rows,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lives_have_bounds() {
        assert_eq!(life("90d").unwrap().as_secs(), 90 * 86400);
        for wrong in ["", "0s", "90", "11years", "never"] {
            assert!(life(wrong).unwrap_err().contains("ten years"), "{wrong}");
        }
    }
}
