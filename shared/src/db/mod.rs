//! PostgreSQL, through diesel. The only module that knows SQL.
//!
//! One short async function per query on [`Db`]. Nothing here publishes, calls a vendor or decides what a job does next.

mod acts;
mod adoption;
mod audits;
mod bulk;
mod callbacks;
mod checkup;
mod continuity;
mod dead_letters;
mod dispatch;
mod find;
mod findings;
mod job_actions;
mod job_list;
mod jobs;
mod letter_notes;
mod letters;
mod load;
mod metrics;
mod migrations;
mod notices;
mod protocol;
mod restart;
mod retention;
mod schema;
mod series;
mod settings;
mod submissions;
mod times;
mod tls;
mod tokens;
mod trail;
mod unknowns;
mod vendors;
mod waits;
mod workers;

pub use acts::{Act, ActFilter, ActPlace};
pub use adoption::UnadoptedRow;
pub use audits::{AuditRecord, NewAudit, Rebuild};
pub use bulk::{Ends, MAX_ENDS, MAX_GROUPS, NewOperation, OperationRow, Piece, Steered};
pub use callbacks::{CalledBack, DueCallback, Hinted};
pub use checkup::Checkup;
pub use continuity::{Forgotten, Seen, watch_continuity};
pub use dead_letters::DeadLetter;
pub use dispatch::Picked;
pub use find::{Found, FoundJob, FoundSubmission};
pub use findings::{AcknowledgedFindings, PaidTwice};
pub use job_actions::{Canceled, Resumed};
pub use job_list::{JobFilter, JobPage, JobPlace};
pub use jobs::{Created, JobEvent, JobRow, RequestKey, StageRow, SubmissionRow};
pub use letter_notes::{GroupNote, IfNote, NoteChange, Noted};
pub use letters::{Discarded, Letter, LetterFilter, LetterGroup};
pub use load::{Loaded, Submission, WorkItem};
pub use metrics::Metrics;
pub use migrations::SchemaState;
pub use notices::{NoticeFilter, NoticeGauge, NoticeReplayed, NoticeRoom, NoticeRow, NoticeTry};
pub use protocol::{
    Claim, Claimed, Fact, JobPatch, LedgerVerdict, MetadataVerdict, Move, MoveState, MoveVerdict,
    NewEvent, Settlement, Verdict,
};
pub use restart::{Candidate, Pace, Plan, RestartOrder};
pub use retention::{OldSource, Place, Removed};
pub use series::{DuplicateCount, MinutePoint};
pub use settings::{PaidResumed, PaidStop};
pub use submissions::{AliveSubmission, BacklogGauge, DeadLetterGauge, LedgerGauge};
pub use times::{FleetTimes, RunBy};
pub use tokens::{Holder, NewToken, Revoked, Sha256, TokenRow};
pub use trail::{TrailHorizon, TrailLine};
pub use unknowns::{CallbackSeen, LostUnknown, Standing, UnknownFilter, UnknownRow};
pub use vendors::{CostDay, CostTotal, Refused, SendAgain, Signal, VendorChange, VendorStatus};
pub use waits::{PutOff, Story};
pub use workers::{WorkerBeat, WorkerOrdered, WorkerRow};

use diesel::ConnectionError;
use diesel::result::DatabaseErrorKind;
use diesel_async::pooled_connection::deadpool::{Object, Pool, PoolError};
use diesel_async::pooled_connection::{
    AsyncDieselConnectionManager, ManagerConfig, RecyclingMethod,
};
use diesel_async::{AsyncPgConnection, SimpleAsyncConnection as _};
use futures::FutureExt as _;
use tokio_util::sync::CancellationToken;

use tls::Target;

use crate::config::DatabaseConfig;
use crate::telemetry::chain;

/// Channel on which intake and workers say that something became due. A hint: dispatch is right without it.
pub const DUE_CHANNEL: &str = "ghostfleet_due";

