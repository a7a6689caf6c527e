//! Traces, sent to an OpenTelemetry collector (OTLP, protobuf over HTTP) where one is set: one trace for each job, across producers,
//! workers and vendors.
//!
//! The id of a trace is the id of its job, and that of its root is made of it. So nothing has to be stored for a trace: it goes on
//! after a restart, a lost message, and in another producer. What is done for many jobs at once (a poll) has a trace of its own,
//! with links to theirs.
//!
//! Spans hold ids, words and numbers; never a URL, a body or a secret. They have a target of their own and the level TRACE, which no
//! log shows unless asked: without a collector making one costs a comparison.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::{HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{
    ExporterBuildError, SpanExporter, WithExportConfig as _, WithHttpConfig as _,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{
    IdGenerator, RandomIdGenerator, Sampler, SdkTracer, SdkTracerProvider,
};
use tokio::runtime::Handle;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use url::Url;
use uuid::Uuid;

use super::chain;
use crate::domain::{Stage, Vendor};

/// The target of all spans here, by which they are told from those of logs and libraries.
pub(super) const TARGET: &str = "ghostfleet::trace";

/// For sending one batch. Nobody waits for it but the thread that sends.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);
/// For sending what is left when the process stops.
const LAST_TIMEOUT: Duration = Duration::from_secs(2);

/// A span of ours.
macro_rules! traced {
    ($name:literal, $($fields:tt)*) => {
        tracing::span!(target: TARGET, tracing::Level::TRACE, $name, $($fields)*)
    };
}

/// What sends the traces of this process; nothing where none are sent.
#[derive(Debug, Default)]
pub struct Traces(Option<SdkTracerProvider>);

impl Traces {
    /// Starts sending to a collector; connects to nothing yet. Inside a tokio runtime.
    pub(super) fn to(collector: &Url, service: &'static str) -> Result<Self, ExporterBuildError> {
        let endpoint = format!("{}/v1/traces", collector.as_str().trim_end_matches('/'));
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Collector::new()?)
            .with_endpoint(endpoint)
            .with_timeout(SEND_TIMEOUT)
            .build()?;
        let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        let resource = Resource::builder()
            .with_service_name(format!("ghostfleet-{service}"))
            .with_attribute(version)
            .build();
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_id_generator(Ids::default())
            // All: a part would have to be chosen by the job's id, whose bits are not random enough. Collectors can choose better.
            .with_sampler(Sampler::AlwaysOn)
            .with_resource(resource)
            .build();
        Ok(Self(Some(provider)))
    }

    pub(super) fn tracer(&self) -> Option<SdkTracer> {
        Some(self.0.as_ref()?.tracer("ghostfleet"))
    }

    /// Sends what is left, within two seconds.
    pub async fn shut_down(self) {
        let Some(provider) = self.0 else { return };
        // It blocks, while the runtime has to go on sending.
        let sent =
            tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(LAST_TIMEOUT));
        // The exporter has said already what is wrong.
        let _ = sent.await;
    }
}

/// Sends batches with the process's own HTTP stack.
#[derive(Debug)]
struct Collector {
    client: reqwest::Client,
    runtime: Handle,
    /// The last batch did not arrive. Said once, not for every batch.
    failing: AtomicBool,
}

impl Collector {
    fn new() -> Result<Self, ExporterBuildError> {
        crate::tls::install_provider();
        let client = reqwest::Client::builder()
            .timeout(SEND_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| ExporterBuildError::InternalFailure(chain(&error)))?;
        Ok(Self {
            client,
            runtime: Handle::current(),
            failing: AtomicBool::new(false),
        })
    }

    fn note(&self, failure: Option<&str>) {
        let before = self.failing.swap(failure.is_some(), Ordering::Relaxed);
        match (failure, before) {
            (Some(error), false) => tracing::warn!(
                error,
                "traces do not reach the collector and are lost; nothing else is"
            ),
            (None, true) => tracing::info!("traces reach the collector again"),
            _ => {}
        }
    }
}

#[async_trait::async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        // The thread that asks has no runtime.
        let sent = self.runtime.spawn(async move {
            let request = reqwest::Request::try_from(request)?;
            client.execute(request).await.map(|answer| answer.status())
        });
        match sent.await? {
            Ok(status) => {
                let refused = (!status.is_success()).then(|| format!("it answered {status}"));
                self.note(refused.as_deref());
                Ok(Response::builder().status(status).body(Bytes::new())?)
            }
            Err(error) => {
                let error = error.without_url();
                self.note(Some(&chain(&error)));
                Err(error.into())
            }
        }
    }
}

