//! Access tokens of the HTTP API and the sessions of browsers that signed in with one. Knows hashes only.

use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::OptionalExtension as _;
use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Binary, Bool, Nullable, Text, Timestamptz};
use diesel_async::{AsyncConnection as _, RunQueryDsl as _};
use serde::Serialize;
use serde_json::json;

use super::dispatch::millis;
use super::job_actions::record;
use super::{Db, DbResult};
use crate::domain::access::Role;

/// SHA-256 of a token or of a session's id.
pub type Sha256 = [u8; 32];

/// A token to be made.
#[derive(Clone, Debug)]
pub struct NewToken<'a> {
    /// What the trail will call whoever has it.
    pub name: &'a str,
    /// Its hash.
    pub sha256: Sha256,
    /// What it is for.
    pub role: Role,
    /// How long it is good for; none: until revoked.
    pub life: Option<Duration>,
    /// Who makes it.
    pub by: &'a str,
    /// Why.
    pub reason: &'a str,
}

/// A token as it is listed.
#[derive(Clone, Debug, Serialize, QueryableByName)]
pub struct TokenRow {
    /// Its name.
    #[diesel(sql_type = Text)]
    pub name: String,
    /// What it is for.
    #[diesel(sql_type = Text)]
    pub role: String,
    /// `live`, `expired` or `revoked`.
    #[diesel(sql_type = Text)]
    pub state: String,
    /// When it was made.
    #[diesel(sql_type = Timestamptz)]
    pub created_at: DateTime<Utc>,
    /// By whom.
    #[diesel(sql_type = Text)]
    pub created_by: String,
    /// What for, in the words of whoever made it.
    #[diesel(sql_type = Nullable<Text>)]
    pub reason: Option<String>,
    /// Until when it is good; none: until revoked.
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub expires_at: Option<DateTime<Utc>>,
    /// When it was last used, to the minute.
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub last_used_at: Option<DateTime<Utc>>,
    /// When it was revoked.
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub revoked_at: Option<DateTime<Utc>>,
    /// By whom.
    #[diesel(sql_type = Nullable<Text>)]
    pub revoked_by: Option<String>,
}

/// What came of revoking a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revoked {
    /// From now on it is refused, and so are its sessions.
    Now,
    /// It had been revoked.
    Before,
    /// There is no token of that name.
    Unknown,
}

/// Who holds a token that is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The token's name.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// Until when the token, or the session, is good; none: until revoked.
    pub expires_at: Option<DateTime<Utc>>,
}

#[derive(QueryableByName)]
struct HolderRow {
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = Text)]
    role: String,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    expires_at: Option<DateTime<Utc>>,
}

#[derive(QueryableByName)]
struct Exists {
    #[diesel(sql_type = Bool)]
    exists: bool,
}

/// Of `access_tokens t`.
const IS_GOOD: &str = "t.revoked_at IS NULL AND coalesce(t.expires_at > now(), true)";

impl Db {
    /// Makes a token. False: the name is taken, by a revoked token perhaps.
    ///
    /// # Errors
    /// When the database is away nothing is made.
    pub async fn create_token(&self, new: &NewToken<'_>) -> DbResult<bool> {
        let mut connection = self.connection().await?;
        let made = connection
            .transaction(async |connection| {
                let made = diesel::sql_query(
                    "INSERT INTO access_tokens (name, sha256, role, expires_at, created_by) \
                     VALUES ($1, $2, $3, now() + make_interval(secs => $4 / 1000.0), $5) ON CONFLICT (name) DO NOTHING",
                )
                .bind::<Text, _>(new.name)
                .bind::<Binary, _>(new.sha256.as_slice())
                .bind::<Text, _>(new.role.as_str())
                .bind::<Nullable<BigInt>, _>(new.life.map(millis))
                .bind::<Text, _>(new.by)
                .execute(connection)
                .await?
                    > 0;
                if made {
                    let life = new.life.map(|life| life.as_secs());
                    let detail = json!({ "role": new.role, "life_seconds": life });
                    let subject = format!("token/{}", new.name);
                    record(connection, "token_created", &subject, new.by, new.reason, &detail).await?;
                }
                Ok::<_, diesel::result::Error>(made)
            })
            .await?;
        Ok(made)
    }

