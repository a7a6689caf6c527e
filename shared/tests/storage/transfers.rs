//! From a URL into the bucket.

use crate::cdn::start_cdn;
use crate::server::{Answer, Store, config};
use crate::{MIB, in_a_process_of_its_own, until};
use shared::config::storage::FetchConfig;
use shared::storage::{
    Container, Fetcher, Key, MediaKind, Storage, Stored, TransferClass, TransferError, transfer,
};
use std::time::Duration;
use uuid::Uuid;

fn fetcher(edit: impl Fn(&mut FetchConfig)) -> Fetcher {
    let mut config = FetchConfig {
        fetch_allow_private: true,
        fetch_max_bytes: 2 << 30,
        fetch_connect_timeout: Duration::from_secs(5),
        fetch_idle_timeout: Duration::from_secs(10),
        fetch_total_timeout: Duration::from_secs(300),
    };
    edit(&mut config);
    Fetcher::new(&config).unwrap()
}

/// A short key: `s3s-fs` names a file by the whole key in base64, which ends at 255 bytes.
fn new_key() -> Key {
    Key::SubmissionSource {
        token: Uuid::new_v4(),
        container: Container::Mp4,
    }
}

#[tokio::test]
async fn media_is_transferred_whole_and_typed() {
    let (store, cdn, fetcher) = (Store::start().await, start_cdn().await, fetcher(|_| {}));
    for (path, kind, container, bytes) in [
        ("/good.mp4", MediaKind::Video, Container::Mp4, 20_000_000),
        ("/moved", MediaKind::Video, Container::Mp4, 20_000_000),
        ("/small.mp4", MediaKind::Audio, Container::Mp4, 1000),
        ("/voice.wav", MediaKind::Audio, Container::Wav, 16),
    ] {
        let key = new_key();
        let stored = transfer(
            &fetcher,
            &store.storage,
            &format!("{cdn}{path}"),
            &key,
            kind,
        )
        .await
        .unwrap();
        assert_eq!(
            stored,
            Stored {
                bytes,
                container,
                content_type: container.content_type()
            },
            "{path}"
        );
        let head = store.storage.head(&key.to_string()).await.unwrap().unwrap();
        assert_eq!(
            (head.bytes, head.content_type.as_deref()),
            (bytes, Some(container.content_type()))
        );
    }
}

#[tokio::test]
async fn what_is_no_whole_video_is_not_stored() {
    use TransferClass::{Gone, Invalid, Transient};
    let (store, cdn) = (Store::start().await, start_cdn().await);
    let fetcher = fetcher(|config| {
        config.fetch_idle_timeout = Duration::from_millis(300);
        config.fetch_max_bytes = 30_000_000;
    });
    for (path, class, text) in [
        ("/gone.mp4", Gone, "127.0.0.1 answered HTTP 403"),
        ("/absent.mp4", Gone, "127.0.0.1 answered HTTP 404"),
        ("/busy.mp4", Transient, "127.0.0.1 answered HTTP 503"),
        (
            "/truncated.mp4",
            Transient,
            "the file from 127.0.0.1 broke off after ",
        ),
        (
            "/cut.mp4",
            Transient,
            "the file from 127.0.0.1 is cut short",
        ),
        (
            "/stalled.mp4",
            Transient,
            "the file from 127.0.0.1 stalled for ",
        ),
        (
            "/silent.mp4",
            Transient,
            "the file from 127.0.0.1 stalled for ",
        ),
        (
            "/error.html",
            Invalid,
            "127.0.0.1 sent no video but something unknown",
        ),
        (
            "/nothing",
            Invalid,
            "127.0.0.1 sent no video but something unknown",
        ),
        ("/voice.wav", Invalid, "127.0.0.1 sent no video but wav"),
        (
            "/empty.mp4",
            Invalid,
            "the file from 127.0.0.1 has no `moov` box",
        ),
        (
            "/gibibyte.mp4",
            Invalid,
            "the file at 127.0.0.1 is larger than 30000000 bytes",
        ),
        ("/round", Invalid, "the URL redirects too often"),
        ("/to-file", Invalid, "the URL is neither http nor https"),
    ] {
        let key = new_key();
        let url = format!("{cdn}{path}?signature=hidden");
        let error = transfer(&fetcher, &store.storage, &url, &key, MediaKind::Video)
            .await
            .unwrap_err();
        assert_eq!(error.class(), class, "{path}: {error:?}");
        assert!(error.to_string().starts_with(text), "{path}: {error}");
        assert!(
            !format!("{error:?}").contains("hidden"),
            "{path}: {error:?}"
        );
        assert_eq!(
            store.storage.head(&key.to_string()).await.unwrap(),
            None,
            "{path}"
        );
    }
    until("no part is left", || store.has_no_parts()).await;
}

