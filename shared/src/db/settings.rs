//! Fleet-wide switches: the global stop of paid sends.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use serde_json::json;

use super::schema::settings;
use super::{Db, DbResult};

const STOP_PAID: &str = "stop_paid";

impl Db {
    /// Stops every paid send of the fleet until [`Db::resume_paid`]; polling and storing go on. The first reason stays.
    ///
    /// # Errors
    /// When the database is away nothing is stopped.
    pub async fn stop_paid(&self, reason: &str, by: &str) -> DbResult<()> {
        let mut connection = self.connection().await?;
        diesel::insert_into(settings::table)
            .values((
                settings::name.eq(STOP_PAID),
                settings::value.eq(json!({ "reason": reason })),
                settings::changed_by.eq(by),
            ))
            .on_conflict_do_nothing()
            .execute(&mut connection)
            .await?;
        Ok(())
    }

    /// Allows paid sends again. False: they were not stopped.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn resume_paid(&self) -> DbResult<bool> {
        let mut connection = self.connection().await?;
        let rows = diesel::delete(settings::table.find(STOP_PAID))
            .execute(&mut connection)
            .await?;
        Ok(rows > 0)
    }

    /// Why paid sends are stopped, if they are.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn paid_stopped(&self) -> DbResult<Option<String>> {
        let mut connection = self.connection().await?;
        let value: Option<serde_json::Value> = settings::table
            .find(STOP_PAID)
            .select(settings::value)
            .first(&mut connection)
            .await
            .optional()?;
        Ok(value.map(|value| value["reason"].as_str().unwrap_or_default().to_owned()))
    }
}
