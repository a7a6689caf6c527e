//! What the routes answer without a database and an object store: neither is there in these tests. The check before them, which
//! asks the database, is left out.

use std::time::Duration;

use axum::http::StatusCode;
use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::{Value, json};
use shared::config::{
    DatabaseConfig, FetchConfig, IntakeProbe, ProbeLevel, ProtocolConfig, Secret, StorageConfig,
};
use shared::db::Db;
use shared::storage::{Fetcher, Storage};

use super::*;
use crate::cli::accounts::AccountArgs;

const MAX_BODY: usize = 2000;
const SYNC_SECRET: &str = "whsec_test_secret_0001";
const GHOSTCUT_SECRET: &str = "test-app-secret-0001";

struct Api {
    base: String,
    client: Client,
    registry: shared::telemetry::Registry,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// Port 1 on this machine: nobody listens there.
fn nobody() -> String {
    "127.0.0.1:1".to_owned()
}

/// Of accounts that nobody has.
fn decider(intake: &Intake) -> Decider {
    #[derive(clap::Parser)]
    struct Settings {
        #[command(flatten)]
        accounts: AccountArgs,
        #[command(flatten)]
        protocol: ProtocolConfig,
    }
    let settings: Settings = clap::Parser::parse_from([
        "test",
        "--sync-api-key=k",
        "--ghostcut-api-key=k",
        "--ghostcut-app-secret=s",
    ]);
    Decider {
        db: intake.db.clone(),
        vendors: settings.accounts.vendors().unwrap(),
        storage: intake.storage.clone(),
        protocol: settings.protocol,
    }
}

impl Api {
    async fn start() -> Self {
        let database = DatabaseConfig {
            database_url: Secret::from(format!("postgres://nobody@{}/nothing", nobody())),
            database_pool_size: 1,
            database_connect_timeout: Duration::from_secs(5),
            database_statement_timeout: Duration::from_secs(5),
        };
        let storage = StorageConfig {
            aws_region: "us-east-1".to_owned(),
            aws_s3_bucket: "ours".to_owned(),
            aws_access_key_id: Some("key".to_owned()),
            aws_secret_access_key: Some(Secret::from("secret".to_owned())),
            aws_session_token: None,
            aws_credential_expiration: None,
            aws_profile: None,
            s3_endpoint_url: Some(format!("http://{}", nobody())),
            s3_public_base_url: None,
            s3_presign_life: Duration::from_secs(60),
            s3_connect_timeout: Duration::from_secs(1),
            s3_request_timeout: Duration::from_secs(1),
            s3_idle_timeout: Duration::from_secs(1),
        };
        let fetch = FetchConfig {
            fetch_allow_private: true,
            fetch_max_bytes: 1000,
            fetch_connect_timeout: Duration::from_secs(1),
            fetch_idle_timeout: Duration::from_secs(1),
            fetch_total_timeout: Duration::from_secs(1),
        };
        let intake = Intake {
            db: Db::new(&database).unwrap(),
            storage: Storage::new(&storage).unwrap(),
            fetcher: Fetcher::new(&fetch).unwrap(),
            probe: IntakeProbe {
                intake_probe: ProbeLevel::Full,
                intake_probe_timeout: Duration::from_secs(1),
            },
            max_segments: 5,
            callbacks: crate::intake::CallbackRule {
                signed: false,
                allow_private: true,
            },
        };
        let registry = shared::telemetry::Registry::default();
        let receiver = Receiver::new(
            intake.db.clone(),
            Some(Secret::from(SYNC_SECRET.to_owned())),
            Secret::from(GHOSTCUT_SECRET.to_owned()),
            crate::callbacks::Metrics::register(&registry).unwrap(),
            std::sync::Arc::default(),
        );
        let stop = CancellationToken::new();
        let decider = decider(&intake);
        let feed = Feed::new(intake.db.clone(), stop.clone());
        let metrics = HttpMetrics::register(&registry).unwrap();
        let access = Access::new(intake.db.clone(), false, std::sync::Arc::default());
        // Nobody makes what is asked for.
        let (audits, _) = AuditOrders::new(intake.db.clone());
        let state = AppState::new(intake, receiver, MAX_BODY, decider, audits, feed, metrics);
        let routes = described(&state, &access).unwrap();
        let routes = routes.layer(axum::Extension(access::Caller::LOCAL));
        let address = "127.0.0.1:0".parse().unwrap();
        let (address, task) = serve_at(address, served(routes, state), stop.clone())
            .await
            .unwrap();
        let client = Client::builder().no_proxy().build().unwrap();
        Self {
            base: format!("http://{address}"),
            client,
            registry,
            stop,
            task,
        }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base))
    }

    fn post(&self, body: &Value) -> RequestBuilder {
        self.request(Method::POST, "/v1/jobs").json(body)
    }
}

