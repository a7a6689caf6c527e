//! The checks of `producer doctor`. Each says what was found and, where that is not good, what to do about it.
//!
//! Nothing here pays for anything, and what is wrong in one part does not keep the others from being looked at.

mod broker;
mod fleet;

use std::time::{Duration, Instant};

use anyhow::Context as _;
use axum::body::Bytes;
use chrono::{TimeDelta, Utc};
use serde::Serialize;
use shared::config::{CallbackConfig, DatabaseConfig, StorageConfig};
use shared::db::{Checkup, Db, SchemaState};
use shared::domain::Vendor;
use shared::domain::answer::Work;
use shared::domain::classify::ErrorClass;
use shared::storage::{Key, Storage};
use shared::telemetry::chain;
use shared::tls;
use shared::vendor::VendorError;
use uuid::Uuid;

use crate::cli::doctor::DoctorArgs;
use crate::vendors::Vendors;

/// The oldest server that the statements are made for.
const OLDEST_POSTGRESQL: i32 = 150_000;
/// Clocks that differ more than that sign requests and read signatures wrongly: S3 allows 15 minutes, Sync.so's callbacks five.
const CLOCK_TOLERANCE: TimeDelta = TimeDelta::seconds(60);
/// How far back the vendors' lists are read.
const LISTED: TimeDelta = TimeDelta::days(7);
/// How long our own address may take to answer.
const PUBLIC_TIMEOUT: Duration = Duration::from_secs(10);

/// How good what was found is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Works, with less than could be had.
    Warning,
    /// Jobs will stand still, be lost or be paid for in vain.
    Wrong,
}

impl Level {
    /// For people.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Wrong => "WRONG",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// `settings`, `database`, `broker`, `bucket`, `callbacks`, `vendors`, `sync` or `ghostcut`.
    pub part: &'static str,
    /// What was looked at.
    pub what: &'static str,
    /// How good it is.
    pub level: Level,
    /// What was found.
    pub found: String,
    /// What to do; none where nothing has to be done.
    pub advice: Option<String>,
}

/// The checks of one part.
struct Part {
    name: &'static str,
    checks: Vec<Check>,
}

impl Part {
    const fn new(name: &'static str) -> Self {
        Self {
            name,
            checks: Vec::new(),
        }
    }

    fn push(
        &mut self,
        what: &'static str,
        level: Level,
        found: impl Into<String>,
        advice: Option<&str>,
    ) {
        self.checks.push(Check {
            part: self.name,
            what,
            level,
            found: found.into(),
            advice: advice.map(ToOwned::to_owned),
        });
    }

    fn ok(&mut self, what: &'static str, found: impl Into<String>) {
        self.push(what, Level::Ok, found, None);
    }

    fn warn(&mut self, what: &'static str, found: impl Into<String>, advice: &str) {
        self.push(what, Level::Warning, found, Some(advice));
    }

    fn wrong(&mut self, what: &'static str, found: impl Into<String>, advice: &str) {
        self.push(what, Level::Wrong, found, Some(advice));
    }

    /// As it should be, or wrong.
    fn must(&mut self, what: &'static str, good: bool, found: impl Into<String>, advice: &str) {
        if good {
            self.ok(what, found);
        } else {
            self.wrong(what, found, advice);
        }
    }
}

/// Looks at everything.
pub async fn examine(args: &DoctorArgs) -> Vec<Check> {
    tls::install_provider();
    let vendors = async {
        match args.accounts.vendors() {
            Ok(vendors) => {
                let (sync, ghostcut) = tokio::join!(sync(&vendors), ghostcut(&vendors));
                [sync.checks, ghostcut.checks].concat()
            }
            Err(error) => {
                let mut part = Part::new("vendors");
                part.wrong("settings", format!("{error:#}"), "correct the setting");
                part.checks
            }
        }
    };
    let (database, broker, bucket, callbacks, vendors) = tokio::join!(
        database(&args.database),
        broker::look(&args.broker),
        bucket(&args.storage),
        callbacks(&args.callbacks),
        vendors
    );
    let parts = [settings(args), database, broker, bucket, callbacks].map(|part| part.checks);
    parts.into_iter().flatten().chain(vendors).collect()
}

