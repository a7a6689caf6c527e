//! GhostCut as documented.

use sandbox::Vendor::Ghostcut;
use sandbox::media::Provenance;
use sandbox::{Operation, Status};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::{
    EMPTY, LIMIT, OK, Receiver, erase, ghostcut, items, md5_sign, sample_url, settle, start,
};

#[tokio::test]
async fn a_work_goes_from_waiting_to_a_result_made_from_its_input() {
    let sandbox = start(|settings| settings.ghostcut.process_ms = (1500, 1500)).await;
    let answer = ghostcut(&sandbox, "work/free", &erase(&sandbox, "job-1")).await;
    assert_eq!(answer["code"], 1000, "{answer}");
    let id = answer["body"]["dataList"][0]["id"].as_u64().unwrap();
    assert!(answer["body"]["idProject"].is_u64());

    let ask = json!({"idWorks": [id.to_string()], "page": 0, "pageSize": 100});
    let item = items(&ghostcut(&sandbox, "work/status", &ask).await).remove(0);
    assert!(item["processStatus"].as_i64().unwrap() < 1);
    assert_eq!(item["videoUrl"], "");

    settle(&sandbox, Ghostcut).await;
    let item = items(&ghostcut(&sandbox, "work/status", &json!({"idWorks": [id]})).await).remove(0);
    assert_eq!(item["processStatus"], 1);
    assert_eq!(item["processStatusEnum"]["description"], "成功");
    assert_eq!(
        (&item["processProgress"], &item["paidPoint"]),
        (&json!(100.0), &json!(1.0))
    );
    assert_eq!(
        (&item["name"], &item["idProject"]),
        (&json!("job-1"), &answer["body"]["idProject"])
    );

    let result = reqwest::get(item["videoUrl"].as_str().unwrap())
        .await
        .unwrap()
        .bytes()
        .await
        .unwrap();
    let input = sandbox::media::sample("talk.mp4").unwrap().bytes;
    assert!(result.starts_with(input));
    let notes = Provenance::find_all(&result);
    assert_eq!(notes.len(), 1);
    assert_eq!(
        (notes[0].vendor, notes[0].work.as_str()),
        (Ghostcut, id.to_string().as_str())
    );
    assert_eq!(notes[0].input_sha256, hex::encode(Sha256::digest(input)));
}

#[tokio::test]
async fn money_counts_each_url_and_each_repeat() {
    let sandbox = start(|_| {}).await;
    let (one, two) = (
        sample_url(&sandbox, "talk.mp4"),
        sample_url(&sandbox, "bars.mp4"),
    );
    let body = json!({"urls": [one, two], "names": ["a", "b"], "needChineseOcclude": 1, "videoInpaintLang": "all"});
    let answer = ghostcut(&sandbox, "work/free", &body).await;
    assert_eq!(answer["body"]["dataList"].as_array().unwrap().len(), 2);
    assert_eq!(sandbox.truth().paid(Ghostcut), 2);
    assert!(sandbox.truth().duplicates(Ghostcut).is_empty());

    ghostcut(&sandbox, "work/free", &body).await;
    assert_eq!(sandbox.truth().paid(Ghostcut), 4, "there is no idempotency");
    let duplicates = sandbox.truth().duplicates(Ghostcut);
    assert_eq!(
        duplicates
            .iter()
            .filter(|duplicate| duplicate.by == "marker")
            .count(),
        2
    );
    assert_eq!(
        duplicates
            .iter()
            .filter(|duplicate| duplicate.by == "url")
            .count(),
        2
    );
    assert_eq!(
        sandbox.truth().request_count(Ghostcut, Operation::Submit),
        2
    );
}

#[tokio::test]
async fn signature_and_method_are_checked() {
    let sandbox = start(|_| {}).await;
    let url = format!(
        "{}/v-w-c/gateway/ve/work/free",
        sandbox.endpoints().ghostcut
    );
    let (keys, client) = (sandbox.credentials(), reqwest::Client::new());
    let body = erase(&sandbox, "x").to_string();
    let code = async |request: reqwest::RequestBuilder| {
        let answer: Value = request.send().await.unwrap().json().await.unwrap();
        answer["code"].as_i64().unwrap()
    };
    let good = md5_sign(body.as_bytes(), &keys.ghostcut_secret);
    let post = || client.post(&url).body(body.clone());
    assert_eq!(code(post()).await, 2001);
    assert_eq!(
        code(post().header("AppKey", &keys.ghostcut_key)).await,
        2001
    );
    assert_eq!(
        code(post().header("AppKey", "other").header("AppSign", &good)).await,
        2003
    );
    let signed = |sign: &str| {
        post()
            .header("AppKey", &keys.ghostcut_key)
            .header("AppSign", sign)
    };
    assert_eq!(
        code(signed(&md5_sign(body.as_bytes(), "other"))).await,
        2004
    );
    assert_eq!(
        code(signed(&good).body(body.replace(':', ": "))).await,
        2004,
        "signed bytes are the sent bytes"
    );
    assert_eq!(code(client.get(&url)).await, 2002);
    assert_eq!(sandbox.truth().paid(Ghostcut), 0);
    assert_eq!(code(signed(&good)).await, 1000);
    assert_eq!(sandbox.truth().paid(Ghostcut), 1);
}

