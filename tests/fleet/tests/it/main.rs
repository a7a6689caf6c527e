//! Whole fleets against real PostgreSQL and RabbitMQ and the simulators.

#![expect(
    clippy::unwrap_used,
    reason = "in a test a panic with its place is the best error"
)]

mod happy;
mod ledger;
mod migrations;
mod protocol;
mod sql;
