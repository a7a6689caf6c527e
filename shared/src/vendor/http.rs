//! How requests go out: one HTTP client for paid calls, which never sends anything twice, and one for free calls.

use std::error::Error;
use std::time::{Duration, Instant};

use reqwest::header::RETRY_AFTER;
use reqwest::{RequestBuilder, Response};
use tracing::Instrument as _;
use url::Url;

use super::metrics::{self, Metrics};
use super::{SetupError, VendorError};
use crate::config::vendor::VendorTimeouts;
use crate::crash::{self, Point};
use crate::domain::Vendor;
use crate::domain::answer::SubmitAnswer;
use crate::domain::classify::{Answer, NoAnswer, QueryError};
use crate::telemetry::trace;

/// A page of 200 works is below 1 MiB.
const ANSWER_LIMIT_BYTES: usize = 8 << 20;

/// Why no whole answer came.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The request could not be put together, so nothing was sent.
    #[error("the request could not be built")]
    Request(#[source] reqwest::Error),
    /// Name lookup, TCP or TLS failed, so nothing was sent.
    #[error("no connection")]
    NotConnected(#[source] reqwest::Error),
    /// Timed out, reset or cut short once there was a connection.
    #[error("no whole answer")]
    Lost(#[source] reqwest::Error),
    /// Longer than any answer the vendors document.
    #[error("the answer is longer than {ANSWER_LIMIT_BYTES} bytes")]
    TooLong,
}

impl From<TransportError> for NoAnswer {
    fn from(error: TransportError) -> Self {
        let mut reason = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            reason += &format!(": {cause}");
            source = cause.source();
        }
        match error {
            TransportError::Request(_) | TransportError::NotConnected(_) => {
                Self::NotConnected { reason }
            }
            TransportError::Lost(_) | TransportError::TooLong => Self::Lost { reason },
        }
    }
}

/// The two HTTP clients of one vendor.
#[derive(Clone, Debug)]
pub(super) struct Http {
    vendor: Vendor,
    base: String,
    paid: reqwest::Client,
    free: reqwest::Client,
    request_timeout: Duration,
    metrics: Metrics,
}

impl Http {
    pub(super) fn new(
        vendor: Vendor,
        base: &Url,
        timeouts: VendorTimeouts,
        metrics: Metrics,
    ) -> Result<Self, SetupError> {
        if timeouts.connect >= timeouts.request {
            return Err(SetupError::Timeouts);
        }
        crate::tls::install_provider();
        // A redirect or a retry would send a request again; a proxy from the environment would see keys and could do either.
        let builder = || {
            reqwest::Client::builder()
                .redirect(reqwest::redirect::Policy::none())
                .retry(reqwest::retry::never())
                .no_proxy()
                .http1_only()
                .connect_timeout(timeouts.connect)
                .timeout(timeouts.request)
                .user_agent(concat!("ghostfleet/", env!("CARGO_PKG_VERSION")))
        };
        // Without idle connections there is no dead one to write to, after which the HTTP library would send again.
        let paid = builder()
            .pool_max_idle_per_host(0)
            .build()
            .map_err(SetupError::Http)?;
        Ok(Self {
            vendor,
            base: base.as_str().trim_end_matches('/').to_owned(),
            paid,
            free: builder().build().map_err(SetupError::Http)?,
            request_timeout: timeouts.request,
            metrics,
        })
    }

    /// A paid request: sent at most once, within `budget` and the request timeout. Where the budget ends before the
    /// connect timeout, a connection that never stood counts as unknown, not as not sent.
    pub(super) async fn paid(
        &self,
        operation: &'static str,
        path: &str,
        budget: Duration,
        prepare: impl FnOnce(RequestBuilder) -> RequestBuilder,
        read: impl FnOnce(&Answer) -> SubmitAnswer,
    ) -> SubmitAnswer {
        let (started, span) = (Instant::now(), trace::vendor_call(self.vendor, operation));
        let outcome = if budget.is_zero() {
            SubmitAnswer::NotSent {
                reason: "the send deadline had passed".to_owned(),
            }
        } else {
            let request =
                prepare(self.paid.post(self.url(path))).timeout(budget.min(self.request_timeout));
            let begun = || crash::point(Point::PaidAnswerBegun);
            let answer = exchange(&self.paid, request, begun).instrument(span.clone());
            match answer.await {
                Ok(answer) => read(&answer),
                Err(error) => NoAnswer::from(error).into(),
            }
        };
        let word = metrics::paid_outcome(&outcome);
        span.record("outcome", word);
        self.metrics
            .observe(self.vendor, operation, word, started.elapsed());
        outcome
    }

    /// A free POST.
    pub(super) async fn post<T>(
        &self,
        operation: &'static str,
        path: &str,
        prepare: impl FnOnce(RequestBuilder) -> RequestBuilder,
        read: impl FnOnce(&Answer) -> Result<T, QueryError>,
    ) -> Result<T, VendorError> {
        self.free(operation, prepare(self.free.post(self.url(path))), read)
            .await
    }

    /// A free GET.
    pub(super) async fn get<T>(
        &self,
        operation: &'static str,
        path: &str,
        prepare: impl FnOnce(RequestBuilder) -> RequestBuilder,
        read: impl FnOnce(&Answer) -> Result<T, QueryError>,
    ) -> Result<T, VendorError> {
        self.free(operation, prepare(self.free.get(self.url(path))), read)
            .await
    }

    async fn free<T>(
        &self,
        operation: &'static str,
        request: RequestBuilder,
        read: impl FnOnce(&Answer) -> Result<T, QueryError>,
    ) -> Result<T, VendorError> {
        let (started, span) = (Instant::now(), trace::vendor_call(self.vendor, operation));
        let answer = exchange(&self.free, request, || {}).instrument(span.clone());
        let result = match answer.await {
            Ok(answer) => {
                read(&answer).map_err(|error| VendorError::answer(self.vendor, operation, error))
            }
            Err(source) => Err(VendorError::Transport {
                vendor: self.vendor,
                operation,
                source,
            }),
        };
        let word = result
            .as_ref()
            .map_or_else(|error| metrics::error_outcome(error.class()), |_| "ok");
        span.record("outcome", word);
        self.metrics
            .observe(self.vendor, operation, word, started.elapsed());
        result
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }
}

/// Sends and reads to the end; `begun` is called when the head of the answer is there. Errors are stripped of the URL, whose query may hold ids.
async fn exchange(
    client: &reqwest::Client,
    request: RequestBuilder,
    begun: impl FnOnce(),
) -> Result<Answer, TransportError> {
    let request = request
        .build()
        .map_err(|error| TransportError::Request(error.without_url()))?;
    let response = client.execute(request).await.map_err(|error| {
        let error = error.without_url();
        if error.is_connect() {
            TransportError::NotConnected(error)
        } else {
            TransportError::Lost(error)
        }
    })?;
    begun();
    Ok(Answer {
        status: response.status().as_u16(),
        retry_after: retry_after(&response),
        body: whole_body(response).await?,
    })
}

/// A vendor that wants to be left alone for longer is asked again all the same.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

fn retry_after(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
    let seconds: u64 = seconds.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(MAX_RETRY_AFTER))
}

async fn whole_body(mut response: Response) -> Result<Vec<u8>, TransportError> {
    let lost = |error: reqwest::Error| TransportError::Lost(error.without_url());
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(lost)? {
        if body.len() + chunk.len() > ANSWER_LIMIT_BYTES {
            return Err(TransportError::TooLong);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}
