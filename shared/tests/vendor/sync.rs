//! Sync.so's requests and how its pages are read.

use std::time::Duration;

use serde_json::{Value, json};
use shared::domain::answer::SubmitAnswer;
use shared::domain::classify::ErrorClass;

use crate::server::{Reply, Request, Server};
use crate::{Clients, LONG};

/// A generation created `id` seconds after 1970.
fn item(id: i64) -> Value {
    json!({"id": format!("g{id}"), "status": "PENDING", "createdAt": chrono::DateTime::from_timestamp(id, 0).unwrap().to_rfc3339()})
}

fn ids(works: &[shared::domain::answer::Work]) -> Vec<&str> {
    works.iter().map(|work| work.task_id.as_str()).collect()
}

#[tokio::test]
async fn a_create_sends_the_stored_bytes_under_its_key() {
    let server =
        Server::start(|_| Reply::Json(201, json!({"id": "6533643b", "status": "PENDING"}))).await;
    let body = "{ \"model\":\"lipsync-2-pro\",  \"input\":[] }\n";
    let key = "0198c9d2-6f0f-7a1e-9d0a-0f8b00000001";
    let answer = Clients::of(server.address)
        .sync
        .create(body.as_bytes(), key, LONG)
        .await;
    assert_eq!(
        answer,
        SubmitAnswer::Accepted {
            task_id: "6533643b".to_owned(),
            project_id: None
        }
    );
    let [request] = &server.requests()[..] else {
        panic!("one request")
    };
    assert_eq!(request.line, "POST /v2/generate");
    assert_eq!(request.body, body.as_bytes());
    assert_eq!(request.headers["idempotency-key"], key);
    assert_eq!(request.headers["x-api-key"], "sk-hunter2");
    assert_eq!(request.headers["content-type"], "application/json");
}

#[tokio::test]
async fn a_malformed_key_is_refused_before_it_is_sent() {
    let server = Server::start(|_| Reply::Json(201, json!({"id": "6533643b"}))).await;
    let answer = Clients::of(server.address)
        .sync
        .create(b"{}", "two words", LONG)
        .await;
    assert!(
        matches!(answer, SubmitAnswer::Rejected { .. }),
        "{answer:?}"
    );
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn retry_after_is_handed_on() {
    let server = Server::start(|_| {
        let head = "HTTP/1.1 429 Too Many\r\nRetry-After: 2\r\nContent-Length: 2\r\n\r\n{}";
        Reply::Bytes(head.as_bytes().to_vec())
    })
    .await;
    let clients = Clients::of(server.address);
    let two_seconds = Some(Duration::from_secs(2));
    match clients.sync.create(b"{}", "key", LONG).await {
        SubmitAnswer::Throttled { retry_after, .. } => assert_eq!(retry_after, two_seconds),
        other => panic!("{other:?}"),
    }
    let error = clients.sync.get("g1").await.unwrap_err();
    assert_eq!(
        error.class(),
        ErrorClass::Throttled {
            retry_after: two_seconds
        }
    );
}

#[tokio::test]
async fn an_uncertain_outcome_names_the_generation() {
    let server = Server::start(|_| {
        Reply::Json(503, json!({"statusCode": 503, "errorCode": "IDEMPOTENCY_OUTCOME_UNKNOWN", "generationId": "g7"}))
    })
    .await;
    match Clients::of(server.address)
        .sync
        .create(b"{}", "key", LONG)
        .await
    {
        SubmitAnswer::Unknown { hint, .. } => assert_eq!(hint.as_deref(), Some("g7")),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn one_status_is_a_get_and_several_are_a_batch() {
    let server = Server::start(|request: &Request| match request.line.as_str() {
        "GET /v2/generate/g1" => Reply::Json(200, item(1)),
        "GET /v2/generations?ids=g3%2Cg2%2Cg1" => {
            Reply::Json(200, json!([item(1), item(3), item(99)]))
        }
        _ => Reply::Json(404, json!({"statusCode": 404, "message": "not found"})),
    })
    .await;
    let sync = Clients::of(server.address).sync;
    let of = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
    assert_eq!(ids(&sync.status(&of(&["g1"])).await.unwrap()), ["g1"]);
    assert_eq!(
        ids(&sync.status(&of(&["g3", "g2", "g1"])).await.unwrap()),
        ["g1", "g3"]
    );
    // Missing is missing, alone as in a batch; only a get says so.
    assert!(sync.status(&of(&["g8"])).await.unwrap().is_empty());
    assert_eq!(
        sync.get("g8").await.unwrap_err().class(),
        ErrorClass::NotFound
    );
    let requests = server.requests().len();
    assert!(sync.status(&[]).await.unwrap().is_empty());
    assert_eq!(server.requests().len(), requests);
}

#[tokio::test]
async fn an_id_cannot_leave_its_place_in_the_path() {
    let server = Server::start(|_| Reply::Json(200, item(1))).await;
    Clients::of(server.address)
        .sync
        .get("../x?y#z")
        .await
        .unwrap();
    assert_eq!(
        server.requests()[0].line,
        "GET /v2/generate/%2E%2E%2Fx%3Fy%23z"
    );
}

/// Answers list requests from the generations `1..=total`, newest first.
fn paged(request: &Request, total: i64) -> Reply {
    let query = request
        .line
        .strip_prefix("GET /v2/generations?limit=100")
        .unwrap();
    let newest = match query.strip_prefix("&cursor=g") {
        Some(cursor) => cursor.parse::<i64>().unwrap() - 1,
        None => total,
    };
    Reply::Json(200, (1..=newest).rev().take(100).map(item).collect())
}

#[tokio::test]
async fn a_list_goes_back_to_the_window_and_no_further() {
    let server = Server::start(|request| paged(request, 1000)).await;
    let works = Clients::of(server.address)
        .sync
        .list(750_000, 950_000)
        .await
        .unwrap();
    let expected: Vec<String> = (750..950).rev().map(|id| format!("g{id}")).collect();
    assert_eq!(ids(&works), expected);
    // 1000 down to 701: the third page reaches past the window.
    assert_eq!(server.requests().len(), 3);
}

#[tokio::test]
async fn a_list_ends_with_the_first_generation() {
    let server = Server::start(|request| paged(request, 150)).await;
    let works = Clients::of(server.address)
        .sync
        .list(0, i64::MAX)
        .await
        .unwrap();
    assert_eq!(works.len(), 150);
}

/// What lies behind the page that is shown again and again is not known.
#[tokio::test]
async fn a_list_that_ignores_the_cursor_is_an_error() {
    let server = Server::start(|_| Reply::Json(200, (901..=1000).rev().map(item).collect())).await;
    let error = Clients::of(server.address)
        .sync
        .list(0, i64::MAX)
        .await
        .unwrap_err();
    assert_eq!(error.class(), ErrorClass::Protocol);
}

#[tokio::test]
async fn a_list_that_fails_midway_is_not_half_a_result() {
    let server = Server::start(|request| {
        if request.line.contains("cursor") {
            Reply::Json(500, json!({"statusCode": 500, "requestId": "r-1"}))
        } else {
            paged(request, 1000)
        }
    })
    .await;
    let error = Clients::of(server.address)
        .sync
        .list(0, i64::MAX)
        .await
        .unwrap_err();
    assert_eq!(error.class(), ErrorClass::Transient);
    assert_eq!(
        error.to_string(),
        "sync list failed: HTTP 500 (request r-1)"
    );
}
