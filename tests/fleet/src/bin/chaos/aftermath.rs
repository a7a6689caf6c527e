//! What the storm leaves for a person, and that person: decides unknown outcomes by what the vendors themselves know, and puts back
//! everything else, by the real commands. The plan has no fault that is final at a vendor, so after this every job is completed.

use std::collections::BTreeMap;

use anyhow::Context as _;
use diesel::sql_types::{Bool, Nullable, Text, Uuid as SqlUuid};
use diesel_async::{AsyncConnection as _, AsyncPgConnection, RunQueryDsl as _};
use fleet::command::{Ended, producer};
use fleet::local_urls;
use serde_json::Value;
use shared::domain::Vendor;
use uuid::Uuid;

use crate::say;
use crate::site::Site;
use crate::watch::Watch;
use crate::yard::{INSTANCE, Yard};

/// How often somebody looks after it; what was put back may fail again on what else the storm has left.
const ROUNDS: usize = 5;
/// Why, for the trails.
const REASON: [&str; 2] = ["--reason", "the storm is over"];

/// What was left, and what was done about it.
#[derive(Debug, Default)]
pub(crate) struct Aftermath {
    /// Jobs that were not completed when all had come to rest first, by where they stood and why.
    pub(crate) stood: BTreeMap<String, usize>,
    /// What the operator did, by command.
    pub(crate) deeds: BTreeMap<&'static str, usize>,
    /// Processes that were not well in the end.
    pub(crate) unhealthy: Vec<String>,
}

/// A job that is not completed.
#[derive(diesel::QueryableByName)]
struct Standing {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
    /// Where and why it stands, for the report.
    #[diesel(sql_type = Text)]
    place: String,
    #[diesel(sql_type = Nullable<Text>)]
    state: Option<String>,
    /// A submission of it is unknown.
    #[diesel(sql_type = Bool)]
    undecided: bool,
}

const STANDING: &str = "SELECT j.id, s.state, \
    concat_ws(' ', coalesce(s.stage, j.status), s.state, coalesce(s.reason, j.error_code)) AS place, \
    EXISTS (SELECT FROM submissions u WHERE u.job_id = j.id AND (u.state = 'unknown' \
        OR u.state = 'absent' AND EXISTS (SELECT FROM callbacks k WHERE k.token = u.token AND k.outcome = 'failed'))) AS undecided \
    FROM video_jobs j LEFT JOIN job_stages s ON s.job_id = j.id WHERE j.status <> 'completed' ORDER BY j.id";

/// Waits until all has come to rest, and clears up what stands then until nothing does.
pub(crate) async fn clear_up(site: &mut Site, watch: &mut Watch) -> anyhow::Result<Aftermath> {
    let mut aftermath = Aftermath {
        unhealthy: site.rest(watch).await?,
        ..Aftermath::default()
    };
    for round in 1..=ROUNDS {
        let standing = standing().await?;
        if round == 1 {
            for job in &standing {
                *aftermath.stood.entry(job.place.clone()).or_default() += 1;
            }
        }
        if standing.is_empty() {
            break;
        }
        say(&format!("{} jobs stand; putting them back", standing.len()));
        let yard = site.yard()?.clone();
        decide(&yard, &mut aftermath.deeds).await?;
        put_back(&yard, &standing, &mut aftermath.deeds).await?;
        aftermath.unhealthy = site.rest(watch).await?;
    }
    Ok(aftermath)
}

async fn standing() -> anyhow::Result<Vec<Standing>> {
    let (database, _) = local_urls(INSTANCE).await?;
    let mut connection = AsyncPgConnection::establish(&database).await?;
    Ok(diesel::sql_query(STANDING).load(&mut connection).await?)
}

/// Decides every unknown outcome as the vendor's dashboard would tell it: adopts the work that is there, else says that none is.
async fn decide(yard: &Yard, deeds: &mut BTreeMap<&'static str, usize>) -> anyhow::Result<()> {
    let unknowns = producer(yard.environment(), &["unknowns", "list", "--json"]).await?;
    for unknown in listed(&unknowns, "unknowns")? {
        let token = unknown["token"]
            .as_str()
            .context("an unknown without a token")?;
        let vendor: Vendor = unknown["vendor"].as_str().unwrap_or_default().parse()?;
        let works = yard.control.works(vendor).await?;
        let mut ours = works.iter().filter(|work| {
            work.marker
                .as_ref()
                .is_some_and(|marker| marker.contains(token))
        });
        let (deed, args) = match ours.next() {
            Some(work) => ("adopted", vec!["adopt", token, "--task-id", &work.id]),
            None => (
                "confirmed_not_accepted",
                vec!["confirm-not-accepted", token, "--force"],
            ),
        };
        let args = [&["unknowns"], args.as_slice(), &REASON].concat();
        let ended = producer(yard.environment(), &args).await?;
        if ended.code == Some(0) {
            *deeds.entry(deed).or_default() += 1;
        } else {
            say(&format!("{args:?}: {}{}", ended.stdout, ended.stderr));
        }
    }
    Ok(())
}

/// Resumes what is parked, replays what is dead and retries what has failed. What was undecided has moved on, or waits for the next
/// round.
async fn put_back(
    yard: &Yard,
    standing: &[Standing],
    deeds: &mut BTreeMap<&'static str, usize>,
) -> anyhow::Result<()> {
    let in_state = |state: Option<&str>| -> Vec<String> {
        let jobs = standing
            .iter()
            .filter(|job| !job.undecided && job.state.as_deref() == state);
        jobs.map(|job| job.id.to_string()).collect()
    };
    let (parked, failed) = (in_state(Some("parked")), in_state(None));
    let commands = [
        ("resumed", vec!["jobs", "resume"], parked),
        (
            "retried",
            vec!["jobs", "retry", "--another-attempt"],
            failed,
        ),
    ];
    for (deed, command, jobs) in commands {
        if jobs.is_empty() {
            continue;
        }
        let ids: Vec<&str> = jobs.iter().map(String::as_str).collect();
        let args = [command.as_slice(), &["--json"], &REASON, &ids].concat();
        let ended = producer(yard.environment(), &args).await?;
        for line in listed(&ended, "jobs")? {
            if line["done"] == true {
                *deeds.entry(deed).or_default() += 1;
            } else {
                say(&format!("not {deed}: {line}"));
            }
        }
    }
    if standing
        .iter()
        .any(|job| job.state.as_deref() == Some("dead"))
    {
        let replay = [
            "dead-letters",
            "replay",
            "--all",
            "--another-attempt",
            "--json",
        ];
        let ended = producer(yard.environment(), &[&replay[..], &REASON].concat()).await?;
        let replayed = document(&ended)?["replayed"]["replayable"].as_u64();
        *deeds.entry("replayed").or_default() += usize::try_from(replayed.unwrap_or(0))?;
    }
    Ok(())
}

fn document(ended: &Ended) -> anyhow::Result<Value> {
    serde_json::from_str(&ended.stdout).with_context(|| format!("no document: {ended:?}"))
}

/// What a command lists under this name.
fn listed(ended: &Ended, name: &str) -> anyhow::Result<Vec<Value>> {
    let lines = document(ended)?[name].as_array().cloned();
    lines.with_context(|| format!("lists no {name}: {ended:?}"))
}
