//! Whole fleets against real PostgreSQL and RabbitMQ and the simulators.

#![expect(
    clippy::unwrap_used,
    reason = "in a test a panic with its place is the best error"
)]

mod access;
mod admission;
mod admission_fleet;
mod adoption;
mod anew;
mod api;
mod api_create;
mod api_operator;
mod api_read;
mod audit;
mod browser;
mod bulk;
mod callback_evidence;
mod callbacks;
mod command;
mod command_line;
mod crash_points;
mod crowds;
mod dead_letters;
mod doctor;
mod find;
mod forgetting;
mod frozen;
mod guards;
mod happy;
mod killed;
mod ledger;
mod metrics;
mod migrations;
mod notices;
mod oncall;
mod operations;
mod outages;
mod plans;
mod plans_large;
mod poison;
mod preflight;
mod prometheus;
mod protocol;
mod queues;
mod reference;
mod regressions;
mod rejections;
mod results;
mod retention;
mod shown;
mod sql;
mod stale_facts;
mod submit;
mod tls;
mod tracing;
mod unknowns;
mod vendor_answers;
mod worker_orders;
mod workers;
