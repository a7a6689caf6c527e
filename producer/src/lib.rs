//! The producer: takes jobs in, turns due rows into messages, follows what nobody else follows. The only one who publishes.

pub mod config;
pub mod intake;
pub mod web;