#[tokio::test]
async fn bad_submits_are_refused_and_cost_nothing() {
    let sandbox = start(|_| {}).await;
    let mask = json!([{"type": "remove", "start": 0, "end": 2.5, "region": [[0.1, 0.8], [0.9, 0.8], [0.9, 0.9], [0.1, 0.9]]}]);
    let changed = |key: &str, value: Value| {
        let mut body = erase(&sandbox, "x");
        body[key] = value;
        body
    };
    let mut bare = erase(&sandbox, "x");
    bare.as_object_mut().unwrap().retain(|key, _| key == "urls");
    let cases = [
        (changed("urls", json!([])), 3008),
        (changed("urls", Value::Null), 3008),
        (changed("urls", json!(["ftp://a/b"])), 4001),
        (changed("urls", json!(["https://a/视频.mp4"])), 4001),
        (
            changed("urls", Value::Array(vec!["https://a/b".into(); 21])),
            4001,
        ),
        (changed("names", json!(["a", "b"])), 4001),
        (changed("resolution", json!("4k")), 4001),
        (changed("needChineseOcclude", json!(2)), 4001),
        (changed("needChineseOcclude", json!(3)), 4001),
        (changed("videoInpaintMasks", mask.clone()), 4001),
        (
            changed("videoInpaintMasks", json!("[{\"type\":\"remove\"}]")),
            4001,
        ),
        (changed("extraOptions", json!("{")), 4001),
        (bare, 4002),
    ];
    for (body, code) in cases {
        let answer = ghostcut(&sandbox, "work/free", &body).await;
        assert_eq!(answer["code"], code, "{body} -> {answer}");
    }
    assert_eq!(sandbox.truth().paid(Ghostcut), 0);

    let mut good = changed("needChineseOcclude", json!(2));
    good["videoInpaintMasks"] = mask.to_string().into();
    assert_eq!(ghostcut(&sandbox, "work/free", &good).await["code"], 1000);
}

