//! Each fault of the GhostCut simulator.

use std::time::{Duration, Instant};

use sandbox::Vendor::Ghostcut;
use sandbox::{Fault, FaultRule, IdForm, Operation, Phase, Sandbox, Status, When};
use serde_json::{Value, json};

use crate::support::{
    LIMIT, OK, Receiver, erase, ghostcut, ghostcut_raw, items, md5_sign, rule_once, settle, start,
};

async fn submit(sandbox: &Sandbox, marker: &str) -> Value {
    ghostcut(sandbox, "work/free", &erase(sandbox, marker)).await
}

/// Status, and body as far as it came.
async fn submit_raw(sandbox: &Sandbox) -> Result<(u16, reqwest::Result<String>), reqwest::Error> {
    let answer = ghostcut_raw(sandbox, "work/free", &erase(sandbox, "x")).await?;
    Ok((answer.status().as_u16(), answer.text().await))
}

#[tokio::test]
async fn a_lost_answer_is_paid_and_a_lost_request_is_not() {
    let sandbox = start(|_| {}).await;
    rule_once(&sandbox, Ghostcut, Operation::Submit, Fault::LoseRequest);
    let error = submit_raw(&sandbox).await.unwrap_err();
    assert!(
        !error.is_connect() && !error.is_timeout(),
        "the connection stood and was closed: {error:?}"
    );
    assert_eq!(sandbox.truth().paid(Ghostcut), 0);
    rule_once(&sandbox, Ghostcut, Operation::Submit, Fault::LoseAnswer);
    let error = submit_raw(&sandbox).await.unwrap_err();
    assert!(!error.is_connect() && !error.is_timeout());
    assert_eq!(sandbox.truth().paid(Ghostcut), 1);
    assert_eq!(sandbox.faults().fired().len(), 2);
}

#[tokio::test]
async fn answers_can_be_errors_before_or_after_acceptance() {
    let sandbox = start(|_| {}).await;
    let cases = [(When::Before, 0), (When::After, 1)];
    for (when, paid) in cases {
        sandbox.reset();
        let status = Fault::Status {
            status: 502,
            error_code: None,
            body: None,
            when,
        };
        rule_once(&sandbox, Ghostcut, Operation::Submit, status);
        let (status, body) = submit_raw(&sandbox).await.unwrap();
        assert_eq!((status, body.unwrap().starts_with('<')), (502, true));
        assert_eq!(sandbox.truth().paid(Ghostcut), paid);
        for code in [9999, 3006, 2003] {
            rule_once(
                &sandbox,
                Ghostcut,
                Operation::Submit,
                Fault::Code { code, when },
            );
            assert_eq!(submit(&sandbox, "x").await["code"], code);
        }
        assert_eq!(sandbox.truth().paid(Ghostcut), 4 * paid);
    }
}

#[tokio::test]
async fn answers_can_be_unreadable_after_acceptance() {
    let sandbox = start(|_| {}).await;
    rule_once(&sandbox, Ghostcut, Operation::Submit, Fault::Garbage);
    let (status, body) = submit_raw(&sandbox).await.unwrap();
    assert_eq!(status, 200);
    assert!(serde_json::from_str::<Value>(&body.unwrap()).is_err());
    rule_once(
        &sandbox,
        Ghostcut,
        Operation::Submit,
        Fault::Truncate { bytes: 10 },
    );
    let mut answer = ghostcut_raw(&sandbox, "work/free", &erase(&sandbox, "x"))
        .await
        .unwrap();
    assert!(answer.content_length().unwrap() > 10);
    assert_eq!(answer.chunk().await.unwrap().unwrap().len(), 10);
    assert!(answer.chunk().await.is_err(), "then the connection breaks");
    assert_eq!(sandbox.truth().paid(Ghostcut), 2);
}

