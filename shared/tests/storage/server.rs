//! The S3 server, behind a front that records requests and fails those it is told to.

use crate::{read, serve};
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use shared::config::Secret;
use shared::config::storage::StorageConfig;
use shared::storage::Storage;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use uuid::Uuid;

const BUCKET: &str = "media";

/// What the front does to a request instead of serving it.
#[derive(Clone, Copy)]
pub(crate) enum Answer {
    /// Serve it, then lose the answer.
    Lost,
    /// Never answer.
    Hang,
    /// Answer this.
    With(u16, &'static str),
}

/// Requests whose summary contains `matching` fare badly, as often as `times` says.
struct Fault {
    matching: &'static str,
    times: usize,
    answer: Answer,
}

pub(crate) struct Front {
    service: S3Service,
    faults: Mutex<Vec<Fault>>,
    pub(crate) seen: Mutex<Vec<(String, HeaderMap)>>,
}

impl Front {
    pub(crate) fn fail(&self, matching: &'static str, times: usize, answer: Answer) {
        self.faults.lock().unwrap().push(Fault {
            matching,
            times,
            answer,
        });
    }

    fn fault(&self, summary: &str) -> Option<Answer> {
        let mut faults = self.faults.lock().unwrap();
        let fault = faults
            .iter_mut()
            .find(|fault| fault.times > 0 && summary.contains(fault.matching))?;
        fault.times -= 1;
        Some(fault.answer)
    }

    /// How many requests had this in their summary.
    pub(crate) fn count(&self, matching: &str) -> usize {
        self.seen
            .lock()
            .unwrap()
            .iter()
            .filter(|(summary, _)| summary.contains(matching))
            .count()
    }
}

/// Names a request by its method, its path and the query that tells the operation.
fn summary(request: &Request) -> String {
    let query = request.uri().query().unwrap_or_default();
    let query = query.split('&').filter(|pair| {
        ["uploadId", "uploads", "partNumber"]
            .iter()
            .any(|n| pair.starts_with(n))
    });
    let query: Vec<_> = query
        .map(|pair| {
            if pair.starts_with("uploadId") {
                "uploadId"
            } else {
                pair
            }
        })
        .collect();
    format!(
        "{} {} {}",
        request.method(),
        request.uri().path(),
        query.join("&")
    )
}

async fn front(State(front): State<Arc<Front>>, request: Request) -> Response {
    let summary = summary(&request);
    front
        .seen
        .lock()
        .unwrap()
        .push((summary.clone(), request.headers().clone()));
    let fault = front.fault(&summary);
    match fault {
        Some(Answer::Hang) => std::future::pending().await,
        Some(Answer::With(status, body)) => {
            (StatusCode::from_u16(status).unwrap(), body).into_response()
        }
        Some(Answer::Lost) | None => {
            let answer = front
                .service
                .call(request.map(s3s::Body::http_body_unsync))
                .await
                .unwrap();
            match fault {
                Some(_) => StatusCode::BAD_GATEWAY.into_response(),
                None => answer.map(Body::new),
            }
        }
    }
}

/// A store of its own for one test; its files go when it is dropped.
pub(crate) struct Store {
    pub(crate) storage: Storage,
    pub(crate) front: Arc<Front>,
    pub(crate) config: StorageConfig,
    pub(crate) directory: PathBuf,
}

impl Drop for Store {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

impl Store {
    pub(crate) async fn start() -> Self {
        let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(Uuid::new_v4().to_string());
        std::fs::create_dir_all(directory.join(BUCKET)).unwrap();
        let mut service = S3ServiceBuilder::new(s3s_fs::FileSystem::new(&directory).unwrap());
        service.set_auth(SimpleAuth::from_single("AKIDEXAMPLE", "secret"));
        let front_state = Arc::new(Front {
            service: service.build(),
            faults: Mutex::default(),
            seen: Mutex::default(),
        });
        let endpoint = serve(
            axum::Router::new()
                .fallback(front)
                .with_state(front_state.clone()),
        )
        .await;
        let config = config(&endpoint);
        Self {
            storage: Storage::new(&config).unwrap(),
            front: front_state,
            config,
            directory,
        }
    }

    /// Whether no part of an unfinished upload is stored.
    pub(crate) fn has_no_parts(&self) -> bool {
        let mut files = std::fs::read_dir(&self.directory).unwrap();
        !files.any(|file| {
            file.unwrap()
                .file_name()
                .to_string_lossy()
                .starts_with(".upload_id")
        })
    }

    pub(crate) async fn text(&self, key: &str) -> String {
        let object = self.storage.get(key, None).await.unwrap();
        String::from_utf8(read(object.body).await).unwrap()
    }
}

pub(crate) fn config(endpoint: &str) -> StorageConfig {
    StorageConfig {
        aws_region: "eu-south-2".to_owned(),
        aws_s3_bucket: BUCKET.to_owned(),
        aws_access_key_id: Some("AKIDEXAMPLE".to_owned()),
        aws_secret_access_key: Some(Secret::from("secret".to_owned())),
        aws_session_token: None,
        aws_credential_expiration: None,
        aws_profile: None,
        s3_endpoint_url: Some(endpoint.to_owned()),
        s3_public_base_url: None,
        s3_presign_life: Duration::from_secs(3600),
        s3_connect_timeout: Duration::from_secs(5),
        s3_request_timeout: Duration::from_secs(60),
        s3_idle_timeout: Duration::from_secs(10),
    }
}
