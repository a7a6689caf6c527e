//! The object store against a real S3 server (`s3s`), and transfers from a small web server into it.

#![expect(
    clippy::unwrap_used,
    reason = "a test ends by panicking, its helpers too"
)]

mod cdn;
mod objects;
mod server;
mod transfers;
mod uploads;

use bytes::Bytes;
use futures::{Stream, TryStreamExt};
use std::convert::Infallible;
use std::time::{Duration, Instant};

const MIB: usize = 1 << 20;

/// Serves in the background and returns the base URL.
async fn serve(router: axum::Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    format!("http://{address}")
}

async fn read<E: std::fmt::Debug>(body: impl Stream<Item = Result<Bytes, E>>) -> Vec<u8> {
    body.try_fold(Vec::new(), |mut all, bytes| async move {
        all.extend_from_slice(&bytes);
        Ok(all)
    })
    .await
    .unwrap()
}

async fn until(what: &str, reached: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !reached() {
        assert!(Instant::now() < deadline, "never reached: {what}");
        tokio::task::yield_now().await;
    }
}

/// `count` pieces of a length that fits no part, each byte telling its position.
fn pieces(count: usize) -> Vec<Result<Bytes, Infallible>> {
    (0..count)
        .map(|i| Ok(Bytes::from(vec![i as u8; 700_001])))
        .collect()
}

/// Runs one test of this file again in a process of its own, with more environment.
async fn in_a_process_of_its_own(test: &str, environment: &[(&str, &str)]) -> String {
    let mut command = tokio::process::Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", test, "--nocapture"])
        .envs(environment.iter().copied())
        .kill_on_drop(true);
    let output = command.output().await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}
