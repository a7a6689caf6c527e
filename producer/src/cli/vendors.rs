//! `producer vendors`: the accounts, their limits and pauses; all of them may be changed while the fleet runs.

mod human;

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use chrono::Utc;
use clap::Subcommand;
use serde_json::{Map, Value, json};
use shared::config::DatabaseConfig;
use shared::db::{Db, VendorChange, VendorStatus};
use shared::domain::Vendor;
use shared::domain::admission::Refusal;

use super::exit::{NotFound, Usage};
use super::operator::OperatorArgs;
use super::output::{OutputArgs, counted};
use human::human;
pub(super) use human::stopped;

const EXAMPLES: &str = "\
Examples:
  producer vendors
  producer vendors set sync --max-in-flight 6 --max-per-minute 60 --reason 'plan Growth'
  producer vendors set ghostcut --daily-budget 500 --balance-floor 100 --reason 'month-end'
  producer vendors set ghostcut --daily-budget none --reason 'budget lifted'
  producer vendors pause sync --for 2h --reason 'incident 4711'
  producer vendors resume sync --reason 'incident over'

Why nothing is sent (column STOPPED): manual, misconfigured, out_of_credit, throttled, circuit stop all paid sends;
floor, budget, full stop only new ones. Polling, storing and searching always go on. `resume` ends all but floor, budget and your own cap,
and makes the jobs due that such an answer put off, or that wait to ask Sync.so again for a lost one. SPENT TODAY is what `producer costs` calls charged and reserved, together.

Exit status: 0 done, 3 there is no such account.";

/// The account of a fleet whose settings name none.
const DEFAULT_ACCOUNT: &str = "default";

/// Show the accounts at the vendors; limit, pause and resume them
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct VendorsArgs {
    /// How to print.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Database.
    #[command(flatten)]
    pub database: DatabaseConfig,
    /// What to change; without it, the accounts are shown.
    #[command(subcommand)]
    pub command: Option<VendorsCommand>,
}

/// Changes of an account.
#[derive(Debug, Subcommand)]
pub enum VendorsCommand {
    /// Show the accounts, as without a subcommand
    #[command(after_help = "Example:\n  producer vendors list")]
    List,
    /// Set limits; those that are not named stay
    #[command(after_help = EXAMPLES)]
    Set {
        /// Which account.
        #[command(flatten)]
        account: AccountArgs,
        /// The limits.
        #[command(flatten)]
        limits: Box<LimitArgs>,
        /// Who and why.
        #[command(flatten)]
        operator: OperatorArgs,
    },
    /// Stop paid sends to an account, replays and redos included; polling and storing go on
    #[command(after_help = EXAMPLES)]
    Pause {
        /// Which account.
        #[command(flatten)]
        account: AccountArgs,
        /// For how long, such as `30m` [default: until resumed]
        #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
        duration: Option<Duration>,
        /// Who and why.
        #[command(flatten)]
        operator: OperatorArgs,
    },
    /// End every pause of an account, also those that the vendor's answers made, and make the jobs due that they put off; limits stay
    #[command(after_help = EXAMPLES)]
    Resume {
        /// Which account.
        #[command(flatten)]
        account: AccountArgs,
        /// Who and why.
        #[command(flatten)]
        operator: OperatorArgs,
    },
}

/// An account.
#[derive(Debug, clap::Args)]
pub struct AccountArgs {
    /// `sync` or `ghostcut`
    #[arg(value_name = "VENDOR")]
    pub vendor: Vendor,
    /// Name of the account in the ledger
    #[arg(long, default_value = DEFAULT_ACCOUNT)]
    pub account: String,
}

