//! The clients of the paid APIs: the only code that talks to Sync.so and GhostCut.
//!
//! A client sends what it is given and says what came back; [`crate::domain::classify`] says what that means. It never
//! repeats a paid request, keeps no state and decides nothing: what is sent, when and how often is the ledger's business.

pub mod ghostcut;
mod http;
mod listing;
mod metrics;
pub mod signature;
pub mod sync;

pub use http::TransportError;
pub use metrics::Metrics;

use crate::domain::Vendor;
use crate::domain::classify::{ErrorClass, QueryError};

/// A free call (status, list, balance) that gave no result.
#[derive(Debug, thiserror::Error)]
pub enum VendorError {
    /// No whole answer came.
    #[error("{vendor} {operation} failed")]
    Transport {
        /// Who was asked.
        vendor: Vendor,
        /// What was asked.
        operation: &'static str,
        /// What went wrong.
        source: TransportError,
    },
    /// The answer is an error, or cannot be understood.
    #[error("{vendor} {operation} failed: {reason}")]
    Answer {
        /// Who was asked.
        vendor: Vendor,
        /// What was asked.
        operation: &'static str,
        /// What to do about it.
        class: ErrorClass,
        /// The vendor's code and message.
        reason: String,
    },
}

impl VendorError {
    /// What to do about it.
    #[must_use]
    pub const fn class(&self) -> ErrorClass {
        match self {
            Self::Transport { .. } => ErrorClass::Transient,
            Self::Answer { class, .. } => *class,
        }
    }

    fn answer(vendor: Vendor, operation: &'static str, error: QueryError) -> Self {
        Self::Answer {
            vendor,
            operation,
            class: error.class,
            reason: error.reason,
        }
    }
}

/// Why a client cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The API key holds characters that no HTTP header may hold.
    #[error("the {0} API key is not a valid header value")]
    Key(Vendor),
    /// A slow connection could not be told from a lost answer.
    #[error("VENDOR_CONNECT_TIMEOUT must be shorter than VENDOR_REQUEST_TIMEOUT")]
    Timeouts,
    /// The HTTP library refused, e.g. because the system has no root certificates.
    #[error("no HTTP client")]
    Http(#[source] reqwest::Error),
}
