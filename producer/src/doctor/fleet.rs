//! What the database says about the fleet's use, rather than about itself: who may use the API, what may be spent, who works. And
//! why it cannot be reached, which its driver does not say.

use std::time::Duration;

use shared::config::DatabaseConfig;
use shared::db::{Db, DbResult, RunBy};
use shared::domain::Stage;
use shared::telemetry::chain;
use tokio::net::TcpStream;

use super::Part;
use crate::held::Served;

/// How long a connection to the server may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// PostgreSQL's own.
const DEFAULT_PORT: u16 = 5432;

pub(super) async fn judge(part: &mut Part, config: &DatabaseConfig) {
    if let Err(error) = look(part, config).await {
        part.wrong(
            "fleet",
            chain(&error),
            "let the user of DATABASE_URL read the tables",
        );
    }
}

async fn look(part: &mut Part, config: &DatabaseConfig) -> DbResult<()> {
    let db = Db::new(config)?;
    let tokens = db.tokens().await?;
    if tokens.is_empty() {
        part.warn(
            "access tokens",
            "none: the API answers its own machine, and everybody on it",
            "`producer tokens create`; from the first one on, every client needs one",
        );
    } else {
        let live = tokens.iter().filter(|token| token.state == "live").count();
        part.ok("access tokens", format!("{live} live"));
    }
    let accounts = db.vendor_status().await?;
    let unlimited = accounts
        .iter()
        .filter(|account| account.daily_budget.is_none());
    let names = unlimited.map(|account| format!("{}/{}", account.vendor, account.account));
    let names: Vec<_> = names.collect();
    if names.is_empty() {
        part.ok("limits", "a daily budget for every account that was used");
    } else {
        part.warn(
            "limits",
            format!("no daily budget for {}", names.join(", ")),
            "a fault of a client could spend without bound: `producer vendors set VENDOR --daily-budget …`",
        );
    }
    if db.times_of(RunBy::Worker).await?.is_none() {
        let never = "none has ever started with this database";
        part.warn("workers", never, "start `worker`");
        return Ok(());
    }
    let served = Served::read(&db).await?;
    let lacking = Stage::ALL.iter().filter_map(|stage| served.lack(*stage));
    let lacking: Vec<_> = lacking.map(|held| held.sentence).collect();
    if lacking.is_empty() {
        part.ok("workers", "every stage has one that takes its jobs");
    } else {
        let advice = "start `worker`, or `producer workers resume` a quiet one";
        part.warn("workers", lacking.join("; "), advice);
    }
    Ok(())
}

/// Why the server cannot be reached; none when it can, and the fault is another.
pub(super) async fn unreachable(config: &DatabaseConfig) -> Option<String> {
    let url = reqwest::Url::parse(config.database_url.expose()).ok()?;
    let (host, port) = (
        url.host_str()?.to_owned(),
        url.port().unwrap_or(DEFAULT_PORT),
    );
    let connecting = TcpStream::connect((host.as_str(), port));
    match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(Ok(_)) => None,
        Ok(Err(error)) => Some(format!("cannot connect to {host}:{port}: {error}")),
        Err(_) => Some(format!(
            "{host}:{port} does not answer within {CONNECT_TIMEOUT:?}"
        )),
    }
}