    /// Ends a token and its sessions. Twice is harmless.
    ///
    /// # Errors
    /// When the outcome is not known; revoking again is harmless.
    pub async fn revoke_token(&self, name: &str, by: &str, reason: &str) -> DbResult<Revoked> {
        let mut connection = self.connection().await?;
        let revoked = connection
            .transaction(async |connection| {
                let ended = diesel::sql_query(
                    "UPDATE access_tokens SET revoked_at = clock_timestamp(), revoked_by = $2 \
                     WHERE name = $1 AND revoked_at IS NULL",
                )
                .bind::<Text, _>(name)
                .bind::<Text, _>(by)
                .execute(connection)
                .await?;
                if ended > 0 {
                    let subject = format!("token/{name}");
                    record(
                        connection,
                        "token_revoked",
                        &subject,
                        by,
                        reason,
                        &json!({}),
                    )
                    .await?;
                    return Ok::<_, diesel::result::Error>(Revoked::Now);
                }
                let known: Exists =
                    diesel::sql_query("SELECT EXISTS (SELECT FROM access_tokens WHERE name = $1)")
                        .bind::<Text, _>(name)
                        .get_result(connection)
                        .await?;
                Ok(if known.exists {
                    Revoked::Before
                } else {
                    Revoked::Unknown
                })
            })
            .await?;
        Ok(revoked)
    }

    /// Every token that ever was, in the order of names.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn tokens(&self) -> DbResult<Vec<TokenRow>> {
        let mut connection = self.connection().await?;
        Ok(diesel::sql_query(
            "SELECT name, role, created_at, created_by, expires_at, last_used_at, revoked_at, revoked_by, \
             CASE WHEN revoked_at IS NOT NULL THEN 'revoked' WHEN expires_at <= now() THEN 'expired' ELSE 'live' END AS state, \
             (SELECT e.reason FROM operator_events e WHERE e.action = 'token_created' AND e.subject = 'token/' || t.name LIMIT 1) AS reason \
             FROM access_tokens t ORDER BY name",
        )
        .load(&mut connection)
        .await?)
    }

    /// Whether there ever was a token, good or not.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn has_tokens(&self) -> DbResult<bool> {
        let mut connection = self.connection().await?;
        let found: Exists = diesel::sql_query("SELECT EXISTS (SELECT FROM access_tokens)")
            .get_result(&mut connection)
            .await?;
        Ok(found.exists)
    }

    /// Who holds this token, if it is good, and that it was used.
    ///
    /// The lookup is by hash, in an index: how long it takes says something about the hash alone, from which nobody gets to a
    /// token.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn token_holder(&self, token: &Sha256) -> DbResult<Option<Holder>> {
        let found = format!(
            "SELECT t.name, t.role, t.expires_at FROM access_tokens t WHERE t.sha256 = $1 AND {IS_GOOD}"
        );
        self.holder(&found, token).await
    }

    /// Who signed in to this session, if it is good, and that the token was used.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn session_holder(&self, session: &Sha256) -> DbResult<Option<Holder>> {
        let found = format!(
            "SELECT t.name, t.role, s.expires_at FROM access_sessions s JOIN access_tokens t ON t.name = s.token \
             WHERE s.sha256 = $1 AND s.expires_at > now() AND {IS_GOOD}"
        );
        self.holder(&found, session).await
    }

    async fn holder(&self, found: &str, sha256: &Sha256) -> DbResult<Option<Holder>> {
        let mut connection = self.connection().await?;
        let row: Option<HolderRow> = diesel::sql_query(format!(
            "WITH found AS ({found}), \
             used AS (UPDATE access_tokens t SET last_used_at = now() FROM found WHERE t.name = found.name \
                 AND coalesce(t.last_used_at < now() - interval '1 minute', true)) \
             SELECT name, role, expires_at FROM found"
        ))
        .bind::<Binary, _>(sha256.as_slice())
        .get_result(&mut connection)
        .await
        .optional()?;
        row.map(|row| {
            Ok(Holder {
                name: row.name,
                role: row.role.parse()?,
                expires_at: row.expires_at,
            })
        })
        .transpose()
    }

    /// Opens a session of this token for at most so long, but no longer than the token is good; answers until when. Sessions
    /// that are over are removed.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn open_session(
        &self,
        token: &str,
        session: &Sha256,
        life: Duration,
    ) -> DbResult<DateTime<Utc>> {
        #[derive(QueryableByName)]
        struct Opened {
            #[diesel(sql_type = Timestamptz)]
            expires_at: DateTime<Utc>,
        }
        let mut connection = self.connection().await?;
        let opened: Opened = diesel::sql_query(
            "WITH over AS (DELETE FROM access_sessions WHERE expires_at <= now()) \
             INSERT INTO access_sessions (sha256, token, expires_at) \
             SELECT $2, t.name, least(now() + make_interval(secs => $3 / 1000.0), t.expires_at) \
             FROM access_tokens t WHERE t.name = $1 RETURNING expires_at",
        )
        .bind::<Text, _>(token)
        .bind::<Binary, _>(session.as_slice())
        .bind::<BigInt, _>(millis(life))
        .get_result(&mut connection)
        .await?;
        Ok(opened.expires_at)
    }

    /// Ends a session. Twice is harmless.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn close_session(&self, session: &Sha256) -> DbResult<()> {
        let mut connection = self.connection().await?;
        diesel::sql_query("DELETE FROM access_sessions WHERE sha256 = $1")
            .bind::<Binary, _>(session.as_slice())
            .execute(&mut connection)
            .await?;
        Ok(())
    }
}