/// The document of an answer that has to be a problem of this status and type.
async fn problem(request: RequestBuilder, status: StatusCode, kind: &str) -> Value {
    let response: Response = request.send().await.unwrap();
    assert_eq!(response.status(), status);
    let content_type = response.headers()["content-type"].to_str().unwrap();
    assert_eq!(content_type, "application/problem+json");
    if status == StatusCode::SERVICE_UNAVAILABLE {
        assert!(response.headers().contains_key("retry-after"));
    }
    let document: Value = response.json().await.unwrap();
    assert_eq!(document["type"], format!("urn:ghostfleet:problem:{kind}"));
    assert_eq!(document["status"], status.as_u16());
    assert!(document["title"].is_string() && document["detail"].is_string());
    document
}

fn paths(problem: &Value) -> Vec<&str> {
    let errors = problem["errors"].as_array().unwrap();
    errors
        .iter()
        .map(|error| error["path"].as_str().unwrap())
        .collect()
}

fn job() -> Value {
    json!({
        "user_id": "7b0c6c7e-0f8b-4a1e-9d0a-0f8b00000001",
        "video_url": "https://a.example/v.mp4",
        "effects": [{"type": "text", "startTime": 0, "endTime": 5,
            "region": {"x": 0.1, "y": 0.8, "width": 0.8, "height": 0.15}}],
    })
}

