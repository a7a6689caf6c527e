//! `POST /session` signs a browser in with a token, `GET /session` says who it is or that it is nobody, `DELETE /session` signs it out.
//!
//! The cookie holds the random id of a session, of which the database keeps the hash: no page's script can read the token later,
//! and a session ends with its token.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use chrono::{DateTime, Utc};
use serde::Serialize;
use shared::domain::access::Role;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::credential::{self, Credential};
use super::{Access, Caller, Refusal, origin};
use crate::secrets::{self, Kind as Secret};
use crate::web::body::Body;
use crate::web::job_actions::detached;
use crate::web::jobs::{database, internal};
use crate::web::problem::{Kind, Problem};
use crate::web::requests::SignIn;

/// Name of the cookie.
pub(in crate::web) const COOKIE: &str = "ghostfleet_session";
/// What makes a browser forget it.
pub(super) const FORGET: &str = "ghostfleet_session=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0";
/// A working day.
const LIFE: Duration = Duration::from_secs(12 * 3600);

/// The routes.
pub(in crate::web) fn routes(access: Access) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(sign_in, show, sign_out))
        .with_state(access)
}

/// Who sent a request.
#[derive(Serialize, ToSchema)]
struct Identity {
    /// The token's name; null for this machine while there are no tokens, and for nobody.
    name: Option<String>,
    /// Null: nobody is signed in.
    role: Option<Role>,
    /// Until when the token or the session is good; null for ever.
    expires_at: Option<DateTime<Utc>>,
}

fn document(caller: &Caller) -> Json<Identity> {
    Json(Identity {
        name: caller.name.clone(),
        role: Some(caller.role),
        expires_at: caller.expires_at,
    })
}

fn foreign() -> Problem {
    let detail = "another site's page may not sign anybody in or out";
    Problem::new(Kind::CrossSite, detail)
}

/// Sign in with a token: the answer sets the cookie of a session
#[utoipa::path(post, path = "/session", tag = "access", operation_id = "sign_in", request_body = SignIn,
    responses((status = 200, description = "Signed in; `Set-Cookie` has the session", body = Identity),
        (status = 401, description = "The token is wrong, revoked or expired"),
        (status = 403, description = "Another site's page asked"),
        (status = 429, description = "Too many wrong tokens came from this address")))]
async fn sign_in(
    State(access): State<Access>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    // A session that somebody else chose would show our operator the wrong name.
    if origin::is_foreign(&headers) {
        return Err(foreign());
    }
    let mut body = Body::read(&headers, body)?;
    let token = body.token();
    body.finish()?;
    let holder = match access
        .holder(peer, &headers, &Credential::Token(&token))
        .await
    {
        Ok(holder) => holder,
        Err(refusal) => return Ok(refusal.into_response()),
    };
    let fresh = secrets::fresh(Secret::Session).map_err(|error| internal(&error))?;
    let (db, name, sha256) = (access.db.clone(), holder.name.clone(), fresh.sha256);
    let until = detached(async move { db.open_session(&name, &sha256, LIFE).await }).await?;
    let secure = if access.https || origin::is_https(&headers) {
        "; Secure"
    } else {
        ""
    };
    let cookie = format!(
        "{COOKIE}={}; Path=/; HttpOnly; SameSite=Strict; Max-Age={}{secure}",
        fresh.secret.expose(),
        LIFE.as_secs()
    );
    let caller = Caller {
        expires_at: Some(until),
        ..holder.into()
    };
    let lines = [
        (header::SET_COOKIE, cookie),
        (header::CACHE_CONTROL, "no-store".to_owned()),
    ];
    Ok((lines, document(&caller)).into_response())
}

/// Who sends this
///
/// Nobody, where neither a token nor a session is sent, or the session is over: then every field is null.
#[utoipa::path(get, path = "/session", tag = "access", operation_id = "whoami",
    responses((status = 200, description = "The token's name and role; nulls where nobody is signed in", body = Identity),
        (status = 401, description = "The token is wrong, revoked or expired"),
        (status = 403, description = "There are no tokens yet, and another machine asks"),
        (status = 429, description = "Too many wrong tokens came from this address")))]
async fn show(
    State(access): State<Access>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let nobody = || {
        Json(Identity {
            name: None,
            role: None,
            expires_at: None,
        })
    };
    let mut answer = match access.caller(peer, &Method::GET, &uri, &headers).await {
        Ok(caller) => document(&caller).into_response(),
        Err(Refusal::Nobody) => nobody().into_response(),
        Err(Refusal::StaleCookie) => ([(header::SET_COOKIE, FORGET)], nobody()).into_response(),
        Err(refusal) => refusal.into_response(),
    };
    let lines = answer.headers_mut();
    lines.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// End the session
#[utoipa::path(delete, path = "/session", tag = "access", operation_id = "sign_out",
    responses((status = 204, description = "Signed out"), (status = 403, description = "Another site's page asked")))]
async fn sign_out(State(access): State<Access>, headers: HeaderMap) -> Result<Response, Problem> {
    if origin::is_foreign(&headers) {
        return Err(foreign());
    }
    let session = credential::session(&headers);
    if let Some(sha256) = session.and_then(|text| secrets::sha256(Secret::Session, text)) {
        let closed = access.db.close_session(&sha256).await;
        closed.map_err(|error| database(&error))?;
    }
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, FORGET)]).into_response())
}
