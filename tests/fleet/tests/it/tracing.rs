//! One trace for each job, across the producer, the workers and the calls to vendors, as a collector gets it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use fleet::{DEADLINE, Fleet, Kind, Process, Receiver};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use sandbox::SandboxConfig;
use serde_json::Value;
use uuid::Uuid;

use crate::api::Producer;

/// A collector that keeps what it gets, with the service that it is from.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<(String, Span)>>>);

impl Collector {
    async fn start() -> anyhow::Result<(Self, String)> {
        let collector = Self::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let router = Router::new()
            .route("/v1/traces", post(take))
            .with_state(collector.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok((collector, url))
    }

    fn spans(&self) -> Vec<(String, Span)> {
        self.0.lock().unwrap().clone()
    }
}

async fn take(State(collector): State<Collector>, body: Bytes) {
    let request = ExportTraceServiceRequest::decode(body).unwrap();
    for resource in request.resource_spans {
        let attributes = resource.resource.unwrap().attributes;
        let name = attributes.iter().find(|pair| pair.key == "service.name");
        let service = text(name.unwrap().value.as_ref().unwrap().value.as_ref());
        let spans = resource
            .scope_spans
            .into_iter()
            .flat_map(|scope| scope.spans);
        let spans = spans.map(|span| (service.clone(), span));
        collector.0.lock().unwrap().extend(spans);
    }
}

fn text(value: Option<&Any>) -> String {
    match value {
        Some(Any::StringValue(text)) => text.clone(),
        other => format!("{other:?}"),
    }
}

fn attributes(span: &Span) -> BTreeMap<&str, String> {
    let pairs = span.attributes.iter();
    pairs
        .map(|pair| {
            let value = pair.value.as_ref().and_then(|value| value.value.as_ref());
            (pair.key.as_str(), text(value))
        })
        .collect()
}

/// The spans of one job.
struct Trace<'a>(Vec<&'a (String, Span)>);

impl<'a> Trace<'a> {
    fn of(spans: &'a [(String, Span)], job: Uuid) -> Self {
        let of_job = |(_, span): &&(String, Span)| span.trace_id == job.as_bytes();
        Self(spans.iter().filter(of_job).collect())
    }

    fn named(&self, name: &str) -> Vec<&'a (String, Span)> {
        let spans = self.0.iter().copied();
        spans.filter(|(_, span)| span.name == name).collect()
    }

    fn parent(&self, span: &Span) -> &'a str {
        let spans = self.0.iter().map(|(_, parent)| parent);
        let mut parents = spans.filter(|parent| parent.span_id == span.parent_span_id);
        parents
            .next()
            .map_or("nobody", |parent| parent.name.as_str())
    }

    /// The names of the spans above the spans of this name.
    fn parents(&self, name: &str) -> BTreeSet<&'a str> {
        let named = self.named(name).into_iter();
        named.map(|(_, span)| self.parent(span)).collect()
    }

    /// The values of an attribute of the spans of this name.
    fn values(&self, name: &str, key: &str) -> BTreeSet<String> {
        let named = self.named(name).into_iter();
        named
            .filter_map(|(_, span)| attributes(span).remove(key))
            .collect()
    }
}

