//! Crash points: a name for every place between two effects, at which a test lets the process kill or stop itself.
//!
//! Without the feature `crash-points`, as in every production build, passing a point compiles to nothing. With it, and
//! without these variables in the environment, it does nothing:
//!
//! - `CRASH_POINT=Name` or `Name:n`: SIGKILL at the first, or the n-th, passing of that point;
//! - `FREEZE_POINT`, the same with SIGSTOP; whoever sends SIGCONT lets the process go on;
//! - `CRASH_MARK`: a file that is written just before, with the point's name, to prove that it was reached.
//!
//! Must not change what the code around a point does, and must not be asked about anything.

macro_rules! points {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// A place between two effects. Its name in the environment is that of the variant.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Point {
            $($(#[$doc])* $name,)*
        }

        impl Point {
            /// Every point; the test that walks them wants none left out.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];
        }
    };
}

points! {
    /// Intake: the job is committed, its client has no answer yet.
    JobCommitted,
    /// Adoption: one row of another application is taken in, others are not, nobody was told.
    RowAdopted,
    /// Dispatch: rows are picked and committed, nothing is published.
    DuePicked,
    /// Dispatch: messages are with the broker, none is confirmed.
    MessagesPublished,
    /// Dispatch: confirms are in or given up, nothing is put back.
    PublishAnswered,
    /// Dead letters: stored, not acknowledged.
    DeadLetterStored,
    /// A callback is stored, its vendor has no answer yet: it may call again, which is stored once.
    CallbackStored,
    /// Callbacks are picked up, nothing was done about them: they are due again after their lease.
    CallbacksPicked,
    /// A callback has made a poll due and is not finished: the next try finds it due, under way or over.
    CallbackHinted,
    /// The vendor was asked for the work that a callback names, nothing is recorded: it is asked again.
    CallbackLooked,
    /// The work that a callback names is in the ledger, the callback is not finished: the next try finds the work known.
    CallbackSettled,
    /// Callbacks are finished, the dispatchers were not told: their timers find what is due.
    CallbacksFinished,
    /// Notices are picked up, nothing is sent: they are due again after their lease.
    NoticesPicked,
    /// A receiver has answered, which is not recorded: it is told again, under the same id.
    NoticeSent,
    /// Ledger sweep: old claims have expired, nothing was asked.
    ClaimsExpired,
    /// Ledger sweep: a vendor has answered, nothing of it is recorded.
    SweepAnswered,
    /// Ledger sweep: the end of one work is recorded, that of others is not.
    SweepSettled,
    /// Lost search: the vendor's list has come, nothing of it is recorded: it is asked for again.
    LostListed,
    /// Lost search: one that found nothing is recorded, others are not made: they are still due.
    LostSearched,
    /// Lost search: a work that was found is in the ledger, others are not looked for: they are still due.
    LostBooked,
    /// An audit has begun, nothing was asked: it never counts as finished, and another one is due after five minutes.
    AuditBegun,
    /// An audit has booked a work, others are not booked: the next one finds them.
    AuditRepaired,
    /// An audit has compared everything, and stopped paid sends if it had to; its result is not stored: as if it had not been made.
    AuditCompared,
    /// A sign that the database forgot commits was seen, paid sends go on: the message, callback or audit that showed it comes
    /// again; what a process remembered alone is lost with it, and others remember it too.
    ForgettingSeen,
    /// Paid sends are stopped because of such a sign; the message, callback or audit that showed it is not ended and comes again.
    PaidStopped,
    /// What an operator does to many is in the trail, nothing of it is done: it is done by the same command again.
    OperationNoted,
    /// An operation is stored, whoever asked has no answer: it goes on by itself; asked for again it finds nothing left to do.
    OperationBegun,
    /// A piece of an operation is committed with its progress, the next is not, the dispatchers were not told: whoever is there
    /// does the next one.
    OperationPieceDone,
    /// A piece of the dead letters is replayed, the next is not, the dispatchers were not told: what is replayed is closed.
    LettersReplayed,
    /// A piece of the dead letters is discarded, the next is not.
    LettersDiscarded,
    /// A piece of the jobs is canceled, resumed or retried, the next is not, the dispatchers were not told.
    JobsChanged,
    /// An operator says that a request was not accepted: its source is deleted, which is not recorded: it is deleted again.
    OperatorSourceDeleted,
    /// That is recorded, nothing is decided: the settle time counts from then.
    OperatorDeletionRecorded,
    /// An operator's decision about an unknown outcome is settled, they were not told: the same command says that it is known.
    DecisionSettled,
    /// A sweep of what is old has begun, nothing is removed: another producer begins one when this one gives no more sign.
    RetentionBegun,
    /// A piece of what is old is removed, the next is not: the next sweep does it.
    OldRemoved,
    /// The source of a submission that ended long ago is deleted, which is not recorded: it is deleted again.
    OldSourceDeleted,
    /// GhostCut's balance is read, not stored.
    BalanceRead,
    /// Told to stop, nothing done about it yet.
    StopBegun,
    /// Everything in hand is finished, connections are still open.
    StopDrained,
    /// A worker has written that it is there; whoever reads it later sees that it was not seen again.
    WorkerSeen,
    /// A worker that stops has removed itself from the list, its connections are still open.
    WorkerLeft,
    /// What an operator asks of a worker is committed, they were not told: the same order again changes nothing.
    WorkerOrdered,
    /// A worker has read what is asked of it and has done nothing about it: its row is lost, and what follows it is asked nothing.
    OrderRead,
    /// A consumer of a worker that is to be quiet takes nothing any more, which the worker has not said: the broker gives what was
    /// in hand to others.
    ConsumerQuiet,
    /// A delivery has been taken, nothing of it was read.
    DeliveryTaken,
    /// The rows are loaded and the start is counted, nothing has run.
    Loaded,
    /// A message that names unknown jobs is kept, its other jobs have not run.
    UnknownKept,
    /// The submission's own source is made, nothing is claimed.
    SourceCopied,
    /// The claim is committed, nothing is sent.
    ClaimCommitted,
    /// A paid request was sent and its answer begins to come; none of it was read.
    PaidAnswerBegun,
    /// A paid request is answered, the ledger does not know.
    PaidAnswered,
    /// A Sync.so request may be sent again under its key, by the account's limits, and is not sent.
    ReplayPending,
    /// The repetition is answered, the ledger does not know.
    ReplayAnswered,
    /// A vendor's list has come, nothing of it is recorded.
    ListAnswered,
    /// A search is recorded, what follows from it is not.
    SearchRecorded,
    /// The source of a submission that was searched for in vain is deleted, which is not recorded.
    SourceDeleted,
    /// That is recorded, the settle time begins.
    SourceDeletionRecorded,
    /// The source of a work is copied again for its redo, nothing was asked: it is found there.
    SourceRestored,
    /// A redo may be asked for, by the account's limits; the ledger does not know.
    RedoPermitted,
    /// A redo is committed, nothing was asked.
    RedoClaimed,
    /// A redo is answered, nothing of it is recorded.
    RedoAnswered,
    /// A multipart upload is begun, no part was sent.
    MultipartBegun,
    /// All parts are at the store, the upload is not completed.
    PartsSent,
    /// A file is in our bucket, nobody knows.
    FileTransferred,
    /// The lease of a long stage was renewed.
    LeaseRenewed,
    /// A settlement is committed, its message not acknowledged; others of the same message may not be settled.
    SettleCommitted,
    /// A job is given up or a message cannot be read, and the message is not rejected.
    RejectPending,
    /// The message is acknowledged.
    Acknowledged,
}

