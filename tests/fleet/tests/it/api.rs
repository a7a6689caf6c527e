//! The HTTP API of a producer process: how the tests ask it, and what it answers while what it needs is away.

use anyhow::Context as _;
use fleet::{DEADLINE, Environment, Fleet, Kind, Process, eventually};
use reqwest::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use reqwest::{Client, RequestBuilder, StatusCode};
use sandbox::SandboxConfig;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::sql::value;

/// Settings whose values no answer may hold.
const SECRETS: [&str; 6] = [
    "DATABASE_URL",
    "AMQP_URL",
    "AWS_SECRET_ACCESS_KEY",
    "SYNC_API_KEY",
    "GHOSTCUT_API_KEY",
    "GHOSTCUT_APP_SECRET",
];

/// A running producer, asked over its two ports.
pub(crate) struct Producer {
    process: Process,
    client: Client,
    http: String,
    admin: String,
    /// Texts that no answer may hold.
    secrets: Vec<String>,
}

/// What was answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) json: Value,
}

impl Producer {
    pub(crate) async fn start(fleet: &Fleet, environment: &Environment) -> anyhow::Result<Self> {
        let variables = environment.variables();
        let process = Process::start("producer", "producer", ["serve"], variables, fleet.folder())?;
        Self::started(process, environment).await
    }

    /// One that may open no more than so many files.
    pub(crate) async fn start_with_files(
        fleet: &Fleet,
        environment: &Environment,
        files: u32,
    ) -> anyhow::Result<Self> {
        let variables = environment.variables();
        let process = Process::producer_with_files("producer", files, variables, fleet.folder())?;
        Self::started(process, environment).await
    }

    async fn started(mut process: Process, environment: &Environment) -> anyhow::Result<Self> {
        let started = process.started().await?;
        let address = |name: &str| started[name].as_str().map(str::to_owned).context("no port");
        let mut secrets = vec!["X-Amz-Signature".to_owned()];
        for name in SECRETS {
            secrets.push(environment.get(name)?.to_owned());
        }
        Ok(Self {
            process,
            client: Client::builder().no_proxy().timeout(DEADLINE).build()?,
            http: address("http")?,
            admin: address("admin")?,
            secrets,
        })
    }

    /// Ends it as an operator does.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        let status = self.process.terminate(DEADLINE).await?;
        anyhow::ensure!(status.success(), "the producer ended with {status}");
        Ok(())
    }

    /// A connection to the API on which nothing is sent yet.
    pub(crate) async fn connect(&self) -> anyhow::Result<TcpStream> {
        Ok(TcpStream::connect(&self.http).await?)
    }

    /// Waits until it has logged this.
    pub(crate) async fn logged(&mut self, message: &str) -> anyhow::Result<()> {
        let line = |line: &Value| {
            line["message"]
                .as_str()
                .is_some_and(|text| text.contains(message))
        };
        self.process.logged(DEADLINE, line).await?;
        Ok(())
    }

    pub(crate) fn request(&self, method: reqwest::Method, path: &str) -> RequestBuilder {
        self.client
            .request(method, format!("http://{}{path}", self.http))
    }

    pub(crate) fn post(&self, request: &Value) -> RequestBuilder {
        self.request(reqwest::Method::POST, "/v1/jobs")
            .json(request)
    }

    pub(crate) fn post_with_key(&self, request: &Value, key: &str) -> RequestBuilder {
        self.post(request).header("Idempotency-Key", key)
    }

    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<Answer> {
        self.send(self.request(reqwest::Method::GET, path)).await
    }

    /// A page of the admin port.
    pub(crate) async fn admin(&self, path: &str) -> anyhow::Result<(StatusCode, String)> {
        let url = format!("http://{}{path}", self.admin);
        let response = self.client.get(url).send().await?;
        Ok((response.status(), response.text().await?))
    }

    /// Sends a request to the API. Every answer is JSON and holds no secret; every refusal is a problem document.
    pub(crate) async fn send(&self, request: RequestBuilder) -> anyhow::Result<Answer> {
        let response = request.send().await?;
        let (status, headers) = (response.status(), response.headers().clone());
        let is_data = response.url().path().starts_with("/v1/");
        let text = response.text().await?;
        for secret in &self.secrets {
            assert!(!text.contains(secret), "{secret} is in {text}");
        }
        let json: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
        let content_type = headers[CONTENT_TYPE].to_str()?;
        if status.is_success() {
            assert_eq!(content_type, "application/json");
            assert!(
                !is_data || headers[CACHE_CONTROL] == "no-store",
                "data that a cache may keep"
            );
        } else {
            assert_eq!(content_type, "application/problem+json");
            assert_eq!(json["status"], status.as_u16());
            let has = |key: &str| json[key].as_str().is_some_and(|text| !text.is_empty());
            assert!(has("type") && has("title") && has("detail"), "{text}");
        }
        Ok(Answer {
            status,
            headers,
            json,
        })
    }

    /// Posts a request that has to be refused, and returns the problem.
    pub(crate) async fn refused(
        &self,
        request: RequestBuilder,
        status: u16,
        kind: &str,
    ) -> anyhow::Result<Answer> {
        let answer = self.send(request).await?;
        assert_eq!(answer.status.as_u16(), status, "{}", answer.json);
        let urn = format!("urn:ghostfleet:problem:{kind}");
        assert_eq!(answer.json["type"], urn, "{}", answer.json);
        Ok(answer)
    }

    /// A request that is refused until something is back: 503, and when to come again.
    pub(crate) async fn away(&self, request: RequestBuilder) -> anyhow::Result<()> {
        let answer = self.refused(request, 503, "unavailable").await?;
        assert!(answer.headers.contains_key(RETRY_AFTER));
        Ok(())
    }

    /// Posts a request that has to make a job, and returns its id.
    pub(crate) async fn created(&self, request: RequestBuilder) -> anyhow::Result<String> {
        let answer = self.send(request).await?;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.json);
        Ok(answer.id().to_owned())
    }
}

