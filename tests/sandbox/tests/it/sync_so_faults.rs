//! Each fault of the Sync.so simulator.

use std::time::Duration;

use sandbox::Vendor::Sync;
use sandbox::{Fault, FaultRule, Operation, Sandbox, Status, When};
use serde_json::{Value, json};

use crate::support::{
    LIMIT, OK, Receiver, create, generate, rule, rule_once, settle, start, sync, sync_get,
};

#[tokio::test]
async fn a_lost_answer_is_healed_by_the_key() {
    let sandbox = start(|_| {}).await;
    let body = generate(&sandbox, "x");
    for (fault, paid) in [(Fault::LoseRequest, 0), (Fault::LoseAnswer, 1)] {
        rule_once(&sandbox, Sync, Operation::Submit, fault);
        let request = sync(&sandbox, "POST", "/v2/generate")
            .header("Idempotency-Key", "k")
            .body(body.to_string());
        let error = request.send().await.unwrap_err();
        assert!(!error.is_connect() && !error.is_timeout());
        assert_eq!(sandbox.truth().paid(Sync), paid);
    }
    let (status, answer) = create(&sandbox, Some("k"), &body).await;
    assert_eq!(
        (status, answer["id"].as_str()),
        (201, Some(sandbox.truth().works(Sync)[0].id.as_str()))
    );
    assert_eq!(sandbox.truth().paid(Sync), 1);
}

#[tokio::test]
async fn the_outcome_can_be_unknown_with_and_without_an_id() {
    let sandbox = start(|_| {}).await;
    let body = generate(&sandbox, "x");
    let cases = [
        (false, When::Before, 0),
        (false, When::After, 1),
        (true, When::After, 2),
    ];
    for (number, (generation_id, when, paid)) in cases.into_iter().enumerate() {
        rule_once(
            &sandbox,
            Sync,
            Operation::Submit,
            Fault::OutcomeUnknown {
                generation_id,
                when,
            },
        );
        let (status, answer) = create(&sandbox, Some(&format!("k{number}")), &body).await;
        assert_eq!(
            (status, &answer["errorCode"]),
            (503, &json!("IDEMPOTENCY_OUTCOME_UNKNOWN"))
        );
        assert_eq!(sandbox.truth().paid(Sync), paid);
        match generation_id {
            true => assert_eq!(
                answer["generationId"],
                sandbox.truth().works(Sync)[1].id.as_str()
            ),
            false => assert!(answer.get("generationId").is_none()),
        }
    }
}

#[tokio::test]
async fn a_copy_in_progress_and_a_conflict_answer_as_configured() {
    let sandbox = start(|settings| {
        settings.sync.in_progress_status = 503;
        settings.sync.in_progress_code = "IDEMPOTENCY_BUSY".into();
        settings.sync.conflict_status = 422;
        settings.sync.conflict_code = "IDEMPOTENCY_PAYLOAD_MISMATCH".into();
    })
    .await;
    rule_once(
        &sandbox,
        Sync,
        Operation::Submit,
        Fault::Delay {
            ms: 1500,
            when: When::During,
        },
    );
    let body = generate(&sandbox, "x");
    let first = create(&sandbox, Some("k"), &body);
    let second = async {
        let begun = |truth: &sandbox::Truth| truth.request_count(Sync, Operation::Submit) == 1;
        assert!(sandbox.truth().wait_until(LIMIT, begun).await);
        create(&sandbox, Some("k"), &body).await
    };
    let ((status, original), (busy, answer)) = tokio::join!(first, second);
    assert_eq!(status, 201);
    assert_eq!(
        (busy, &answer["errorCode"]),
        (503, &json!("IDEMPOTENCY_BUSY"))
    );
    assert_eq!(
        create(&sandbox, Some("k"), &body).await.1["id"],
        original["id"]
    );
    let (status, answer) = create(&sandbox, Some("k"), &generate(&sandbox, "y")).await;
    assert_eq!(
        (status, &answer["errorCode"]),
        (422, &json!("IDEMPOTENCY_PAYLOAD_MISMATCH"))
    );
    assert_eq!(sandbox.truth().paid(Sync), 1);
}

