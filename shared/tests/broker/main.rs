//! The broker module against a real RabbitMQ, named by `AMQP_URL`. Every test has a prefix of its own and deletes it.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on must fail, and the lint's exception covers test functions only"
)]

mod harness;
mod outages;
mod traffic;
