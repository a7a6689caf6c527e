//! The S3 server: signatures, presigned URLs and the operations clients use.

use chrono::{Duration, Utc};
use sandbox::Vendor::Ghostcut;
use sandbox::media::{Provenance, sample};
use serde_json::json;

use crate::signer::Signer;
use crate::support::{erase, ghostcut, settle, start};

fn between(text: &str, from: &str, to: &str) -> String {
    let (_, rest) = text
        .split_once(from)
        .unwrap_or_else(|| panic!("{from} in {text}"));
    rest.split_once(to).unwrap().0.to_owned()
}

#[tokio::test]
async fn objects_are_put_read_in_ranges_copied_listed_and_deleted() {
    let sandbox = start(|_| {}).await;
    let s3 = Signer::new(&sandbox);
    let put = s3
        .send(
            "PUT",
            "/sandbox/a/one.mp4",
            "",
            &[("content-type", "video/mp4")],
            b"0123456789".to_vec(),
        )
        .await;
    assert_eq!(put.status(), 200);
    let head = s3
        .send("HEAD", "/sandbox/a/one.mp4", "", &[], Vec::new())
        .await;
    assert_eq!(
        (
            &head.headers()["content-length"],
            &head.headers()["content-type"]
        ),
        (&"10".parse().unwrap(), &"video/mp4".parse().unwrap())
    );
    assert_eq!(head.headers()["etag"], put.headers()["etag"]);
    let part = s3
        .send(
            "GET",
            "/sandbox/a/one.mp4",
            "",
            &[("range", "bytes=2-4")],
            Vec::new(),
        )
        .await;
    assert_eq!(
        (part.status().as_u16(), part.text().await.unwrap().as_str()),
        (206, "234")
    );
    let copy = s3
        .send(
            "PUT",
            "/sandbox/a/two.mp4",
            "",
            &[("x-amz-copy-source", "/sandbox/a/one.mp4")],
            Vec::new(),
        )
        .await;
    assert!(copy.text().await.unwrap().contains("CopyObjectResult"));
    let copied = s3
        .send("GET", "/sandbox/a/two.mp4", "", &[], Vec::new())
        .await;
    assert_eq!(copied.headers()["content-type"], "video/mp4");
    assert_eq!(copied.text().await.unwrap(), "0123456789");

    let first = s3
        .send(
            "GET",
            "/sandbox",
            "list-type=2&max-keys=1&prefix=a%2F",
            &[],
            Vec::new(),
        )
        .await
        .text()
        .await
        .unwrap();
    assert_eq!(between(&first, "<Key>", "</Key>"), "a/one.mp4");
    let token = between(
        &first,
        "<NextContinuationToken>",
        "</NextContinuationToken>",
    )
    .replace('/', "%2F");
    let query = format!("continuation-token={token}&list-type=2&prefix=a%2F");
    let second = s3
        .send("GET", "/sandbox", &query, &[], Vec::new())
        .await
        .text()
        .await
        .unwrap();
    assert_eq!(
        (
            between(&second, "<Key>", "</Key>").as_str(),
            second.matches("<Key>").count()
        ),
        ("a/two.mp4", 1)
    );

    assert_eq!(
        s3.send("DELETE", "/sandbox/a/one.mp4", "", &[], Vec::new())
            .await
            .status(),
        204
    );
    let gone = s3
        .send("GET", "/sandbox/a/one.mp4", "", &[], Vec::new())
        .await;
    assert_eq!(
        (
            gone.status().as_u16(),
            gone.text().await.unwrap().contains("NoSuchKey")
        ),
        (404, true)
    );
    assert_eq!(
        s3.send("HEAD", "/sandbox/a/one.mp4", "", &[], Vec::new())
            .await
            .status(),
        404
    );
}

#[tokio::test]
async fn wrong_or_missing_signatures_are_refused() {
    let sandbox = start(|_| {}).await;
    let good = Signer::new(&sandbox);
    good.send("PUT", "/sandbox/x", "", &[], b"x".to_vec()).await;
    let url = format!("{}/sandbox/x", sandbox.endpoints().s3);
    assert_eq!(reqwest::get(&url).await.unwrap().status(), 403);
    let wrong = Signer {
        secret: "other".into(),
        ..Signer::new(&sandbox)
    };
    let refused = wrong.send("GET", "/sandbox/x", "", &[], Vec::new()).await;
    assert_eq!(
        (
            refused.status().as_u16(),
            refused
                .text()
                .await
                .unwrap()
                .contains("SignatureDoesNotMatch")
        ),
        (403, true)
    );
    let stranger = Signer {
        access_key: "nobody".into(),
        ..Signer::new(&sandbox)
    };
    assert!(
        stranger
            .send("GET", "/sandbox/x", "", &[], Vec::new())
            .await
            .status()
            .is_client_error()
    );
}

