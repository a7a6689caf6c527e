//! Clients that take more than their share of a running producer: what is left for the others.

use anyhow::Context as _;
use diesel_async::{AsyncConnection as _, AsyncPgConnection, SimpleAsyncConnection as _};
use fleet::{DEADLINE, Kind, eventually};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use reqwest::header::RETRY_AFTER;
use reqwest::{Method, StatusCode};
use sandbox::SandboxConfig;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;

use crate::access::token;
use crate::api::Producer;

/// More of them than the process may open files. The admin port answers all the while, and the API when their time is over.
#[tokio::test(flavor = "multi_thread")]
async fn half_requests_take_neither_the_admin_port_nor_the_api_for_good() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let mut producer = Producer::start_with_files(fleet, &fleet.environment, 256).await?;
        let mut halves = Vec::new();
        for _ in 0..300 {
            let mut half = producer.connect().await?;
            half.write_all(b"GET /session HTTP/1.1\r\nHost: local")
                .await?;
            halves.push(half);
        }
        producer
            .logged("all connections of a port are taken")
            .await?;
        for path in ["/healthz", "/readyz", "/metrics"] {
            assert_eq!(producer.admin(path).await?.0, StatusCode::OK, "{path}");
        }
        // Those who are served now do not hang up, and who waits behind them need not be waited for.
        halves.truncate(64);
        assert_eq!(producer.get("/v1/vendors").await?.status, StatusCode::OK);
        producer.stop().await
    })
    .await
}

/// Each of them holds a connection of the pool for as long as it counts, here until the lock is given up.
#[tokio::test(flavor = "multi_thread")]
async fn previews_leave_the_database_to_the_others() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let producer = Producer::start(fleet, &fleet.environment).await?;
        let preview = || {
            let all = json!({ "action": "discard", "all": true, "reason": "r" });
            let path = "/v1/operations/preview";
            producer.request(Method::POST, path).json(&all)
        };
        let mut lock = AsyncPgConnection::establish(&fleet.database.url).await?;
        lock.batch_execute("BEGIN; LOCK TABLE dead_letters").await?;
        let previews = (0..12).map(|_| producer.send(preview()));
        let mut previews: FuturesUnordered<_> = previews.collect();
        for _ in 0..10 {
            let answer = previews.next().await.context("no more")??;
            let kind = &answer.json["type"];
            assert_eq!(
                kind, "urn:ghostfleet:problem:too-many-previews",
                "{}",
                answer.json
            );
            assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
            assert!(answer.headers.contains_key(RETRY_AFTER));
        }
        assert_eq!(producer.get("/v1/vendors").await?.status, StatusCode::OK);
        lock.batch_execute("ROLLBACK").await?;
        while let Some(answer) = previews.next().await {
            let answer = answer?;
            assert_eq!(answer.status, StatusCode::OK, "{}", answer.json);
        }
        drop(previews);
        assert_eq!(producer.send(preview()).await?.status, StatusCode::OK);
        producer.stop().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_follows_much_leaves_streams_to_the_others() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let producer = Producer::start(fleet, &fleet.environment).await?;
        let ann = token(fleet, "ann", "submit").await?;
        let bob = token(fleet, "bob", "submit").await?;
        let job = producer.post(&fleet.media.request(Kind::Inpaint, 0));
        let job = producer.created(job.bearer_auth(&ann)).await?;
        let follow = |token: &str| {
            let path = format!("/v1/jobs/{job}/events");
            producer.request(Method::GET, &path).bearer_auth(token)
        };
        let mut streams = Vec::new();
        for _ in 0..50 {
            let stream = follow(&ann).send().await?;
            assert_eq!(stream.status(), StatusCode::OK);
            streams.push(stream);
        }
        let refused = producer
            .refused(follow(&ann), 503, "too-many-streams")
            .await?;
        assert!(refused.headers.contains_key(RETRY_AFTER));
        assert_eq!(follow(&bob).send().await?.status(), StatusCode::OK);
        // Who hangs up gives the place back.
        drop(streams);
        eventually(DEADLINE, async || {
            let status = follow(&ann).send().await?.status();
            anyhow::ensure!(status == StatusCode::OK, "{status}");
            Ok(())
        })
        .await?;
        producer.stop().await
    })
    .await
}
