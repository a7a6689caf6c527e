//! Sends the requests rusoto signed, through `reqwest`.
//!
//! rusoto's own HTTP stack and its reading of answers are old. This file gives it a current client, and hands it only
//! XML that is well-formed: rusoto's reader never returns on a document that is not, and takes an error inside a 200
//! for success. It must not retry: only the caller knows what may be repeated.

use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use http_02::{HeaderMap, StatusCode};
use rusoto_core::ByteStream;
use rusoto_core::request::{
    DispatchSignedRequest, DispatchSignedRequestFuture, HttpDispatchError, HttpResponse,
};
use rusoto_core::signature::{SignedRequest, SignedRequestPayload};
use std::error::Error;
use std::io;
use std::time::Duration;
use xml::reader::{EventReader, XmlEvent};

/// Largest XML answer that is read; S3's are a few hundred bytes.
const XML_MAX_BYTES: usize = 1 << 20;

/// rusoto's way to the network. Deadlines for whole requests are the caller's.
pub(super) struct Dispatcher {
    client: reqwest::Client,
    idle_timeout: Duration,
}

impl Dispatcher {
    pub(super) fn new(
        connect_timeout: Duration,
        idle_timeout: Duration,
    ) -> Result<Self, reqwest::Error> {
        crate::tls::install_provider();
        let client = reqwest::Client::builder()
            .connect_timeout(connect_timeout)
            // A signature holds for one host and path, so a redirect cannot be followed.
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .http1_only()
            .build()?;
        Ok(Self {
            client,
            idle_timeout,
        })
    }
}

impl DispatchSignedRequest for Dispatcher {
    /// `timeout` is rusoto's own and never set by the operations used here.
    fn dispatch(
        &self,
        request: SignedRequest,
        _timeout: Option<Duration>,
    ) -> DispatchSignedRequestFuture {
        let client = self.client.clone();
        let idle_timeout = self.idle_timeout;
        Box::pin(async move {
            // The operations whose successful answer rusoto reads as XML: multipart create and complete, and copy.
            let answers_xml =
                request.method == "POST" || request.headers.contains_key("x-amz-copy-source");
            let response = client.execute(translate(request)?).await.map_err(failure)?;
            let status = StatusCode::from_u16(response.status().as_u16()).map_err(|_| {
                HttpDispatchError::new("the answer has an impossible status".to_owned())
            })?;
            let headers = response
                .headers()
                .iter()
                .filter_map(|(name, value)| {
                    Some((name.as_str().parse().ok()?, value.to_str().ok()?.to_owned()))
                })
                .collect();
            let body = idle_limited(response.bytes_stream(), idle_timeout);
            if answers_xml && status.is_success() {
                return read_xml(status, headers, body).await;
            }
            Ok(HttpResponse {
                status,
                headers,
                body: ByteStream::new(body),
            })
        })
    }
}

fn translate(request: SignedRequest) -> Result<reqwest::Request, HttpDispatchError> {
    let invalid = |what: &str| HttpDispatchError::new(format!("rusoto made an invalid {what}"));
    let query = request.canonical_query_string();
    let separator = if query.is_empty() { "" } else { "?" };
    let url = format!(
        "{}://{}{}{separator}{query}",
        request.scheme(),
        request.hostname(),
        request.canonical_uri()
    );
    let url = url::Url::parse(&url).map_err(|_| invalid("URL"))?;
    let method =
        reqwest::Method::from_bytes(request.method.as_bytes()).map_err(|_| invalid("method"))?;
    let mut translated = reqwest::Request::new(method, url);
    for (name, values) in &request.headers {
        let name =
            http::HeaderName::from_bytes(name.as_bytes()).map_err(|_| invalid("header name"))?;
        for value in values {
            let value =
                http::HeaderValue::from_bytes(value).map_err(|_| invalid("header value"))?;
            translated.headers_mut().append(name.clone(), value);
        }
    }
    *translated.body_mut() = request.payload.map(|payload| match payload {
        SignedRequestPayload::Buffer(bytes) => bytes.into(),
        // The signed Content-Length header makes this a body of known length; S3 takes no chunked ones.
        SignedRequestPayload::Stream(stream) => reqwest::Body::wrap_stream(stream),
    });
    Ok(translated)
}

