//! Nothing is paid for that must fail: what intake refuses, what a worker finds before it pays, by the sandbox's own count.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use fleet::{DEADLINE, Expectation, Fleet, Kind, Service, eventually};
use sandbox::SandboxConfig;
use sandbox::media::{SAMPLES, sample};
use serde_json::{Value, json};
use shared::config::FetchConfig;
use shared::domain::Vendor;
use shared::domain::media::MediaKind;
use shared::storage::{Depth, Fetcher, Source, probe};
use uuid::Uuid;

use crate::api::{Producer, stored};
use crate::sql::{execute, value};

/// A web server with ranges, as stores have them. Counts what it is asked for.
struct Web {
    base: String,
    state: Arc<WebState>,
}

#[derive(Default)]
struct WebState {
    files: Mutex<HashMap<&'static str, Vec<u8>>>,
    /// Requests with a range: nobody but the fleet sends those.
    looks: AtomicUsize,
    /// How many of them still are answered with 503.
    busy: AtomicUsize,
}

impl Web {
    async fn start() -> anyhow::Result<Self> {
        let state = Arc::new(WebState::default());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let base = format!("http://{}", listener.local_addr()?);
        let router = axum::Router::new()
            .fallback(answer)
            .with_state(Arc::clone(&state));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(Self { base, state })
    }

    fn put(&self, name: &'static str, bytes: impl Into<Vec<u8>>) -> String {
        self.state.files.lock().unwrap().insert(name, bytes.into());
        format!("{}/{name}", self.base)
    }

    fn looks(&self) -> usize {
        self.state.looks.load(Ordering::SeqCst)
    }
}

async fn answer(
    State(state): State<Arc<WebState>>,
    headers: HeaderMap,
    request: Request,
) -> Response {
    let name = request.uri().path().trim_start_matches('/');
    let range = headers.get("range").and_then(|range| range.to_str().ok());
    if range.is_some() {
        state.looks.fetch_add(1, Ordering::SeqCst);
        let busy = |left: usize| left.checked_sub(1);
        let order = Ordering::SeqCst;
        if state.busy.fetch_update(order, order, busy).is_ok() {
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        }
    }
    if name == "silent" {
        std::future::pending::<()>().await;
    }
    let Some(file) = state.files.lock().unwrap().get(name).cloned() else {
        return (StatusCode::NOT_FOUND, "<html>not found</html>").into_response();
    };
    let range = range.and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
    let Some((first, last)) = range else {
        return file.into_response();
    };
    let first: usize = first.parse().unwrap();
    let end = (last.parse::<usize>().unwrap() + 1).min(file.len());
    // A file that is larger than anybody wants to store for a test.
    let total = if name == "huge" {
        1_200_000_000
    } else {
        file.len()
    };
    if first >= end {
        let unsatisfied = [("content-range", format!("bytes */{total}"))];
        return (StatusCode::RANGE_NOT_SATISFIABLE, unsatisfied).into_response();
    }
    let said = [(
        "content-range",
        format!("bytes {first}-{}/{total}", end - 1),
    )];
    (StatusCode::PARTIAL_CONTENT, said, file[first..end].to_vec()).into_response()
}

/// The head of an MP4 of this length, with media data of so many bytes before it.
fn lasting(seconds: u32, media: usize) -> Vec<u8> {
    let boxed = |kind: &[u8], content: &[u8]| {
        let size = u32::try_from(content.len() + 8).unwrap().to_be_bytes();
        [&size, kind, content].concat()
    };
    let mut mvhd = vec![0; 12];
    mvhd.extend(1000_u32.to_be_bytes());
    mvhd.extend((seconds * 1000).to_be_bytes());
    mvhd.extend([0; 80]);
    let moov = boxed(b"moov", &boxed(b"mvhd", &mvhd));
    let ftyp = boxed(b"ftyp", b"isom\0\0\x02\0");
    [ftyp, boxed(b"mdat", &vec![1; media]), moov].concat()
}

/// The head of a FLAC file of this length.
fn flac(seconds: u64) -> Vec<u8> {
    let packed = 8000_u64 << 44 | 15 << 36 | (8000 * seconds);
    [
        &b"fLaC\0\0\0\x22"[..],
        &[0; 10],
        &packed.to_be_bytes(),
        &[0; 16],
    ]
    .concat()
}

