//! A stable way to the result of a job: by the API and by command.

use fleet::{Fleet, Kind};
use reqwest::{Method, Response, StatusCode, header, redirect};
use sandbox::SandboxConfig;
use serde_json::Value;
use uuid::Uuid;

use crate::api::Producer;
use crate::command::producer;
use crate::sql::value;

/// Asks without following, as somebody who wants to see the link.
async fn ask(api: &Producer, job: Uuid, accept: &str) -> anyhow::Result<Response> {
    let path = format!("/v1/jobs/{job}/result");
    let request = api
        .request(Method::GET, &path)
        .header(header::ACCEPT, accept);
    let client = reqwest::Client::builder()
        .no_proxy()
        .redirect(redirect::Policy::none())
        .build()?;
    Ok(client.execute(request.build()?).await?)
}

fn location(response: &Response) -> &str {
    assert_eq!(response.status(), StatusCode::SEE_OTHER);
    assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
    response.headers()[header::LOCATION].to_str().unwrap()
}

/// The bytes of the job's object.
async fn object(fleet: &Fleet, job: Uuid) -> anyhow::Result<(String, Vec<u8>)> {
    use futures::TryStreamExt as _;
    let url = format!("SELECT output_url AS value FROM video_jobs WHERE id = '{job}'");
    let url = value(&fleet.database.url, &url).await?.unwrap();
    let key = fleet.storage.key_of(&url).unwrap();
    let body = fleet.storage.get(&key, None).await?.body;
    let bytes: Vec<_> = body.try_collect().await?;
    Ok((key, bytes.concat()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_is_had_by_a_link_that_is_made_when_it_is_asked_for() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let environment = fleet.environment.clone().with("RESULT_LINK_LIFE", "90s");
        let api = Producer::start(fleet, &environment).await?;
        let job = fleet.submit_kind(Kind::Lipsync, 0).await?;
        let request = |job| api.request(Method::GET, &format!("/v1/jobs/{job}/result"));
        let problem = api.refused(request(job.job), 409, "no-result").await?;
        assert_eq!(problem.json["job_id"], job.job.to_string());
        assert_eq!(
            api.get(&format!("/v1/jobs/{}", job.job)).await?.json["result"],
            Value::Null
        );
        api.refused(request(Uuid::nil()), 404, "job-not-found")
            .await?;
        let workers = fleet.workers(1)?;
        fleet.wait_for(std::slice::from_ref(&job)).await?;
        for worker in workers {
            worker.stop().await?;
        }

        let (key, bytes) = object(fleet, job.job).await?;
        let shown = api.get(&format!("/v1/jobs/{}", job.job)).await?;
        assert_eq!(shown.json["result"], format!("/v1/jobs/{}/result", job.job));
        let answer = ask(&api, job.job, "*/*").await?;
        let link = location(&answer);
        assert!(link.contains("X-Amz-Expires=90&"), "{link}");
        assert_eq!(reqwest::get(link).await?.bytes().await?, bytes);
        let answer = ask(&api, job.job, "text/html, application/json;q=0.9").await?;
        assert_eq!(answer.status(), StatusCode::OK);
        let document: Value = answer.json().await?;
        let link = document["url"].as_str().unwrap();
        assert_eq!(reqwest::get(link).await?.bytes().await?, bytes);
        assert!(document["expires_at"].is_string(), "{document}");

        by_command(fleet, job.job, &bytes).await?;
        api.stop().await?;

        let public = environment.with("S3_PUBLIC_BASE_URL", "https://cdn.example/media");
        let api = Producer::start(fleet, &public).await?;
        let answer = ask(&api, job.job, "*/*").await?;
        assert_eq!(
            location(&answer),
            format!("https://cdn.example/media/{key}")
        );
        fleet.storage.delete(&key).await?;
        let gone = api.request(Method::GET, &format!("/v1/jobs/{}/result", job.job));
        api.refused(gone, 404, "result-gone").await?;
        api.stop().await
    })
    .await
}

async fn by_command(fleet: &Fleet, job: Uuid, bytes: &[u8]) -> anyhow::Result<()> {
    let environment = &fleet.environment;
    let id = job.to_string();
    let link = producer(environment, &["jobs", "result", &id]).await?;
    assert_eq!(link.code, Some(0), "{link:?}");
    assert_eq!(
        reqwest::get(link.stdout.trim()).await?.bytes().await?,
        bytes
    );
    let file = fleet.folder().join("result.mp4");
    let path = file.to_str().unwrap();
    let download = ["jobs", "result", &id, "--output", path, "--json"];
    let document = producer(environment, &download).await?.json(0);
    assert_eq!(document["bytes"], bytes.len());
    assert_eq!(std::fs::read(&file)?, bytes);
    producer(environment, &download)
        .await?
        .said(1, "the file is there already");
    let nobody = Uuid::nil().to_string();
    producer(environment, &["jobs", "result", &nobody])
        .await?
        .said(3, "there is no job");
    Ok(())
}