#[tokio::test]
async fn an_expired_key_pays_again() {
    let sandbox = start(|settings| settings.sync.key_ttl_ms = Some(0)).await;
    let body = generate(&sandbox, "x");
    let first = create(&sandbox, Some("k"), &body).await.1;
    let second = create(&sandbox, Some("k"), &body).await.1;
    assert_ne!(first["id"], second["id"]);
    assert_eq!(sandbox.truth().paid(Sync), 2);
}

#[tokio::test]
async fn statuses_and_error_codes_are_free_to_choose() {
    let sandbox = start(|_| {}).await;
    let body = generate(&sandbox, "x");
    let cases = [
        (402, "payment_required"),
        (429, "rate_limit_exceeded"),
        (429, "concurrency_limit_reached"),
        (500, "x"),
    ];
    for (status, code) in cases {
        let fault = Fault::Status {
            status,
            error_code: Some(code.into()),
            body: None,
            when: When::Before,
        };
        rule_once(&sandbox, Sync, Operation::Submit, fault);
        let (answered, answer) = create(&sandbox, Some("k"), &body).await;
        assert_eq!((answered, &answer["errorCode"]), (status, &json!(code)));
        assert_eq!(answer["requestId"].is_string(), status == 500);
    }
    assert_eq!(sandbox.truth().paid(Sync), 0);
    let fault = Fault::Status {
        status: 502,
        error_code: None,
        body: Some("<html>".into()),
        when: When::After,
    };
    rule_once(&sandbox, Sync, Operation::Submit, fault);
    let request = sync(&sandbox, "POST", "/v2/generate")
        .header("Idempotency-Key", "k")
        .body(body.to_string());
    assert_eq!(request.send().await.unwrap().status(), 502);
    assert_eq!(sandbox.truth().paid(Sync), 1);
}

async fn run(sandbox: &Sandbox, webhook: Option<&str>) -> String {
    let mut body = generate(sandbox, "x");
    body["webhookUrl"] = webhook.map_or(Value::Null, Value::from);
    let id = create(sandbox, None, &body).await.1["id"]
        .as_str()
        .unwrap()
        .to_owned();
    settle(sandbox, Sync).await;
    id
}

#[tokio::test]
async fn fields_can_have_their_other_names() {
    let sandbox = start(|_| {}).await;
    let renamed = |from: &str, to: &str| Fault::Rename {
        from: from.into(),
        to: to.into(),
    };
    rule(
        &sandbox,
        Sync,
        Operation::Status,
        renamed("outputUrl", "outputMediaUrl"),
    );
    rule(
        &sandbox,
        Sync,
        Operation::Status,
        renamed("errorCode", "error_code"),
    );
    let id = run(&sandbox, None).await;
    let done = sync_get(&sandbox, &format!("/v2/generate/{id}")).await;
    assert!(done["outputMediaUrl"].is_string() && done.get("outputUrl").is_none());
    assert!(done.get("error_code").is_some() && done.get("errorCode").is_none());
    let omit = Fault::Omit {
        keys: vec!["outputMediaUrl".into()],
    };
    rule(&sandbox, Sync, Operation::Status, omit);
    let done = sync_get(&sandbox, &format!("/v2/generate/{id}")).await;
    assert_eq!(
        (&done["status"], done.get("outputMediaUrl")),
        (&json!("COMPLETED"), None)
    );
}

