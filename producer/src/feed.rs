//! The trail as it grows, for many followers at once: one reader asks the database, everybody else hears of it.
//!
//! Lines are numbered when they are written and seen when their transaction commits, so a line may appear below one that was seen
//! before. The reader therefore lets lines out only when every transaction that was open when it first saw them has ended
//! (<https://www.postgresql.org/docs/current/functions-info.html#FUNCTIONS-INFO-SNAPSHOT>): what is let out is complete and in
//! order. Every transaction that writes a line has written or locked its job before, so it is known by then.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::json;
use shared::db::{Db, DbResult, TrailHorizon, TrailLine};
use shared::telemetry::chain;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::web::EventDocument;

/// Between two looks at the trail.
const INTERVAL: Duration = Duration::from_millis(500);
/// Lines that wait for a slow follower; one that falls behind them reads from the database.
const BUFFER: usize = 1024;
/// Lines read at once.
const PAGE: i64 = 200;
/// Most followers of one process.
const MAX_FOLLOWERS: usize = 200;
/// Of these, most with one token, so that nobody takes all the places of the others.
const MAX_WITH_ONE_TOKEN: usize = 50;

/// The trail as it grows. Cheap to clone.
#[derive(Clone)]
pub struct Feed {
    db: Db,
    lines: broadcast::Sender<Arc<Line>>,
    /// The newest line that was let out; none before the reader's first success.
    horizon: watch::Sender<Option<i64>>,
    followers: Arc<Semaphore>,
    /// By the name of their token, those that some follow with.
    by_token: Arc<Mutex<HashMap<String, Arc<Semaphore>>>>,
    stop: CancellationToken,
}

/// A line of the trail, ready to be sent.
#[derive(Debug)]
pub struct Line {
    /// Order of the trail.
    pub id: i64,
    job: Uuid,
    /// The event with its job, as JSON.
    pub data: String,
}

impl From<TrailLine> for Line {
    fn from(line: TrailLine) -> Self {
        let TrailLine { job_id, event } = line;
        let id = event.id;
        let mut data = json!(EventDocument::from(event));
        data["job_id"] = json!(job_id);
        Self {
            id,
            job: job_id,
            data: data.to_string(),
        }
    }
}

/// Why nobody more can follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotFollowed {
    /// There are as many as one process takes.
    TooMany,
    /// There are as many as one token may have.
    TooManyWithToken,
    /// The reader has not reached the database yet.
    Away,
}

impl Feed {
    /// A feed that has read nothing yet; followers end with `stop`.
    #[must_use]
    pub fn new(db: Db, stop: CancellationToken) -> Self {
        Self {
            db,
            lines: broadcast::channel(BUFFER).0,
            horizon: watch::channel(None).0,
            followers: Arc::new(Semaphore::new(MAX_FOLLOWERS)),
            by_token: Arc::default(),
            stop,
        }
    }

    /// Reads until the stop.
    pub async fn run(self) {
        let mut pending: Option<TrailHorizon> = None;
        let mut sent = None;
        loop {
            if let Err(error) = self.look(&mut pending, &mut sent).await {
                tracing::warn!(error = chain(&error), "the trail could not be read");
            }
            let pause = self
                .stop
                .run_until_cancelled(tokio::time::sleep(INTERVAL))
                .await;
            if pause.is_none() {
                return;
            }
        }
    }

    /// Lets out what was seen by an earlier look whose open transactions have all ended.
    async fn look(
        &self,
        pending: &mut Option<TrailHorizon>,
        sent: &mut Option<i64>,
    ) -> DbResult<()> {
        let seen = self.db.trail_horizon().await?;
        match *pending {
            Some(before) if seen.oldest_open >= before.next => {
                self.let_out(before.newest, sent).await?;
                *pending = Some(seen);
            }
            Some(_) => {}
            None => *pending = Some(seen),
        }
        Ok(())
    }

