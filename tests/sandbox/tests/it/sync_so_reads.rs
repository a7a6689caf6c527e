//! Sync.so's endpoints that start no work, as documented.

use sandbox::Vendor::Sync;
use serde_json::{Value, json};

use crate::support::{create, generate, settle, start, sync, sync_get};

#[tokio::test]
async fn lists_filter_page_and_check_their_parameters() {
    let sandbox = start(|_| {}).await;
    let project = "2f0d0c52-6f0f-4a1e-9d0a-0f8b00000001";
    let mut ids = Vec::new();
    for number in 0..5 {
        let mut body = generate(&sandbox, &format!("job-{number}"));
        if number == 3 {
            body["projectId"] = project.into();
        }
        ids.push(
            create(&sandbox, None, &body).await.1["id"]
                .as_str()
                .unwrap()
                .to_owned(),
        );
    }
    settle(&sandbox, Sync).await;
    let listed = async |query: &str| {
        let answer = sync_get(&sandbox, &format!("/v2/generations{query}")).await;
        let items = answer
            .as_array()
            .unwrap_or_else(|| panic!("{answer}"))
            .clone();
        items
            .iter()
            .map(|item| item["id"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(listed("?limit=2").await, [ids[4].clone(), ids[3].clone()]);
    assert_eq!(
        listed(&format!("?limit=2&cursor={}", ids[3])).await,
        [ids[2].clone(), ids[1].clone()]
    );
    assert_eq!(listed("").await.len(), 5);
    assert_eq!(
        listed(&format!("?ids={},{}&limit=100", ids[1], ids[0])).await,
        [ids[1].clone(), ids[0].clone()]
    );
    assert_eq!(
        listed(&format!("?projectId={project}")).await,
        [ids[3].clone()]
    );
    assert!(listed("?status=PENDING,PROCESSING").await.is_empty());
    assert_eq!(listed("?status=COMPLETED,FAILED").await.len(), 5);
    assert_eq!(
        sync_get(&sandbox, "/v2/generations/count?status=COMPLETED").await["count"],
        5
    );
    for bad in [
        "?limit=0",
        "?limit=101",
        "?limit=x",
        &format!("?cursor={}", ids[0]),
        "?limit=1&cursor=7",
    ] {
        let answer = sync(&sandbox, "GET", &format!("/v2/generations{bad}"))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 400, "{bad}");
    }
}

#[tokio::test]
async fn get_can_wait_for_the_end() {
    let sandbox = start(|settings| settings.sync.process_ms = (1500, 1500)).await;
    let id = create(&sandbox, None, &generate(&sandbox, "x")).await.1["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let path = format!("/v2/generate/{id}");
    let answer = sync(&sandbox, "GET", &format!("{path}?wait=true&timeout=10"))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.headers()["retry-after"], "2");
    assert_eq!(answer.headers()["x-sync-wait-timeout-seconds"], "10");
    assert_eq!(answer.json::<Value>().await.unwrap()["status"], "COMPLETED");
    for bad in [
        "?wait=true&timeout=11",
        "?wait=true&timeout=0",
        "?wait=true&include=progress",
    ] {
        assert_eq!(
            sync(&sandbox, "GET", &format!("{path}{bad}"))
                .send()
                .await
                .unwrap()
                .status(),
            400,
            "{bad}"
        );
    }
    let unknown = sync(
        &sandbox,
        "GET",
        "/v2/generate/00000000-0000-4000-8000-000000000000",
    );
    assert_eq!(unknown.send().await.unwrap().status(), 404);
}

#[tokio::test]
async fn only_final_generations_can_be_deleted_and_stay_paid() {
    let sandbox = start(|settings| settings.sync.process_ms = (1500, 1500)).await;
    let id = create(&sandbox, None, &generate(&sandbox, "x")).await.1["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let path = format!("/v2/generations/{id}");
    assert_eq!(
        sync(&sandbox, "DELETE", &path)
            .send()
            .await
            .unwrap()
            .status(),
        409
    );
    settle(&sandbox, Sync).await;
    assert_eq!(
        sync(&sandbox, "DELETE", &path)
            .send()
            .await
            .unwrap()
            .status(),
        204
    );
    assert_eq!(
        sync(&sandbox, "GET", &path).send().await.unwrap().status(),
        404
    );
    assert_eq!(sandbox.truth().paid(Sync), 1);
}

#[tokio::test]
async fn projects_repeat_and_estimates_follow_the_price_list() {
    let sandbox = start(|_| {}).await;
    let project = json!({"name": "job", "id": "2f0d0c52-6f0f-4a1e-9d0a-0f8b00000001"});
    let post = async |path: &str, body: &Value| {
        let answer = sync(&sandbox, "POST", path)
            .body(body.to_string())
            .send()
            .await
            .unwrap();
        (
            answer.status().as_u16(),
            answer.json::<Value>().await.unwrap(),
        )
    };
    let (first, made) = post("/v2/projects", &project).await;
    let (again, same) = post("/v2/projects", &project).await;
    assert_eq!((first, again), (201, 200));
    assert_eq!(made, same);
    let wanted = json!({"model": "lipsync-2-pro", "duration": 12.0, "fps": 25});
    for path in ["/v2/generations/estimate", "/v2/generate/estimate-cost"] {
        let (status, answer) = post(path, &wanted).await;
        assert_eq!(status, 200);
        assert_eq!(
            answer,
            json!({"estimatedFrameCount": 300, "estimatedGenerationCost": 0.96, "estimatedCredits": null})
        );
    }
    let (status, answer) = post(
        "/v2/generations/estimate",
        &json!({"model": "react-1", "duration": 1}),
    )
    .await;
    assert_eq!(
        (status, &answer["errorCode"]),
        (422, &json!("cost_estimate_unavailable"))
    );
    assert_eq!(
        post(
            "/v2/generations/estimate",
            &json!({"model": "lipsync-2", "duration": 0})
        )
        .await
        .0,
        400
    );
}
