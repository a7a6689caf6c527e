//! Result files: sizes, ranges, expiry and download faults.

use std::time::{Duration, Instant};

use sandbox::Vendor::{Ghostcut, Sync};
use sandbox::media::{Provenance, sample};
use sandbox::{Fault, Operation, Sandbox, When};
use serde_json::json;

use crate::support::{
    create, erase, generate, ghostcut, rule, rule_once, sample_url, settle, start,
};

async fn result_url(sandbox: &Sandbox) -> String {
    create(sandbox, None, &generate(sandbox, "x")).await;
    settle(sandbox, Sync).await;
    sandbox.truth().works(Sync).remove(0).result.unwrap().url
}

#[tokio::test]
async fn a_result_of_a_result_names_both_vendors() {
    let sandbox = start(|_| {}).await;
    let mut body = erase(&sandbox, "x");
    body["urls"] = json!([result_url(&sandbox).await]);
    ghostcut(&sandbox, "work/free", &body).await;
    settle(&sandbox, Ghostcut).await;
    let url = sandbox
        .truth()
        .works(Ghostcut)
        .remove(0)
        .result
        .unwrap()
        .url;
    let file = reqwest::get(url).await.unwrap().bytes().await.unwrap();
    let vendors: Vec<_> = Provenance::find_all(&file)
        .iter()
        .map(|note| note.vendor)
        .collect();
    assert_eq!(vendors, [Sync, Ghostcut]);
    // Still a chain of boxes that ends exactly at the end of the file.
    let (mut at, mut kinds) = (0, Vec::new());
    while at < file.len() {
        let size = u32::from_be_bytes(file[at..at + 4].try_into().unwrap()) as usize;
        kinds.push(String::from_utf8_lossy(&file[at + 4..at + 8]).into_owned());
        at += size;
    }
    assert_eq!(at, file.len());
    assert_eq!(
        (
            kinds[0].as_str(),
            kinds.iter().filter(|kind| *kind == "free").count() >= 2
        ),
        ("ftyp", true)
    );
}

#[tokio::test]
async fn other_containers_carry_the_note_too() {
    let sandbox = start(|_| {}).await;
    for name in ["clip.webm", "tone-550.mp3"] {
        let mut body = erase(&sandbox, name);
        body["urls"] = json!([sample_url(&sandbox, name)]);
        ghostcut(&sandbox, "work/free", &body).await;
        settle(&sandbox, Ghostcut).await;
        let work = sandbox.truth().works(Ghostcut).pop().unwrap();
        let file = reqwest::get(work.result.unwrap().url)
            .await
            .unwrap()
            .bytes()
            .await
            .unwrap();
        assert!(file.starts_with(sample(name).unwrap().bytes));
        assert_eq!(Provenance::find_all(&file)[0].work, work.id);
    }
}

#[tokio::test]
async fn results_can_be_big_and_are_streamed() {
    let sandbox = start(|settings| settings.sync.result_bytes = 1 << 20).await;
    let response = reqwest::get(result_url(&sandbox).await).await.unwrap();
    let announced = response.content_length().unwrap();
    assert!((1 << 20..(1 << 20) + 64).contains(&announced));
    assert_eq!(response.bytes().await.unwrap().len() as u64, announced);

    // Beyond 32 bits: only head and tail are read.
    sandbox.reset();
    rule_once(
        &sandbox,
        Sync,
        Operation::Process,
        Fault::ResultSize { bytes: 5 << 30 },
    );
    let url = result_url(&sandbox).await;
    let client = reqwest::Client::new();
    let head = client.head(&url).send().await.unwrap();
    let length: u64 = head.headers()["content-length"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!(length >= 5 << 30);
    let input = sample("talk.mp4").unwrap().bytes.len();
    let range = format!("bytes={input}-{}", input + 500);
    let note = client
        .get(&url)
        .header("range", range)
        .send()
        .await
        .unwrap();
    assert_eq!(note.status(), 206);
    let note = note.bytes().await.unwrap();
    assert_eq!(note[..8], *b"\0\0\0\x01free");
    assert_eq!(
        u64::from_be_bytes(note[8..16].try_into().unwrap()),
        length - input as u64
    );
    assert_eq!(Provenance::find_all(&note).len(), 1);
    let tail = client
        .get(&url)
        .header("range", "bytes=-10")
        .send()
        .await
        .unwrap();
    assert_eq!(
        tail.headers()["content-range"],
        format!("bytes {}-{}/{length}", length - 10, length - 1)
    );
    assert_eq!(tail.bytes().await.unwrap()[..], [0; 10]);
}

#[tokio::test]
async fn expired_results_are_forbidden() {
    let sandbox = start(|_| {}).await;
    rule_once(
        &sandbox,
        Sync,
        Operation::Process,
        Fault::ResultTtl { ms: 0 },
    );
    assert_eq!(
        reqwest::get(result_url(&sandbox).await)
            .await
            .unwrap()
            .status(),
        403
    );
}

#[tokio::test]
async fn downloads_can_fail_in_every_way() {
    let sandbox = start(|_| {}).await;
    let url = result_url(&sandbox).await;
    let status = |status: u16, body: &str| Fault::Status {
        status,
        error_code: None,
        body: Some(body.into()),
        when: When::Before,
    };
    rule_once(
        &sandbox,
        Sync,
        Operation::Result,
        status(200, "<html>maintenance</html>"),
    );
    let page = reqwest::get(&url).await.unwrap();
    assert_eq!(
        (
            page.status().as_u16(),
            page.headers()["content-type"].to_str().unwrap()
        ),
        (200, "text/html")
    );
    rule_once(&sandbox, Sync, Operation::Result, status(503, "busy"));
    assert_eq!(reqwest::get(&url).await.unwrap().status(), 503);
    rule_once(&sandbox, Sync, Operation::Result, Fault::LoseRequest);
    assert!(reqwest::get(&url).await.is_err());
    rule_once(
        &sandbox,
        Sync,
        Operation::Result,
        Fault::Truncate { bytes: 1000 },
    );
    let cut = reqwest::get(&url).await.unwrap();
    assert!(cut.content_length().unwrap() > 40_000);
    assert!(cut.bytes().await.is_err());
    rule_once(
        &sandbox,
        Sync,
        Operation::Result,
        Fault::Slow {
            bytes_per_second: 100_000,
        },
    );
    let start = Instant::now();
    let whole = reqwest::get(&url).await.unwrap().bytes().await.unwrap();
    assert!(start.elapsed() >= Duration::from_secs_f64(0.9 * whole.len() as f64 / 100_000.0));
    rule(
        &sandbox,
        Sync,
        Operation::Result,
        Fault::Delay {
            ms: 100,
            when: When::Before,
        },
    );
    let start = Instant::now();
    assert_eq!(
        reqwest::get(&url).await.unwrap().bytes().await.unwrap(),
        whole
    );
    assert!(start.elapsed() >= Duration::from_millis(100));
}

#[tokio::test]
async fn an_api_key_sent_to_the_media_host_is_noticed() {
    let sandbox = start(|_| {}).await;
    let url = result_url(&sandbox).await;
    reqwest::get(&url).await.unwrap();
    assert_eq!(sandbox.truth().leaked_credentials(), 0);
    reqwest::Client::new()
        .get(&url)
        .header("x-api-key", "secret")
        .send()
        .await
        .unwrap();
    assert_eq!(sandbox.truth().leaked_credentials(), 1);
}
