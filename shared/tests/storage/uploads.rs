//! Streams into objects.

use crate::server::{Answer, Store};
use crate::{MIB, pieces, read, until};
use bytes::Bytes;
use futures::{StreamExt, stream};
use shared::storage::{StorageError, UploadError};
use std::convert::Infallible;

#[tokio::test]
async fn a_long_stream_goes_up_in_parts_of_known_length() {
    let store = Store::start().await;
    let pieces = pieces(30);
    let content: Vec<u8> = pieces
        .iter()
        .flat_map(|piece| piece.as_ref().unwrap().to_vec())
        .collect();
    let bytes = store
        .storage
        .put_stream("long", "video/mp4", stream::iter(pieces))
        .await
        .unwrap();
    assert_eq!(bytes, 30 * 700_001);
    let object = store.storage.get("long", None).await.unwrap();
    assert_eq!(
        (object.bytes, object.content_type.as_deref()),
        (bytes, Some("video/mp4"))
    );
    assert!(read(object.body).await == content, "the content differs");

    assert_eq!(store.front.count("POST /media/long uploads="), 1);
    assert_eq!(store.front.count("POST /media/long uploadId"), 1);
    let seen = store.front.seen.lock().unwrap();
    let parts: Vec<_> = seen
        .iter()
        .filter(|(summary, _)| summary.contains("partNumber"))
        .collect();
    let lengths: Vec<_> = parts
        .iter()
        .map(|(_, headers)| headers["content-length"].to_str().unwrap())
        .collect();
    let last = (30 * 700_001 - 16 * MIB).to_string();
    assert_eq!(lengths, ["8388608", "8388608", last.as_str()]);
    for (_, headers) in parts {
        assert!(!headers.contains_key("transfer-encoding"));
        assert_eq!(headers["x-amz-content-sha256"], "UNSIGNED-PAYLOAD");
    }
}

#[tokio::test]
async fn streams_around_the_part_size_keep_their_length() {
    let store = Store::start().await;
    for (length, creates) in [
        (0, 0),
        (1, 0),
        (8 * MIB - 1, 0),
        (8 * MIB, 1),
        (8 * MIB + 1, 1),
    ] {
        let key = format!("length-{length}");
        let stream = stream::iter([Ok::<_, Infallible>(Bytes::from(vec![7; length]))]);
        assert_eq!(
            store
                .storage
                .put_stream(&key, "video/mp4", stream)
                .await
                .unwrap(),
            length as u64
        );
        assert_eq!(
            store.storage.head(&key).await.unwrap().unwrap().bytes,
            length as u64
        );
        assert_eq!(
            store.front.count(&format!("POST /media/{key} uploads=")),
            creates,
            "{length}"
        );
    }
}

#[tokio::test]
async fn failed_parts_and_lost_completions_are_repeated() {
    let store = Store::start().await;
    store.front.fail(
        "partNumber=1",
        1,
        Answer::With(503, "<Error><Code>SlowDown</Code></Error>"),
    );
    store.front.fail("partNumber=2", 1, Answer::Lost);
    // S3 reports an error inside a 200, then completes but the answer is lost, and then knows the upload no more.
    let error = "<?xml version=\"1.0\"?>\n\n<Error><Code>InternalError</Code></Error>";
    store
        .front
        .fail("POST /media/k uploadId", 1, Answer::With(200, error));
    store.front.fail("POST /media/k uploadId", 1, Answer::Lost);
    let gone = "<Error><Code>NoSuchUpload</Code></Error>";
    store
        .front
        .fail("POST /media/k uploadId", 1, Answer::With(404, gone));
    let bytes = store
        .storage
        .put_stream("k", "video/mp4", stream::iter(pieces(20)))
        .await
        .unwrap();
    assert_eq!(store.storage.head("k").await.unwrap().unwrap().bytes, bytes);
    assert_eq!(store.front.count("PUT /media/k partNumber"), 4);
    assert_eq!(store.front.count("POST /media/k uploadId"), 3);
    assert_eq!(store.front.count("DELETE"), 0);
}

#[tokio::test]
async fn an_upload_that_never_was_completed_is_an_error() {
    let store = Store::start().await;
    store.front.fail(
        "POST /media/k uploadId",
        1,
        Answer::With(404, "<Error><Code>NoSuchUpload</Code></Error>"),
    );
    let error = store
        .storage
        .put_stream("k", "video/mp4", stream::iter(pieces(20)))
        .await
        .unwrap_err();
    let UploadError::Storage(error) = error;
    assert!(
        matches!(&error, StorageError::Refused { code, .. } if code == "NoSuchUpload"),
        "{error:?}"
    );
}

#[tokio::test]
async fn answers_that_are_not_s3s_do_not_hang_the_client() {
    let store = Store::start().await;
    let html = "<html><body>login<br></body></html>";
    let cut = "<InitiateMultipartUploadResult>";
    store
        .front
        .fail("/html uploads=", 5, Answer::With(200, html));
    store.front.fail("/cut uploads=", 5, Answer::With(200, cut));
    let put = |key| {
        let stream = stream::iter(pieces(20));
        store.storage.put_stream(key, "video/mp4", stream)
    };
    let (html, cut) = futures::join!(put("html"), put("cut"));
    for error in [html.unwrap_err(), cut.unwrap_err()] {
        let UploadError::Storage(error) = error;
        assert!(error.is_transient(), "{error:?}");
    }
}

#[tokio::test]
async fn a_stream_that_breaks_off_leaves_nothing_behind() {
    let store = Store::start().await;
    let broken = stream::iter(pieces(20)).map(|piece| piece.map_err(|never| match never {}));
    let broken = broken.chain(stream::iter([Err(std::io::Error::other("cut"))]));
    let error = store
        .storage
        .put_stream("k", "video/mp4", broken)
        .await
        .unwrap_err();
    assert!(matches!(error, UploadError::Source(_)), "{error:?}");
    assert_eq!(store.storage.head("k").await.unwrap(), None);
    until("the upload is aborted", || {
        store.front.count("DELETE /media/k uploadId") == 1
    })
    .await;
    until("no part is left", || store.has_no_parts()).await;
}

#[tokio::test]
async fn a_dropped_upload_is_aborted() {
    let store = Store::start().await;
    store.front.fail("partNumber=2", 1, Answer::Hang);
    let storage = store.storage.clone();
    let upload = tokio::spawn(async move {
        storage
            .put_stream("k", "video/mp4", stream::iter(pieces(30)))
            .await
    });
    until("part 2 is under way", || {
        store.front.count("partNumber=2") == 1
    })
    .await;
    assert!(!store.has_no_parts(), "part 1 is stored");
    upload.abort();
    until("no part is left", || store.has_no_parts()).await;
    assert_eq!(store.storage.head("k").await.unwrap(), None);
}