#[tokio::test]
async fn a_delayed_submit_is_accepted_though_the_client_gave_up() {
    let sandbox = start(|_| {}).await;
    for (when, number) in [(When::Before, 1), (When::After, 2)] {
        let delay = Fault::Delay { ms: 400, when };
        rule_once(&sandbox, Ghostcut, Operation::Submit, delay);
        let body = erase(&sandbox, "x");
        let arrived =
            |truth: &sandbox::Truth| truth.request_count(Ghostcut, Operation::Submit) == number;
        tokio::select! {
            answer = ghostcut_raw(&sandbox, "work/free", &body) => panic!("{answer:?}"),
            arrived = sandbox.truth().wait_until(LIMIT, arrived) => assert!(arrived),
        }
    }
    assert!(
        sandbox
            .truth()
            .wait_until(LIMIT, |truth| truth.paid(Ghostcut) == 2)
            .await
    );
    rule_once(
        &sandbox,
        Ghostcut,
        Operation::Submit,
        Fault::Delay {
            ms: 150,
            when: When::After,
        },
    );
    let start = Instant::now();
    submit(&sandbox, "x").await;
    assert!(start.elapsed() >= Duration::from_millis(150));
}

#[tokio::test]
async fn answers_can_lack_ids_or_change_their_form() {
    let sandbox = start(|_| {}).await;
    let omit = |key: &str| Fault::Omit {
        keys: vec![key.into()],
    };
    rule_once(&sandbox, Ghostcut, Operation::Submit, omit("idProject"));
    let answer = submit(&sandbox, "a").await;
    assert!(
        answer["body"].get("idProject").is_none() && answer["body"]["dataList"][0]["id"].is_u64()
    );
    rule_once(&sandbox, Ghostcut, Operation::Submit, omit("dataList"));
    assert!(
        submit(&sandbox, "b").await["body"]
            .get("dataList")
            .is_none()
    );
    rule_once(
        &sandbox,
        Ghostcut,
        Operation::Submit,
        Fault::Ids { form: IdForm::Text },
    );
    assert!(submit(&sandbox, "c").await["body"]["dataList"][0]["id"].is_string());
    sandbox.change_settings(|settings| settings.ghostcut.text_ids = true);
    rule_once(
        &sandbox,
        Ghostcut,
        Operation::Submit,
        Fault::Ids {
            form: IdForm::Number,
        },
    );
    assert!(submit(&sandbox, "d").await["body"]["dataList"][0]["id"].is_u64());
    assert!(submit(&sandbox, "e").await["body"]["dataList"][0]["id"].is_string());
    assert_eq!(sandbox.truth().paid(Ghostcut), 5);
}

#[tokio::test]
async fn the_list_can_lag_lack_names_and_be_absent() {
    let sandbox = start(|_| {}).await;
    submit(&sandbox, "a").await;
    rule_once(
        &sandbox,
        Ghostcut,
        Operation::List,
        Fault::HideYoung { ms: 60_000 },
    );
    assert!(items(&ghostcut(&sandbox, "work/list", &json!({})).await).is_empty());
    rule_once(
        &sandbox,
        Ghostcut,
        Operation::List,
        Fault::Omit {
            keys: vec!["name".into()],
        },
    );
    assert!(
        items(&ghostcut(&sandbox, "work/list", &json!({})).await)[0]
            .get("name")
            .is_none()
    );
    let absent = Fault::Status {
        status: 404,
        error_code: None,
        body: None,
        when: When::Before,
    };
    rule_once(&sandbox, Ghostcut, Operation::List, absent);
    assert_eq!(
        ghostcut_raw(&sandbox, "work/list", &json!({}))
            .await
            .unwrap()
            .status(),
        404
    );
    rule_once(
        &sandbox,
        Ghostcut,
        Operation::List,
        Fault::Code {
            code: 9999,
            when: When::Before,
        },
    );
    assert_eq!(
        ghostcut(&sandbox, "work/list", &json!({})).await["code"],
        9999
    );
    assert_eq!(
        items(&ghostcut(&sandbox, "work/list", &json!({})).await)[0]["name"],
        "a"
    );
}

