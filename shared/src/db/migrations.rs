//! Applying the embedded migrations, and telling whether the database has them.

use diesel_async::{AsyncMigrationHarness, AsyncPgConnection, SimpleAsyncConnection as _};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness as _, embed_migrations};

use super::{Db, DbError, DbResult, connect};
use crate::config::DatabaseConfig;

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("../migrations");

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
    let mut connection = connect(config.database_url.expose()).await?;
    // For the life of the connection, so that two producers starting together do not collide.
    connection
        .batch_execute("SELECT pg_advisory_lock(hashtext('ghostfleet migrations'))")
        .await?;
    // The harness blocks; it must not do so on a thread that drives the connection.
    tokio::task::spawn_blocking(move || work(&mut AsyncMigrationHarness::new(connection)))
        .await
        .map_err(|error| DbError::Migration(error.to_string()))?
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

    /// Refuses a database that lacks migrations of this build. One of a newer build is fine: migrations expand before they
    /// contract.
    ///
    /// # Errors
    /// [`DbError::OlderSchema`] says what to run; others when the database is away.
    pub async fn require_schema(config: &DatabaseConfig) -> DbResult<()> {
        match Self::schema_state(config).await? {
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