/// The same is found of a file wherever it lies, whether its server knows ranges or not.
#[tokio::test(flavor = "multi_thread")]
async fn samples_are_measured_wherever_they_lie() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let web = Web::start().await?;
        let fetcher = Fetcher::new(&fleet.environment.parse::<FetchConfig>()?)?;
        for (name, seconds, picture) in [
            ("talk.mp4", 3.0, Some((320, 180))),
            ("bars.mp4", 2.0, Some((320, 180))),
            ("zoom.mp4", 5.0, Some((160, 90))),
            ("clip.webm", 2.0, Some((160, 90))),
            ("tone-330.wav", 2.0, None),
            ("tone-660.wav", 3.0, None),
            ("tone-550.mp3", 3.0, None),
        ] {
            let bytes = sample(name).unwrap().bytes;
            let path = fleet.folder().join(name);
            std::fs::write(&path, bytes)?;
            let key = format!("samples/{name}");
            let ranged = web.put(name, bytes);
            let whole = format!("{}/samples/{name}", fleet.sandbox.endpoints().media);
            for source in [
                Source::File(&path),
                Source::Object(&fleet.storage, &key),
                Source::Url(&fetcher, &ranged),
                Source::Url(&fetcher, &whole),
            ] {
                let facts = probe(source, MediaKind::Video, Depth::Duration).await?;
                assert_eq!(facts.bytes, Some(bytes.len() as u64), "{name}");
                let found = facts.seconds.unwrap();
                assert!((found - seconds).abs() < 0.2, "{name}: {found}");
                assert_eq!(facts.picture, picture, "{name}");
                let start = probe(source, MediaKind::Video, Depth::Beginning).await?;
                assert_eq!(
                    (start.bytes, start.container),
                    (facts.bytes, facts.container)
                );
                assert_eq!(start.seconds, None);
            }
        }
        assert_eq!(SAMPLES.len(), 7);
        Ok(())
    })
    .await
}

/// Requests that must fail at a vendor, each with the field and code that tell why.
async fn doomed(
    fleet: &Fleet,
    web: &Web,
) -> anyhow::Result<Vec<(Value, &'static str, &'static str)>> {
    let object = async |name: &str, bytes: Vec<u8>| -> anyhow::Result<String> {
        fleet.storage.put(name, "video/mp4", bytes.into()).await?;
        Ok(format!("s3://{}/{name}", fleet.storage.bucket()))
    };
    let html = "<!DOCTYPE html><html><body>Your link has expired.</body></html>";
    let page = object("doomed/page.mp4", html.into()).await?;
    let long = object("doomed/long.mp4", lasting(901, 300_000)).await?;
    let short = object("doomed/short.mp4", lasting(1, 100)).await?;
    let cut = object("doomed/cut.mp4", lasting(9, 5000)[..4000].to_vec()).await?;
    let empty = web.put("empty.mp4", "");
    let huge = web.put("huge", sample("talk.mp4").unwrap().bytes);
    let web_page = web.put("page.mp4", html);
    let long_audio = web.put("long.flac", flac(302));
    let gone = format!("{}/gone.mp4", web.base);
    let with = |kind, pointer: &str, value: Value| {
        let mut request = fleet.media.request(kind, 0);
        *request.pointer_mut(pointer).unwrap() = value;
        request
    };
    let mut crop = fleet.media.request(Kind::Lipsync, 0);
    crop["segments"][0]["audioInput"]["startTime"] = json!(1);
    crop["segments"][0]["audioInput"]["endTime"] = json!(9);
    let mut late_mask = fleet.media.request(Kind::Inpaint, 0);
    late_mask["effects"][0]["startTime"] = json!(100);
    late_mask["effects"][0]["endTime"] = json!(99_999);
    let video = "/video_url";
    Ok(vec![
        (with(Kind::Both, video, page.into()), video, "malformed"),
        (
            with(Kind::Lipsync, video, web_page.into()),
            video,
            "malformed",
        ),
        (with(Kind::Lipsync, video, empty.into()), video, "empty"),
        (with(Kind::Lipsync, video, gone.into()), video, "unmatched"),
        (with(Kind::Both, video, long.into()), video, "out_of_range"),
        (with(Kind::Both, video, huge.into()), video, "out_of_range"),
        (with(Kind::Both, video, cut.into()), video, "malformed"),
        (
            with(Kind::Lipsync, video, short.into()),
            "/segments/1/endTime",
            "out_of_range",
        ),
        (
            with(Kind::Lipsync, "/segments/1/endTime", json!(50)),
            "/segments/1/endTime",
            "out_of_range",
        ),
        (
            with(Kind::Lipsync, "/audio/first", long_audio.into()),
            "/audio/first",
            "out_of_range",
        ),
        (crop, "/segments/0/audioInput/endTime", "out_of_range"),
        (late_mask, "/effects/0/startTime", "out_of_range"),
    ])
}

