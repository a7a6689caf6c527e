//! Tells submitters that their jobs have ended. The notices are made by the database, with the end of the job; here they are sent
//! until somebody takes them, or nobody has for a day.
//!
//! At least once: whoever is told twice is told under the same id. Must not read or change a job.

mod sender;
mod signature;

pub use signature::{BadKey, SigningKey};

use std::time::Duration;

use prometheus::{Gauge, IntCounterVec, IntGauge, Opts};
use sender::Sender;
use shared::address::Rule;
use shared::crash::{self, Point};
use shared::db::{Db, DbError, NoticeRoom, NoticeRow, NoticeTry};
use shared::domain::notice::{NoticeState, Verdict, verdict};
use shared::domain::outcome::Schedule;
use shared::telemetry::{Registry, chain, trace};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::config::{NoticeConfig, NoticeSecrets};

/// Notices a producer sends at a time.
const AT_ONCE: usize = 64;
/// What a lease is longer than a try, for the statements around it.
const MARGIN: Duration = Duration::from_secs(10);

impl NoticeSecrets {
    /// What notices are signed with, the newest first; none: nothing is signed, so nothing is sent.
    ///
    /// # Errors
    /// Which of them cannot be used, and what it has to be. Never repeats it.
    pub fn keys(&self) -> Result<Vec<SigningKey>, String> {
        if self.notice_secret.is_none() && self.notice_secret_previous.is_some() {
            return Err("NOTICE_SECRET_PREVIOUS is set and NOTICE_SECRET is not: the newest secret belongs into NOTICE_SECRET".to_owned());
        }
        let both = [
            ("NOTICE_SECRET", &self.notice_secret),
            ("NOTICE_SECRET_PREVIOUS", &self.notice_secret_previous),
        ];
        let set = both
            .into_iter()
            .filter_map(|(name, secret)| Some((name, secret.as_ref()?)));
        set.map(|(name, secret)| {
            let key = secret.expose().parse();
            key.map_err(|error: BadKey| format!("{name} {error}"))
        })
        .collect()
    }
}

/// `notices_total{outcome}`, and what waits.
#[derive(Clone)]
pub struct Metrics {
    total: IntCounterVec,
    waiting: IntGauge,
    oldest: Gauge,
}

impl Metrics {
    /// Registers them.
    ///
    /// # Errors
    /// When a name is taken.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let total = Opts::new(
            "notices_total",
            "Tries to tell a submitter that a job has ended, by what they came to",
        );
        let total = IntCounterVec::new(total, &["outcome"])?;
        // An alert on an increase misses the first one of a series that was not there.
        for outcome in ["delivered", "refused", "put_off", "given_up"] {
            total.with_label_values(&[outcome]);
        }
        let waiting = IntGauge::new("notices_waiting", "Notices that nobody has taken yet")?;
        let oldest = Gauge::new(
            "notices_oldest_seconds",
            "How long ago the job of the oldest of these ended",
        )?;
        registry.register(Box::new(total.clone()))?;
        registry.register(Box::new(waiting.clone()))?;
        registry.register(Box::new(oldest.clone()))?;
        Ok(Self {
            total,
            waiting,
            oldest,
        })
    }

    /// Counts what waits.
    pub(crate) async fn count(&self, db: &Db) -> Result<(), DbError> {
        let gauge = db.notice_gauge().await?;
        self.waiting.set(gauge.waiting);
        self.oldest.set(gauge.oldest_seconds);
        Ok(())
    }
}

/// Sends notices. Any number of producers may: each notice is picked up by one.
#[derive(Clone)]
pub struct Notices {
    db: Db,
    sender: Sender,
    retries: Schedule,
    per_host: i64,
    lease: Duration,
    metrics: Metrics,
}