/// Limits of an account; `none` removes one.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true)]
pub struct LimitArgs {
    /// Submissions from claim to final state, unknown outcomes included
    #[arg(long, value_name = "N|none", value_parser = count)]
    pub max_in_flight: Option<Knob>,
    /// Paid sends a minute, replays and redos included
    #[arg(long, value_name = "N|none", value_parser = positive)]
    pub max_per_minute: Option<Knob>,
    /// How many of them may be sent at once; `none`: two seconds' worth
    #[arg(long, value_name = "N|none", value_parser = count)]
    pub burst: Option<Knob>,
    /// The most to spend from midnight to midnight UTC, reserved or charged, in the vendor's unit (US dollars, points)
    #[arg(long, value_name = "AMOUNT|none", value_parser = amount)]
    pub daily_budget: Option<Knob>,
    /// Nothing new is paid for while the balance is below this (GhostCut)
    #[arg(long, value_name = "AMOUNT|none", value_parser = amount)]
    pub balance_floor: Option<Knob>,
}

/// A number, or null for no limit.
#[derive(Clone, Debug, PartialEq)]
pub struct Knob(Value);

fn knob<T: std::str::FromStr + Into<Value>>(
    text: &str,
    what: &str,
    fits: impl Fn(&T) -> bool,
) -> Result<Knob, String> {
    if text == "none" {
        return Ok(Knob(Value::Null));
    }
    match text.parse::<T>() {
        Ok(number) if fits(&number) => Ok(Knob(number.into())),
        _ => Err(format!("must be {what}, or `none` for no limit")),
    }
}

fn count(text: &str) -> Result<Knob, String> {
    knob::<i32>(text, "a whole number, 1 or more", |n| *n >= 1)
}

fn positive(text: &str) -> Result<Knob, String> {
    knob::<f64>(text, "a number above 0", |n| n.is_finite() && *n > 0.0)
}

fn amount(text: &str) -> Result<Knob, String> {
    knob::<f64>(text, "a number, 0 or more", |n| n.is_finite() && *n >= 0.0)
}

/// Shows or changes the accounts.
///
/// # Errors
/// When the database is away, or a change names an account or a limit that there is not.
pub async fn run(args: VendorsArgs) -> anyhow::Result<ExitCode> {
    let db = Db::new(&args.database)?;
    if let Some(change) = args.command.map(change).transpose()?.flatten() {
        let accounts = db.vendor_status().await?;
        is_known(&accounts, change.vendor, &change.account)?;
        if let Some(before) = held_before(&accounts, &change) {
            writeln!(
                std::io::stderr(),
                "replaced the pause that there was: {}",
                stopped(before)
            )?;
        }
        let changed = db.change_vendor(&change).await;
        let released = changed
            .with_context(|| format!("cannot change {}/{}", change.vendor, change.account))?;
        if let Some(released) = released.filter(|released| *released > 0) {
            let jobs = counted(released, "job");
            writeln!(std::io::stderr(), "{jobs} that waited for it: due now")?;
        }
    }
    let accounts = db.vendor_status().await?;
    let stop = db.paid_stop().await?;
    args.output.print(&json!({ "vendors": accounts }), |_| {
        human(&accounts, stop.as_ref(), Utc::now())
    })?;
    Ok(ExitCode::SUCCESS)
}

/// The account as it is, if this change replaces an operator's pause by another.
fn held_before<'a>(
    accounts: &'a [VendorStatus],
    change: &VendorChange,
) -> Option<&'a VendorStatus> {
    let mut accounts = accounts
        .iter()
        .filter(|_| change.change.get("hold_ms").is_some());
    accounts.find(|account| {
        (account.vendor.as_str(), &account.account) == (change.vendor.as_str(), &change.account)
            && account.refusal.as_deref() == Some(Refusal::Manual.as_str())
    })
}

/// A misspelt account would be limited or paused for nobody. Before a producer first runs there is only the default.
fn is_known(accounts: &[VendorStatus], vendor: Vendor, account: &str) -> anyhow::Result<()> {
    let of_vendor = accounts.iter().filter(|row| row.vendor == vendor.as_str());
    let mut known: Vec<&str> = of_vendor.map(|row| row.account.as_str()).collect();
    if known.is_empty() {
        known.push(DEFAULT_ACCOUNT);
    }
    if known.contains(&account) {
        return Ok(());
    }
    let known = known.join(", ");
    let told = format!("--account: there is no account `{account}` of {vendor}; known: {known}");
    Err(NotFound(told).into())
}

