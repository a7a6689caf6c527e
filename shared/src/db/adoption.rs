//! Rows of `video_jobs` that another application put in: finding them and giving them their stage row.

use std::time::Duration;

use diesel::sql_types::{BigInt, Bool, Jsonb, Nullable, Text, Uuid as SqlUuid};
use diesel_async::{AsyncConnection as _, RunQueryDsl as _};
use serde_json::{Value, json};
use uuid::Uuid;

use super::dispatch::millis;
use super::load::readable;
use super::{Db, DbResult};
use crate::domain::{Stage, Vendor};

/// A row that is ready to run and that no stage row follows.
#[derive(Clone, Debug)]
pub struct UnadoptedRow {
    /// The job.
    pub id: Uuid,
    /// What to do at GhostCut.
    pub processing_config: Option<Value>,
    /// What to do at Sync.so.
    pub segments_data: Option<Value>,
    /// Where the inputs lie, and the ids of works.
    pub job_metadata: Option<Value>,
    /// The generation of a pro job of the replaced application.
    pub zhaoli_task_id: Option<String>,
}

#[derive(diesel::QueryableByName)]
struct Row {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
    #[diesel(sql_type = Nullable<Text>)]
    processing_config: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    segments_data: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    job_metadata: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    zhaoli_task_id: Option<String>,
}

#[derive(diesel::QueryableByName)]
struct Imported {
    #[diesel(sql_type = Bool)]
    #[expect(dead_code, reason = "the ledger knowing the id already is as good")]
    imported: bool,
}

impl Db {
    /// Rows of pro jobs that are `queued` or `processing`, were written to within the given time, and have no stage row.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn unadopted(&self, within: Duration, limit: i64) -> DbResult<Vec<UnadoptedRow>> {
        let mut connection = self.connection().await?;
        // The literals of the WHERE are those of the partial index.
        let rows: Vec<Row> = diesel::sql_query(
            "SELECT id, processing_config::text, segments_data::text, job_metadata::text, zhaoli_task_id FROM video_jobs v \
             WHERE is_pro_job AND status IN ('queued', 'processing') \
             AND updated_at > timezone('utc', now()) - make_interval(secs => $1 / 1000.0) \
             AND NOT EXISTS (SELECT FROM job_stages st WHERE st.job_id = v.id) ORDER BY updated_at LIMIT $2",
        )
        .bind::<BigInt, _>(millis(within))
        .bind::<BigInt, _>(limit)
        .load(&mut connection)
        .await?;
        let unadopted = rows.into_iter().map(|row| UnadoptedRow {
            id: row.id,
            processing_config: readable(row.processing_config),
            segments_data: readable(row.segments_data),
            job_metadata: readable(row.job_metadata),
            zhaoli_task_id: row.zhaoli_task_id,
        });
        Ok(unadopted.collect())
    }

    /// Gives a row its first stage, due now, and takes the works it names into the ledger. False: somebody was faster, or the
    /// job is over by now.
    ///
    /// # Errors
    /// Then nothing is changed.
    pub async fn adopt(
        &self,
        job: Uuid,
        stage: Stage,
        works: &[(Vendor, &str, &str)],
    ) -> DbResult<bool> {
        let mut connection = self.connection().await?;
        let adopted = connection
            .transaction(async |connection| {
                let inserted = diesel::sql_query(
                    "WITH job AS (SELECT id, user_id FROM video_jobs WHERE id = $1 \
                                  AND status IN ('queued', 'processing') FOR UPDATE) \
                     INSERT INTO job_stages (job_id, stage, fairness_key) SELECT id, $2, user_id FROM job \
                     ON CONFLICT DO NOTHING",
                )
                .bind::<SqlUuid, _>(job)
                .bind::<Text, _>(stage.as_str())
                .execute(connection)
                .await?;
                if inserted == 0 {
                    return Ok::<_, diesel::result::Error>(false);
                }
                for (vendor, account, task_id) in works {
                    diesel::sql_query("SELECT import_submission($1, $2, $3, $4) AS imported")
                        .bind::<SqlUuid, _>(job)
                        .bind::<Text, _>(vendor.as_str())
                        .bind::<Text, _>(*account)
                        .bind::<Text, _>(*task_id)
                        .get_result::<Imported>(connection)
                        .await?;
                }
                diesel::sql_query(
                    "INSERT INTO job_events (job_id, kind, actor, stage, detail) VALUES ($1, 'adopted', 'adoption', $2, $3)",
                )
                .bind::<SqlUuid, _>(job)
                .bind::<Text, _>(stage.as_str())
                .bind::<Jsonb, _>(json!({ "works": works.iter().map(|(_, _, id)| id).collect::<Vec<_>>() }))
                .execute(connection)
                .await?;
                Ok(true)
            })
            .await?;
        Ok(adopted)
    }
}
