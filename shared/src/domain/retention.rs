//! What is removed when it is old. How old is a setting; nothing here looks at a clock.

use super::words::vocabulary;

vocabulary! {
    /// A kind of thing that goes by itself. What an operator did (`operator_events`), and everything in the ledger that proves a
    /// payment, never goes.
    Kind {
        /// Lines of the trail of jobs that have ended.
        Events = "events",
        /// The bytes of requests whose submissions have ended; their hashes stay.
        RequestBodies = "request_bodies",
        /// Callbacks that were processed, of submissions that have ended; those of an absent one stay as evidence.
        Callbacks = "callbacks",
        /// Dead letters that somebody replayed or discarded.
        DeadLetters = "dead_letters",
        /// Notes on groups of dead letters, from when they were written on, of groups that have none open.
        GroupNotes = "group_notes",
        /// Idempotency keys: the same key makes a new job after that.
        IdempotencyKeys = "idempotency_keys",
        /// Audits, but for the last one that was finished.
        Audits = "audits",
        /// Sessions of browsers that have expired.
        Sessions = "sessions",
        /// Notices that were delivered, refused or given up.
        Notices = "notices",
        /// Operations on many that are over; who did them and why stays in the operators' trail.
        Operations = "operations",
        /// Sources of single submissions in the bucket, of those that have ended.
        Sources = "sources",
        /// Multipart uploads that nobody completed or aborted.
        Uploads = "uploads",
    }
}