/// Passes a point.
#[cfg(not(feature = "crash-points"))]
#[inline(always)]
pub const fn point(_: Point) {}

#[cfg(feature = "crash-points")]
pub use armed::point;

#[cfg(feature = "crash-points")]
mod armed {
    //! What the environment asked for, read at the first passing of any point.

    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use rustix::process::{Signal, getpid, kill_process};

    use super::Point;

    /// The signal reaches every thread while the one that sent it waits.
    const SIGNAL_TIME: Duration = Duration::from_millis(100);

    struct Armed {
        point: Point,
        at: u32,
        passed: AtomicU32,
        signal: Signal,
    }

    static ARMED: OnceLock<Vec<Armed>> = OnceLock::new();

    /// Passes a point.
    pub fn point(point: Point) {
        let armed = ARMED.get_or_init(|| {
            let asked = [
                ("CRASH_POINT", Signal::KILL),
                ("FREEZE_POINT", Signal::STOP),
            ];
            asked
                .into_iter()
                .filter_map(|(name, signal)| Some(Armed::read(&std::env::var(name).ok()?, signal)))
                .collect()
        });
        for armed in armed.iter().filter(|armed| armed.point == point) {
            if armed.passed.fetch_add(1, Ordering::SeqCst) + 1 == armed.at {
                armed.strike();
            }
        }
    }

    impl Armed {
        fn read(text: &str, signal: Signal) -> Self {
            let (name, at) = text.split_once(':').unwrap_or((text, "1"));
            let point = Point::ALL.iter().find(|point| format!("{point:?}") == name);
            let (Some(point), Ok(at @ 1..)) = (point, at.parse()) else {
                // A test that waits for a point that there is not would learn it at its deadline.
                tracing::error!(
                    text,
                    "CRASH_POINT and FREEZE_POINT are `Name` or `Name:n`, see shared::crash"
                );
                std::process::exit(2);
            };
            Self {
                point: *point,
                at,
                passed: AtomicU32::new(0),
                signal,
            }
        }

        fn strike(&self) {
            if let Some(mark) = std::env::var_os("CRASH_MARK")
                && let Err(error) = std::fs::write(&mark, format!("{:?}", self.point))
            {
                tracing::error!(%error, "cannot write the file of CRASH_MARK");
                std::process::exit(2);
            }
            if let Err(error) = kill_process(getpid(), self.signal) {
                tracing::error!(%error, "cannot send a signal to this process");
                std::process::exit(2);
            }
            std::thread::sleep(SIGNAL_TIME);
        }
    }
}
