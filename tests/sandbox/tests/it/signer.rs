//! A client's side of AWS Signature Version 4, written apart from the server's.

use std::fmt::Write as _;

use chrono::{DateTime, Utc};
use hmac::{Hmac, KeyInit, Mac};
use sandbox::Sandbox;
use sha2::{Digest, Sha256};

fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

/// Signs path-style requests by AWS Signature Version 4.
pub(crate) struct Signer {
    pub(crate) host: String,
    pub(crate) access_key: String,
    pub(crate) secret: String,
    pub(crate) now: DateTime<Utc>,
}

impl Signer {
    pub(crate) fn new(sandbox: &Sandbox) -> Self {
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
    pub(crate) async fn send(
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

    /// A presigned URL that lives this long.
    pub(crate) fn presign(&self, method: &str, path: &str, seconds: u32) -> String {
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
