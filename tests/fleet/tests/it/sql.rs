//! SQL beside the fleet's own queries: to prepare what no query of the fleet would, and to look from outside.

use diesel::sql_types::{Nullable, Text};
use diesel_async::{
    AsyncConnection as _, AsyncPgConnection, RunQueryDsl as _, SimpleAsyncConnection as _,
};
use fleet::{Database, Servers};
use shared::config::{DatabaseConfig, Secret};
use shared::db::Db;
use std::time::Duration;

#[derive(diesel::QueryableByName)]
struct Row {
    #[diesel(sql_type = Nullable<Text>)]
    value: Option<String>,
}

/// Runs statements; an error is PostgreSQL's text.
pub(crate) async fn execute(url: &str, statements: &str) -> anyhow::Result<()> {
    let mut connection = AsyncPgConnection::establish(url).await?;
    Ok(connection.batch_execute(statements).await?)
}

/// The rows of a query with one column called `value` of type text.
pub(crate) async fn values(url: &str, query: &str) -> anyhow::Result<Vec<Option<String>>> {
    let mut connection = AsyncPgConnection::establish(url).await?;
    let rows: Vec<Row> = diesel::sql_query(query).load(&mut connection).await?;
    Ok(rows.into_iter().map(|row| row.value).collect())
}

/// The one row of such a query.
pub(crate) async fn value(url: &str, query: &str) -> anyhow::Result<Option<String>> {
    Ok(values(url, query).await?.into_iter().next().flatten())
}

/// How to reach a database.
pub(crate) fn config(url: &str) -> DatabaseConfig {
    DatabaseConfig {
        database_url: Secret::from(url.to_owned()),
        database_pool_size: 20,
        database_connect_timeout: Duration::from_secs(10),
        database_statement_timeout: Duration::from_secs(30),
    }
}

/// Runs a test with a database of its own, migrated or not.
pub(crate) async fn with_database(
    migrated: bool,
    test: impl AsyncFnOnce(&str, &Db) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let servers = Servers::get("test").await?;
    let database = Database::create(&servers.database_url).await?;
    if migrated {
        Db::migrate(&config(&database.url)).await?;
    }
    let db = Db::new(&config(&database.url))?;
    let result = test(&database.url, &db).await;
    drop(db);
    database.drop().await?;
    servers.release().await;
    result
}