/// What is to be changed; nothing when the accounts are only shown.
fn change(command: VendorsCommand) -> anyhow::Result<Option<VendorChange>> {
    Ok(Some(match command {
        VendorsCommand::List => return Ok(None),
        VendorsCommand::Set {
            account,
            limits,
            operator,
        } => {
            // A floor that is never compared with anything would look like a safeguard.
            let floor = limits.balance_floor.as_ref();
            if account.vendor != Vendor::Ghostcut && floor.is_some_and(|floor| !floor.0.is_null()) {
                let told = format!(
                    "--balance-floor: {} does not tell its balance; --daily-budget limits what is spent there",
                    account.vendor
                );
                return Err(Usage(told).into());
            }
            VendorChange::limits(
                account.vendor,
                account.account,
                limits.into_change(),
                operator.by,
                operator.reason,
            )
        }
        VendorsCommand::Pause {
            account,
            duration,
            operator,
        } => VendorChange::pause(
            account.vendor,
            account.account,
            duration,
            operator.by,
            operator.reason,
        ),
        VendorsCommand::Resume { account, operator } => VendorChange::resume(
            account.vendor,
            account.account,
            operator.by,
            operator.reason,
        ),
    }))
}

impl LimitArgs {
    fn into_change(self: Box<Self>) -> Value {
        let named = [
            ("max_in_flight", self.max_in_flight),
            ("max_per_minute", self.max_per_minute),
            ("burst", self.burst),
            ("daily_budget", self.daily_budget),
            ("balance_floor", self.balance_floor),
        ];
        let change: Map<_, _> = named
            .into_iter()
            .filter_map(|(name, knob)| Some((name.to_owned(), knob?.0)))
            .collect();
        change.into()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(subcommand)]
        command: VendorsCommand,
    }

    fn parse(args: &[&str]) -> Result<VendorChange, String> {
        let cli = Cli::try_parse_from(["vendors"].iter().chain(args));
        let change = change(cli.map_err(|error| error.to_string())?.command);
        let change = change.map_err(|error| error.to_string())?;
        change.ok_or_else(|| "nothing is changed".to_owned())
    }

    #[test]
    fn only_what_is_named_changes_and_none_is_no_limit() {
        let set = parse(&[
            "set",
            "sync",
            "--max-in-flight",
            "6",
            "--daily-budget",
            "none",
            "--reason",
            "r",
            "--by",
            "b",
        ])
        .unwrap();
        assert_eq!(
            set.change,
            json!({ "max_in_flight": 6, "daily_budget": null })
        );
        assert_eq!(
            (set.vendor, set.account.as_str()),
            (Vendor::Sync, "default")
        );
    }

    #[test]
    fn mistakes_are_named() {
        let wrong = |args: &[&str]| parse(&[args, &["--reason", "r"]].concat()).unwrap_err();
        assert!(wrong(&["set", "sync"]).contains("--max-in-flight"));
        assert!(wrong(&["set", "sync", "--max-in-flight", "0"]).contains("1 or more, or `none`"));
        assert!(wrong(&["set", "sync", "--max-per-minute", "NaN"]).contains("above 0"));
        assert!(wrong(&["pause", "elsewhere"]).contains("elsewhere"));
        assert!(wrong(&["set", "sync", "--balance-floor", "1"]).contains("--daily-budget"));
        assert!(
            parse(&["set", "sync", "--balance-floor", "none", "--reason", "r"]).is_ok(),
            "there is none"
        );
        assert!(
            parse(&["pause", "sync"]).unwrap_err().contains("--reason"),
            "who pauses says why"
        );
    }
}
