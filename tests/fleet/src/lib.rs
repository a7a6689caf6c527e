//! The harness of the demo and of the integration tests: servers, databases, the sandbox, producers and workers, and the books.
//!
//! It starts what others have built and looks at it from outside: must not decide anything about a job, and must not reach into
//! the ledger except to read it. A test begins with [`run`], which gives it a [`Fleet`] of its own.

mod api;
mod books;
pub mod command;
mod control;
mod database;
mod environment;
mod fleet;
mod jobs;
mod process;
mod proxy;
mod queues;
mod receiver;
mod run_folder;
mod servers;
mod snapshot;
mod wait;

pub use api::Api;
pub use books::{Books, Expectation, PerVendor};
pub use control::{Control, PaidWork};
pub use database::Database;
pub use environment::Environment;
pub use fleet::{Fleet, Service, run, run_on};
pub use jobs::{Kind, Media};
pub use process::{Process, binary};
pub use proxy::{Carriage, Proxy};
pub use queues::Queues;
pub use receiver::{Receiver, Told};
pub use run_folder::RunFolder;
pub use servers::{Servers, local, local_urls};
pub use snapshot::{Observer, Snapshot};
pub use wait::{DEADLINE, eventually};
