//! The producer: takes jobs in, turns due rows into messages, follows what nobody else follows. The only one who publishes.

pub mod cli;
pub mod config;
pub mod intake;
pub mod web;