fn set<const N: usize>(words: [&'static str; N]) -> BTreeSet<&'static str> {
    words.into_iter().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_one_trace_from_intake_to_notice() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let (collector, url) = Collector::start().await?;
        let receiver = Receiver::start().await?;
        let environment = fleet
            .environment
            .clone()
            .with("NOTICE_SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
            .with("OTEL_EXPORTER_OTLP_ENDPOINT", url)
            // Nothing is tried twice on a slow machine: the tree is that of a job to which nothing happens.
            .with("VENDOR_REQUEST_TIMEOUT", "10s")
            .with("SEND_DEADLINE", "15s")
            .with("STAGE_LEASE", "60s");
        let api = Producer::start(fleet, &environment).await?;
        let mut workers = Vec::new();
        for name in ["one", "two"] {
            workers.push(fleet.process(name, "worker", &environment)?);
        }
        let mut jobs = Vec::new();
        for number in 0..3 {
            let mut request = fleet.media.request(Kind::Both, number);
            request["callback_url"] = receiver.url("/end?key=SECRET").into();
            jobs.push(api.created(api.post(&request)).await?.parse::<Uuid>()?);
        }
        fleet::eventually(DEADLINE, async || {
            anyhow::ensure!(receiver.told().len() == jobs.len());
            Ok(())
        })
        .await?;
        // What is left is sent when they stop.
        api.stop().await?;
        for mut worker in workers {
            assert!(worker.terminate(DEADLINE).await?.success());
        }
        let spans = collector.spans();
        for job in &jobs {
            check(&Trace::of(&spans, *job), *job);
        }
        polls_have_links(&spans, &jobs);
        for (_, span) in &spans {
            let all = format!("{:?}", attributes(span));
            assert!(
                !all.contains("://") && !all.contains("SECRET"),
                "{}: {all}",
                span.name
            );
        }
        Ok(())
    })
    .await
}

fn check(trace: &Trace<'_>, job: Uuid) {
    let roots: Vec<_> = trace
        .0
        .iter()
        .filter(|(_, span)| span.parent_span_id.is_empty())
        .collect();
    assert_eq!(roots.len(), 1, "{roots:#?}");
    let (service, root) = roots[0];
    assert_eq!(
        (service.as_str(), root.name.as_str()),
        ("ghostfleet-producer", "intake")
    );
    assert_eq!(attributes(root)["job.id"], job.to_string());
    let lonely: Vec<_> = trace
        .0
        .iter()
        .filter(|(_, span)| span.name != "intake" && trace.parent(span) == "nobody")
        .collect();
    assert!(lonely.is_empty(), "{lonely:#?}");
    assert_eq!(trace.parents("dispatch"), set(["intake"]));
    assert_eq!(trace.parents("delivery"), set(["dispatch"]));
    let stages = [
        "lipsync.submit",
        "lipsync.store",
        "inpaint.submit",
        "inpaint.store",
    ];
    assert_eq!(
        trace.values("delivery", "stage"),
        stages.map(str::to_owned).into()
    );
    assert_eq!(
        trace.values("delivery", "outcome"),
        ["acknowledged".to_owned()].into()
    );
    for (name, parent) in [
        ("claim", "delivery"),
        ("pay", "delivery"),
        ("transfer", "delivery"),
        ("notice", "intake"),
    ] {
        assert_eq!(trace.parents(name), set([parent]), "{name}");
    }
    assert_eq!(
        trace.values("claim", "outcome"),
        ["claimed".to_owned()].into()
    );
    assert_eq!(
        trace.values("pay", "vendor"),
        ["ghostcut".to_owned(), "sync".to_owned()].into()
    );
    assert_eq!(
        trace.values("pay", "submission.token"),
        trace.values("claim", "submission.token")
    );
    let paid = trace.named("vendor call");
    let paid: Vec<_> = paid
        .iter()
        .filter(|(_, span)| trace.parent(span) == "pay")
        .collect();
    assert_eq!(paid.len(), 2);
    assert!(
        paid.iter()
            .all(|(service, span)| service == "ghostfleet-worker"
                && attributes(span)["outcome"] == "accepted")
    );
    // Polls are settled in the job's trace too.
    assert_eq!(trace.parents("settle"), set(["delivery", "intake"]));
    assert!(trace.values("settle", "stage").contains("lipsync.poll"));
    assert_eq!(
        trace.values("notice", "outcome"),
        ["delivered".to_owned()].into()
    );
}

fn polls_have_links(spans: &[(String, Span)], jobs: &[Uuid]) {
    let linked = |span: &Span| -> BTreeSet<Vec<u8>> {
        span.links
            .iter()
            .map(|link| link.trace_id.clone())
            .collect()
    };
    let all: BTreeSet<_> = jobs.iter().map(|job| job.as_bytes().to_vec()).collect();
    for stage in ["lipsync.poll", "inpaint.poll"] {
        for name in ["dispatch", "delivery"] {
            let of_stage = spans.iter().map(|(_, span)| span);
            let of_stage: Vec<_> = of_stage
                .filter(|span| span.name == name && attributes(span)["stage"] == stage)
                .collect();
            let links: BTreeSet<_> = of_stage.iter().flat_map(|span| linked(span)).collect();
            assert_eq!(links, all, "{name} of {stage}");
            assert!(
                of_stage.iter().all(|span| !all.contains(&span.trace_id)),
                "a poll has a trace of its own"
            );
        }
    }
    let settled = spans
        .iter()
        .filter(|(_, span)| span.name == "settle" && attributes(span)["stage"] == "lipsync.poll");
    for (_, span) in settled {
        let polls = linked(span);
        let poll = spans
            .iter()
            .find(|(_, poll)| polls.contains(&poll.trace_id) && poll.name == "delivery");
        assert!(poll.is_some(), "the end of a poll leads to the poll");
    }
}

/// How often a process has logged this.
fn logged(process: &Process, message: &str) -> anyhow::Result<usize> {
    let log = std::fs::read_to_string(process.log())?;
    let lines = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let said = lines.filter(|line| {
        line["message"]
            .as_str()
            .is_some_and(|text| text.starts_with(message))
    });
    Ok(said.count())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_costs_one_warning() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet: &Fleet| {
        let environment = fleet
            .environment
            .clone()
            .with("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
            // A batch every 50 ms, so that there are several.
            .with("OTEL_BSP_SCHEDULE_DELAY", "50");
        let mut processes = [
            fleet.process("producer", "producer", &environment)?,
            fleet.process("worker", "worker", &environment)?,
        ];
        let jobs = [fleet.submit_kind(Kind::Both, 0).await?];
        fleet.books(&jobs).await?.assert_balanced();
        for process in &mut processes {
            assert!(process.terminate(DEADLINE).await?.success());
            assert_eq!(
                logged(process, "traces do not reach the collector")?,
                1,
                "{}",
                process.name
            );
        }
        Ok(())
    })
    .await
}