#[tokio::test]
async fn presigned_urls_work_until_they_expire_or_are_changed() {
    let sandbox = start(|_| {}).await;
    let s3 = Signer::new(&sandbox);
    let client = reqwest::Client::new();
    let put = client
        .put(s3.presign("PUT", "/sandbox/users/1/clip.mp4", 60))
        .body("movie")
        .send()
        .await
        .unwrap();
    assert_eq!(put.status(), 200);
    let url = s3.presign("GET", "/sandbox/users/1/clip.mp4", 60);
    assert_eq!(
        reqwest::get(&url).await.unwrap().text().await.unwrap(),
        "movie"
    );
    assert_eq!(
        reqwest::get(url.replace("clip.mp4", "clap.mp4"))
            .await
            .unwrap()
            .status(),
        403
    );
    assert_eq!(
        client.delete(&url).send().await.unwrap().status(),
        403,
        "signed for another method"
    );
    let old = Signer {
        now: Utc::now() - Duration::minutes(5),
        ..Signer::new(&sandbox)
    };
    assert_eq!(
        reqwest::get(old.presign("GET", "/sandbox/users/1/clip.mp4", 60))
            .await
            .unwrap()
            .status(),
        403
    );
    assert_eq!(
        reqwest::get(old.presign("GET", "/sandbox/users/1/clip.mp4", 3600))
            .await
            .unwrap()
            .status(),
        200
    );
}

#[tokio::test]
async fn multipart_uploads_are_listed_completed_and_aborted() {
    let sandbox = start(|_| {}).await;
    let s3 = Signer::new(&sandbox);
    // As long as those of the fleet.
    let key = format!("{}big.mp4", "folder/".repeat(20));
    let path = format!("/sandbox/{key}");
    let begin = async |key: &str| {
        let answer = s3
            .send(
                "POST",
                &format!("/sandbox/{key}"),
                "uploads=",
                &[],
                Vec::new(),
            )
            .await;
        between(&answer.text().await.unwrap(), "<UploadId>", "</UploadId>")
    };
    let listed = async || {
        s3.send("GET", "/sandbox", "uploads=", &[], Vec::new())
            .await
            .text()
            .await
            .unwrap()
    };
    let (big, left) = (begin(&key).await, begin("left.mp4").await);
    let all = listed().await;
    assert!(all.contains(&big) && all.contains(&left) && all.contains("<Key>left.mp4</Key>"));

    let mut tags = Vec::new();
    for (number, size) in [(1, 5 << 20), (2, 100)] {
        let query = format!("partNumber={number}&uploadId={big}");
        let part = s3
            .send("PUT", &path, &query, &[], vec![number as u8; size])
            .await;
        tags.push(part.headers()["etag"].to_str().unwrap().to_owned());
    }
    let parts: String = tags
        .iter()
        .zip(1..)
        .map(|(tag, number)| {
            format!("<Part><ETag>{tag}</ETag><PartNumber>{number}</PartNumber></Part>")
        })
        .collect();
    let body = format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>");
    let done = s3
        .send(
            "POST",
            &path,
            &format!("uploadId={big}"),
            &[],
            body.into_bytes(),
        )
        .await;
    assert!(
        done.text().await.unwrap().contains("-2"),
        "ETag of two parts"
    );
    let file = s3
        .send("GET", &path, "", &[], Vec::new())
        .await
        .bytes()
        .await
        .unwrap();
    assert_eq!(
        (file.len(), file[0], file[5 << 20]),
        ((5 << 20) + 100, 1, 2)
    );

    assert_eq!(
        s3.send(
            "DELETE",
            "/sandbox/left.mp4",
            &format!("uploadId={left}"),
            &[],
            Vec::new()
        )
        .await
        .status(),
        204
    );
    let none = listed().await;
    assert!(!none.contains(&big) && !none.contains(&left));
    let query = format!("partNumber=1&uploadId={left}");
    let late = s3
        .send("PUT", "/sandbox/left.mp4", &query, &[], vec![1])
        .await;
    assert_eq!(
        (
            late.status().as_u16(),
            late.text().await.unwrap().contains("NoSuchUpload")
        ),
        (404, true)
    );
}

#[tokio::test]
async fn a_simulator_fetches_a_presigned_object() {
    let sandbox = start(|_| {}).await;
    let s3 = Signer::new(&sandbox);
    let video = sample("zoom.mp4").unwrap().bytes;
    s3.send("PUT", "/sandbox/zoom.mp4", "", &[], video.to_vec())
        .await;
    let url = s3.presign("GET", "/sandbox/zoom.mp4", 60);
    let mut body = erase(&sandbox, "x");
    body["urls"] = json!([url]);
    ghostcut(&sandbox, "work/free", &body).await;
    settle(&sandbox, Ghostcut).await;
    let work = sandbox.truth().works(Ghostcut).remove(0);
    let file = reqwest::get(work.result.unwrap().url)
        .await
        .unwrap()
        .bytes()
        .await
        .unwrap();
    assert!(file.starts_with(video));
    assert_eq!(Provenance::find_all(&file)[0].work, work.id);

    s3.send("DELETE", "/sandbox/zoom.mp4", "", &[], Vec::new())
        .await;
    ghostcut(&sandbox, "work/free", &body).await;
    settle(&sandbox, Ghostcut).await;
    let late = sandbox.truth().works(Ghostcut).remove(1);
    assert_eq!(
        late.status,
        sandbox::Status::Code(3),
        "a removed source cannot be worked on"
    );
}
