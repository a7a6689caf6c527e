//! The tables of Sync.so, row by row, and its parsers on arbitrary input.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::json;

use super::super::tests::any_json;
use super::*;

fn http(status: u16, body: impl AsRef<[u8]>) -> Answer {
    Answer {
        status,
        retry_after: None,
        body: body.as_ref().to_vec(),
    }
}

fn error(status: u16, code: &str) -> Answer {
    http(
        status,
        json!({"statusCode": status, "errorCode": code, "message": "m", "error": "e"}).to_string(),
    )
}

/// The class of an answer as one word, for tables.
fn class(answer: &SubmitAnswer) -> String {
    serde_json::to_value(answer).unwrap()["class"]
        .as_str()
        .unwrap()
        .to_owned()
}

#[test]
fn create_answers() {
    let rows = [
        ("rejected", "INVALID_IDEMPOTENCY_KEY", vec![400]),
        (
            "rejected",
            "generation_unsupported_model",
            vec![400, 404, 413, 422],
        ),
        ("rejected", "", vec![400, 404, 413, 422]),
        ("misconfigured", "", vec![401]),
        ("out_of_credit", "", vec![402]),
        ("throttled", "rate_limit_exceeded", vec![429]),
        ("throttled", "concurrency_limit_reached", vec![429]),
        ("throttled", "", vec![429]),
        (
            "unknown",
            "",
            vec![
                202, 204, 301, 302, 307, 403, 405, 408, 409, 410, 500, 502, 503, 504, 520,
            ],
        ),
        ("unknown", "IDEMPOTENCY_OUTCOME_UNKNOWN", vec![503, 409]),
        // Their status is not known to us: the prefix decides on any.
        (
            "unknown",
            "IDEMPOTENCY_PAYLOAD_CONFLICT",
            vec![409, 400, 422, 429],
        ),
        ("unknown", "IDEMPOTENCY_IN_PROGRESS", vec![409, 503, 425]),
    ];
    for (expected, code, statuses) in rows {
        for status in statuses {
            assert_eq!(
                class(&create(&error(status, code))),
                expected,
                "{status} {code}"
            );
        }
    }
    for body in [
        "",
        "<html>",
        "{\"id\":\"65",
        "{}",
        "[]",
        "{\"id\":null}",
        "{\"id\":\"None\"}",
    ] {
        for status in [200, 201] {
            assert_eq!(
                class(&create(&http(status, body))),
                "unknown",
                "{status} {body}"
            );
        }
    }
}

#[test]
fn a_create_or_its_replay_is_accepted_by_its_id() {
    for status in [200, 201] {
        let accepted = SubmitAnswer::Accepted {
            task_id: "6533643b-aceb".to_owned(),
            project_id: None,
        };
        assert_eq!(
            create(&http(
                status,
                r#"{"id":"6533643b-aceb","status":"PENDING"}"#
            )),
            accepted
        );
    }
}

#[test]
fn limits_are_told_apart() {
    let limit = |answer: &Answer| match create(answer) {
        SubmitAnswer::Throttled {
            limit, retry_after, ..
        } => (limit, retry_after),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        limit(&error(429, "rate_limit_exceeded")),
        (Limit::Rate, None)
    );
    assert_eq!(
        limit(&error(429, "concurrency_limit_reached")),
        (Limit::Slots, None)
    );
    let seconds = Some(Duration::from_secs(2));
    assert_eq!(
        limit(&Answer {
            retry_after: seconds,
            ..http(429, "")
        }),
        (Limit::Rate, seconds)
    );
}

#[test]
fn an_uncertain_outcome_hints_at_the_generation() {
    let id = "6533643b-aceb-4c40-967e-d9ba9baac39e";
    for body in [
        json!({"errorCode": "IDEMPOTENCY_OUTCOME_UNKNOWN", "generationId": id}),
        json!({"error_code": "IDEMPOTENCY_OUTCOME_UNKNOWN", "details": {"attempts": [{"generationId": id}]}}),
        json!({"message": "no code at all", "details": {"generation_id": id}}),
    ] {
        match create(&http(503, body.to_string())) {
            SubmitAnswer::Unknown { hint, .. } => assert_eq!(hint.as_deref(), Some(id), "{body}"),
            other => panic!("{body} gave {other:?}"),
        }
    }
}

#[test]
fn the_reason_names_code_message_and_request() {
    let body = json!({"statusCode": 500, "errorCode": "internal", "message": ["one", "two"], "requestId": "r-1"});
    let unknown = SubmitAnswer::Unknown {
        reason: "HTTP 500 internal: one; two (request r-1)".to_owned(),
        hint: None,
    };
    assert_eq!(create(&http(500, body.to_string())), unknown);
    let html = SubmitAnswer::Unknown {
        reason: "HTTP 502 without a code: <h1>Bad Gateway</h1>".to_owned(),
        hint: None,
    };
    assert_eq!(create(&http(502, "<h1>Bad Gateway</h1>")), html);
}

#[test]
fn query_statuses() {
    let throttled = ErrorClass::Throttled { retry_after: None };
    let rows = [
        (ErrorClass::NotFound, vec![404]),
        (ErrorClass::Misconfigured, vec![401, 402, 403]),
        (throttled, vec![429]),
        (ErrorClass::Transient, vec![408, 500, 502, 503, 504]),
        (ErrorClass::Protocol, vec![301, 400, 409, 422]),
    ];
    for (expected, statuses) in rows {
        for status in statuses {
            assert_eq!(
                generation(&error(status, "x")).unwrap_err().class,
                expected,
                "{status}"
            );
            assert_eq!(
                generations(&error(status, "x")).unwrap_err().class,
                expected,
                "{status}"
            );
        }
    }
    for body in ["", "<html>", "{}", "7"] {
        assert_eq!(
            generation(&http(200, body)).unwrap_err().class,
            ErrorClass::Protocol,
            "{body}"
        );
        assert_eq!(
            generations(&http(200, body)).unwrap_err().class,
            ErrorClass::Protocol,
            "{body}"
        );
    }
}

