//! What the producer and the worker share: the pure domain and one adapter per outside system.
//!
//! Imports point one way: `service -> {db, broker, storage, vendor} -> {config, telemetry} -> domain`.
//! Adapters never import each other; code that needs two of them belongs to a binary.

pub mod address;
pub mod broker;
pub mod config;
pub mod crash;
pub mod db;
pub mod domain;
pub mod service;
pub mod storage;
pub mod telemetry;
pub mod tls;
pub mod vendor;