#[tokio::test]
async fn limits_hold_while_streaming() {
    let (store, cdn) = (Store::start().await, start_cdn().await);
    let url = format!("{cdn}/small.mp4");
    let small = fetcher(|config| config.fetch_max_bytes = 999);
    let error = transfer(&small, &store.storage, &url, &new_key(), MediaKind::Video)
        .await
        .unwrap_err();
    assert!(
        matches!(error, TransferError::TooLarge { limit: 999, .. }),
        "not announced, but counted: {error:?}"
    );
    let exact = fetcher(|config| config.fetch_max_bytes = 1000);
    transfer(&exact, &store.storage, &url, &new_key(), MediaKind::Video)
        .await
        .unwrap();

    let hurried = fetcher(|config| config.fetch_total_timeout = Duration::from_millis(200));
    let url = format!("{cdn}/stalled.mp4");
    let error = transfer(&hurried, &store.storage, &url, &new_key(), MediaKind::Video)
        .await
        .unwrap_err();
    assert!(matches!(error, TransferError::TooSlow { .. }), "{error:?}");
}

#[tokio::test]
async fn trouble_of_the_store_ends_a_transfer() {
    let (store, cdn, fetcher) = (Store::start().await, start_cdn().await, fetcher(|_| {}));
    store.front.fail(
        "PUT",
        99,
        Answer::With(403, "<Error><Code>AccessDenied</Code></Error>"),
    );
    let url = format!("{cdn}/good.mp4");
    let error = transfer(&fetcher, &store.storage, &url, &new_key(), MediaKind::Video)
        .await
        .unwrap_err();
    assert_eq!(error.class(), TransferClass::Storage, "{error:?}");
}

/// Growth of resident memory is measured where nothing but the transfer runs: no server, no other test.
#[tokio::test]
async fn a_gibibyte_passes_through_64_mebibytes() {
    if let Ok(endpoint) = std::env::var("MEMORY_TEST_S3") {
        let url = std::env::var("MEMORY_TEST_URL").unwrap();
        let (storage, fetcher) = (Storage::new(&config(&endpoint)).unwrap(), fetcher(|_| {}));
        let before = memory("VmRSS");
        let stored = transfer(&fetcher, &storage, &url, &new_key(), MediaKind::Video)
            .await
            .unwrap();
        assert_eq!(stored.bytes, 1 << 30);
        println!("grew by {} bytes", memory("VmHWM") - before);
        return;
    }
    let (store, cdn) = (Store::start().await, start_cdn().await);
    let endpoint = store.config.s3_endpoint_url.clone().unwrap();
    let environment = [
        ("MEMORY_TEST_S3", endpoint.as_str()),
        ("MEMORY_TEST_URL", &format!("{cdn}/gibibyte.mp4")),
    ];
    let output = in_a_process_of_its_own(
        "transfers::a_gibibyte_passes_through_64_mebibytes",
        &environment,
    )
    .await;
    let growth = output
        .split_once("grew by ")
        .unwrap()
        .1
        .split_once(" bytes")
        .unwrap()
        .0;
    println!("resident memory grew by {growth} bytes");
    assert!(growth.parse::<usize>().unwrap() < 64 * MIB, "{growth}");
    assert_eq!(store.front.count("partNumber"), 128);
}

/// A line of `/proc/self/status`, in bytes.
fn memory(name: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<usize>()
        .unwrap()
        * 1024
}
