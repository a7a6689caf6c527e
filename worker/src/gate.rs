//! Whether a worker's consumers take new work. Closed while an operator wants the worker quiet, and for good once it is told to stop.
//!
//! Must not touch what is in hand.

use std::sync::Arc;

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

/// The gate between the queues and a worker's consumers. Clones are the same gate.
#[derive(Clone)]
pub struct Gate {
    drain: CancellationToken,
    /// Canceled when the time in which work is taken ends; then another one follows, or nothing does.
    opening: watch::Sender<CancellationToken>,
    heeded: Arc<Notify>,
}

impl Gate {
    /// An open gate, which `drain` closes for good.
    #[must_use]
    pub fn new(drain: CancellationToken) -> Self {
        let opening = watch::Sender::new(drain.child_token());
        Self {
            drain,
            opening,
            heeded: Arc::default(),
        }
    }

    /// Until this is canceled, work may be taken.
    #[must_use]
    pub fn opening(&self) -> CancellationToken {
        self.opening.borrow().clone()
    }

    /// Whether nothing new is to be taken.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.opening.borrow().is_cancelled()
    }

    /// Nothing new is taken from now on.
    pub fn close(&self) {
        self.opening.borrow().cancel();
    }

    /// Work is taken again, if the worker is not stopping.
    pub fn open(&self) {
        self.opening.send_if_modified(|opening| {
            let opens = opening.is_cancelled() && !self.drain.is_cancelled();
            if opens {
                *opening = self.drain.child_token();
            }
            opens
        });
    }

    /// Waits until work may be taken. False: never again.
    pub async fn opened(&self) -> bool {
        let mut opening = self.opening.subscribe();
        let opened = opening.wait_for(|opening| !opening.is_cancelled());
        matches!(
            self.drain.run_until_cancelled(opened).await,
            Some(Ok(_opening))
        )
    }

    /// A consumer does as the gate says.
    pub fn note_heeded(&self) {
        self.heeded.notify_one();
    }

    /// Waits until a consumer does as the gate says. For one waiter; what it missed counts once.
    pub async fn heeded(&self) {
        self.heeded.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn it_closes_and_opens_until_the_stop() {
        let drain = CancellationToken::new();
        let gate = Gate::new(drain.clone());
        let first = gate.opening();
        assert_eq!(gate.opened().now_or_never(), Some(true));

        gate.close();
        gate.close();
        assert!(first.is_cancelled() && gate.is_closed());
        assert_eq!(gate.opened().now_or_never(), None, "it is closed");
        gate.open();
        assert!(first.is_cancelled(), "what was closed once stays closed");
        assert_eq!(gate.opened().now_or_never(), Some(true));
        let second = gate.opening();
        gate.open();
        assert!(!second.is_cancelled(), "it was open already");

        drain.cancel();
        assert!(second.is_cancelled() && gate.is_closed());
        gate.open();
        assert!(gate.is_closed(), "a stop is for good");
        assert_eq!(gate.opened().now_or_never(), Some(false));
    }
}
