//! The worker: consumes messages, runs the stage they ask for, writes what came of it, then acknowledges. Never publishes.

pub mod clock;
pub mod config;
pub mod consumer;
pub mod environment;
pub mod metrics;
pub mod settle;
pub mod source;
pub mod stages;
pub mod submission;
