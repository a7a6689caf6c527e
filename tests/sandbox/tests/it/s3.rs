//! The S3 server with a signer of our own: signatures, presigned URLs and the operations clients use.

use std::fmt::Write as _;

use chrono::{DateTime, Duration, Utc};
use hmac::{Hmac, KeyInit, Mac};
use sandbox::Sandbox;
use sha2::{Digest, Sha256};

use crate::support::start;

fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

/// Signs path-style requests by AWS Signature Version 4.
struct Signer {
    host: String,
    access_key: String,
    secret: String,
    now: DateTime<Utc>,
}

impl Signer {
    fn new(sandbox: &Sandbox) -> Self {
        Self {
            host: sandbox
                .endpoints()
                .s3
                .strip_prefix("http://")
                .unwrap()
                .into(),
            access_key: sandbox.credentials().s3_access_key.clone(),
            secret: sandbox.credentials().s3_secret_key.clone(),
            now: Utc::now(),
        }
    }

    fn scope(&self) -> String {
        format!("{}/us-east-1/s3/aws4_request", self.now.format("%Y%m%d"))
    }

    fn signature(
        &self,
        method: &str,
        path: &str,
        query: &str,
        headers: &[(String, String)],
    ) -> String {
        let mut canonical = format!("{method}\n{path}\n{query}\n");
        for (name, value) in headers {
            writeln!(canonical, "{name}:{value}").unwrap();
        }
        let names: Vec<_> = headers.iter().map(|(name, _)| name.as_str()).collect();
        write!(canonical, "\n{}\nUNSIGNED-PAYLOAD", names.join(";")).unwrap();
        let time = self.now.format("%Y%m%dT%H%M%SZ");
        let hash = hex::encode(Sha256::digest(canonical));
        let text = format!("AWS4-HMAC-SHA256\n{time}\n{}\n{hash}", self.scope());
        let parts = [
            self.now.format("%Y%m%d").to_string(),
            "us-east-1".into(),
            "s3".into(),
            "aws4_request".into(),
        ];
        let key = parts
            .iter()
            .fold(format!("AWS4{}", self.secret).into_bytes(), |key, part| {
                hmac(&key, part)
            });
        hex::encode(hmac(&key, &text))
    }

    /// `query` sorted and encoded; extra headers in lower case.
    async fn send(
        &self,
        method: &str,
        path: &str,
        query: &str,
        extra: &[(&str, &str)],
        body: Vec<u8>,
    ) -> reqwest::Response {
        let time = self.now.format("%Y%m%dT%H%M%SZ").to_string();
        let mut headers = vec![
            ("host".to_owned(), self.host.clone()),
            (
                "x-amz-content-sha256".to_owned(),
                "UNSIGNED-PAYLOAD".to_owned(),
            ),
            ("x-amz-date".to_owned(), time),
        ];
        headers.extend(
            extra
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
        );
        headers.sort();
        let signature = self.signature(method, path, query, &headers);
        let names: Vec<_> = headers.iter().map(|(name, _)| name.as_str()).collect();
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={}/{}, SignedHeaders={}, Signature={signature}",
            self.access_key,
            self.scope(),
            names.join(";")
        );
        let url = format!("http://{}{path}?{query}", self.host);
        let mut request = reqwest::Client::new().request(method.parse().unwrap(), url);
        for (name, value) in headers.iter().filter(|(name, _)| name != "host") {
            request = request.header(name, value);
        }
        request
            .header("authorization", authorization)
            .body(body)
            .send()
            .await
            .unwrap()
    }

    fn presign(&self, method: &str, path: &str, seconds: u32) -> String {
        let credential = format!("{}/{}", self.access_key, self.scope()).replace('/', "%2F");
        let time = self.now.format("%Y%m%dT%H%M%SZ");
        let query = format!(
            "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={credential}&X-Amz-Date={time}\
             &X-Amz-Expires={seconds}&X-Amz-SignedHeaders=host"
        );
        let signature = self.signature(method, path, &query, &[("host".into(), self.host.clone())]);
        format!(
            "http://{}{path}?{query}&X-Amz-Signature={signature}",
            self.host
        )
    }
}

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
    let (big, left) = (begin("big.mp4").await, begin("left.mp4").await);
    let all = listed().await;
    assert!(all.contains(&big) && all.contains(&left) && all.contains("<Key>left.mp4</Key>"));

    let mut tags = Vec::new();
    for (number, size) in [(1, 5 << 20), (2, 100)] {
        let query = format!("partNumber={number}&uploadId={big}");
        let part = s3
            .send(
                "PUT",
                "/sandbox/big.mp4",
                &query,
                &[],
                vec![number as u8; size],
            )
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
            "/sandbox/big.mp4",
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
        .send("GET", "/sandbox/big.mp4", "", &[], Vec::new())
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
