//! Who may use the API: every route and what it asks for, and the check before each request.
//!
//! | Caller | Is |
//! |---|---|
//! | `Authorization: Bearer gf_…` | the holder of a token (`producer tokens create`) |
//! | a session's cookie | the holder who signed in (`POST /session`); what changes something must come from our own page |
//! | neither, and there was never a token | this machine itself, which may do everything; others are refused |
//! | neither | nobody: 401; `GET /session` says so with 200 |
//!
//! What is not in [`ROUTES`] is not reachable, so a route that is forgotten there is closed and not open.
//!
//! Without tokens the server listens where it is told to and refuses strangers one by one, instead of listening on the loopback
//! address alone: vendors call back at the same address, and the answer can change while it runs. The first token closes the API
//! for good: that the last one is revoked or runs out must not open it again, least of all behind a proxy on this machine.

mod credential;
mod failures;
mod origin;
mod session;

pub(super) use session::{COOKIE, routes};

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use axum::extract::{ConnectInfo, FromRequestParts, MatchedPath, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use chrono::{DateTime, Utc};
use credential::Credential;
use failures::Failures;
use ipnet::IpNet;
use shared::db::{Db, DbResult, Holder};
use shared::domain::access::{Right, Role};

use super::jobs::database;
use super::problem::{Kind, Problem};

/// What a route asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing: it only finds out who somebody is.
    Nothing,
    /// A vendor's signature, which the route checks itself.
    Signature,
    /// Any token.
    Token,
    /// A token whose role gives this right.
    Right(Right),
}

