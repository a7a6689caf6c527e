//! Clients that take more than their share of a running producer: what is left for the others.

use reqwest::StatusCode;
use sandbox::SandboxConfig;
use tokio::io::AsyncWriteExt as _;

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
