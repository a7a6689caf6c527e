//! What can go wrong with the broker, said to the person who has to act.

use std::time::Duration;

use super::topology::Conflict;

/// A failure of the broker or of the connection to it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BrokerError {
    /// `AMQP_URL` cannot be used. The URL is not shown: it holds a password.
    #[error("AMQP_URL is not usable: {0}")]
    BadUrl(String),
    /// RabbitMQ did not answer in time.
    #[error("RabbitMQ did not answer within {}", humantime::format_duration(*.0))]
    Timeout(Duration),
    /// The connection or channel failed, or RabbitMQ refused something.
    #[error("RabbitMQ failed")]
    Amqp(#[from] lapin::Error),
    /// A queue or exchange of our name exists and differs. Nothing was changed.
    #[error(transparent)]
    Incompatible(#[from] Conflict),
    /// The bound of an outage is over: exit, and let the supervisor start the process again.
    #[error("gave up on {what} after {}", humantime::format_duration(*.bound))]
    GaveUp {
        /// What stayed away: the broker's address or a queue.
        what: String,
        /// The bound that was exceeded.
        bound: Duration,
        /// The last failure.
        #[source]
        last: Box<BrokerError>,
    },
    /// Asked for while the connection was down.
    #[error("not connected to RabbitMQ")]
    Disconnected,
    /// RabbitMQ ended a consumer, for one because its queue was deleted.
    #[error("RabbitMQ canceled the consumer")]
    Canceled,
    /// [`super::Connection::close`] was called.
    #[error("the connection to RabbitMQ was closed by this process")]
    Closed,
}

impl BrokerError {
    /// Whether trying again cannot help.
    pub(super) fn is_final(&self) -> bool {
        matches!(
            self,
            Self::BadUrl(_) | Self::Incompatible(_) | Self::GaveUp { .. } | Self::Closed
        )
    }
}