#[tokio::test]
async fn generations_can_end_badly_and_rejection_sends_no_webhook() {
    let sandbox = start(|_| {}).await;
    let receiver = Receiver::start(&[OK]).await;
    let outcome = |status: &str, code: Option<&str>| Fault::Outcome {
        status: status.into(),
        error_code: code.map(str::to_owned),
    };
    rule_once(
        &sandbox,
        Sync,
        Operation::Process,
        outcome("REJECTED", None),
    );
    let id = run(&sandbox, Some(&receiver.url)).await;
    assert_eq!(
        sync_get(&sandbox, &format!("/v2/generate/{id}")).await["status"],
        "REJECTED"
    );
    rule_once(
        &sandbox,
        Sync,
        Operation::Process,
        outcome("FAILED", Some("generation_pipeline_failed")),
    );
    run(&sandbox, Some(&receiver.url)).await;
    let call = receiver.wait(1).await.remove(0);
    let body: Value = serde_json::from_str(&call.body).unwrap();
    assert_eq!(
        (&body["status"], &body["errorCode"]),
        (&json!("FAILED"), &json!("generation_pipeline_failed"))
    );
    assert!(sandbox.truth().works(Sync)[0].callbacks.is_empty());
    assert_eq!(
        sandbox.truth().works(Sync)[0].status,
        Status::Text("REJECTED".into())
    );
}

#[tokio::test]
async fn webhooks_can_be_lost_repeated_out_of_order_or_first() {
    let sandbox = start(|_| {}).await;
    let receiver = Receiver::start(&[OK]).await;
    let id_of = |call: &crate::support::Received| {
        serde_json::from_str::<Value>(&call.body).unwrap()["id"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    rule_once(&sandbox, Sync, Operation::Callback, Fault::LoseRequest);
    run(&sandbox, Some(&receiver.url)).await;
    rule_once(
        &sandbox,
        Sync,
        Operation::Callback,
        Fault::Repeat { times: 1 },
    );
    let repeated = run(&sandbox, Some(&receiver.url)).await;
    let calls = receiver.wait(2).await;
    assert!(calls.iter().all(|call| id_of(call) == repeated));

    rule_once(
        &sandbox,
        Sync,
        Operation::Callback,
        Fault::Delay {
            ms: 1500,
            when: When::Before,
        },
    );
    let late = run(&sandbox, Some(&receiver.url)).await;
    let early = run(&sandbox, Some(&receiver.url)).await;
    let calls = receiver.wait(4).await;
    assert_eq!([id_of(&calls[2]), id_of(&calls[3])], [early, late]);

    rule_once(
        &sandbox,
        Sync,
        Operation::Submit,
        Fault::CallbackFirst { timeout_ms: 10_000 },
    );
    let mut body = generate(&sandbox, "x");
    body["webhookUrl"] = receiver.url.clone().into();
    let (_, answer) = create(&sandbox, None, &body).await;
    assert_eq!(answer["status"], "PENDING");
    let calls = receiver.received();
    assert_eq!(
        (calls.len(), id_of(&calls[4])),
        (5, answer["id"].as_str().unwrap().to_owned())
    );
}

#[tokio::test]
async fn lists_can_lag_and_lack_items() {
    let sandbox = start(|_| {}).await;
    let id = run(&sandbox, None).await;
    rule_once(
        &sandbox,
        Sync,
        Operation::List,
        Fault::HideYoung { ms: 60_000 },
    );
    assert_eq!(sync_get(&sandbox, "/v2/generations").await, json!([]));
    rule_once(
        &sandbox,
        Sync,
        Operation::List,
        Fault::DropItems { contains: id },
    );
    assert_eq!(sync_get(&sandbox, "/v2/generations").await, json!([]));
    assert_eq!(
        sync_get(&sandbox, "/v2/generations")
            .await
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test]
async fn durations_can_be_set_for_one_work() {
    let sandbox = start(|_| {}).await;
    let slow = FaultRule::new(Sync, Operation::Process, Fault::Duration { ms: 600_000 })
        .containing("slow");
    sandbox.faults().add(slow).unwrap();
    create(&sandbox, None, &generate(&sandbox, "slow-1")).await;
    create(&sandbox, None, &generate(&sandbox, "quick-1")).await;
    let one_left = |truth: &sandbox::Truth| truth.pending(Sync) == 1;
    assert!(sandbox.truth().wait_until(LIMIT, one_left).await);
    assert_eq!(
        sandbox.truth().works(Sync)[0].status,
        Status::Text("PENDING".into())
    );
    assert!(
        !sandbox
            .truth()
            .wait_until(Duration::from_millis(50), |truth| truth.pending(Sync) == 0)
            .await
    );
}