/// Every route: method, path, and what it asks for. HEAD asks for what GET does.
pub const ROUTES: &[(Method, &str, Need)] = {
    use Need::{Nothing, Right as Needs, Signature, Token};
    &[
        (Method::GET, "/", Nothing),
        (Method::GET, "/assets/{file}", Nothing),
        (Method::GET, "/session", Nothing),
        (Method::POST, "/session", Nothing),
        (Method::DELETE, "/session", Nothing),
        (Method::POST, "/webhooks/sync/{token}", Signature),
        (Method::POST, "/webhooks/ghostcut/{token}", Signature),
        (Method::GET, "/openapi.json", Nothing),
        (Method::GET, "/docs", Nothing),
        (Method::GET, "/v1/jobs", Needs(Right::Read)),
        (Method::POST, "/v1/jobs", Needs(Right::Submit)),
        (Method::POST, "/v1/jobs/batch", Needs(Right::Submit)),
        (Method::GET, "/v1/jobs/{id}", Needs(Right::Look)),
        (Method::GET, "/v1/jobs/{id}/events", Needs(Right::Look)),
        (Method::GET, "/v1/jobs/{id}/history", Needs(Right::Look)),
        (Method::GET, "/v1/jobs/{id}/submissions", Needs(Right::Read)),
        (Method::GET, "/v1/jobs/{id}/result", Needs(Right::Look)),
        (Method::POST, "/v1/jobs/{id}/cancel", Needs(Right::Operate)),
        (Method::POST, "/v1/jobs/{id}/retry", Needs(Right::Operate)),
        (Method::POST, "/v1/jobs/{id}/resume", Needs(Right::Operate)),
        (Method::GET, "/v1/events", Needs(Right::Read)),
        (Method::GET, "/v1/dead-letters", Needs(Right::Read)),
        (Method::GET, "/v1/dead-letters/{id}", Needs(Right::Read)),
        (
            Method::PUT,
            "/v1/dead-letters/{id}/note",
            Needs(Right::Operate),
        ),
        (
            Method::POST,
            "/v1/dead-letters/replays",
            Needs(Right::Operate),
        ),
        (
            Method::POST,
            "/v1/dead-letters/discards",
            Needs(Right::Operate),
        ),
        (Method::GET, "/v1/notices", Needs(Right::Read)),
        (Method::GET, "/v1/notices/{id}", Needs(Right::Read)),
        (
            Method::POST,
            "/v1/notices/{id}/replay",
            Needs(Right::Operate),
        ),
        (Method::GET, "/v1/unknowns", Needs(Right::Read)),
        (Method::GET, "/v1/unknowns/{id}", Needs(Right::Read)),
        (
            Method::POST,
            "/v1/unknowns/{id}/adopt",
            Needs(Right::Operate),
        ),
        (
            Method::POST,
            "/v1/unknowns/{id}/confirm-not-accepted",
            Needs(Right::Operate),
        ),
        (Method::GET, "/v1/vendors", Needs(Right::Read)),
        (
            Method::GET,
            "/v1/vendors/{vendor}/{account}",
            Needs(Right::Read),
        ),
        (
            Method::PATCH,
            "/v1/vendors/{vendor}/{account}",
            Needs(Right::Operate),
        ),
        (
            Method::POST,
            "/v1/vendors/{vendor}/{account}/pause",
            Needs(Right::Operate),
        ),
        (
            Method::POST,
            "/v1/vendors/{vendor}/{account}/resume",
            Needs(Right::Operate),
        ),
        (Method::GET, "/v1/status", Needs(Right::Read)),
        (Method::GET, "/v1/paid-sends", Needs(Right::Read)),
        (Method::POST, "/v1/paid-sends/stop", Needs(Right::Operate)),
        (Method::POST, "/v1/paid-sends/resume", Needs(Right::Operate)),
        (Method::GET, "/v1/costs", Needs(Right::Read)),
        (Method::GET, "/v1/audits", Needs(Right::Read)),
        (Method::POST, "/v1/audits", Needs(Right::Operate)),
        (Method::GET, "/v1/audits/{id}", Needs(Right::Read)),
        (
            Method::POST,
            "/v1/findings/{token}/acknowledge",
            Needs(Right::Operate),
        ),
        (Method::GET, "/v1/find", Needs(Right::Read)),
        (Method::GET, "/v1/overview", Needs(Right::Read)),
        (Method::GET, "/v1/series", Needs(Right::Read)),
        (Method::GET, "/v1/workers", Needs(Right::Read)),
        (
            Method::POST,
            "/v1/workers/{id}/quiet",
            Needs(Right::Operate),
        ),
        (
            Method::POST,
            "/v1/workers/{id}/resume",
            Needs(Right::Operate),
        ),
        (Method::POST, "/v1/workers/{id}/stop", Needs(Right::Operate)),
        (Method::GET, "/v1/words", Token),
        (Method::GET, "/v1/operator-events", Needs(Right::Read)),
        (Method::GET, "/v1/operations", Needs(Right::Read)),
        (Method::POST, "/v1/operations", Needs(Right::Operate)),
        // Changes nothing: a POST because a filter may be long.
        (Method::POST, "/v1/operations/preview", Needs(Right::Read)),
        (Method::GET, "/v1/operations/{id}", Needs(Right::Read)),
        (
            Method::POST,
            "/v1/operations/{id}/continue",
            Needs(Right::Operate),
        ),
        (
            Method::POST,
            "/v1/operations/{id}/stop",
            Needs(Right::Operate),
        ),
    ]
};

/// Who sent a request, for its handler. There is one behind every route that asks for a token.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    /// The token's name; none: this machine, while there are no tokens.
    pub(super) name: Option<String>,
    pub(super) role: Role,
    /// Until when the token or the session is good.
    pub(super) expires_at: Option<DateTime<Utc>>,
}

impl Caller {
    /// This machine, while there are no tokens.
    pub(super) const LOCAL: Self = Self {
        name: None,
        role: Role::Admin,
        expires_at: None,
    };
}