#[tokio::test(flavor = "multi_thread")]
async fn intake_names_the_field_that_must_fail() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let web = Web::start().await?;
        let producer = Producer::start(fleet, &fleet.environment).await?;
        for (request, field, code) in doomed(fleet, &web).await? {
            let sent = producer.post(&request);
            let problem = producer.refused(sent, 422, "invalid-request").await?;
            assert!(
                problem.faults().contains(&(field, code)),
                "{}",
                problem.json
            );
        }
        let mut late = fleet.media.request(Kind::Inpaint, 0);
        late["effects"][0]["endTime"] = json!(60);
        let problem = producer
            .refused(producer.post(&late), 422, "invalid-request")
            .await?;
        assert_eq!(problem.faults(), [("/effects/0/endTime", "out_of_range")]);
        assert_eq!(stored(fleet).await?, [0; 4]);
        producer.stop().await
    })
    .await
}

/// Without a look at intake the worker finds the same before it pays, and the job ends with the field in its error.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_pays_for_nothing_that_must_fail() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let web = Web::start().await?;
        let blind = fleet.environment.clone().with("INTAKE_PROBE", "off");
        let producer = Producer::start(fleet, &blind).await?;
        let workers = fleet.workers(2)?;
        let mut jobs = Vec::new();
        for (request, field, _) in doomed(fleet, &web).await? {
            let id = producer.created(producer.post(&request)).await?;
            jobs.push((failing(id.parse()?), field));
        }
        let ends: Vec<_> = jobs.iter().map(|(end, _)| end.clone()).collect();
        let books = fleet.books(&ends).await?;
        books.assert_balanced();
        assert_eq!((books.paid.sync, books.paid.ghostcut), (0, 0));
        for (end, field) in &jobs {
            let job = fleet.db.job(end.job).await?.unwrap();
            let error = job.error_message.unwrap_or_default();
            assert!(error.contains(&format!("{field}: ")), "{field}: {error}");
            let code = job.error_code.unwrap_or_default();
            assert!(code.starts_with("input_un"), "{code}");
        }
        for worker in workers {
            worker.stop().await?;
        }
        producer.stop().await
    })
    .await
}

/// Ends as failed, with nothing paid and no dead letter.
fn failing(job: Uuid) -> Expectation {
    Expectation {
        status: "failed",
        ..Expectation::completed(job, Kind::Lipsync).paying(Vendor::Sync, 0)
    }
}

/// What may pass is taken by intake and retried by the worker; what intake saw is not looked at again.
#[tokio::test(flavor = "multi_thread")]
async fn sources_that_are_busy_are_asked_again_and_good_ones_only_once() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let web = Web::start().await?;
        let talk = web.put("talk.mp4", sample("talk.mp4").unwrap().bytes);
        let request = |url: &str| {
            let mut request = fleet.media.request(Kind::Lipsync, 0);
            request["video_url"] = url.into();
            request
        };
        let first = Expectation::completed(fleet.submit(&request(&talk)).await?, Kind::Lipsync);
        assert_eq!(web.looks(), 1);
        let services = [fleet.workers(1)?, vec![fleet.producer()?]];
        let seen = std::slice::from_ref(&first);
        fleet.books(seen).await?.assert_balanced();
        assert_eq!(web.looks(), 1, "the worker looked again");

        // Busy for intake and for the worker's first two looks.
        web.state.busy.store(3, Ordering::SeqCst);
        let second = Expectation::completed(fleet.submit(&request(&talk)).await?, Kind::Lipsync);
        fleet
            .books(&[first.clone(), second])
            .await?
            .assert_balanced();
        assert_eq!(web.looks(), 5);
        for service in services.into_iter().flatten() {
            service.stop().await?;
        }
        Ok(())
    })
    .await
}