#[tokio::test]
async fn routes_and_methods_that_are_not_there() {
    let api = Api::start().await;
    let unknown = api.request(Method::GET, "/v1/videos?x=SECRET");
    let document = problem(unknown, StatusCode::NOT_FOUND, "not-found").await;
    assert!(!document.to_string().contains("SECRET"));

    let response = api
        .request(Method::DELETE, "/v1/jobs")
        .send()
        .await
        .unwrap();
    assert_eq!(response.headers()["allow"], "GET,HEAD,POST");
    let wrong = api.request(Method::DELETE, "/v1/jobs");
    problem(wrong, StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed").await;
}

#[tokio::test]
async fn bodies_that_cannot_be_read() {
    let api = Api::start().await;
    let post = |body: &'static str| api.request(Method::POST, "/v1/jobs").body(body);
    let media_type = (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type");
    problem(post("{}"), media_type.0, media_type.1).await;
    let text = post("{}").header("content-type", "text/json");
    problem(text, media_type.0, media_type.1).await;

    let broken = post("{\"user_id\": \"SECRET\",\n]").header("content-type", "application/json");
    let document = problem(broken, StatusCode::BAD_REQUEST, "malformed-body").await;
    let detail = "the body is not JSON at line 2, column 1";
    assert_eq!(document["detail"], detail);

    let large = json!({"display_name": "x".repeat(MAX_BODY)});
    let large = api.post(&large);
    problem(large, StatusCode::PAYLOAD_TOO_LARGE, "body-too-large").await;
}

#[tokio::test]
async fn requests_with_faults_are_refused_whole() {
    let api = Api::start().await;
    let invalid = (StatusCode::UNPROCESSABLE_ENTITY, "invalid-request");
    let mut request = job();
    request["user_id"] = json!(1);
    request["effects"][0]["region"]["width"] = json!(null);
    request["colour"] = json!("red");
    let sent = api
        .request(Method::POST, "/v1/jobs")
        .header("content-type", "Application/JSON; charset=utf-8")
        .body(request.to_string());
    let document = problem(sent, invalid.0, invalid.1).await;
    let expected = ["/colour", "/user_id", "/effects/0/region/width"];
    assert_eq!(paths(&document), expected);
    assert_eq!(document["errors"][0]["code"], "unknown_field");

    let mut request = job();
    request["video_url"] = json!("s3://theirs/v.mp4");
    let document = problem(api.post(&request), invalid.0, invalid.1).await;
    assert_eq!(paths(&document), ["/video_url"]);
}

#[tokio::test]
async fn idempotency_keys_that_cannot_be_used() {
    let api = Api::start().await;
    let long = "k".repeat(256);
    for key in ["", "a b", "ä", &long] {
        let sent = api.post(&job()).header("idempotency-key", key);
        problem(sent, StatusCode::BAD_REQUEST, "invalid-idempotency-key").await;
    }
    let twice = api
        .post(&job())
        .header("idempotency-key", "a")
        .header("idempotency-key", "a");
    problem(twice, StatusCode::BAD_REQUEST, "invalid-idempotency-key").await;
}

#[tokio::test]
async fn parameters_with_faults() {
    let api = Api::start().await;
    let list = api.request(Method::GET, "/v1/jobs?limit=0&user_id=1&x=2&x=3");
    let document = problem(list, StatusCode::BAD_REQUEST, "invalid-parameters").await;
    assert_eq!(paths(&document), ["limit", "user_id", "x", "x"]);
    for path in ["/v1/jobs/7", "/v1/jobs/%ff"] {
        let show = api.request(Method::GET, path);
        let document = problem(show, StatusCode::BAD_REQUEST, "invalid-parameters").await;
        assert_eq!(paths(&document), ["id"]);
    }
}

#[tokio::test]
async fn without_a_database_the_client_is_to_come_again() {
    let api = Api::start().await;
    let away = (StatusCode::SERVICE_UNAVAILABLE, "unavailable");
    problem(api.post(&job()), away.0, away.1).await;
    problem(api.request(Method::GET, "/v1/jobs"), away.0, away.1).await;
    let path = "/v1/jobs/7b0c6c7e-0f8b-4a1e-9d0a-0f8b00000001";
    problem(api.request(Method::GET, path), away.0, away.1).await;
}

#[tokio::test]
async fn requests_are_counted_by_route_and_the_server_stops() {
    let api = Api::start().await;
    for path in ["/v1/jobs/1", "/v1/jobs/2", "/nowhere/1", "/nowhere/2"] {
        api.request(Method::GET, path).send().await.unwrap();
    }
    api.request(Method::TRACE, "/v1/jobs").send().await.unwrap();
    let text = prometheus::TextEncoder::new()
        .encode_to_string(&api.registry.gather())
        .unwrap();
    for line in [
        r#"http_requests_total{method="GET",route="/v1/jobs/{id}",status="400"} 2"#,
        r#"http_requests_total{method="GET",route="unmatched",status="404"} 2"#,
        r#"http_requests_total{method="other",route="/v1/jobs",status="405"} 1"#,
        r#"http_request_duration_seconds_count{route="/v1/jobs/{id}"} 2"#,
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    api.stop.cancel();
    let stopped = tokio::time::timeout(Duration::from_secs(10), api.task);
    stopped.await.unwrap().unwrap();
}

/// Bodies and values that want to break the reader: refused with a reason, or, where they are valid, not stored because there is
/// no database. Never an error of the service.
#[tokio::test]
async fn hostile_bodies_are_refused_with_a_reason() {
    let api = Api::start().await;
    let post = |body: String| {
        let request = api.request(Method::POST, "/v1/jobs");
        request
            .header("content-type", "application/json")
            .body(body)
    };
    for body in [
        "[".repeat(MAX_BODY),
        "{\"a\":".repeat(MAX_BODY / 5),
        format!("{{\"user_id\":{}1{}}}", "[".repeat(200), "]".repeat(200)),
        r#"{"user_id":1e999}"#.to_owned(),
        r#"{"display_name":"\ud800"}"#.to_owned(),
        "{}\0".to_owned(),
        "\u{feff}{}".to_owned(),
    ] {
        problem(post(body), StatusCode::BAD_REQUEST, "malformed-body").await;
    }
    let fits = format!("{{\"effects\":[{}0]}}", "0,".repeat(900));
    problem(
        post(fits),
        StatusCode::UNPROCESSABLE_ENTITY,
        "invalid-request",
    )
    .await;

    let values = [
        json!(null),
        json!(true),
        json!(-1),
        json!(1e308),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(""),
        json!("\u{0}"),
        json!("\u{202e}\u{feff}\u{ffff}"),
        json!("x".repeat(1000)),
        json!("http://[::1%25lo]/"),
        json!([[[[]]]]),
        json!({"": {"": null}}),
    ];
    let pointers = [
        "/user_id",
        "/video_url",
        "/effects",
        "/effects/0",
        "/effects/0/type",
        "/effects/0/startTime",
        "/effects/0/endTime",
        "/effects/0/region",
        "/effects/0/region/x",
        "/effects/0/region/height",
    ];
    for (pointer, value) in pointers
        .iter()
        .flat_map(|p| values.iter().map(move |v| (p, v)))
    {
        let mut request = job();
        *request.pointer_mut(pointer).unwrap() = value.clone();
        let answer = api.post(&request).send().await.unwrap();
        let status = answer.status().as_u16();
        assert!(matches!(status, 422 | 503), "{pointer} {value}: {status}");
    }
}

/// The signature comes first: without a right one nothing is asked of the database, which is not there.
#[tokio::test]
async fn callbacks_are_checked_before_they_are_stored() {
    let api = Api::start().await;
    let path = "/webhooks/ghostcut/7b0c6c7e-0f8b-4a1e-9d0a-0f8b00000001";
    let post = |body: Vec<u8>, sign: Option<String>| {
        let request = api.request(Method::POST, path).body(body);
        sign.map_or_else(
            || request.try_clone().unwrap(),
            |sign| request.try_clone().unwrap().header("Callback-Sign", sign),
        )
    };
    let secret = Secret::from(GHOSTCUT_SECRET.to_owned());
    let sign = |body: &[u8]| Some(shared::vendor::signature::ghostcut(&secret, body));
    for body in [
        b"{}".to_vec(),
        vec![b'['; 100_000],
        vec![0xff; 1000],
        Vec::new(),
    ] {
        problem(
            post(body.clone(), None),
            StatusCode::UNAUTHORIZED,
            "bad-signature",
        )
        .await;
        let other = sign(b"other");
        problem(
            post(body.clone(), other),
            StatusCode::UNAUTHORIZED,
            "bad-signature",
        )
        .await;
        let right = sign(&body);
        problem(
            post(body, right),
            StatusCode::SERVICE_UNAVAILABLE,
            "unavailable",
        )
        .await;
    }
    for (vendor, header) in [("sync", "Sync-Signature"), ("ghostcut", "Callback-Sign")] {
        let path = path.replace("ghostcut", vendor);
        let send = || api.request(Method::POST, &path).body(vec![b'['; 250_000]);
        for value in [
            "t=1,v1=00",
            "t=99999999999999999999,v1=",
            ",,,=,=",
            "v1=zz,t=1",
        ] {
            problem(
                send().header(header, value),
                StatusCode::UNAUTHORIZED,
                "bad-signature",
            )
            .await;
        }
    }
    let large = post(vec![b' '; (256 << 10) + 1], None);
    problem(large, StatusCode::PAYLOAD_TOO_LARGE, "body-too-large").await;
    problem(
        api.request(Method::GET, path),
        StatusCode::METHOD_NOT_ALLOWED,
        "method-not-allowed",
    )
    .await;
    let text = prometheus::TextEncoder::new()
        .encode_to_string(&api.registry.gather())
        .unwrap();
    assert!(
        text.contains(r#"callbacks_total{outcome="refused",vendor="ghostcut"} 12"#),
        "{text}"
    );
}

/// The operations of the description: method and path, with the parameters filled in.
async fn operations(api: &Api) -> Vec<(Method, String, Value)> {
    let answer = api.request(Method::GET, "/openapi.json").send().await;
    let document: Value = answer.unwrap().json().await.unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let method = method.to_uppercase().parse().unwrap();
            let path = path
                .replace("{vendor}", "sync")
                .replace("{account}", "default")
                .replace("{id}", "7")
                .replace("{token}", "7");
            operations.push((method, path, operation.clone()));
        }
    }
    operations
}

#[tokio::test]
async fn every_operation_of_the_description_is_routed_and_answers_as_described() {
    let api = Api::start().await;
    let operations = operations(&api).await;
    assert!(operations.len() > 30);
    for (method, path, operation) in operations {
        let name = format!("{method} {path}");
        let answer = api.request(method, &path).send().await.unwrap();
        let status = answer.status();
        let described = &operation["responses"][status.as_str()];
        assert!(described.is_object(), "{name}: {status} is not described");
        if status == StatusCode::NO_CONTENT {
            continue;
        }
        let content_type = answer.headers()["content-type"].to_str().unwrap();
        let essence = content_type.split(';').next().unwrap();
        assert!(
            described["content"][essence].is_object(),
            "{name}: {essence}"
        );
        let text = answer.text().await.unwrap();
        let there = !text.contains("problem:not-found") && status != StatusCode::METHOD_NOT_ALLOWED;
        assert!(there || path.starts_with("/webhooks/"), "{name}: {text}");
    }
}

/// A route without a line would be closed, a line without a route would promise something.
#[tokio::test]
async fn the_description_and_the_lines_of_access_have_the_same_routes() {
    let api = Api::start().await;
    let answer = api.request(Method::GET, "/openapi.json").send().await;
    let document: Value = answer.unwrap().json().await.unwrap();
    let mut described = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            described.push(format!("{} {path}", method.to_uppercase()));
            assert!(operation["security"].is_array(), "{method} {path}");
        }
    }
    let lines = access::ROUTES.iter();
    let mut lines: Vec<_> = lines.map(|line| format!("{} {}", line.0, line.1)).collect();
    described.sort();
    lines.sort();
    assert_eq!(described, lines);
}