thread_local! {
    /// The job whose root is about to begin on this thread.
    static ROOT_OF: Cell<Option<Uuid>> = const { Cell::new(None) };
}

/// Random ids, but for roots.
#[derive(Debug, Default)]
struct Ids(RandomIdGenerator);

impl IdGenerator for Ids {
    fn new_trace_id(&self) -> TraceId {
        match ROOT_OF.get() {
            Some(job) => trace_id(job),
            None => self.0.new_trace_id(),
        }
    }

    fn new_span_id(&self) -> SpanId {
        match ROOT_OF.get() {
            Some(job) => root_id(job),
            None => self.0.new_span_id(),
        }
    }
}

fn trace_id(job: Uuid) -> TraceId {
    TraceId::from(job.as_u128())
}

fn root_id(job: Uuid) -> SpanId {
    let (_, low) = job.as_u64_pair();
    SpanId::from(low)
}

/// What the spans of a job are below, whichever process had its root.
fn root(job: Uuid) -> SpanContext {
    let (trace, span) = (trace_id(job), root_id(job));
    SpanContext::new(
        trace,
        span,
        TraceFlags::SAMPLED,
        true,
        TraceState::default(),
    )
}

fn below(span: &Span, parent: SpanContext) {
    // Fails where no collector is set, and there is nothing to be done then.
    let _ = span.set_parent(Context::new().with_remote_span_context(parent));
}

/// A job is taken in: the root of its trace. `by` is the way it came.
#[must_use]
pub fn intake(job: Uuid, by: &'static str) -> Span {
    let span = traced!("intake", otel.kind = "server", job.id = %job, by);
    if !span.is_disabled() {
        // Not below whatever runs on this thread.
        let _ = span.set_parent(Context::new());
        ROOT_OF.set(Some(job));
        // Begins the span, which is when it gets its ids.
        let _ = span.context();
        ROOT_OF.set(None);
    }
    span
}

/// Due rows become a message.
#[must_use]
pub fn dispatch(stage: Stage, jobs: &[Uuid]) -> Span {
    let count = jobs.len();
    let span = traced!("dispatch", otel.kind = "producer", %stage, jobs = count, job.id = tracing::field::Empty);
    place(&span, stage, None, jobs);
    span
}

/// A worker has a message in hand, whose header `traceparent` this is. `outcome` is to be recorded.
#[must_use]
pub fn delivery(stage: Stage, traceparent: Option<&str>, jobs: &[Uuid]) -> Span {
    let count = jobs.len();
    let span = traced!("delivery", otel.kind = "consumer", %stage, jobs = count, job.id = tracing::field::Empty,
        outcome = tracing::field::Empty);
    place(&span, stage, traceparent.and_then(read), jobs);
    span
}

/// Puts what is done for these jobs where it belongs: below the job's root, or into a trace of its own with links to those of all.
/// That depends on the stage alone, so that a poll of one job looks like one of many.
fn place(span: &Span, stage: Stage, parent: Option<SpanContext>, jobs: &[Uuid]) {
    if span.is_disabled() {
        return;
    }
    if stage.jobs_per_message() > 1 {
        match parent {
            Some(parent) => below(span, parent),
            None => drop(span.set_parent(Context::new())),
        }
        for job in jobs {
            span.add_link(root(*job));
        }
    } else if let Some(job) = jobs.first() {
        span.record("job.id", tracing::field::display(job));
        // A header that names another trace is not ours.
        let parent = parent.filter(|parent| parent.trace_id() == trace_id(*job));
        below(span, parent.unwrap_or_else(|| root(*job)));
    }
}

/// What a stage came to for one job is written. In the job's trace, also where the stage ran for many.
#[must_use]
pub fn settle(job: Uuid, stage: Stage, epoch: i64, outcome: &'static str) -> Span {
    let span = traced!("settle", job.id = %job, %stage, epoch, outcome);
    if !span.is_disabled() && stage.jobs_per_message() > 1 {
        let ran_in = Span::current().context().span().span_context().clone();
        below(&span, root(job));
        span.add_link(ran_in);
    }
    span
}

