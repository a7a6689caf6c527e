//! Takes in what arrives in the dead-letter queue: headers of jobs that the database has given up, and messages nobody can
//! decide about, with their raw bodies. Never publishes anything again.

use std::time::Duration;

use serde_json::Value;
use shared::broker::{BrokerError, Connection, Consumer, Delivery, Queue};
use shared::crash::{self, Point};
use shared::db::{Db, DeadLetter, retry_while_away};
use shared::domain::Stage;
use shared::domain::message::Message;
use shared::service::Stopper;
use shared::telemetry::chain;

/// Dead letters taken in at a time.
const PREFETCH: u16 = 50;

/// Before a dead letter that the database refuses goes back to its queue.
const REFUSED_WAIT: Duration = Duration::from_secs(5);

/// Takes dead letters in until told to stop.
///
/// # Errors
/// When the broker stayed unusable for its bound.
pub async fn ingest(db: Db, connection: Connection, stopper: Stopper) -> Result<(), BrokerError> {
    let mut consumer = Consumer::new(connection, Queue::Dead, PREFETCH);
    while let Some(delivery) = consumer.next(&stopper.drain).await? {
        let letters = read(&delivery);
        let mut stored = true;
        for letter in &letters {
            stored &= match retry_while_away(&stopper.abort, || {
                db.record_dead_letter(letter, &delivery.headers)
            })
            .await
            {
                Some(Ok(())) => true,
                Some(Err(error)) => {
                    tracing::error!(error = chain(&error), "cannot store a dead letter");
                    // It comes back at once.
                    tokio::time::sleep(REFUSED_WAIT).await;
                    false
                }
                None => false,
            };
        }
        crash::point(Point::DeadLetterStored);
        let _ = if stored {
            delivery.ack().await
        } else {
            delivery.requeue().await
        };
    }
    Ok(())
}

fn read(delivery: &Delivery) -> Vec<DeadLetter> {
    let died_in = died_in(&delivery.headers);
    let undecidable = |error: String| {
        vec![DeadLetter::Undecidable {
            stage: died_in,
            error,
            body: delivery.body.to_vec(),
        }]
    };
    match Message::decode(&delivery.body) {
        Ok(message) if died_in.is_some_and(|stage| stage != message.stage) => undecidable(format!(
            "a message of {} in another stage's queue",
            message.stage
        )),
        Ok(message) => message
            .jobs
            .iter()
            .map(|job| DeadLetter::Job {
                job: job.id,
                epoch: job.epoch,
                stage: message.stage,
            })
            .collect(),
        Err(error) => undecidable(chain(&error)),
    }
}

/// The stage whose queue a message died in, by RabbitMQ's `x-death` header.
fn died_in(headers: &Value) -> Option<Stage> {
    let queue = headers["x-death"][0]["queue"].as_str()?;
    Stage::ALL
        .iter()
        .copied()
        .find(|stage| queue.ends_with(&format!(".{stage}")))
}
