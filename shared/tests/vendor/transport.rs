//! What each way of losing an answer comes to, for both paid calls alike.

use std::time::{Duration, Instant};

use serde_json::json;
use shared::domain::answer::SubmitAnswer;
use shared::domain::classify::ErrorClass;
use shared::vendor::SetupError;

use crate::server::{Reply, Server, closed_port};
use crate::{Clients, LONG};

/// Sends one of each paid call.
async fn pay(clients: &Clients, budget: Duration) -> [SubmitAnswer; 3] {
    [
        clients.ghostcut.submit(b"{}", budget).await,
        clients.ghostcut.redo("7", budget).await,
        clients.sync.create(b"{}", "key-1", budget).await,
    ]
}

fn all_unknown(answers: &[SubmitAnswer]) -> bool {
    answers
        .iter()
        .all(|answer| matches!(answer, SubmitAnswer::Unknown { .. }))
}

fn none_sent(answers: &[SubmitAnswer]) -> bool {
    answers
        .iter()
        .all(|answer| matches!(answer, SubmitAnswer::NotSent { .. }))
}

/// Pays against a server that does this and checks that it saw each request exactly once, on its own connection.
async fn paid_once(reply: impl Fn() -> Reply + Send + Sync + 'static) -> [SubmitAnswer; 3] {
    let server = Server::start(move |_| reply()).await;
    let answers = pay(&Clients::of(server.address), Duration::from_secs(2)).await;
    assert_eq!(server.requests().len(), 3);
    assert_eq!(server.connections(), 3);
    answers
}

#[tokio::test]
async fn a_refused_connection_is_not_sent() {
    let clients = Clients::of(closed_port().await);
    let answers = pay(&clients, LONG).await;
    assert!(none_sent(&answers), "{answers:?}");
    let error = clients.sync.get("g").await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Transient);
}

