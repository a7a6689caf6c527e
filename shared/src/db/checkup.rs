//! What `producer doctor` asks the database about itself. Nothing here judges.

use chrono::{DateTime, Utc};
use diesel::sql_types::{BigInt, Bool, Integer, Text, Timestamptz};
use diesel_async::RunQueryDsl as _;

use super::{Db, DbResult};

/// What the server says of itself (<https://www.postgresql.org/docs/current/runtime-config-wal.html>).
#[derive(Clone, Debug, diesel::QueryableByName)]
pub struct Checkup {
    /// `server_version_num`: 150004 is 15.4.
    #[diesel(sql_type = Integer)]
    pub version: i32,
    /// Whether commits are forced to the disk.
    #[diesel(sql_type = Bool)]
    pub fsync: bool,
    /// Whether a torn page can be mended after a crash.
    #[diesel(sql_type = Bool)]
    pub full_page_writes: bool,
    /// Whether this is a standby, which takes no writes.
    #[diesel(sql_type = Bool)]
    pub in_recovery: bool,
    /// Whether new transactions may not write.
    #[diesel(sql_type = Bool)]
    pub read_only: bool,
    /// Standbys that a commit waits for; empty for none.
    #[diesel(sql_type = Text)]
    pub synchronous_standbys: String,
    /// Connections that the server takes.
    #[diesel(sql_type = Integer)]
    pub max_connections: i32,
    /// Those that are taken now, by anybody.
    #[diesel(sql_type = BigInt)]
    pub connections: i64,
    /// Its clock.
    #[diesel(sql_type = Timestamptz)]
    pub now: DateTime<Utc>,
}

impl Db {
    /// Asks the server about itself.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn check_up(&self) -> DbResult<Checkup> {
        let mut connection = self.connection().await?;
        let checkup = diesel::sql_query(
            "SELECT current_setting('server_version_num')::integer AS version, \
             current_setting('fsync')::boolean AS fsync, current_setting('full_page_writes')::boolean AS full_page_writes, \
             pg_is_in_recovery() AS in_recovery, current_setting('transaction_read_only')::boolean AS read_only, \
             current_setting('synchronous_standby_names') AS synchronous_standbys, \
             current_setting('max_connections')::integer AS max_connections, \
             (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS connections, \
             clock_timestamp() AS now",
        )
        .get_result(&mut connection)
        .await?;
        Ok(checkup)
    }
}