#[tokio::test]
async fn items_can_be_reversed_missing_or_changed() {
    let sandbox = start(|_| {}).await;
    for marker in ["a", "b", "c"] {
        submit(&sandbox, marker).await;
    }
    let names = async || {
        let answer = ghostcut(&sandbox, "work/status", &json!({})).await;
        items(&answer)
            .iter()
            .map(|item| item["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    rule_once(&sandbox, Ghostcut, Operation::Status, Fault::ReverseItems);
    assert_eq!(names().await, ["a", "b", "c"]);
    rule_once(
        &sandbox,
        Ghostcut,
        Operation::Status,
        Fault::DropItems {
            contains: r#""name":"b""#.into(),
        },
    );
    assert_eq!(names().await, ["c", "a"]);
    let null = Fault::Replace {
        key: "processProgress".into(),
        value: Value::Null,
    };
    rule_once(&sandbox, Ghostcut, Operation::Status, null);
    let answer = ghostcut(&sandbox, "work/status", &json!({})).await;
    assert!(items(&answer)[0]["processProgress"].is_null());
    rule_once(
        &sandbox,
        Ghostcut,
        Operation::Status,
        Fault::Rename {
            from: "errorDetail".into(),
            to: "error_detail".into(),
        },
    );
    let answer = ghostcut(&sandbox, "work/status", &json!({})).await;
    assert!(
        items(&answer)[0].get("errorDetail").is_none() && items(&answer)[0]["error_detail"] == ""
    );
}

#[tokio::test]
async fn statuses_follow_a_script_and_a_redo_starts_afresh() {
    let sandbox = start(|_| {}).await;
    let script = Fault::Statuses {
        codes: vec![-3, -2, -1, 0, 83],
        step_ms: Some(5),
        progress: Some(100.0),
    };
    sandbox
        .faults()
        .add(
            FaultRule::new(Ghostcut, Operation::Process, script)
                .containing("locked")
                .times(1),
        )
        .unwrap();
    let id = submit(&sandbox, "locked").await["body"]["dataList"][0]["id"].clone();
    submit(&sandbox, "other").await;
    settle(&sandbox, Ghostcut).await;
    let history = sandbox.truth().works(Ghostcut).remove(0).history;
    let codes: Vec<_> = history.into_iter().map(|change| change.status).collect();
    assert_eq!(codes, [-1, -3, -2, -1, 0, 83].map(Status::Code));
    let ask = json!({"idWorks": [id]});
    let item = items(&ghostcut(&sandbox, "work/status", &ask).await).remove(0);
    assert_eq!(
        (&item["processStatus"], &item["processProgress"]),
        (&json!(83), &json!(100.0))
    );
    assert_eq!(
        (&item["videoUrl"], &item["paidPoint"]),
        (&json!(""), &json!(0.0))
    );
    assert_eq!(sandbox.truth().works(Ghostcut)[1].status, Status::Code(1));

    assert_eq!(
        ghostcut(&sandbox, "work/video/redo", &json!({"id": id})).await["body"],
        true
    );
    settle(&sandbox, Ghostcut).await;
    let item = items(&ghostcut(&sandbox, "work/status", &ask).await).remove(0);
    assert_eq!(item["processStatus"], 1);
    assert!(item["videoUrl"].as_str().unwrap().starts_with("http"));
    assert_eq!(sandbox.truth().paid(Ghostcut), 2);
}

#[tokio::test]
async fn a_script_without_an_end_stays_pending_and_one_with_null_progress_fails() {
    let sandbox = start(|_| {}).await;
    let script = |codes: &[i32]| Fault::Statuses {
        codes: codes.to_vec(),
        step_ms: Some(1),
        progress: None,
    };
    rule_once(&sandbox, Ghostcut, Operation::Process, script(&[0, 20]));
    submit(&sandbox, "fails").await;
    settle(&sandbox, Ghostcut).await;
    let item = items(&ghostcut(&sandbox, "work/status", &json!({})).await).remove(0);
    assert_eq!(
        (&item["processStatus"], &item["processProgress"]),
        (&json!(20), &Value::Null)
    );
    rule_once(&sandbox, Ghostcut, Operation::Process, script(&[-2]));
    submit(&sandbox, "stuck").await;
    let stuck = |truth: &sandbox::Truth| {
        let work = truth.works(Ghostcut).remove(1);
        work.status == Status::Code(-2) && work.progress.is_none()
    };
    assert!(sandbox.truth().wait_until(LIMIT, stuck).await);
    assert_eq!(
        sandbox.truth().works(Ghostcut)[1].status.phase(),
        Phase::Pending
    );
    assert_eq!(sandbox.truth().pending(Ghostcut), 1);
}

async fn submit_with_callback(sandbox: &Sandbox, receiver: &Receiver) {
    let mut body = erase(sandbox, "x");
    body["callback"] = receiver.url.clone().into();
    assert_eq!(ghostcut(sandbox, "work/free", &body).await["code"], 1000);
}

#[tokio::test]
async fn callbacks_can_come_twice_late_badly_signed_or_first() {
    let sandbox = start(|_| {}).await;
    let receiver = Receiver::start(&[OK]).await;
    rule_once(
        &sandbox,
        Ghostcut,
        Operation::Callback,
        Fault::Repeat { times: 2 },
    );
    submit_with_callback(&sandbox, &receiver).await;
    let calls = receiver.wait(3).await;
    assert!(calls.iter().all(|call| call.body == calls[0].body));

    rule_once(
        &sandbox,
        Ghostcut,
        Operation::Callback,
        Fault::Delay {
            ms: 200,
            when: When::Before,
        },
    );
    submit_with_callback(&sandbox, &receiver).await;
    receiver.wait(4).await;
    let work = sandbox.truth().works(Ghostcut).remove(1);
    let sent_after = |work: &sandbox::Work| work.callbacks[0].at - work.finished_at.unwrap();
    let recorded = |truth: &sandbox::Truth| !truth.works(Ghostcut)[1].callbacks.is_empty();
    assert!(sandbox.truth().wait_until(LIMIT, recorded).await);
    assert!(sent_after(&sandbox.truth().work(Ghostcut, &work.id).unwrap()) >= 200);

    rule_once(&sandbox, Ghostcut, Operation::Callback, Fault::BadSignature);
    submit_with_callback(&sandbox, &receiver).await;
    let call = receiver.wait(5).await.remove(4);
    let good = md5_sign(call.body.as_bytes(), &sandbox.credentials().ghostcut_secret);
    assert_ne!(call.header("callback-sign"), Some(good.as_str()));

    rule_once(
        &sandbox,
        Ghostcut,
        Operation::Submit,
        Fault::CallbackFirst { timeout_ms: 10_000 },
    );
    submit_with_callback(&sandbox, &receiver).await;
    assert_eq!(
        receiver.received().len(),
        6,
        "the callback was there before the answer"
    );
}

#[tokio::test]
async fn callbacks_can_be_lost() {
    let sandbox = start(|settings| settings.ghostcut.callback_retry_ms = 1).await;
    let receiver = Receiver::start(&[OK]).await;
    rule_once(&sandbox, Ghostcut, Operation::Callback, Fault::LoseRequest);
    submit_with_callback(&sandbox, &receiver).await;
    settle(&sandbox, Ghostcut).await;
    // The next work's callback proves that the first one had its turn.
    submit_with_callback(&sandbox, &receiver).await;
    receiver.wait(1).await;
    assert!(sandbox.truth().works(Ghostcut)[0].callbacks.is_empty());
    assert_eq!(receiver.received().len(), 1);
}