/// Times that `serve` and `worker` would refuse to start with.
fn settings(args: &DoctorArgs) -> Part {
    let mut part = Part::new("settings");
    let faults = args.protocol.check(&args.accounts.vendor);
    if faults.is_empty() {
        part.ok("times", "nest as they have to");
    }
    for fault in faults {
        part.wrong(
            "times",
            fault,
            "`serve` and `worker` do not start with these: change one",
        );
    }
    part
}

async fn database(config: &DatabaseConfig) -> Part {
    let mut part = Part::new("database");
    let asked = Utc::now();
    let answer = async { Db::new(config)?.check_up().await };
    let checkup = match answer.await {
        Ok(checkup) => checkup,
        Err(error) => {
            let advice = "check DATABASE_URL, the server and the network between";
            let cause = fleet::unreachable(config).await;
            let found = cause.unwrap_or_else(|| chain(&error));
            part.wrong("answers", found, advice);
            return part;
        }
    };
    judge_database(&mut part, &checkup, config.database_pool_size);
    // Half of what the question took may have passed on either side of the server's look at its clock.
    let between = asked + (Utc::now() - asked) / 2;
    let apart = (checkup.now - between).abs();
    let found = format!("{} s apart from this machine's", apart.num_seconds());
    let advice = "synchronise both clocks (NTP): requests to the object store and callbacks are signed with the time";
    part.must("clock", apart <= CLOCK_TOLERANCE, found, advice);
    if checkup.in_recovery || checkup.read_only {
        return part;
    }
    match Db::schema_state(config).await {
        Ok(SchemaState::Current) => part.ok("schema", "has all migrations of this build"),
        Ok(SchemaState::Newer) => part.warn(
            "schema",
            "has migrations of a newer build",
            "update this one",
        ),
        Ok(SchemaState::Older { missing }) => {
            let found = format!("lacks {}", missing.join(", "));
            part.wrong("schema", found, "run `producer migrate`");
            return part;
        }
        Err(error) => {
            let advice = "let the user of DATABASE_URL read the table of migrations";
            part.wrong("schema", chain(&error).to_string(), advice);
            return part;
        }
    }
    let asked = async { Db::new(config)?.cluster_changed().await };
    match asked.await {
        Ok(None) => part.ok("failover", "would be noticed"),
        Ok(Some(forgotten)) => {
            let advice = "let `producer serve` stop paid sends, audit and resume: `producer resume-paid --help`";
            part.wrong("failover", forgotten.reason, advice);
        }
        Err(error) => part.warn(
            "failover",
            format!("is not noticed by the cluster's name: {}", chain(&error)),
            "GRANT EXECUTE ON FUNCTION pg_control_system() to the user of DATABASE_URL",
        ),
    }
    fleet::judge(&mut part, config).await;
    part
}