#[tokio::test]
async fn list_pages_newest_first_within_a_half_open_window() {
    let sandbox = start(|_| {}).await;
    for number in 0..5 {
        ghostcut(
            &sandbox,
            "work/free",
            &erase(&sandbox, &format!("job-{number}")),
        )
        .await;
        // Acceptance times are milliseconds; the window below needs them to differ.
        let last = sandbox.truth().works(Ghostcut).last().unwrap().accepted_at;
        while chrono::Utc::now().timestamp_millis() <= last {
            tokio::task::yield_now().await;
        }
    }
    let names = async |body: Value| {
        let answer = ghostcut(&sandbox, "work/list", &body).await;
        items(&answer)
            .iter()
            .map(|item| item["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        names(json!({"page": 0, "pageSize": 2})).await,
        ["job-4", "job-3"]
    );
    assert_eq!(names(json!({"page": 2, "pageSize": 2})).await, ["job-0"]);
    assert!(names(json!({"page": 3, "pageSize": 2})).await.is_empty());
    let works = sandbox.truth().works(Ghostcut);
    let window = json!({
        "createTimeGreaterThanOrEqualTo": works[1].accepted_at, "createTimeLessThan": works[3].accepted_at,
    });
    assert_eq!(names(window.clone()).await, ["job-2", "job-1"]);
    let answer = ghostcut(&sandbox, "work/status", &window).await;
    assert_eq!(items(&answer).len(), 2, "status without ids is a list");
    let answer = ghostcut(&sandbox, "work/list", &json!({"pageSize": 2001})).await;
    assert_eq!(answer["code"], 4001);
}

#[tokio::test]
async fn status_prefers_work_ids_and_leaves_unknown_ones_out() {
    let sandbox = start(|_| {}).await;
    for marker in ["a", "b"] {
        ghostcut(&sandbox, "work/free", &erase(&sandbox, marker)).await;
    }
    let works = sandbox.truth().works(Ghostcut);
    let names = async |body: Value| {
        let answer = ghostcut(&sandbox, "work/status", &body).await;
        items(&answer)
            .iter()
            .map(|item| item["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let both = json!({"idWorks": [works[0].id], "idProjects": [works[1].batch_id]});
    assert_eq!(names(both).await, ["a"]);
    assert_eq!(
        names(json!({"idProjects": [works[1].batch_id]})).await,
        ["b"]
    );
    assert_eq!(names(json!({"idWorks": [works[1].id, 7]})).await, ["b"]);
    assert_eq!(names(json!({"idProjects": [7]})).await, [""; 0]);
}

#[tokio::test]
async fn an_input_that_cannot_be_fetched_ends_with_status_3() {
    let sandbox = start(|_| {}).await;
    let mut body = erase(&sandbox, "x");
    body["urls"] = json!([sample_url(&sandbox, "missing.mp4")]);
    ghostcut(&sandbox, "work/free", &body).await;
    settle(&sandbox, Ghostcut).await;
    let item = items(&ghostcut(&sandbox, "work/status", &json!({})).await).remove(0);
    assert_eq!(
        (&item["processStatus"], &item["processProgress"]),
        (&json!(3), &json!(100.0))
    );
    assert_eq!(
        (&item["videoUrl"], &item["errorDetail"]),
        (&json!(""), &json!("download failed"))
    );
    assert_eq!(sandbox.truth().paid(Ghostcut), 1);
}

#[tokio::test]
async fn callback_is_signed_and_repeated_until_200_with_a_body() {
    let sandbox = start(|settings| settings.ghostcut.callback_retry_ms = 20).await;
    const GONE: &str = "HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";
    const FAILED: &str = "HTTP/1.1 500 No\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno";
    let receiver = Receiver::start(&[EMPTY, GONE, FAILED, OK]).await;
    let mut body = erase(&sandbox, "x");
    body["callback"] = receiver.url.clone().into();
    ghostcut(&sandbox, "work/free", &body).await;
    let calls = receiver.wait(4).await;
    let call = &calls[3];
    let sign = md5_sign(call.body.as_bytes(), &sandbox.credentials().ghostcut_secret);
    assert_eq!(call.header("callback-sign"), Some(sign.as_str()));
    let item: Value = serde_json::from_str(&call.body).unwrap();
    assert_eq!(
        (&item["processStatus"], &item["name"]),
        (&json!(1), &json!("x"))
    );
    let delivered = |truth: &sandbox::Truth| truth.works(Ghostcut)[0].callbacks.len() == 4;
    assert!(sandbox.truth().wait_until(LIMIT, delivered).await);
    let attempts = sandbox.truth().works(Ghostcut).remove(0).callbacks;
    assert_eq!(
        attempts
            .iter()
            .map(|attempt| attempt.delivered)
            .collect::<Vec<_>>(),
        [false, false, false, true]
    );
}

#[tokio::test]
async fn points_run_out_and_redo_works_after_a_top_up() {
    let sandbox = start(|settings| settings.ghostcut.points = 1.0).await;
    ghostcut(&sandbox, "work/free", &erase(&sandbox, "a")).await;
    settle(&sandbox, Ghostcut).await;
    let balance = ghostcut(
        &sandbox,
        "point/query",
        &json!({"notZero": true, "isValid": true}),
    )
    .await;
    assert_eq!(
        (&balance["count"], &balance["body"]["pointAssets"]),
        (&json!(0), &json!([]))
    );
    ghostcut(&sandbox, "work/free", &erase(&sandbox, "b")).await;
    settle(&sandbox, Ghostcut).await;
    let work = sandbox.truth().works(Ghostcut).remove(1);
    assert_eq!(work.status, Status::Code(73));

    sandbox.change_settings(|settings| settings.ghostcut.points = 2.5);
    let balance = ghostcut(
        &sandbox,
        "point/query",
        &json!({"notZero": true, "isValid": true}),
    )
    .await;
    assert_eq!(balance["body"]["pointAssets"][0]["pointBalance"], 2.5);
    let id: u64 = work.id.parse().unwrap();
    assert_eq!(
        ghostcut(&sandbox, "work/video/redo", &json!({"id": id})).await["body"],
        true
    );
    settle(&sandbox, Ghostcut).await;
    let work = sandbox.truth().works(Ghostcut).remove(1);
    assert_eq!((work.status, work.runs), (Status::Code(1), 2));
    assert_eq!(sandbox.truth().paid(Ghostcut), 2, "a redo is the same work");
    assert_eq!(
        ghostcut(&sandbox, "work/video/redo", &json!({"id": id})).await["body"],
        false
    );
    assert_eq!(
        ghostcut(&sandbox, "work/video/redo", &json!({"id": 7})).await["code"],
        3003
    );
}

#[tokio::test]
async fn the_status_catalogue_needs_no_signature() {
    let sandbox = start(|_| {}).await;
    let url = format!("{}/v-w-c/enum/query2", sandbox.endpoints().ghostcut);
    let request = reqwest::Client::new()
        .post(url)
        .body(r#"{"text":"ProcessStatus"}"#);
    let answer: Value = request.send().await.unwrap().json().await.unwrap();
    let known = answer["body"].as_array().unwrap();
    assert!(known.iter().any(
        |item| item["code"] == 83 && item["descriptionEn"].as_str().unwrap().contains("locked")
    ));
}