/// A source that never answers keeps nobody waiting for long, and is not paid for.
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_source_is_taken_and_never_paid_for() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let web = Web::start().await?;
        let environment = fleet
            .environment
            .clone()
            .with("INTAKE_PROBE_TIMEOUT", "100ms")
            .with("MAX_TRIES", "2");
        let producer = Producer::start(fleet, &environment).await?;
        let mut request = fleet.media.request(Kind::Lipsync, 0);
        request["video_url"] = format!("{}/silent", web.base).into();
        let job = producer.created(producer.post(&request)).await?.parse()?;
        let worker = Service::worker(&environment, "worker")?;
        let mut end = failing(job);
        end.stage_state = Some("dead");
        fleet.books(&[end]).await?.assert_balanced();
        let error = fleet.db.job(job).await?.unwrap().error_message;
        let error = error.unwrap_or_default();
        assert!(error.contains("did not answer in time"), "{error}");
        worker.stop().await?;
        producer.stop().await
    })
    .await
}

/// GhostCut is not paid for a result of lip-sync that it would refuse; what Sync.so was paid is a dead letter.
#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_ghostcut_would_refuse_is_not_sent_to_it() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let producer = fleet.producer()?;
        let lipsync = "lipsync.submit,lipsync.poll,lipsync.store";
        let half = fleet.environment.clone().with("STAGES", lipsync);
        let first = Service::worker(&half, "lipsync")?;
        let job = fleet.submit_kind(Kind::Both, 0).await?.job;
        eventually(DEADLINE, async || {
            let stage = fleet.db.job_stage(job).await?;
            let stage = stage.map(|stage| stage.stage.to_string());
            anyhow::ensure!(stage.as_deref() == Some("inpaint.submit"), "at {stage:?}");
            Ok(())
        })
        .await?;
        let user = fleet.db.job(job).await?.unwrap().user_id;
        let key = shared::storage::Key::LipsyncResult { user, job }.to_string();
        let long = lasting(1000, 100);
        fleet.storage.put(&key, "video/mp4", long.into()).await?;

        let rest = fleet
            .environment
            .clone()
            .with("STAGES", "inpaint.submit,inpaint.poll,inpaint.store");
        let second = Service::worker(&rest, "inpaint")?;
        let mut end = Expectation::completed(job, Kind::Lipsync);
        (end.status, end.stage_state) = ("failed", Some("dead"));
        fleet.books(&[end]).await?.assert_balanced();
        let error = fleet.db.job(job).await?.unwrap().error_message;
        let error = error.unwrap_or_default();
        assert!(
            error.contains("the result of lip-sync: must last at most 900"),
            "{error}"
        );
        for service in [first, second, producer] {
            service.stop().await?;
        }
        Ok(())
    })
    .await
}

/// What intake saw is in the row, and an old look does not count: the file may have changed since.
#[tokio::test(flavor = "multi_thread")]
async fn an_old_look_is_not_believed() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let web = Web::start().await?;
        let talk = web.put("talk.mp4", sample("talk.mp4").unwrap().bytes);
        let mut request = fleet.media.request(Kind::Lipsync, 0);
        request["video_url"] = talk.into();
        let job = fleet.submit(&request).await?;
        let url = &fleet.database.url;
        let probe = format!("SELECT job_metadata #>> '{{input_probe,video,seconds}}' AS value FROM video_jobs WHERE id = '{job}'");
        let seconds: f64 = value(url, &probe).await?.unwrap().parse()?;
        assert!((seconds - 3.0).abs() < 0.2, "{seconds}");
        web.put("talk.mp4", lasting(1, 10));
        execute(url, &format!(
            "UPDATE video_jobs SET job_metadata = jsonb_set(job_metadata, '{{input_probe,checked_at}}', '\"2026-01-01T00:00:00Z\"') \
             WHERE id = '{job}'"
        ))
        .await?;
        let services = [fleet.workers(1)?, vec![fleet.producer()?]];
        fleet.books(&[failing(job)]).await?.assert_balanced();
        assert_eq!(web.looks(), 2);
        for service in services.into_iter().flatten() {
            service.stop().await?;
        }
        Ok(())
    })
    .await
}
