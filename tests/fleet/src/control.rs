//! Client of the sandbox's control API: what was really paid, faults, settings. The same for a sandbox in this process and one
//! in another.

use std::collections::BTreeMap;

use anyhow::Context as _;
use reqwest::{Client, Response};
use sandbox::truth::StatusChange;
use sandbox::{FaultRule, Phase, Status};
use serde::Deserialize;
use serde_json::Value;
use shared::domain::Vendor;

/// The sandbox's control API.
#[derive(Clone)]
pub struct Control {
    client: Client,
    url: String,
}

/// A work that a vendor accepted, which is what it is paid for.
#[derive(Clone, Debug, Deserialize)]
pub struct PaidWork {
    /// The vendor's id.
    pub id: String,
    /// The job, as the work's marker tells it.
    pub job: Option<String>,
    /// The marker: job, attempt and token.
    pub marker: Option<String>,
    /// When it was accepted, epoch milliseconds.
    pub accepted_at: i64,
    status: Status,
    history: Vec<StatusChange>,
}

impl PaidWork {
    /// Whether it is pending, succeeded or failed.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.status.phase()
    }

    /// When it failed for good, epoch milliseconds; none when it has not.
    #[must_use]
    pub fn failed_at(&self) -> Option<i64> {
        let failed = self.phase() == Phase::Failed;
        failed.then(|| self.history.last().map(|last| last.at))?
    }
}

impl Control {
    /// The API at `url`, which is the sandbox's `SANDBOX_CONTROL_URL`.
    ///
    /// # Errors
    /// When no HTTP client can be made.
    pub fn new(url: &str) -> anyhow::Result<Self> {
        Ok(Self {
            client: http_client()?,
            url: format!("{url}/control"),
        })
    }

    /// Every work a vendor accepted, oldest first.
    ///
    /// # Errors
    /// When the sandbox does not answer.
    pub async fn works(&self, vendor: Vendor) -> anyhow::Result<Vec<PaidWork>> {
        let url = format!("{}/works/{}", self.url, vendor.as_str());
        Ok(answered(self.client.get(url).send().await?)
            .await?
            .json()
            .await?)
    }

    /// Adds a fault rule and returns its id.
    ///
    /// # Errors
    /// When the sandbox refuses it.
    pub async fn add_fault(&self, rule: &FaultRule) -> anyhow::Result<u64> {
        let request = self.client.post(format!("{}/faults", self.url)).json(rule);
        let answer: Value = answered(request.send().await?).await?.json().await?;
        answer["id"].as_u64().context("the sandbox gave no id")
    }

    /// Removes a fault rule.
    ///
    /// # Errors
    /// When there is no such rule.
    pub async fn remove_fault(&self, id: u64) -> anyhow::Result<()> {
        let request = self.client.delete(format!("{}/faults/{id}", self.url));
        answered(request.send().await?).await?;
        Ok(())
    }

    /// How often each kind of fault has struck.
    ///
    /// # Errors
    /// When the sandbox does not answer.
    pub async fn strokes(&self) -> anyhow::Result<BTreeMap<String, usize>> {
        let request = self.client.get(format!("{}/faults/fired", self.url));
        let fired: Vec<Value> = answered(request.send().await?).await?.json().await?;
        let mut strokes = BTreeMap::new();
        for stroke in fired {
            let kind = stroke["fault"]["kind"]
                .as_str()
                .context("a nameless fault")?;
            *strokes.entry(kind.to_owned()).or_default() += 1;
        }
        Ok(strokes)
    }
}

async fn answered(response: Response) -> anyhow::Result<Response> {
    if response.status().is_success() {
        return Ok(response);
    }
    let (status, url) = (response.status(), response.url().clone());
    anyhow::bail!("{url} answered {status}: {}", response.text().await?)
}

/// A client for servers on this machine.
pub(crate) fn http_client() -> anyhow::Result<Client> {
    // Fails only if the process has a provider already, which then serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::builder()
        .no_proxy()
        .timeout(std::time::Duration::from_secs(30));
    client.build().context("HTTP client")
}
