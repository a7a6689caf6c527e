//! A database of its own for every run, on a server that others use too.

use anyhow::Context as _;
use diesel_async::{AsyncConnection as _, AsyncPgConnection, SimpleAsyncConnection as _};
use reqwest::Url;
use uuid::Uuid;

/// A database that [`Database::drop`] removes. Empty until migrated.
pub struct Database {
    /// Its URL.
    pub url: String,
    name: String,
    server: String,
}

impl Database {
    /// Creates a database on the server of `server_url`.
    ///
    /// # Errors
    /// When the server is away or the user may not create databases.
    pub async fn create(server_url: &str) -> anyhow::Result<Self> {
        let name = format!("ghostfleet_{}", Uuid::new_v4().simple());
        let mut url: Url = server_url.parse().context("DATABASE_URL")?;
        url.set_path(&name);
        let database = Self {
            url: url.into(),
            name,
            server: server_url.to_owned(),
        };
        let mut connection = connect(server_url).await?;
        connection
            .batch_execute(&format!("CREATE DATABASE {}", database.name))
            .await
            .context("cannot create a database")?;
        Ok(database)
    }

    /// Removes the database, whoever is connected to it.
    ///
    /// # Errors
    /// When the server is away.
    pub async fn drop(self) -> anyhow::Result<()> {
        let mut connection = connect(&self.server).await?;
        let statement = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        Ok(connection.batch_execute(&statement).await?)
    }
}

/// A connection of our own, beside the fleet's pools.
pub(crate) async fn connect(url: &str) -> anyhow::Result<AsyncPgConnection> {
    AsyncPgConnection::establish(url)
        .await
        .context("the database is away")
}