#[tokio::test]
async fn a_failed_tls_handshake_is_not_sent() {
    let server = Server::start(|_| Reply::Close).await;
    let clients = Clients::with(
        &format!("https://{}", server.address),
        &["--vendor-connect-timeout=1s"],
    );
    let answers = pay(&clients, LONG).await;
    assert!(none_sent(&answers), "{answers:?}");
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn a_connection_that_does_not_stand_in_time_is_not_sent() {
    // The kernel takes the connection, nobody answers the TLS handshake.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("https://{}", listener.local_addr().unwrap());
    let clients = Clients::with(&base, &["--vendor-connect-timeout=200ms"]);
    let started = Instant::now();
    let answers = pay(&clients, LONG).await;
    assert!(started.elapsed() < Duration::from_secs(10));
    assert!(none_sent(&answers), "{answers:?}");
}

#[tokio::test]
async fn an_unknown_host_is_not_sent() {
    let clients = Clients::with("http://vendor.invalid", &["--vendor-connect-timeout=2s"]);
    let answers = pay(&clients, LONG).await;
    assert!(none_sent(&answers), "{answers:?}");
}

#[tokio::test]
async fn nothing_is_sent_without_time_left() {
    let server = Server::start(|_| Reply::Hang).await;
    let answers = pay(&Clients::of(server.address), Duration::ZERO).await;
    assert!(none_sent(&answers), "{answers:?}");
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn a_connection_closed_without_an_answer_is_unknown() {
    let answers = paid_once(|| Reply::Close).await;
    assert!(all_unknown(&answers), "{answers:?}");
}

#[tokio::test]
async fn no_answer_within_the_budget_is_unknown() {
    let server = Server::start(|_| Reply::Hang).await;
    let clients = Clients::of(server.address);
    let started = Instant::now();
    let answers = pay(&clients, Duration::from_millis(300)).await;
    // The request timeout is 30 s: the budget was what ended it.
    assert!(started.elapsed() < Duration::from_secs(10));
    assert!(all_unknown(&answers), "{answers:?}");
    assert_eq!(server.requests().len(), 3);
}

#[tokio::test]
async fn no_answer_within_the_request_timeout_is_unknown() {
    let server = Server::start(|_| Reply::Hang).await;
    let clients = Clients::with(
        &format!("http://{}", server.address),
        &[
            "--vendor-connect-timeout=200ms",
            "--vendor-request-timeout=300ms",
        ],
    );
    let started = Instant::now();
    let answers = pay(&clients, LONG).await;
    assert!(started.elapsed() < Duration::from_secs(10));
    assert!(all_unknown(&answers), "{answers:?}");
    assert_eq!(
        clients.sync.get("g").await.unwrap_err().class(),
        ErrorClass::Transient
    );
}

#[tokio::test]
async fn a_gateway_error_is_unknown() {
    for status in [408, 500, 502, 503, 504] {
        let answers = paid_once(move || Reply::Json(status, json!("upstream went away"))).await;
        assert!(all_unknown(&answers), "{answers:?}");
    }
}

#[tokio::test]
async fn a_body_cut_short_is_unknown() {
    let answers = paid_once(|| {
        Reply::Bytes(
            b"HTTP/1.1 201 Created\r\nContent-Length: 90\r\n\r\n{\"id\":\"6533643b\"}".to_vec(),
        )
    })
    .await;
    assert!(all_unknown(&answers), "{answers:?}");
    let ended_early = || {
        Reply::Bytes(b"HTTP/1.1 201 Created\r\nConnection: close\r\n\r\n{\"id\":\"6533".to_vec())
    };
    let answers = paid_once(ended_early).await;
    assert!(all_unknown(&answers), "{answers:?}");
    // Even a refusal is believed only when it was read whole.
    let answers =
        paid_once(|| Reply::Bytes(b"HTTP/1.1 400 Bad\r\nContent-Length: 90\r\n\r\n{}".to_vec()))
            .await;
    assert!(all_unknown(&answers), "{answers:?}");
}

#[tokio::test]
async fn what_is_not_http_is_unknown() {
    let answers = paid_once(|| Reply::Bytes(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec())).await;
    assert!(all_unknown(&answers), "{answers:?}");
}

#[tokio::test]
async fn an_endless_answer_is_given_up() {
    let answers = paid_once(|| {
        let mut bytes =
            b"HTTP/1.1 201 Created\r\nConnection: close\r\n\r\n{\"id\":\"6533643b\"}".to_vec();
        bytes.resize(9 << 20, b' ');
        Reply::Bytes(bytes)
    })
    .await;
    assert!(all_unknown(&answers), "{answers:?}");
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    for status in [301, 302, 303, 307, 308] {
        let target = Server::start(|_| Reply::Json(201, json!({"id": "6533643b"}))).await;
        let to = target.address;
        let answers = paid_once(move || {
            let head = format!(
                "HTTP/1.1 {status} Moved\r\nLocation: http://{to}/\r\nContent-Length: 0\r\n\r\n"
            );
            Reply::Bytes(head.into_bytes())
        })
        .await;
        assert!(all_unknown(&answers), "{answers:?}");
        assert_eq!(target.connections(), 0);
    }
}

#[tokio::test]
async fn answered_requests_leave_no_connection_to_be_used_again() {
    let answers =
        paid_once(|| Reply::Json(200, json!({"code": 1000, "body": true, "id": "6533643b"}))).await;
    assert!(matches!(
        answers[1..],
        [SubmitAnswer::Accepted { .. }, SubmitAnswer::Accepted { .. }]
    ));
}

#[tokio::test]
async fn nothing_printed_holds_a_secret_or_a_query() {
    let clients = Clients::of(closed_port().await);
    let ids = ["secret-1".to_owned(), "secret-2".to_owned()];
    let error = clients.sync.status(&ids).await.unwrap_err();
    let answer = clients.sync.create(b"{}", "secret-key", LONG).await;
    let shown = format!(
        "{:?} {:?} {error:?} {error} {answer:?}",
        clients.ghostcut, clients.sync
    );
    for secret in ["hunter2", "test-app-secret", "secret-"] {
        assert!(!shown.contains(secret), "{secret} in {shown}");
    }
    assert!(std::error::Error::source(&error).is_some());
}

#[tokio::test]
async fn a_client_is_not_built_from_a_bad_configuration() {
    let build = |more: &[&str]| crate::sync_client("http://127.0.0.1:1", more).map(|_| ());
    assert!(matches!(
        build(&["--vendor-connect-timeout=30s"]),
        Err(SetupError::Timeouts)
    ));
    assert!(matches!(
        build(&["--sync-api-key=two\nlines"]),
        Err(SetupError::Key(_))
    ));
}

#[tokio::test]
async fn requests_are_counted_by_what_they_came_to() {
    let clients = Clients::of(closed_port().await);
    pay(&clients, LONG).await;
    clients.ghostcut.balance().await.unwrap_err();
    let metrics = clients.metrics();
    for line in [
        r#"vendor_requests_total{operation="submit",outcome="not_sent",vendor="ghostcut"} 1"#,
        r#"vendor_requests_total{operation="create",outcome="not_sent",vendor="sync"} 1"#,
        r#"vendor_requests_total{operation="balance",outcome="transient",vendor="ghostcut"} 1"#,
        r#"vendor_request_duration_seconds_count{operation="redo",vendor="ghostcut"} 1"#,
    ] {
        assert!(metrics.contains(line), "{line} not in\n{metrics}");
    }
}