    async fn let_out(&self, upto: i64, sent: &mut Option<i64>) -> DbResult<()> {
        // Before anybody is counted: who comes later reads up to it, who came before is sent what lies below it.
        self.horizon.send_replace(Some(upto));
        if sent.is_none() || self.lines.receiver_count() == 0 {
            *sent = Some(upto);
        }
        // A database that was restored may be behind.
        let mut after = sent.map_or(upto, |sent| sent.min(upto));
        *sent = Some(after);
        while after < upto {
            let page = self.db.trail_after(after, upto, None, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = last.event.id;
            for line in page {
                // Nobody listens any more: nothing is lost.
                let _ = self.lines.send(Arc::new(line.into()));
            }
            *sent = Some(after);
        }
        *sent = Some(upto);
        Ok(())
    }

    /// Waits until it can be followed, and no longer than this: its reader begins a moment after the process.
    pub async fn begun(&self, within: Duration) {
        let mut horizon = self.horizon.subscribe();
        let _ = tokio::time::timeout(within, horizon.wait_for(Option::is_some)).await;
    }

    /// Follows one job's lines, or all, with the token of this name; who has none, while there are no tokens, may take every place.
    /// Begins after the line `after`; without one at the beginning of a job's trail, or with what happens from now on. May repeat
    /// lines; their numbers tell.
    ///
    /// # Errors
    /// When it cannot be followed now.
    pub fn follow(
        &self,
        token: Option<&str>,
        job: Option<Uuid>,
        after: Option<i64>,
    ) -> Result<Follower, NotFollowed> {
        let own = token.map(|token| self.place_with(token)).transpose()?;
        let place = Arc::clone(&self.followers).try_acquire_owned();
        let place = place.map_err(|_| NotFollowed::TooMany)?;
        // In this order: what is let out from now on is heard, and what was let out before is read.
        let heard = self.lines.subscribe();
        let horizon = (*self.horizon.borrow()).ok_or(NotFollowed::Away)?;
        let after = match (after, job) {
            // Beyond it lies what another process has let out already, or what a restored database has forgotten.
            (Some(after), _) => after.min(horizon),
            (None, Some(_)) => 0,
            (None, None) => horizon,
        };
        Ok(Follower {
            feed: self.clone(),
            job,
            after,
            behind: Some(horizon),
            read: VecDeque::new(),
            heard,
            _places: (own, place),
        })
    }

    /// One of the places that a token may have.
    fn place_with(&self, token: &str) -> Result<OwnedSemaphorePermit, NotFollowed> {
        let mut by_token = self.by_token.lock().unwrap_or_else(PoisonError::into_inner);
        // Tokens come and go: only those with followers are kept.
        by_token.retain(|_, places| places.available_permits() < MAX_WITH_ONE_TOKEN);
        let new = || Arc::new(Semaphore::new(MAX_WITH_ONE_TOKEN));
        let places = by_token.entry(token.to_owned()).or_insert_with(new);
        let place = Arc::clone(places).try_acquire_owned();
        place.map_err(|_| NotFollowed::TooManyWithToken)
    }
}

/// One who follows.
pub struct Follower {
    feed: Feed,
    job: Option<Uuid>,
    /// The last line given out.
    after: i64,
    /// Up to where the database has to be read first.
    behind: Option<i64>,
    read: VecDeque<Arc<Line>>,
    heard: broadcast::Receiver<Arc<Line>>,
    /// Its token's, where it has one, and the process's.
    _places: (Option<OwnedSemaphorePermit>, OwnedSemaphorePermit),
}

impl Follower {
    /// The next line; none when the feed stops or the database is away, after which one follows anew.
    pub async fn next(&mut self) -> Option<Arc<Line>> {
        loop {
            if let Some(line) = self.read.pop_front() {
                self.after = line.id;
                return Some(line);
            }
            if let Some(upto) = self.behind {
                let feed = &self.feed;
                let page = feed.db.trail_after(self.after, upto, self.job, PAGE).await;
                match page {
                    Ok(page) if page.is_empty() => self.behind = None,
                    Ok(page) => {
                        let lines = page.into_iter().map(|line| Arc::new(line.into()));
                        self.read = lines.collect();
                    }
                    Err(error) => {
                        tracing::warn!(error = chain(&error), "a follower was sent away");
                        return None;
                    }
                }
                continue;
            }
            let stop = self.feed.stop.clone();
            match stop.run_until_cancelled(self.heard.recv()).await? {
                Ok(line) if line.id > self.after && self.job.is_none_or(|job| job == line.job) => {
                    self.after = line.id;
                    return Some(line);
                }
                Ok(_) => {}
                // Fell behind the buffer: reads what it missed.
                Err(broadcast::error::RecvError::Lagged(_)) => {
                    self.behind = *self.feed.horizon.borrow();
                }
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use shared::config::{DatabaseConfig, Secret};

    use super::*;

    #[tokio::test]
    async fn one_token_leaves_places_to_the_others() {
        let database = DatabaseConfig {
            database_url: Secret::from("postgres://nobody@127.0.0.1:1/nothing".to_owned()),
            database_pool_size: 1,
            database_connect_timeout: Duration::from_secs(1),
            database_statement_timeout: Duration::from_secs(1),
        };
        let feed = Feed::new(Db::new(&database).unwrap(), CancellationToken::new());
        feed.horizon.send_replace(Some(0));
        let follow = |token| feed.follow(token, None, None);
        // As many as there is room for, and why no more.
        let crowd = |token, expected: usize, why| {
            let mut followers = Vec::new();
            let refused = loop {
                match follow(token) {
                    Ok(follower) => followers.push(follower),
                    Err(refused) => break refused,
                }
            };
            assert_eq!((followers.len(), refused), (expected, why), "{token:?}");
            followers
        };
        let mut ann = crowd(Some("ann"), 50, NotFollowed::TooManyWithToken);
        let bob = crowd(Some("bob"), 50, NotFollowed::TooManyWithToken);
        // This machine, while there are no tokens.
        let rest = crowd(None, 100, NotFollowed::TooMany);
        assert_eq!(follow(Some("cid")).err(), Some(NotFollowed::TooMany));
        ann.pop();
        let again = follow(Some("ann")).unwrap();
        drop((ann, bob, rest, again));
        crowd(None, 200, NotFollowed::TooMany);
        crowd(Some("cid"), 50, NotFollowed::TooManyWithToken);
        assert_eq!(feed.by_token.lock().unwrap().len(), 1, "what is forgotten");
    }
}