impl From<Holder> for Caller {
    fn from(holder: Holder) -> Self {
        Self {
            name: Some(holder.name),
            role: holder.role,
            expires_at: holder.expires_at,
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let caller = parts.extensions.get::<Self>().cloned();
        caller.ok_or_else(|| {
            tracing::error!("a route reads its caller and asks for no token");
            Problem::new(Kind::Internal, "the log of the service says why")
        })
    }
}

/// Checks callers. Cheap to clone.
#[derive(Clone)]
pub(super) struct Access {
    db: Db,
    /// Whether browsers reach us by https, as far as settings say.
    https: bool,
    /// Proxies that are believed whom they speak for.
    proxies: Arc<[IpNet]>,
    failures: Arc<Mutex<Failures>>,
    /// There was a token once, so there always will have been.
    closed: Arc<AtomicBool>,
}

/// Why a request is refused, and what the answer needs besides the problem.
enum Refusal {
    Problem(Problem),
    /// Neither a token nor a session came.
    Nobody,
    /// The browser is to forget its cookie: else it would come with it again and again.
    StaleCookie,
    /// Seconds until the next try counts.
    TooMany(u64),
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

impl Refusal {
    fn into_response(self) -> Response {
        match self {
            Self::Problem(problem) => problem.into_response(),
            Self::Nobody => {
                let detail = "send the header `Authorization: Bearer gf_…`; `producer tokens create` makes a token";
                Problem::new(Kind::Unauthorized, detail).into_response()
            }
            Self::StaleCookie => {
                let detail = "the session is over: sign in again with POST /session";
                let problem = Problem::new(Kind::Unauthorized, detail);
                ([(header::SET_COOKIE, session::FORGET)], problem).into_response()
            }
            Self::TooMany(seconds) => {
                let detail = "too many wrong tokens came from this address";
                let problem = Problem::new(Kind::TooManyFailures, detail);
                let wait = HeaderValue::from(seconds);
                ([(header::RETRY_AFTER, wait)], problem).into_response()
            }
        }
    }
}

impl Access {
    pub(super) fn new(db: Db, https: bool, proxies: Arc<[IpNet]>) -> Self {
        Self {
            db,
            https,
            proxies,
            failures: Arc::new(Mutex::new(Failures::new(Instant::now()))),
            closed: Arc::default(),
        }
    }