impl Notices {
    /// None without a key: then nothing is sent.
    ///
    /// # Errors
    /// When the TLS roots of the system cannot be loaded.
    pub fn new(
        db: Db,
        keys: Vec<SigningKey>,
        config: &NoticeConfig,
        rule: Rule,
        metrics: Metrics,
    ) -> Result<Option<Self>, reqwest::Error> {
        if keys.is_empty() {
            return Ok(None);
        }
        Ok(Some(Self {
            db,
            sender: Sender::new(keys, rule, config.notice_timeout)?,
            retries: config.notice_retry_schedule.clone(),
            per_host: config.notice_per_host.into(),
            lease: config.notice_timeout + MARGIN,
            metrics,
        }))
    }

    /// Sends what is due until told to stop, at the latest every `interval`; what is in hand then is finished.
    pub async fn run(self, interval: Duration, stop: CancellationToken) {
        let mut hands = JoinSet::new();
        while !stop.is_cancelled() {
            let limit = AT_ONCE - hands.len();
            let room = NoticeRoom {
                limit: i64::try_from(limit).unwrap_or_default(),
                per_host: self.per_host,
                lease: self.lease,
            };
            match self.db.pick_notices(room).await {
                Ok(picked) => {
                    if !picked.is_empty() {
                        crash::point(Point::NoticesPicked);
                    }
                    for notice in picked {
                        let this = self.clone();
                        let span = trace::notice(notice.job_id, notice.id, notice.tries);
                        hands.spawn(async move { this.tell(&notice).await }.instrument(span));
                    }
                }
                Err(error) => tracing::warn!(error = chain(&error), "cannot pick up notices"),
            }
            tokio::select! {
                () = tokio::time::sleep(interval) => {}
                // There is room for others of its host.
                Some(ended) = hands.join_next() => noted(ended),
                () = stop.cancelled() => {}
            }
            while let Some(ended) = hands.try_join_next() {
                noted(ended);
            }
        }
        while let Some(ended) = hands.join_next().await {
            noted(ended);
        }
    }

    /// One try, and what it came to into the table. Killed anywhere in it: sent again after the lease, under the same id.
    async fn tell(&self, notice: &NoticeRow) {
        let answer = self.sender.send(notice).await;
        crash::point(Point::NoticeSent);
        let tried = NoticeTry {
            id: notice.id,
            tries: notice.tries,
            status: answer.as_ref().ok().copied(),
            error: match &answer {
                Ok(200..=299) => None,
                Ok(status) => Some(format!("the receiver answered {status}")),
                Err(error) => Some(error.clone()),
            },
        };
        let counted = (notice.tries - notice.forgiven).unsigned_abs();
        let verdict = verdict(tried.status, counted, &self.retries, rand::random());
        let recorded = match verdict {
            Verdict::Ended(state) => self.db.end_notice(&tried, state).await,
            Verdict::Again(delay) => self.db.put_off_notice(&tried, delay).await,
        };
        match recorded {
            Ok(true) => self.note(notice, &tried, verdict),
            Ok(false) => {
                tracing::info!(notice.id = %notice.id, "a try came to its end after its lease")
            }
            Err(error) => tracing::warn!(
                error = chain(&error),
                "cannot record what became of a notice"
            ),
        }
    }

    fn note(&self, notice: &NoticeRow, tried: &NoticeTry, verdict: Verdict) {
        let word = match verdict {
            Verdict::Ended(state) => state.as_str(),
            Verdict::Again(_) => "put_off",
        };
        tracing::Span::current().record("outcome", word);
        self.metrics.total.with_label_values(&[word]).inc();
        let (id, job, tries) = (notice.id, notice.job_id, notice.tries);
        let why = tried.error.as_deref();
        match verdict {
            Verdict::Ended(NoticeState::GivenUp) => {
                tracing::error!(notice.id = %id, job.id = %job, tries, error = why, "nobody took the notice that a job has ended: given up");
            }
            Verdict::Ended(_) => {
                tracing::info!(notice.id = %id, job.id = %job, tries, outcome = word, "notice sent");
            }
            Verdict::Again(delay) => {
                tracing::info!(notice.id = %id, job.id = %job, tries, error = why, again_in_seconds = delay.as_secs(), "notice not taken");
            }
        }
    }
}

fn noted(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "sending a notice panicked");
    }
}