fn judge_database(part: &mut Part, checkup: &Checkup, pool: usize) {
    let (major, minor) = (checkup.version / 10_000, checkup.version % 10_000);
    part.must(
        "version",
        checkup.version >= OLDEST_POSTGRESQL,
        format!("PostgreSQL {major}.{minor}"),
        "use PostgreSQL 15 or newer",
    );
    let forgets = "switch it on: a crash would forget what was paid for";
    for (what, on) in [
        ("fsync", checkup.fsync),
        ("full_page_writes", checkup.full_page_writes),
    ] {
        part.must(what, on, if on { "on" } else { "off" }, forgets);
    }
    part.must(
        "writes",
        !checkup.in_recovery && !checkup.read_only,
        match (checkup.in_recovery, checkup.read_only) {
            (true, _) => "a standby, which takes none",
            (_, true) => "read-only",
            _ => "taken",
        },
        "point DATABASE_URL at the primary, and default_transaction_read_only off",
    );
    if checkup.synchronous_standbys.is_empty() {
        part.warn(
            "standbys",
            "none is waited for (synchronous_standby_names)",
            "fine without failover; with it, the standby may lack the last commits, which stops paid sends until an audit has run",
        );
    } else {
        part.ok("standbys", checkup.synchronous_standbys.clone());
    }
    let free = i64::from(checkup.max_connections) - checkup.connections;
    let found = format!("{free} of {} connections are free", checkup.max_connections);
    let advice = "raise max_connections, or lower DATABASE_POOL_SIZE: each process takes so many";
    if usize::try_from(free).unwrap_or_default() < pool {
        part.warn("connections", found, advice);
    } else {
        part.ok("connections", found);
    }
}

async fn bucket(config: &StorageConfig) -> Part {
    let mut part = Part::new("bucket");
    let storage = match Storage::new(config) {
        Ok(storage) => storage,
        Err(error) => {
            part.wrong("settings", chain(&error).to_string(), "correct the setting");
            return part;
        }
    };
    let key = format!("doctor/{}.txt", Uuid::new_v4());
    let content = Bytes::from_static(b"written and removed by `producer doctor`");
    let rights = "check S3_ENDPOINT_URL and AWS_REGION; grant s3:PutObject, s3:GetObject, s3:DeleteObject, s3:ListBucket and s3:AbortMultipartUpload on it";
    if let Err(error) = storage.put(&key, "text/plain", content.clone()).await {
        part.wrong("write", chain(&error).to_string(), rights);
        return part;
    }
    part.ok("write", format!("an object in {}", storage.bucket()));
    match storage.head(&key).await {
        Ok(_) => part.ok("read", "its size"),
        Err(error) => part.wrong("read", chain(&error).to_string(), rights),
    }
    let life = config.s3_presign_life;
    match presigned(&storage, &key, life, &content).await {
        Ok(()) => part.ok(
            "presigned URL",
            format!("readable; lives {}", humantime::format_duration(life)),
        ),
        Err(error) => part.wrong(
            "presigned URL",
            format!("{error:#}"),
            "vendors read their inputs by such URLs: check S3_PRESIGN_LIFE, the clock and the bucket's policy",
        ),
    }
    match storage.running_uploads(Key::PREFIXES[0], None).await {
        Ok(_) => part.ok("uploads", "those that were left can be found"),
        Err(error) => part.warn(
            "uploads",
            chain(&error),
            "parts of uploads whose processes died stay: grant s3:ListBucketMultipartUploads, or set RETAIN_UPLOADS=off and a \
             lifecycle rule",
        ),
    }
    let copy = format!("{key}.copy");
    match storage.copy(&key, &copy).await {
        Ok(()) => part.ok("copy", "inside the bucket"),
        Err(error) => part.wrong("copy", chain(&error).to_string(), rights),
    }
    for key in [key, copy] {
        if let Err(error) = storage.delete(&key).await {
            part.wrong("delete", chain(&error).to_string(), rights);
            return part;
        }
    }
    part.ok("delete", "both objects again");
    part
}

async fn presigned(
    storage: &Storage,
    key: &str,
    life: Duration,
    content: &Bytes,
) -> anyhow::Result<()> {
    let url = storage.presign(key, life).await?;
    let answer = reqwest::get(url).await.map_err(reqwest::Error::without_url);
    let answer = answer?.error_for_status();
    let read = answer.map_err(reqwest::Error::without_url)?.bytes().await?;
    anyhow::ensure!(
        read == *content,
        "another content came back: is a cache in between?"
    );
    Ok(())
}

