//! Client of the sandbox's control API: what was really paid, faults, settings. The same for a sandbox in this process and one
//! in another.

use anyhow::Context as _;
use reqwest::{Client, Response};
use sandbox::FaultRule;
use serde::Deserialize;
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

    /// Adds a fault rule.
    ///
    /// # Errors
    /// When the sandbox refuses it.
    pub async fn add_fault(&self, rule: &FaultRule) -> anyhow::Result<()> {
        let request = self.client.post(format!("{}/faults", self.url)).json(rule);
        answered(request.send().await?).await?;
        Ok(())
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
