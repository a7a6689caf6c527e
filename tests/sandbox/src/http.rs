//! HTTP as the simulators need it: a server that can really hang up, and the frame around each API call
//! in which the general faults act. Knows no vendor's rules.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header,
};
use bytes::Bytes;
use futures::StreamExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::Core;
use crate::fault::{Fault, Operation, When};
use crate::truth::Vendor;

/// Error that makes hyper close the connection without an answer.
#[derive(Debug, thiserror::Error)]
#[error("connection closed on purpose")]
pub(crate) struct Hangup;

/// Serves connections until the sandbox stops. A handler's error closes its connection at TCP level.
pub(crate) fn serve<H, F, B, E>(core: &Core, listener: TcpListener, handler: H)
where
    H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<Response<B>, E>> + Send + 'static,
    B: hyper::body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    E: Into<BoxError> + 'static,
{
    let (cancel, tasks) = (core.cancel.clone(), core.tasks.clone());
    let connections = tasks.clone();
    tasks.spawn(async move {
        loop {
            let accepted = tokio::select! {
                () = cancel.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let Ok((stream, _)) = accepted else {
                // Out of file descriptors or an aborted handshake: both pass.
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            };
            connections.spawn(converse(stream, cancel.clone(), handler.clone()));
        }
    });
}

async fn converse<H, F, B, E>(stream: TcpStream, cancel: CancellationToken, handler: H)
where
    H: Fn(Request<Incoming>) -> F,
    F: Future<Output = Result<Response<B>, E>>,
    B: hyper::body::Body<Data: Send, Error: Into<BoxError>> + 'static,
    E: Into<BoxError>,
{
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "set_nodelay");
    }
    let mut server = hyper::server::conn::http1::Builder::new();
    server.timer(TokioTimer::new());
    let connection = server.serve_connection(TokioIo::new(stream), service_fn(handler));
    // Whatever ends a connection, the client has seen it.
    tokio::select! {
        () = cancel.cancelled() => {}
        _ = connection => {}
    }
}

/// Error type hyper takes from services and bodies.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// One API call with its body read and the faults that strike it.
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) faults: Vec<Fault>,
}

impl Call {
    /// Value of a query parameter, percent-decoded.
    pub(crate) fn query(&self, name: &str) -> Option<String> {
        let query = self.uri.query().unwrap_or_default();
        url::form_urlencoded::parse(query.as_bytes())
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.into_owned())
    }

    /// Whether works accepted at this time are still hidden by a fault.
    pub(crate) fn hides(&self, accepted_at: i64, now: i64) -> bool {
        self.faults.iter().any(|fault| {
            matches!(fault, Fault::HideYoung { ms } if now.saturating_sub(accepted_at) < *ms as i64)
        })
    }
}

/// An answer before faults touch it.
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) body: Payload,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
}

/// Body of a [`Reply`].
pub(crate) enum Payload {
    Empty,
    Json(Value),
    Text(String),
}

impl Reply {
    /// A JSON answer.
    pub(crate) fn json(status: StatusCode, body: Value) -> Self {
        Self {
            status,
            body: Payload::Json(body),
            headers: Vec::new(),
        }
    }

    /// A text answer: HTML if it begins with `<`.
    pub(crate) fn text(status: StatusCode, body: impl Into<String>) -> Self {
        Self {
            status,
            body: Payload::Text(body.into()),
            headers: Vec::new(),
        }
    }

    /// An answer without body.
    pub(crate) fn empty(status: StatusCode) -> Self {
        Self {
            status,
            body: Payload::Empty,
            headers: Vec::new(),
        }
    }
}

/// How a vendor words the errors that faults ask for.
pub(crate) trait Dialect: Copy + Send + Sync + 'static {
    const VENDOR: Vendor;
    /// Usual body of an error with this HTTP status.
    fn error(status: StatusCode, error_code: Option<&str>) -> Reply;
    /// Answer with an error of the vendor's own kind, for faults only this vendor has.
    fn own_error(fault: &Fault, stage: When, reply: Option<&Reply>) -> Option<Reply>;
}

/// Runs one API call inside the faults that strike it.
///
/// The work goes on in a task of its own, so a client that gives up does not stop an acceptance under way.
pub(crate) async fn exchange<D, H, F>(
    core: Arc<Core>,
    _dialect: D,
    operation: Operation,
    request: Request<Incoming>,
    handler: H,
) -> Result<Response<Body>, Hangup>
where
    D: Dialect,
    H: FnOnce(Arc<Core>, Arc<Call>) -> F + Send + 'static,
    F: Future<Output = Reply> + Send + 'static,
{
    let tasks = core.tasks.clone();
    let cancel = core.cancel.clone();
    let work = tasks.spawn(async move {
        tokio::select! {
            () = cancel.cancelled() => Err(Hangup),
            answer = run::<D, H, F>(core, operation, request, handler) => answer,
        }
    });
    work.await.unwrap_or(Err(Hangup))
}

