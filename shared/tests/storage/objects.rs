//! Single objects: store, read, copy, delete, presign, and what goes wrong with them.

use crate::server::{Answer, Store, config};
use crate::{in_a_process_of_its_own, read, serve};
use bytes::Bytes;
use shared::config::Secret;
use shared::config::storage::StorageConfig;
use shared::storage::{Storage, StorageError};
use std::time::Duration;

#[tokio::test]
async fn objects_are_stored_read_copied_and_deleted() {
    let store = Store::start().await;
    let storage = &store.storage;
    storage.check_bucket().await.unwrap();
    for key in [
        "plain.mp4",
        "users/1/a b+c~(1)'!*.mp4",
        "users/1/测试 #?&=%25.mp4",
        "a/b/c/d",
    ] {
        assert_eq!(storage.head(key).await.unwrap(), None, "{key}");
        storage
            .put(key, "video/mp4", Bytes::from(key))
            .await
            .unwrap();
        let head = storage.head(key).await.unwrap().unwrap();
        assert_eq!(
            (head.bytes, head.content_type.as_deref()),
            (key.len() as u64, Some("video/mp4"))
        );
        assert!(head.etag.is_some());

        let copy = format!("copies/{key}");
        storage.copy(key, &copy).await.unwrap();
        assert_eq!(
            storage
                .head(&copy)
                .await
                .unwrap()
                .unwrap()
                .content_type
                .as_deref(),
            Some("video/mp4")
        );
        assert_eq!(store.text(&copy).await, key);
        let part = storage.get(&copy, Some(1..=3)).await.unwrap();
        assert_eq!(
            (part.bytes, read(part.body).await),
            (3, key.as_bytes()[1..=3].to_vec())
        );

        storage.delete(key).await.unwrap();
        storage.delete(key).await.unwrap();
        assert_eq!(storage.head(key).await.unwrap(), None);
        assert!(matches!(
            storage.get(key, None).await,
            Err(StorageError::NotFound { .. })
        ));
        assert!(matches!(
            storage.copy(key, "x").await,
            Err(StorageError::NotFound { .. })
        ));
    }
}

#[tokio::test]
async fn an_object_too_large_to_copy_is_refused_before_copying() {
    let head = || async { [("content-length", "5368709121")] };
    let storage = Storage::new(&config(&serve(axum::Router::new().fallback(head)).await)).unwrap();
    let error = storage.copy("huge", "copy").await.unwrap_err();
    assert!(
        matches!(
            error,
            StorageError::TooLarge {
                bytes: 5_368_709_121,
                ..
            }
        ),
        "{error}"
    );
}

#[tokio::test]
async fn refusals_are_typed_named_and_not_repeated() {
    let store = Store::start().await;
    let other = |edit: fn(&mut StorageConfig)| {
        let mut config = store.config.clone();
        edit(&mut config);
        Storage::new(&config).unwrap()
    };
    let wrong_key =
        other(|config| config.aws_secret_access_key = Some(Secret::from("wrong".to_owned())));
    let error = wrong_key
        .put("a/k", "text/plain", Bytes::from("x"))
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "S3 put of s3://media/a/k was answered with HTTP 403 SignatureDoesNotMatch"
    );
    assert!(!error.is_transient());
    assert_eq!(store.front.count("PUT /media/a/k"), 1);

    let no_bucket = other(|config| config.aws_s3_bucket = "absent".to_owned());
    let error = no_bucket.check_bucket().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "S3 head bucket of s3://absent/: no such object"
    );

    let nobody = other(|config| config.s3_endpoint_url = Some("http://127.0.0.1:1".to_owned()));
    let error = nobody.check_bucket().await.unwrap_err();
    assert!(
        matches!(error, StorageError::Transport { .. }) && error.is_transient(),
        "{error:?}"
    );
}

