//! Words about an account at a vendor: why it may not send now, and what an answer says about it. The rules are in the
//! migration `admission`, under the row lock that makes them exact.

use super::words::vocabulary;

vocabulary! {
    /// Why a paid send is not made now, or a job that is due not taken up.
    Refusal {
        /// All paid sends of the fleet are stopped.
        Stopped = "stopped",
        /// What is to be sent again has an outcome by now, or is too old to be sent again.
        Settled = "settled",
        /// A callback for the job waits to be processed.
        Callback = "callback",
        /// An operator has paused the account.
        Manual = "manual",
        /// The vendor refused our key, signature or plan.
        Misconfigured = "misconfigured",
        /// The vendor says that the account has no credit.
        OutOfCredit = "out_of_credit",
        /// The vendor asked for fewer requests.
        Throttled = "throttled",
        /// Too many calls in a row went unanswered, or too many jobs were rejected for one reason.
        Circuit = "circuit",
        /// The balance is below its floor: nothing new.
        Floor = "floor",
        /// The day's budget is used up: nothing new.
        Budget = "budget",
        /// As many works as allowed are in flight: nothing new.
        Full = "full",
        /// As many requests as allowed were sent just now.
        Rate = "rate",
        /// No worker takes the jobs of the stage.
        NoWorker = "no_worker",
    }
}

impl Refusal {
    /// Those that stop an account until something changes, as against waiting for a slot or a token.
    pub const PAUSES: &'static [Self] = &[
        Self::Manual,
        Self::Misconfigured,
        Self::OutOfCredit,
        Self::Throttled,
        Self::Circuit,
        Self::Floor,
        Self::Budget,
    ];

    /// What it means, as the end of "nothing is sent: …".
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Stopped => "all paid sends are stopped",
            Self::Settled => "it has an outcome by now, or is too old to be sent again",
            Self::Callback => "a callback for the job waits to be processed",
            Self::Manual => "paused by an operator",
            Self::Misconfigured => "the vendor refuses our key, signature or plan",
            Self::OutOfCredit => "the account has no credit",
            Self::Throttled => "the vendor asked for fewer requests",
            Self::Circuit => "too many calls in a row went wrong",
            Self::Floor => "the balance is below its floor",
            Self::Budget => "the day's budget is used up",
            Self::Full => "as many works as allowed are in flight",
            Self::Rate => "as many requests as allowed were sent just now",
            Self::NoWorker => "no worker takes its jobs",
        }
    }
}

vocabulary! {
    /// What an answer says about the account rather than about the job.
    SignalKind {
        /// It takes work.
        Works = "works",
        /// No answer came, or none that says what became of the request.
        Fails = "fails",
        /// It refused this body; many jobs in a row refused for one reason are not the jobs' fault.
        Rejects = "rejects",
        /// Too many requests: pause.
        Throttled = "throttled",
        /// Its slots are full: no more in flight than now.
        Slots = "slots",
        /// It refused our key, signature or plan: pause.
        Misconfigured = "misconfigured",
        /// It refused for want of credit: pause.
        OutOfCredit = "out_of_credit",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_asked_for_by_the_vendor_is_stored_under_the_word_that_refuses() {
        for kind in [
            SignalKind::Throttled,
            SignalKind::Misconfigured,
            SignalKind::OutOfCredit,
        ] {
            let refusal: Refusal = kind.as_str().parse().unwrap();
            assert!(Refusal::PAUSES.contains(&refusal));
        }
    }
}