async fn run<D, H, F>(
    core: Arc<Core>,
    operation: Operation,
    request: Request<Incoming>,
    handler: H,
) -> Result<Response<Body>, Hangup>
where
    D: Dialect,
    H: FnOnce(Arc<Core>, Arc<Call>) -> F,
    F: Future<Output = Reply>,
{
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(Body::new(body), MAX_BODY)
        .await
        .map_err(|_| Hangup)?;
    core.truth.count_request(D::VENDOR, operation);
    let subject = format!("{} {}", parts.uri, String::from_utf8_lossy(&body));
    let faults = core.faults.strike(D::VENDOR, operation, &subject);
    let call = Arc::new(Call {
        method: parts.method,
        uri: parts.uri,
        headers: parts.headers,
        body,
        faults,
    });
    let early = interfere::<D>(&call.faults, When::Before, None).await?;
    let mut reply = match early {
        Some(reply) => return Ok(respond(reply, &[])),
        None => handler(core, call.clone()).await,
    };
    reshape(&mut reply, &call.faults);
    if let Some(other) = interfere::<D>(&call.faults, When::After, Some(&reply)).await? {
        reply = other;
    }
    Ok(respond(reply, &call.faults))
}

/// Larger bodies than any vendor call has; the simulator keeps them in memory.
const MAX_BODY: usize = 8 << 20;

async fn interfere<D: Dialect>(
    faults: &[Fault],
    stage: When,
    reply: Option<&Reply>,
) -> Result<Option<Reply>, Hangup> {
    let mut other = None;
    for fault in faults {
        match fault {
            Fault::LoseRequest if stage == When::Before => return Err(Hangup),
            Fault::LoseAnswer if stage == When::After => return Err(Hangup),
            Fault::Delay { ms, when } if *when == stage => {
                tokio::time::sleep(Duration::from_millis(*ms)).await
            }
            Fault::Status {
                status,
                error_code,
                body,
                when,
            } if *when == stage => {
                let status =
                    StatusCode::from_u16(*status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                other = Some(match body {
                    Some(body) => Reply::text(status, body.clone()),
                    None => D::error(status, error_code.as_deref()),
                });
            }
            Fault::Garbage if stage == When::After => {
                other = Some(Reply::text(
                    StatusCode::OK,
                    "<html><body>upstream {\"code\": 10",
                ));
            }
            _ => {
                if let Some(own) = D::own_error(fault, stage, reply) {
                    other = Some(own);
                }
            }
        }
    }
    Ok(other)
}

/// Applies the faults that change the JSON of an answer or callback.
pub(crate) fn reshape_json(value: &mut Value, faults: &[Fault]) {
    for fault in faults {
        walk(value, &mut |object| match fault {
            Fault::Omit { keys } => object.retain(|key, _| !keys.contains(key)),
            Fault::Rename { from, to } => {
                if let Some(moved) = object.remove(from) {
                    object.insert(to.clone(), moved);
                }
            }
            Fault::Replace { key, value } => {
                if let Some(old) = object.get_mut(key) {
                    *old = value.clone();
                }
            }
            _ => {}
        });
    }
}

fn reshape(reply: &mut Reply, faults: &[Fault]) {
    if let Payload::Json(value) = &mut reply.body {
        reshape_json(value, faults);
    }
}

fn walk(value: &mut Value, change: &mut impl FnMut(&mut serde_json::Map<String, Value>)) {
    match value {
        Value::Object(object) => {
            change(object);
            object.values_mut().for_each(|inner| walk(inner, change));
        }
        Value::Array(items) => items.iter_mut().for_each(|inner| walk(inner, change)),
        _ => {}
    }
}

/// The end of a body that is cut short. hyper forgets what it has not yet written when a body fails,
/// so the part before needs a moment to leave.
pub(crate) async fn break_off<T>() -> Result<T, Hangup> {
    tokio::time::sleep(Duration::from_millis(20)).await;
    Err(Hangup)
}

fn respond(reply: Reply, faults: &[Fault]) -> Response<Body> {
    let (content_type, body) = match reply.body {
        Payload::Empty => ("", Bytes::new()),
        Payload::Json(value) => (
            "application/json; charset=utf-8",
            Bytes::from(value.to_string()),
        ),
        Payload::Text(text) if text.starts_with('<') => ("text/html", Bytes::from(text)),
        Payload::Text(text) => ("text/plain; charset=utf-8", Bytes::from(text)),
    };
    let cut = faults.iter().find_map(|fault| match fault {
        Fault::Truncate { bytes } => Some(usize::try_from(*bytes).unwrap_or(usize::MAX)),
        _ => None,
    });
    let length = body.len();
    let content = match cut.filter(|cut| *cut < length) {
        None => Body::from(body),
        Some(cut) => {
            let sent = futures::stream::iter([Ok(body.slice(..cut))]);
            Body::from_stream(sent.chain(futures::stream::once(break_off())))
        }
    };
    let mut response = Response::new(content);
    *response.status_mut() = reply.status;
    let headers = response.headers_mut();
    if !content_type.is_empty() {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    headers.extend(reply.headers);
    response
}