fn state_of(item: Value) -> WorkState {
    let mut item = item;
    item["id"] = json!("g");
    callback(item.to_string().as_bytes()).unwrap().state
}

fn pending(word: Option<&str>) -> WorkState {
    WorkState::Pending {
        progress: None,
        unrecognised: word.map(str::to_owned),
    }
}

#[test]
fn status_table() {
    for status in ["PENDING", "PROCESSING"] {
        assert_eq!(
            state_of(json!({"status": status, "outputUrl": "https://c/x", "error": "e"})),
            pending(None)
        );
    }
    let done = WorkState::Succeeded {
        result_url: "https://c/x".to_owned(),
    };
    for name in [
        "outputUrl",
        "outputMediaUrl",
        "output_url",
        "output_media_url",
    ] {
        assert_eq!(
            state_of(json!({"status": "COMPLETED", name: "https://c/x"})),
            done,
            "{name}"
        );
    }
    assert_eq!(
        state_of(
            json!({"status": "COMPLETED", "outputUrl": null, "outputMediaUrl": "https://c/x"})
        ),
        done
    );
    for url in [json!(null), json!(""), json!(7)] {
        assert_eq!(
            state_of(json!({"status": "COMPLETED", "outputUrl": url})),
            pending(Some("COMPLETED without outputUrl"))
        );
    }
    for status in ["REJECTED", "CANCELED", "TIMED_OUT"] {
        let expected = WorkState::Failed {
            class: FailureClass::Permanent,
            code: status.to_owned(),
            detail: "e".to_owned(),
        };
        assert_eq!(state_of(json!({"status": status, "error": "e"})), expected);
    }
    assert_eq!(
        state_of(json!({"status": "DREAMING"})),
        pending(Some("DREAMING"))
    );
    assert_eq!(state_of(json!({})), pending(Some("no status")));
}

#[test]
fn failure_code_table() {
    use FailureClass as F;
    let rows = [
        (F::Permanent, "generation_unsupported_model"),
        (F::Permanent, "generation_media_metadata_missing"),
        (F::Permanent, "generation_audio_length_exceeded"),
        (F::Permanent, "generation_audio_missing"),
        (F::Permanent, "generation_video_missing"),
        (F::Input, "generation_input_video_inaccessible"),
        (F::Resubmit, "generation_timeout"),
        (F::Resubmit, "generation_pipeline_failed"),
        (F::Resubmit, "generation_database_error"),
        (F::Resubmit, "generation_unhandled_error"),
        (F::Support, "generation_internal_auth"),
        (F::Unrecognised, "generation_stolen_by_cats"),
    ];
    for (class, code) in rows {
        for name in ["errorCode", "error_code"] {
            let expected = WorkState::Failed {
                class,
                code: code.to_owned(),
                detail: "e".to_owned(),
            };
            assert_eq!(
                state_of(json!({"status": "FAILED", name: code, "error": "e"})),
                expected,
                "{name} {code}"
            );
        }
    }
    let absent = WorkState::Failed {
        class: F::Unrecognised,
        code: "FAILED".to_owned(),
        detail: String::new(),
    };
    assert_eq!(
        state_of(json!({"status": "FAILED", "errorCode": null})),
        absent
    );
}

#[test]
fn generations_are_read_whole() {
    let item = json!({"id": "6533643b", "createdAt": "2026-09-01T10:00:00.000Z", "status": "COMPLETED",
        "input": [{"type": "audio", "url": "https://m/a.wav"}, {"type": "video", "url": "https://m/v.mp4"}],
        "projectId": "2f0d0c52", "webhookUrl": "https://app/hooks/sync/9d1e7a", "outputFileName": "vj-0f8b",
        "outputUrl": "https://m/out.mp4"});
    let expected = Work {
        task_id: "6533643b".to_owned(),
        project_id: Some("2f0d0c52".to_owned()),
        source_url: Some("https://m/v.mp4".to_owned()),
        name: Some("vj-0f8b".to_owned()),
        callback_url: Some("https://app/hooks/sync/9d1e7a".to_owned()),
        created_at_ms: Some(1_788_256_800_000),
        state: WorkState::Succeeded {
            result_url: "https://m/out.mp4".to_owned(),
        },
        charged: None,
    };
    assert_eq!(generation(&http(200, item.to_string())).unwrap(), expected);
    let list = json!([null, {"status": "FAILED"}, item]);
    assert_eq!(
        generations(&http(200, list.to_string())).unwrap(),
        [expected]
    );
}

/// Everything that reads an answer, for the properties below.
fn read_all(answer: &Answer) -> SubmitAnswer {
    let _ = (
        generation(answer),
        generations(answer),
        callback(&answer.body),
    );
    create(answer)
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_never_accepted(status in any::<u16>(), body in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert_ne!(class(&read_all(&http(status, body))), "accepted");
    }

    #[test]
    fn arbitrary_json_is_read_and_accepted_only_with_an_id(status in 100u16..600, json in any_json()) {
        if let SubmitAnswer::Accepted { task_id, .. } = read_all(&http(status, json.to_string())) {
            prop_assert!(matches!(status, 200 | 201));
            prop_assert_eq!(Some(task_id), id(&json["id"]));
        }
    }

    #[test]
    fn a_generation_succeeds_only_when_completed(json in any_json()) {
        if let Some(Work { state: WorkState::Succeeded { .. }, .. }) = work(&json) {
            prop_assert_eq!(&json["status"], "COMPLETED");
        }
    }
}
