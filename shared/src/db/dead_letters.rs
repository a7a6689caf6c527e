//! What arrived in the dead-letter queue.

use diesel::sql_types::{BigInt, Binary, Jsonb, Nullable, Text, Uuid as SqlUuid};
use diesel_async::RunQueryDsl as _;
use serde_json::Value;
use uuid::Uuid;

use super::protocol::strip_nul;
use super::{Db, DbResult};
use crate::domain::Stage;

/// A dead message, as the ingest read it.
#[derive(Clone, Debug)]
pub enum DeadLetter {
    /// A job that the database has given up, or will: the headers are attached to what it says.
    Job {
        /// The job.
        job: Uuid,
        /// The epoch the message was sent under.
        epoch: i64,
        /// The stage it was for.
        stage: Stage,
    },
    /// A message nobody can decide about, kept as it came.
    Undecidable {
        /// The stage whose queue it died in, where known.
        stage: Option<Stage>,
        /// Why it cannot be read.
        error: String,
        /// The raw body.
        body: Vec<u8>,
    },
}

impl Db {
    /// Keeps a dead letter; the same one again changes nothing.
    ///
    /// # Errors
    /// Then the message must not be acknowledged.
    pub async fn record_dead_letter(&self, letter: &DeadLetter, headers: &Value) -> DbResult<()> {
        let mut headers = headers.clone();
        strip_nul(&mut headers);
        let mut connection = self.connection().await?;
        match letter {
            // A worker gives a job up in the database first and rejects then, so the row is there. A message that died in
            // any other way (delivery limit, queue gone) finds none, and needs none: its job is due again after the lease.
            DeadLetter::Job { job, epoch, stage } => {
                diesel::sql_query(
                    "UPDATE dead_letters SET headers = $4 WHERE job_id = $1 AND epoch = $2 AND stage = $3",
                )
                .bind::<SqlUuid, _>(job)
                .bind::<BigInt, _>(epoch)
                .bind::<Text, _>(stage.as_str())
                .bind::<Jsonb, _>(&headers)
                .execute(&mut connection)
                .await?;
            }
            DeadLetter::Undecidable { stage, error, body } => {
                diesel::sql_query(
                    "INSERT INTO dead_letters (stage, reason, error, body, headers) \
                     SELECT $1, 'undecidable', $2, $3, $4 WHERE NOT EXISTS ( \
                         SELECT FROM dead_letters WHERE job_id IS NULL AND resolved_at IS NULL \
                         AND sha256(body) = sha256($3) AND body = $3 AND headers = $4)",
                )
                .bind::<Nullable<Text>, _>(stage.map(Stage::as_str))
                .bind::<Text, _>(error)
                .bind::<Binary, _>(body)
                .bind::<Jsonb, _>(&headers)
                .execute(&mut connection)
                .await?;
            }
        }
        Ok(())
    }
}
