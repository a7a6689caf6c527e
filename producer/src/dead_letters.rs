//! Takes in what arrives in the dead-letter queue: headers of jobs that the database has given up, and messages nobody can
//! decide about, with their raw bodies. Never publishes anything again.

use serde_json::Value;
use shared::broker::{BrokerError, Connection, Consumer, Delivery, Queue};
use shared::db::{Db, DeadLetter, retry_while_away};
use shared::domain::message::Message;
use shared::service::Stopper;
use shared::telemetry::chain;

/// Dead letters taken in at a time.
const PREFETCH: u16 = 50;

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
                    false
                }
                None => false,
            };
        }
        let _ = if stored {
            delivery.ack().await
        } else {
            delivery.requeue().await
        };
    }
    Ok(())
}

fn read(delivery: &Delivery) -> Vec<DeadLetter> {
    let queue = died_in(&delivery.headers);
    let undecidable = |error: String| {
        vec![DeadLetter::Undecidable {
            stage: queue.clone(),
            error,
            body: delivery.body.to_vec(),
        }]
    };
    match Message::decode(&delivery.body) {
        Ok(message)
            if queue
                .as_ref()
                .is_some_and(|queue| !queue.ends_with(&format!(".{}", message.stage))) =>
        {
            undecidable(format!(
                "a message of {} in another stage's queue",
                message.stage
            ))
        }
        Ok(message) => message
            .jobs
            .iter()
            .map(|job| DeadLetter::Job {
                job: job.id,
                epoch: job.epoch,
                stage: message.stage.to_string(),
            })
            .collect(),
        Err(error) => undecidable(chain(&error)),
    }
}

/// The queue that a message was dead-lettered from, by RabbitMQ's `x-death` header.
fn died_in(headers: &Value) -> Option<String> {
    Some(headers["x-death"][0]["queue"].as_str()?.to_owned())
}