#[tokio::test]
async fn every_reference_of_the_description_leads_somewhere() {
    let api = Api::start().await;
    let answer = api.request(Method::GET, "/openapi.json").send().await;
    let document: Value = answer.unwrap().json().await.unwrap();
    let text = document.to_string();
    let mut references = text.split("\"$ref\":\"#").skip(1).peekable();
    assert!(references.peek().is_some());
    for reference in references {
        let pointer = reference.split('"').next().unwrap();
        assert!(document.pointer(pointer).is_some(), "{pointer}");
    }
}

/// A route that is made elsewhere would be missing in the description.
#[test]
fn everything_is_routed_by_the_list_of_routes() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/web");
    let files = [folder.clone(), folder.join("access")];
    let files = files
        .iter()
        .flat_map(|folder| std::fs::read_dir(folder).unwrap());
    for path in files
        .map(|file| file.unwrap().path())
        .filter(|path| path.is_file())
    {
        let text = std::fs::read_to_string(&path).unwrap();
        let own = path.ends_with("tests.rs");
        assert!(own || !text.contains(".route("), "{}", path.display());
    }
}

#[tokio::test]
async fn the_page_loads_nothing_from_elsewhere() {
    let api = Api::start().await;
    let answer = api.request(Method::GET, "/docs").send().await.unwrap();
    let policy = answer.headers()["content-security-policy"]
        .to_str()
        .unwrap();
    assert!(policy.starts_with("default-src 'none'"), "{policy}");
    let page = answer.text().await.unwrap();
    assert!(page.contains("fetch(\"openapi.json\")"));
    assert!(!page.contains("http://") && !page.contains("https://"));
}
