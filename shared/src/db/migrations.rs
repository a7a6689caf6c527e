//! Applying the embedded migrations, and telling whether the database has them.

use std::time::{Duration, Instant};

use diesel::sql_types::Bool;
use diesel_async::{AsyncMigrationHarness, AsyncPgConnection, RunQueryDsl as _};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness as _, embed_migrations};

use super::tls::Target;
use super::{AWAY_WAIT, Db, DbError, DbResult};
use crate::config::DatabaseConfig;
use crate::telemetry::chain;

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("../migrations");

/// How long a process that starts waits for the database.
const START_WAIT: Duration = Duration::from_secs(30);
/// Between tries to be the one who migrates.
const LOCK_WAIT: Duration = Duration::from_millis(200);

#[derive(diesel::QueryableByName)]
struct Locked {
    #[diesel(sql_type = Bool)]
    locked: bool,
}

/// What the database has, compared with what this build needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SchemaState {
    /// All of this build's migrations, and no others.
    Current,
    /// Migrations are missing: `producer migrate` applies them.
    Older {
        /// Names of the missing ones.
        missing: Vec<String>,
    },
    /// Migrations of a newer build are there. Allowed: migrations expand before they contract.
    Newer,
}

async fn with_harness<T: Send + 'static>(
    config: &DatabaseConfig,
    work: impl FnOnce(&mut AsyncMigrationHarness<AsyncPgConnection>) -> DbResult<T> + Send + 'static,
) -> DbResult<T> {
    let mut connection = Target::new(config.database_url.expose())?.connect().await?;
    // For the life of the connection, so that two producers starting together do not collide. Asked for again and again: a
    // statement that waited for it would keep CREATE INDEX CONCURRENTLY waiting for that statement's snapshot.
    while !try_lock(&mut connection).await? {
        tokio::time::sleep(LOCK_WAIT).await;
    }
    // The harness blocks; it must not do so on a thread that drives the connection.
    tokio::task::spawn_blocking(move || work(&mut AsyncMigrationHarness::new(connection)))
        .await
        .map_err(|error| DbError::Migration(error.to_string()))?
}

async fn try_lock(connection: &mut AsyncPgConnection) -> DbResult<bool> {
    let row: Locked = diesel::sql_query(
        "SELECT pg_try_advisory_lock(hashtext('ghostfleet migrations')) AS locked",
    )
    .get_result(connection)
    .await?;
    Ok(row.locked)
}

fn failed(error: impl std::fmt::Display) -> DbError {
    DbError::Migration(error.to_string())
}

impl Db {
    /// Applies what is missing and names it. Several callers at once wait for each other.
    ///
    /// # Errors
    /// [`DbError::Migration`]; each migration is a transaction, so the database is at the last one that worked.
    pub async fn migrate(config: &DatabaseConfig) -> DbResult<Vec<String>> {
        with_harness(config, |harness| {
            let applied = harness.run_pending_migrations(MIGRATIONS).map_err(failed)?;
            Ok(applied.iter().map(ToString::to_string).collect())
        })
        .await
    }

    /// Reverts all migrations. Jobs stay; the ledger goes. For tests and for leaving the fleet.
    ///
    /// # Errors
    /// [`DbError::Migration`].
    pub async fn revert_all(config: &DatabaseConfig) -> DbResult<()> {
        with_harness(config, |harness| {
            harness.revert_all_migrations(MIGRATIONS).map_err(failed)?;
            Ok(())
        })
        .await
    }

    /// Waits half a minute for the database, so that a restart of everything needs no order, and refuses one that lacks
    /// migrations of this build. One of a newer build is fine: migrations expand before they
    /// contract.
    ///
    /// # Errors
    /// [`DbError::OlderSchema`] says what to run; others when the database is away.
    pub async fn require_schema(config: &DatabaseConfig) -> DbResult<()> {
        let asked = Instant::now();
        let state = loop {
            match Self::schema_state(config).await {
                Err(error) if error.is_transient() && asked.elapsed() < START_WAIT => {
                    tracing::warn!(error = chain(&error), "waiting for the database");
                    tokio::time::sleep(AWAY_WAIT).await;
                }
                answered => break answered?,
            }
        };
        match state {
            SchemaState::Older { missing } => Err(DbError::OlderSchema(missing.join(", "))),
            SchemaState::Newer => {
                tracing::warn!("the database has migrations of a newer build");
                Ok(())
            }
            SchemaState::Current => Ok(()),
        }
    }

    /// Compares the database with this build.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn schema_state(config: &DatabaseConfig) -> DbResult<SchemaState> {
        with_harness(config, |harness| {
            let missing = harness.pending_migrations(MIGRATIONS).map_err(failed)?;
            if !missing.is_empty() {
                return Ok(SchemaState::Older {
                    missing: missing.iter().map(|m| m.name().to_string()).collect(),
                });
            }
            let applied = harness.applied_migrations().map_err(failed)?.len();
            let ours =
                diesel::migration::MigrationSource::<diesel::pg::Pg>::migrations(&MIGRATIONS)
                    .map_err(failed)?
                    .len();
            Ok(if applied > ours {
                SchemaState::Newer
            } else {
                SchemaState::Current
            })
        })
        .await
    }
}