/// Ends `body` with an error when no byte comes for `limit`.
fn idle_limited<E: Error + Send + Sync + 'static>(
    body: impl Stream<Item = Result<Bytes, E>> + Send + 'static,
    limit: Duration,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    stream::try_unfold(Box::pin(body), move |mut body| async move {
        match tokio::time::timeout(limit, body.next()).await {
            Ok(Some(Ok(bytes))) => Ok(Some((bytes, body))),
            Ok(Some(Err(error))) => Err(io::Error::other(error)),
            Ok(None) => Ok(None),
            Err(_) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("no byte within {limit:?}"),
            )),
        }
    })
}

/// Reads an XML answer and makes it one that rusoto understands.
async fn read_xml(
    status: StatusCode,
    headers: HeaderMap<String>,
    body: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
) -> Result<HttpResponse, HttpDispatchError> {
    let xml = body
        .try_fold(Vec::new(), |mut xml, bytes| async move {
            if xml.len() + bytes.len() > XML_MAX_BYTES {
                return Err(io::Error::other("the XML answer is too long"));
            }
            xml.extend_from_slice(&bytes);
            Ok(xml)
        })
        .await
        .map_err(|error| HttpDispatchError::new(chain(&error)))?;
    let (root, document) =
        root_element(&xml).ok_or_else(|| HttpDispatchError::new("the answer is not XML".into()))?;
    // S3 answers 200 before a long copy or completion ends, and may then report an error in the body:
    // https://docs.aws.amazon.com/AmazonS3/latest/API/API_CompleteMultipartUpload.html
    let status = if root == "Error" {
        StatusCode::INTERNAL_SERVER_ERROR
    } else {
        status
    };
    let body = ByteStream::from(document.to_vec());
    Ok(HttpResponse {
        status,
        headers,
        body,
    })
}

/// The name of the root element of a well-formed document, and the document from that element on.
///
/// While S3 works it sends blanks between the XML declaration and the root, which rusoto does not expect.
fn root_element(xml: &[u8]) -> Option<(String, &[u8])> {
    let text = std::str::from_utf8(xml).ok()?.trim_start();
    let mut root = None;
    for event in EventReader::new(text.as_bytes()) {
        if let XmlEvent::StartElement { name, .. } = event.ok()?
            && root.is_none()
        {
            root = Some(name.local_name);
        }
    }
    let start = if text.starts_with("<?xml") {
        text.find("?>")? + 2
    } else {
        0
    };
    Some((root?, text[start..].trim_start().as_bytes()))
}

/// The text of a transport error, without the URL.
fn failure(error: reqwest::Error) -> HttpDispatchError {
    HttpDispatchError::new(chain(&error.without_url()))
}

/// An error and its causes in one line: rusoto's error type carries nothing but a text.
fn chain(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| (*error).source());
    causes
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_before_the_root_are_dropped() {
        let xml = b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n   \n <R><ETag>1</ETag></R>";
        let (root, document) = root_element(xml).unwrap();
        assert_eq!(
            (root.as_str(), document),
            ("R", b"<R><ETag>1</ETag></R>".as_slice())
        );
    }

    #[test]
    fn what_is_not_well_formed_is_refused() {
        for bad in [
            "",
            "   ",
            "{}",
            "<R>",
            "<html><br></html>",
            "<R><ETag>1</R>",
            "\u{0}",
        ] {
            assert!(root_element(bad.as_bytes()).is_none(), "{bad}");
        }
        assert!(root_element(b"\xff<R/>").is_none());
    }
}
