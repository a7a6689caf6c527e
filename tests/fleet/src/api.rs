//! Client of the producer's HTTP API.

use anyhow::Context as _;
use reqwest::{Client, StatusCode};
use serde_json::Value;
use uuid::Uuid;

use crate::control::http_client;

/// The HTTP API of a running producer.
#[derive(Clone)]
pub struct Api {
    client: Client,
    url: String,
}

impl Api {
    /// The API at an address such as `127.0.0.1:8080`.
    ///
    /// # Errors
    /// When no HTTP client can be made.
    pub fn new(address: &str) -> anyhow::Result<Self> {
        Ok(Self {
            client: http_client()?,
            url: format!("http://{address}/v1/jobs"),
        })
    }

    /// Submits a job under an `Idempotency-Key` and returns its id.
    ///
    /// # Errors
    /// When the producer does not answer, or does not take the job.
    pub async fn submit(&self, request: &Value, key: &str) -> anyhow::Result<Uuid> {
        let sent = self
            .client
            .post(&self.url)
            .header("Idempotency-Key", key)
            .json(request);
        let response = sent.send().await.context("POST /v1/jobs")?;
        let status = response.status();
        let answer: Value = response.json().await.context("POST /v1/jobs")?;
        let taken = matches!(status, StatusCode::CREATED | StatusCode::OK);
        anyhow::ensure!(taken, "POST /v1/jobs answered {status}: {answer}");
        let id = answer["id"].as_str().context("the answer has no id")?;
        Ok(id.parse()?)
    }

    /// A job as `GET /v1/jobs/{id}` shows it.
    ///
    /// # Errors
    /// When the producer does not answer or does not know it.
    pub async fn show(&self, id: Uuid) -> anyhow::Result<Value> {
        let response = self.client.get(format!("{}/{id}", self.url)).send().await?;
        Ok(response.error_for_status()?.json().await?)
    }
}