/// Whether one of our producers answers under the public address: it refuses a callback without a signature.
async fn callbacks(config: &CallbackConfig) -> Part {
    let mut part = Part::new("callbacks");
    let Some(url) = config.url(Vendor::Ghostcut, Uuid::nil()) else {
        part.ok(
            "PUBLIC_URL",
            "is not set: results are polled for, which is enough",
        );
        return part;
    };
    let asked = Instant::now();
    let refused = async {
        let client = reqwest::Client::builder().timeout(PUBLIC_TIMEOUT).build()?;
        let answer = client.post(&url).body("{}").send().await;
        let answer = answer.map_err(reqwest::Error::without_url)?;
        let (status, text) = (answer.status(), answer.text().await.unwrap_or_default());
        anyhow::ensure!(
            status == reqwest::StatusCode::UNAUTHORIZED && text.contains("signature"),
            "something else answers there: {status}"
        );
        Ok(())
    };
    match refused.await.context("asked from this machine") {
        Ok(()) => part.ok(
            "PUBLIC_URL",
            format!(
                "a producer answers, from here, within {} ms",
                asked.elapsed().as_millis()
            ),
        ),
        Err(error) => part.wrong(
            "PUBLIC_URL",
            format!("{error:#}"),
            "let it lead to the producers' HTTP_ADDR with the path kept, and `producer serve` run; or unset it: polling is enough",
        ),
    }
    part
}

async fn sync(vendors: &Vendors) -> Part {
    let mut part = Part::new("sync");
    let now = Utc::now();
    match vendors.list(Vendor::Sync, now - LISTED, now).await {
        Ok(works) => {
            part.ok("key", "taken");
            part.ok("list", listed(&works));
        }
        Err(error) => refused(
            &mut part,
            "key",
            &error,
            "check SYNC_API_KEY and SYNC_API_URL",
        ),
    }
    part
}

async fn ghostcut(vendors: &Vendors) -> Part {
    let mut part = Part::new("ghostcut");
    match vendors.ghostcut.balance().await {
        Ok(points) => {
            part.ok("key", "taken");
            part.must(
                "balance",
                points > 0.0,
                format!("{points} points"),
                "buy points: submissions are refused without",
            );
        }
        Err(error) => {
            let advice = "check GHOSTCUT_API_KEY, GHOSTCUT_APP_SECRET and GHOSTCUT_API_URL";
            refused(&mut part, "key", &error, advice);
            return part;
        }
    }
    let now = Utc::now();
    match vendors.list(Vendor::Ghostcut, now - LISTED, now).await {
        Ok(works) => judge_list(&mut part, &works),
        Err(error) => refused(
            &mut part,
            "list",
            &error,
            "ask GhostCut for the list call: without it, submissions whose answer is lost wait for a person",
        ),
    }
    part
}

/// Lost answers are found again by the work's name or by the URL of its input.
fn judge_list(part: &mut Part, works: &[Work]) {
    let shown = |of: fn(&Work) -> bool| works.iter().filter(|work| of(work)).count();
    let (names, urls) = (
        shown(|work| work.name.is_some()),
        shown(|work| work.source_url.is_some()),
    );
    let found = format!("{}; {names} with a name, {urls} with a URL", listed(works));
    if works.is_empty() {
        let advice = "check again after the first work: names and URLs in the list are how lost answers are found again";
        part.warn("list", found, advice);
    } else if names == 0 && urls == 0 {
        let advice = "ask GhostCut why: submissions whose answer is lost cannot be found, and wait for a person";
        part.wrong("list", found, advice);
    } else {
        part.ok("list", found);
    }
}

fn listed(works: &[Work]) -> String {
    format!("{} works in {} days", works.len(), LISTED.num_days())
}

fn refused(part: &mut Part, what: &'static str, error: &VendorError, advice: &str) {
    let advice = match error.class() {
        ErrorClass::Transient => {
            "try again; if it stays, check the network and the vendor's status page"
        }
        ErrorClass::Throttled { .. } => "try again later",
        _ => advice,
    };
    part.wrong(what, chain(error).to_string(), advice);
}