#[tokio::test]
async fn transient_failures_are_repeated_but_not_for_ever() {
    let store = Store::start().await;
    store.front.fail(
        "PUT /media/k",
        1,
        Answer::With(503, "<Error><Code>SlowDown</Code></Error>"),
    );
    store
        .front
        .fail("PUT /media/k", 1, Answer::With(500, "<html><br>not xml"));
    store.front.fail("PUT /media/k", 1, Answer::Lost);
    store
        .storage
        .put("k", "text/plain", Bytes::from("x"))
        .await
        .unwrap();
    assert_eq!(store.front.count("PUT /media/k"), 4);
    assert_eq!(store.text("k").await, "x");

    store
        .front
        .fail("DELETE /media/k", 99, Answer::With(503, ""));
    let error = store.storage.delete("k").await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    assert_eq!(store.front.count("DELETE /media/k"), 5);
}

#[tokio::test]
async fn a_silent_store_is_given_up() {
    let store = Store::start().await;
    let mut config = store.config.clone();
    config.s3_request_timeout = Duration::from_millis(50);
    store.front.fail("HEAD", 99, Answer::Hang);
    let error = Storage::new(&config).unwrap().head("k").await.unwrap_err();
    assert!(matches!(error, StorageError::TimedOut { .. }), "{error:?}");
}

async fn get(url: &str) -> reqwest::Response {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    client.get(url).send().await.unwrap()
}

#[tokio::test]
async fn presigned_urls_open_one_object_to_anyone() {
    let mut store = Store::start().await;
    let life = Duration::from_secs(60);
    for token in [None, Some(Secret::from("session/token+==".to_owned()))] {
        store.config.aws_session_token = token;
        let storage = Storage::new(&store.config).unwrap();
        for key in [
            "users/1/jobs/2/source.mp4",
            "users/1/a b+c~(1)'!*/测试 #?&=%25.mp4",
        ] {
            storage
                .put(key, "video/mp4", Bytes::from(key))
                .await
                .unwrap();
            let url = storage.presign(key, life).await.unwrap();
            let answer = get(&url).await;
            assert_eq!(answer.headers()["content-type"], "video/mp4");
            assert_eq!(answer.text().await.unwrap(), key);
            assert_eq!(storage.key_of(&url).as_deref(), Some(key));
            let other = url
                .replacen("source", "another", 1)
                .replacen("users", "other", 1);
            assert_eq!(get(&other).await.status(), 403);
            assert_eq!(
                get(&storage.object_url(key)).await.status(),
                403,
                "without signature"
            );
        }
    }
}

#[tokio::test]
async fn credentials_can_come_from_a_profile_file() {
    if let Ok(endpoint) = std::env::var("PROFILE_TEST_S3") {
        let mut config = config(&endpoint);
        config.aws_access_key_id = None;
        config.aws_secret_access_key = None;
        config.aws_profile = Some("fleet".to_owned());
        Storage::new(&config)
            .unwrap()
            .put("k", "text/plain", Bytes::from("x"))
            .await
            .unwrap();
        config.aws_profile = Some("nobody".to_owned());
        let error = Storage::new(&config).unwrap().head("k").await.unwrap_err();
        assert!(matches!(error, StorageError::Credentials(_)), "{error:?}");
        return;
    }
    let store = Store::start().await;
    let file = store.directory.join("credentials");
    let text = "[default]\naws_access_key_id = other\naws_secret_access_key = other\n\n\
                [fleet]\naws_access_key_id = AKIDEXAMPLE\naws_secret_access_key = secret\n";
    std::fs::write(&file, text).unwrap();
    let environment = [
        (
            "PROFILE_TEST_S3",
            store.config.s3_endpoint_url.as_deref().unwrap(),
        ),
        ("AWS_SHARED_CREDENTIALS_FILE", file.to_str().unwrap()),
        ("AWS_CONFIG_FILE", "/dev/null"),
    ];
    in_a_process_of_its_own(
        "objects::credentials_can_come_from_a_profile_file",
        &environment,
    )
    .await;
    assert_eq!(store.text("k").await, "x");
}
