//! A web server that does what vendors' servers do, by path.

use crate::serve;
use axum::body::Body;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use std::convert::Infallible;

/// An MP4 of this length: `ftyp`, `moov` and an `mdat` that takes the rest.
fn mp4(length: u64) -> impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static {
    static ZEROES: [u8; 256 << 10] = [0; 256 << 10];
    let mut start =
        b"\0\0\0\x10ftypisom\0\0\x02\0\0\0\0\x10moov\0\0\0\0\0\0\0\0\0\0\0\x01mdat".to_vec();
    let rest = length - start.len() as u64 + 8;
    start.extend(rest.to_be_bytes());
    let content = stream::unfold(length - start.len() as u64, |left| async move {
        let take = left.min(ZEROES.len() as u64);
        (take > 0).then(|| {
            (
                Ok(Bytes::from_static(&ZEROES[..take as usize])),
                left - take,
            )
        })
    });
    stream::iter([Ok(Bytes::from(start))]).chain(content)
}

/// A body of announced length that may deliver something else.
fn sized(
    length: u64,
    body: impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static,
) -> Response {
    (
        [("content-length", length.to_string())],
        Body::from_stream(body),
    )
        .into_response()
}

/// What vendors' servers do, by path.
async fn cdn(uri: Uri) -> Response {
    let redirect = |to: &str| (StatusCode::FOUND, [("location", to.to_owned())]).into_response();
    let html = "<!DOCTYPE html><html><body>This link has expired.</body></html>";
    match uri.path() {
        "/good.mp4" => sized(20_000_000, mp4(20_000_000)),
        "/small.mp4" => Body::from_stream(mp4(1000)).into_response(),
        "/gibibyte.mp4" => sized(1 << 30, mp4(1 << 30)),
        "/truncated.mp4" => sized(20_000_000, mp4(20_000_000).take(50)),
        "/cut.mp4" => Body::from_stream(mp4(20_000_000).take(50)).into_response(),
        "/empty.mp4" => Body::from(&b"\0\0\0\x10ftypisom\0\0\x02\0"[..]).into_response(),
        "/stalled.mp4" => {
            Body::from_stream(mp4(20_000_000).take(50).chain(stream::pending())).into_response()
        }
        "/silent.mp4" => std::future::pending().await,
        "/error.html" => html.into_response(),
        "/nothing" => Body::empty().into_response(),
        "/voice.wav" => Body::from(&b"RIFF\x24\0\0\0WAVEfmt "[..]).into_response(),
        "/gone.mp4" => (StatusCode::FORBIDDEN, html).into_response(),
        "/busy.mp4" => (StatusCode::SERVICE_UNAVAILABLE, html).into_response(),
        "/moved" => redirect("/moved/again"),
        "/moved/again" => redirect("../good.mp4?signature=1"),
        "/round" => redirect("/round"),
        "/to-file" => redirect("file:///etc/passwd"),
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

pub(crate) async fn start_cdn() -> String {
    serve(axum::Router::new().fallback(get(cdn))).await
}