    async fn caller(
        &self,
        peer: SocketAddr,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<Caller, Refusal> {
        let found = Credential::read(headers);
        if matches!(found, Some(Credential::Session(_)))
            && !method.is_safe()
            && !origin::is_ours(headers)
        {
            let detail = "with a session's cookie, only our own page may change something; send a token instead";
            return Err(Problem::new(Kind::CrossSite, detail).into());
        }
        match found {
            Some(credential) => Ok(self.holder(peer, headers, &credential).await?.into()),
            None if self.is_closed().await.map_err(|error| database(&error))? => {
                Err(Refusal::Nobody)
            }
            None if !origin::is_this_machine(peer, uri, headers) => {
                let detail = "while there are no access tokens only this machine itself is answered; `producer tokens create` makes one";
                Err(Problem::new(Kind::NoTokens, detail).into())
            }
            None if !method.is_safe() && origin::is_foreign(headers) => {
                let detail = "another site's page may not change something here";
                Err(Problem::new(Kind::CrossSite, detail).into())
            }
            None => Ok(Caller::LOCAL),
        }
    }

    /// Whose token or session this is. Wrong ones are counted for their address; what was right a moment ago is looked up even
    /// where too many came, so that nobody can lock out the others behind the same proxy.
    async fn holder(
        &self,
        peer: SocketAddr,
        headers: &HeaderMap,
        credential: &Credential<'_>,
    ) -> Result<Holder, Refusal> {
        let client = origin::client(peer, headers, &self.proxies);
        let sha256 = credential.sha256();
        if let Some(seconds) = self
            .failures()
            .wait(client, sha256.as_ref(), Instant::now())
        {
            return Err(Refusal::TooMany(seconds));
        }
        let holder = match (&sha256, credential) {
            (None, _) => Ok(None),
            (Some(sha256), Credential::Token(_)) => self.db.token_holder(sha256).await,
            (Some(sha256), Credential::Session(_)) => self.db.session_holder(sha256).await,
        };
        match (holder.map_err(|error| database(&error))?, sha256) {
            (Some(holder), Some(sha256)) => {
                self.failures().right(sha256);
                Ok(holder)
            }
            _ => {
                if self.failures().wrong(client, Instant::now()) {
                    tracing::warn!(%client, "too many wrong tokens came from an address; for a minute it gets 429");
                }
                Err(match credential {
                    Credential::Token(_) => {
                        Problem::new(Kind::WrongToken, "the token is wrong, revoked or expired")
                            .into()
                    }
                    Credential::Session(_) => Refusal::StaleCookie,
                })
            }
        }
    }

    async fn is_closed(&self) -> DbResult<bool> {
        if !self.closed.load(Ordering::Relaxed) && self.db.has_tokens().await? {
            self.closed.store(true, Ordering::Relaxed);
        }
        Ok(self.closed.load(Ordering::Relaxed))
    }

    fn failures(&self) -> std::sync::MutexGuard<'_, Failures> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets a request through to its route if its caller may, and tells the route who it is. What is answered is this caller's alone: no
/// cache may keep it, unless the route says otherwise.
pub(super) async fn guard(
    State(access): State<Access>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    mut request: Request,
    next: Next,
) -> Response {
    let Some(path) = request.extensions().get::<MatchedPath>() else {
        // Nothing is there, and nobody needs to be told who may not see it.
        return next.run(request).await;
    };
    let need = match need(request.method(), path.as_str()) {
        Ok(need) => need,
        Err(allow) => {
            let problem = Problem::new(Kind::MethodNotAllowed, super::OTHER_METHODS);
            return ([(header::ALLOW, allow)], problem).into_response();
        }
    };
    let right = match need {
        Need::Nothing | Need::Signature => return next.run(request).await,
        Need::Token => None,
        Need::Right(right) => Some(right),
    };
    let caller = access.caller(peer, request.method(), request.uri(), request.headers());
    let mut response = match caller.await {
        Err(refusal) => refusal.into_response(),
        Ok(caller) => match right.filter(|right| !caller.role.gives(*right)) {
            Some(right) => {
                let detail = format!(
                    "the role `{}` does not give the right to `{right}`",
                    caller.role
                );
                Problem::new(Kind::Forbidden, detail).into_response()
            }
            None => {
                request.extensions_mut().insert(caller);
                next.run(request).await
            }
        },
    };
    let headers = response.headers_mut();
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}

/// What a route asks for, or the methods that its path has.
fn need(method: &Method, path: &str) -> Result<Need, String> {
    let method = if method == Method::HEAD {
        &Method::GET
    } else {
        method
    };
    let of_path = || ROUTES.iter().filter(|route| route.1 == path);
    if let Some((_, _, need)) = of_path().find(|route| route.0 == *method) {
        return Ok(*need);
    }
    let methods: Vec<_> = of_path()
        .map(|(method, ..)| {
            if *method == Method::GET {
                "GET,HEAD"
            } else {
                method.as_str()
            }
        })
        .collect();
    if methods.is_empty() {
        tracing::error!(
            path,
            "a route has no line in `access::ROUTES`, so it is closed"
        );
    }
    Err(methods.join(","))
}

/// Says who may use an API that listens here, if nobody needs a token.
///
/// # Errors
/// When the database is away.
pub async fn announce(db: &Db, listens: SocketAddr) -> DbResult<()> {
    if db.has_tokens().await? {
        return Ok(());
    }
    if listens.ip().to_canonical().is_loopback() {
        tracing::info!("there are no access tokens: the API is open to this machine");
    } else {
        tracing::warn!(
            "there are no access tokens: the API answers this machine only, and nobody else but the vendors' callbacks. \
             `producer tokens create NAME --role ROLE --reason WHY` makes the first"
        );
    }
    Ok(())
}