/// A paid submission is sent: the request below it is the only one there is.
#[must_use]
pub fn pay(vendor: Vendor, submission: Uuid, attempt: i32) -> Span {
    traced!("pay", %vendor, submission.token = %submission, attempt)
}

/// The claim of a submission. `outcome` is to be recorded.
#[must_use]
pub fn claim(submission: Uuid) -> Span {
    traced!("claim", submission.token = %submission, outcome = tracing::field::Empty)
}

/// A request to a vendor. `outcome` is to be recorded.
#[must_use]
pub fn vendor_call(vendor: Vendor, operation: &'static str) -> Span {
    traced!("vendor call", otel.kind = "client", %vendor, operation, outcome = tracing::field::Empty)
}

/// A file from outside into our bucket. `bytes` is to be recorded.
#[must_use]
pub fn transfer() -> Span {
    traced!("transfer", bytes = tracing::field::Empty)
}

/// A vendor's callback about a submission of a job is processed. `outcome` is to be recorded.
#[must_use]
pub fn callback(job: Uuid, vendor: Vendor, submission: Uuid) -> Span {
    let span = traced!("callback", job.id = %job, %vendor, submission.token = %submission, outcome = tracing::field::Empty);
    below(&span, root(job));
    span
}

/// A submitter is told that a job has ended. `outcome` is to be recorded.
#[must_use]
pub fn notice(job: Uuid, notice: Uuid, tries: i32) -> Span {
    let span = traced!("notice", otel.kind = "client", job.id = %job, notice.id = %notice, tries, outcome = tracing::field::Empty);
    below(&span, root(job));
    span
}

/// The W3C trace context of a span; none where no collector is set.
#[must_use]
pub fn traceparent(span: &Span) -> Option<String> {
    if span.is_disabled() {
        return None;
    }
    let context = span.context();
    let span = context.span();
    let span = span.span_context();
    span.is_valid()
        .then(|| format!("00-{}-{}-01", span.trace_id(), span.span_id()))
}

/// Reads one; what is no trace context is ignored.
fn read(traceparent: &str) -> Option<SpanContext> {
    let mut parts = traceparent.split('-');
    let (version, trace, span, _flags) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    // Longer ones are of a newer version, which begins alike.
    if version.len() != 2 || version == "ff" || trace.len() != 32 || span.len() != 16 {
        return None;
    }
    let (trace, span) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?);
    let context = SpanContext::new(
        trace,
        span,
        TraceFlags::SAMPLED,
        true,
        TraceState::default(),
    );
    context.is_valid().then_some(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trace_of_a_job_is_its_id() {
        let job: Uuid = "7b0c6c7e-0f8b-4a1e-9d0a-0f8b00000001".parse().unwrap();
        let root = root(job);
        assert_eq!(root.trace_id().to_string(), job.simple().to_string());
        assert_eq!(root.span_id().to_string(), "9d0a0f8b00000001");
        let text = format!("00-{}-{}-01", root.trace_id(), root.span_id());
        assert_eq!(read(&text), Some(root));
    }

    #[test]
    fn what_is_no_trace_context_is_ignored() {
        for text in [
            "",
            "00",
            "00-7b0c6c7e0f8b4a1e9d0a0f8b00000001-9d0a0f8b00000001",
            "ff-7b0c6c7e0f8b4a1e9d0a0f8b00000001-9d0a0f8b00000001-01",
            "00-00000000000000000000000000000000-9d0a0f8b00000001-01",
            "00-7b0c6c7e0f8b4a1e9d0a0f8b00000001-0000000000000000-01",
            "00-7b0c6c7e0f8b4a1e9d0a0f8b0000000é-9d0a0f8b00000001-01",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    /// Off means off: no span is made, so nothing is allocated, recorded or sent.
    #[test]
    fn without_a_collector_no_span_is_made() {
        let log = tracing_subscriber::fmt()
            .with_env_filter("info,worker=debug")
            .with_writer(std::io::sink)
            .finish();
        tracing::subscriber::with_default(log, || {
            let job = Uuid::from_u128(7);
            for span in [
                intake(job, "test"),
                dispatch(Stage::LipsyncSubmit, &[job]),
                delivery(Stage::InpaintPoll, None, &[job]),
                settle(job, Stage::InpaintPoll, 1, "later"),
                pay(Vendor::Sync, job, 1),
                vendor_call(Vendor::Sync, "status"),
            ] {
                assert!(span.is_disabled());
                assert_eq!(traceparent(&span), None);
            }
        });
    }
}