impl Answer {
    pub(crate) fn id(&self) -> &str {
        self.json["id"].as_str().unwrap()
    }

    /// Path and code of every fault that is told.
    pub(crate) fn faults(&self) -> Vec<(&str, &str)> {
        let errors = self.json["errors"].as_array().unwrap();
        errors
            .iter()
            .map(|fault| {
                let text = |field: &str| fault[field].as_str().unwrap();
                (text("path"), text("code"))
            })
            .collect()
    }
}

/// How many rows intake has written.
pub(crate) async fn stored(fleet: &Fleet) -> anyhow::Result<[usize; 4]> {
    let counts = "SELECT concat_ws(' ', (SELECT count(*) FROM video_jobs), (SELECT count(*) FROM job_stages), \
        (SELECT count(*) FROM job_events), (SELECT count(*) FROM job_requests)) AS value";
    let text = value(&fleet.database.url, counts).await?.unwrap();
    let counts: Vec<_> = text.split(' ').map(str::parse).collect::<Result<_, _>>()?;
    Ok(counts.try_into().unwrap())
}

/// A wire to a server that can be cut: dropping the task closes every connection and frees the port.
async fn wire(port: u16, server: String) -> anyhow::Result<(u16, JoinHandle<()>)> {
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    let port = listener.local_addr()?.port();
    let task = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut client, _)) = listener.accept().await {
            let server = server.clone();
            connections.spawn(async move {
                let mut server = TcpStream::connect(server).await?;
                tokio::io::copy_bidirectional(&mut client, &mut server).await
            });
        }
    });
    Ok((port, task))
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_object_store_is_away_only_its_objects_are_refused() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let (in_bucket, elsewhere) = (
            fleet.media.request(Kind::Inpaint, 0),
            fleet.media.request(Kind::Inpaint, 1),
        );
        let producer = Producer::start(fleet, &fleet.environment).await?;
        let known = producer
            .created(producer.post_with_key(&in_bucket, "known"))
            .await?;
        producer.stop().await?;

        let nobody = "http://127.0.0.1:1";
        let environment = fleet.environment.clone().with("S3_ENDPOINT_URL", nobody);
        let producer = Producer::start(fleet, &environment).await?;
        producer
            .away(producer.post_with_key(&in_bucket, "new"))
            .await?;
        assert_eq!(stored(fleet).await?, [1, 1, 1, 1]);
        let repeat = producer
            .send(producer.post_with_key(&in_bucket, "known"))
            .await?;
        assert_eq!((repeat.status, repeat.id()), (StatusCode::OK, &*known));
        producer.created(producer.post(&elsewhere)).await?;
        assert_eq!(stored(fleet).await?, [2, 2, 2, 1]);
        producer.stop().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_database_is_away_clients_are_told_to_come_again() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let mut url: reqwest::Url = fleet.database.url.parse()?;
        let server = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap_or(5432));
        let (port, task) = wire(0, server.clone()).await?;
        url.set_host(Some("127.0.0.1"))?;
        url.set_port(Some(port)).unwrap();
        let environment = fleet.environment.clone().with("DATABASE_URL", url);
        let producer = Producer::start(fleet, &environment).await?;
        let request = fleet.media.request(Kind::Both, 0);
        let id = producer.created(producer.post(&request)).await?;
        assert_eq!(
            producer.admin("/readyz").await?,
            (StatusCode::OK, "database: ok\nbroker: ok\n".to_owned())
        );

        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
        producer
            .away(producer.post_with_key(&request, "again"))
            .await?;
        producer.away(producer.post(&request)).await?;
        let get = |path: &str| producer.request(reqwest::Method::GET, path);
        producer.away(get("/v1/jobs")).await?;
        producer.away(get(&format!("/v1/jobs/{id}"))).await?;
        let (status, text) = producer.admin("/readyz").await?;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{text}");
        assert!(text.contains("broker: ok"), "{text}");
        assert_eq!(producer.admin("/healthz").await?.0, StatusCode::OK);
        assert_eq!(stored(fleet).await?, [1, 1, 1, 0]);

        let (_, task) = wire(port, server).await?;
        let answer = eventually(DEADLINE, async || {
            let answer = producer
                .send(producer.post_with_key(&request, "again"))
                .await?;
            anyhow::ensure!(answer.status.is_success(), "{}", answer.json);
            Ok(answer)
        });
        assert_eq!(answer.await?.status, StatusCode::CREATED);
        assert_eq!(producer.admin("/readyz").await?.0, StatusCode::OK);
        producer.stop().await?;
        task.abort();
        Ok(())
    })
    .await
}
