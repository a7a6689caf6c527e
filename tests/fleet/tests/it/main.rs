//! Whole fleets against real PostgreSQL and RabbitMQ and the simulators.

#![expect(
    clippy::unwrap_used,
    reason = "in a test a panic with its place is the best error"
)]

mod api;
mod api_create;
mod api_read;
mod happy;
mod killed;
mod ledger;
mod migrations;
mod outages;
mod poison;
mod protocol;
mod reference;
mod sql;
mod submit;
