//! RabbitMQ: topology, connections that re-establish themselves, publishing with confirms, consuming.
//!
//! The only module of the project that knows lapin. It moves bytes and decides nothing about jobs; what a body says is
//! read by [`crate::domain::message`]. Recovery is ours, not lapin's, because lapin's would hide a lost channel from the
//! deliveries and confirms that died with it.
//!
//! A process holds one [`Connection`] per direction: RabbitMQ blocks a publishing connection as a whole when it runs out
//! of memory or disk, and consumers must go on acknowledging then.

mod checkup;
mod connect;
mod consumer;
mod error;
mod greeting;
mod headers;
mod metrics;
mod outage;
mod publisher;
mod topology;

pub use checkup::{check_up, server_version};
pub use connect::Connection;
pub use consumer::{Consumer, Delivery, Settled};
pub use error::BrokerError;
pub use metrics::BrokerMetrics;
pub use publisher::{Outgoing, PublishOutcome, Publisher};
pub use topology::{Conflict, Queue, Topology};