/// A failed query.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// No connection could be had from the pool.
    #[error("no database connection")]
    Pool(#[from] PoolError),
    /// A setting cannot be used.
    #[error("{0}")]
    Setting(String),
    /// The pool could not be built.
    #[error("the database pool cannot be built")]
    Build(#[from] diesel_async::pooled_connection::deadpool::BuildError),
    /// A connection outside the pool failed.
    #[error("cannot connect to the database")]
    Connect(#[from] ConnectionError),
    /// The query failed.
    #[error("database query failed")]
    Query(#[from] diesel::result::Error),
    /// Migrating failed.
    #[error("migration failed: {0}")]
    Migration(String),
    /// The database is that of an older build.
    #[error("the database lacks the migrations {0}; run `producer migrate` first")]
    OlderSchema(String),
    /// The database holds a value that this code does not know.
    #[error("the database holds an unexpected value: {0}")]
    Value(String),
}

impl DbError {
    /// Whether a table, column or function is not there: nobody has migrated the database, or an older build has.
    #[must_use]
    pub fn is_of_schema(&self) -> bool {
        let Self::Query(diesel::result::Error::DatabaseError(_, info)) = self else {
            return false;
        };
        // diesel has no kind for these; the texts are PostgreSQL's own in English (errcodes 42P01, 42703, 42883).
        let of_schema = ["relation ", "column ", "function "];
        let message = info.message();
        of_schema.iter().any(|kind| message.starts_with(kind))
            && message.ends_with("does not exist")
    }

    /// Whether the database is away or overloaded, so that the same call may work later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Pool(_) | Self::Connect(_) => true,
            Self::Query(diesel::result::Error::DatabaseError(kind, info)) => {
                matches!(
                    kind,
                    DatabaseErrorKind::ClosedConnection
                        | DatabaseErrorKind::UnableToSendCommand
                        | DatabaseErrorKind::SerializationFailure
                ) || {
                    // diesel has no kind for these; the texts are PostgreSQL's own (errcodes 40P01, 57014, 57P0x, 25006, 53x).
                    let text = info.message();
                    [
                        "deadlock detected",
                        "connection closed",
                        "statement timeout",
                        "terminating connection",
                        "shutting down",
                        "starting up",
                        "recovery mode",
                        "read-only transaction",
                        "too many clients",
                        "remaining connection slots",
                        "could not",
                        "No space left",
                    ]
                    .iter()
                    .any(|known| text.contains(known))
                }
            }
            Self::Query(diesel::result::Error::BrokenTransactionManager) => true,
            Self::Query(_)
            | Self::Setting(_)
            | Self::Build(_)
            | Self::Migration(_)
            | Self::OlderSchema(_)
            | Self::Value(_) => false,
        }
    }

    /// Whether the database does not know a submission of which it has said that it is committed.
    #[must_use]
    pub fn is_forgotten_submission(&self) -> bool {
        matches!(self, Self::Query(diesel::result::Error::DatabaseError(_, info))
            if info.message().starts_with("settle: no submission"))
    }

    /// Whether a row was to refer to one that is not there.
    #[must_use]
    pub const fn is_unmatched_reference(&self) -> bool {
        use diesel::result::Error::DatabaseError;
        matches!(
            self,
            Self::Query(DatabaseError(DatabaseErrorKind::ForeignKeyViolation, _))
        )
    }
}

impl From<crate::domain::UnknownWord> for DbError {
    fn from(error: crate::domain::UnknownWord) -> Self {
        Self::Value(error.to_string())
    }
}

/// What every query returns.
pub type DbResult<T> = Result<T, DbError>;

/// A pool of connections.
#[derive(Clone)]
pub struct Db {
    pool: Pool<AsyncPgConnection>,
    metrics: Option<Metrics>,
    memory: continuity::Memory,
}

impl std::fmt::Debug for Db {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Db({:?})", self.pool.status())
    }
}

impl Db {
    /// Builds the pool; connects on first use.
    ///
    /// # Errors
    /// [`DbError::Build`] when the settings contradict each other.
    pub fn new(config: &DatabaseConfig) -> DbResult<Self> {
        let statement_timeout_ms = config.database_statement_timeout.as_millis();
        let target = Target::new(config.database_url.expose())?;
        let mut manager = ManagerConfig::default();
        // A closed connection is noticed without a query; a test query would double the round trips.
        manager.recycling_method = RecyclingMethod::Fast;
        manager.custom_setup = Box::new(move |_| {
            let target = target.clone();
            async move {
                let mut connection = target.connect().await?;
                // A commit that the server may forget after saying yes would lose an intent to pay.
                connection
                    .batch_execute(&format!(
                        "SET synchronous_commit = on; SET statement_timeout = {statement_timeout_ms}; \
                         SET idle_in_transaction_session_timeout = '60s'; SET timezone = 'UTC'"
                    ))
                    .await
                    .map_err(ConnectionError::CouldntSetupConfiguration)?;
                Ok(connection)
            }
            .boxed()
        });
        let manager =
            AsyncDieselConnectionManager::new_with_config(config.database_url.expose(), manager);
        let pool = Pool::builder(manager)
            .max_size(config.database_pool_size)
            .wait_timeout(Some(config.database_connect_timeout))
            .create_timeout(Some(config.database_connect_timeout))
            .recycle_timeout(Some(config.database_connect_timeout))
            .runtime(deadpool::Runtime::Tokio1)
            .build()?;
        Ok(Self {
            pool,
            metrics: None,
            memory: continuity::Memory::default(),
        })
    }

    /// The same, measured.
    #[must_use]
    pub fn measured(mut self, metrics: Metrics) -> Self {
        self.metrics = Some(metrics);
        self
    }

    async fn connection(&self) -> DbResult<Object<AsyncPgConnection>> {
        // Observes when it is dropped, so that a wait in vain counts too.
        let _wait = self
            .metrics
            .as_ref()
            .map(|metrics| metrics.pool_wait.start_timer());
        Ok(self.pool.get().await?)
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// Why it does not.
    pub async fn ping(&self) -> DbResult<()> {
        let mut connection = self.connection().await?;
        connection.batch_execute("SELECT 1").await?;
        Ok(())
    }
}

/// Between tries to reach a database that is away.
const AWAY_WAIT: std::time::Duration = std::time::Duration::from_secs(1);

/// Calls until the answer is not "the database is away"; `None` when told to give up. A query is never cut off half-way.
pub async fn retry_while_away<T, F: Future<Output = DbResult<T>>>(
    give_up: &CancellationToken,
    call: impl Fn() -> F,
) -> Option<DbResult<T>> {
    loop {
        match call().await {
            Err(error) if error.is_transient() => {
                tracing::warn!(
                    error = chain(&error),
                    "the database is away; keeping what is in hand"
                );
                give_up
                    .run_until_cancelled(tokio::time::sleep(AWAY_WAIT))
                    .await?;
            }
            answered => return Some(answered),
        }
    }
}

/// A connection of its own that hears [`DUE_CHANNEL`].
///
/// # Errors
/// When the database is away.
pub async fn listen(config: &DatabaseConfig) -> DbResult<AsyncPgConnection> {
    let mut connection = Target::new(config.database_url.expose())?.connect().await?;
    connection
        .batch_execute(&format!("LISTEN {DUE_CHANNEL}"))
        .await?;
    Ok(connection)
}
