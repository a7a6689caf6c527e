//! The tables of GhostCut, row by row, and its parsers on arbitrary input.

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

fn code(code: i64) -> Answer {
    http(
        200,
        json!({"code": code, "msg": "m", "trace": "t", "body": null}).to_string(),
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
fn submit_codes() {
    let rows = [
        ("misconfigured", vec![2001, 2003, 2004]),
        ("rejected", vec![2002, 3007, 3008, 4001, 4002, 4003, 4004]),
        ("throttled", vec![3006]),
        (
            "unknown",
            vec![
                3001,
                3002,
                3003,
                9999,
                0,
                -1,
                1,
                200,
                999,
                1001,
                2005,
                4000,
                4005,
                i64::MAX,
            ],
        ),
    ];
    for (expected, codes) in rows {
        for number in codes {
            assert_eq!(class(&submit(&code(number))), expected, "code {number}");
            // The code decides, whatever the HTTP status is.
            let other = Answer {
                status: 500,
                ..code(number)
            };
            assert_eq!(submit(&other), submit(&code(number)), "code {number}");
        }
    }
    assert_eq!(
        submit(&http(
            200,
            r#"{"code":3006,"msg":"Data process Limit","trace":"8f2c"}"#
        )),
        SubmitAnswer::Throttled {
            limit: Limit::Unspecified,
            retry_after: None,
            reason: "code 3006: Data process Limit (trace 8f2c)".to_owned(),
        }
    );
}

#[test]
fn submit_without_a_code() {
    for body in [
        "",
        "<html>Bad Gateway</html>",
        "{\"code\":10",
        "[1000]",
        "null",
        "{\"code\":null}",
        "{\"status\":404}",
    ] {
        for status in [400, 401, 403, 404, 405, 413, 415] {
            assert_eq!(
                class(&submit(&http(status, body))),
                "rejected",
                "{status} {body}"
            );
        }
        for status in [
            200, 201, 204, 301, 302, 307, 402, 408, 409, 422, 429, 500, 502, 503, 504, 520,
        ] {
            assert_eq!(
                class(&submit(&http(status, body))),
                "unknown",
                "{status} {body}"
            );
        }
    }
}

#[test]
fn an_accepted_submit_has_a_work_id() {
    let accepted = |task: &str, project: Option<&str>| SubmitAnswer::Accepted {
        task_id: task.to_owned(),
        project_id: project.map(str::to_owned),
    };
    let rows = [
        (
            json!({"idProject": 230_953_994, "dataList": [{"url": "u", "id": 488_026_661}]}),
            accepted("488026661", Some("230953994")),
        ),
        (
            json!({"idProject": "230953994", "dataList": [{"id": "488026661"}]}),
            accepted("488026661", Some("230953994")),
        ),
        (
            json!({"dataList": [{"id": "488026661"}]}),
            accepted("488026661", None),
        ),
    ];
    for (body, expected) in rows {
        let answer = http(
            200,
            json!({"code": 1000, "msg": "success", "body": body}).to_string(),
        );
        assert_eq!(submit(&answer), expected);
    }
    let without_id = [
        (json!(null), None),
        (json!({}), None),
        (json!([]), None),
        (json!({"dataList": []}), None),
        (json!({"dataList": [{"id": null}]}), None),
        (
            json!({"idProject": "None", "dataList": [{"id": "None"}]}),
            None,
        ),
        (json!({"idProject": 230_953_994}), Some("230953994")),
        (
            json!({"idProject": 230_953_994, "dataList": []}),
            Some("230953994"),
        ),
    ];
    for (body, expected) in without_id {
        let answer = http(200, json!({"code": 1000, "body": body}).to_string());
        match submit(&answer) {
            SubmitAnswer::Unknown { hint, .. } => assert_eq!(hint.as_deref(), expected, "{body}"),
            other => panic!("{body} gave {other:?}"),
        }
    }
}

#[test]
fn redo_answers() {
    let redo = |body: &str| class(&super::redo("7", &http(200, body)));
    assert_eq!(redo(r#"{"code":1000,"body":true}"#), "accepted");
    assert_eq!(redo(r#"{"code":1000,"body":false}"#), "rejected");
    assert_eq!(redo(r#"{"code":1000,"body":null}"#), "unknown");
    assert_eq!(redo(r#"{"code":1000}"#), "unknown");
    assert_eq!(redo(r#"{"code":9999}"#), "unknown");
    assert_eq!(redo(r#"{"code":2004}"#), "misconfigured");
    assert_eq!(redo(r#"{"code":3006}"#), "throttled");
}

#[test]
fn query_codes() {
    let class = |answer: &Answer| works(answer).unwrap_err().class;
    let throttled = |seconds: Option<u64>| ErrorClass::Throttled {
        retry_after: seconds.map(Duration::from_secs),
    };
    let rows = [
        (ErrorClass::Misconfigured, vec![2001, 2003, 2004]),
        (
            ErrorClass::Protocol,
            vec![2002, 3007, 3008, 4001, 4002, 4003, 4004],
        ),
        (ErrorClass::NotFound, vec![3003]),
        (throttled(None), vec![3006]),
        (ErrorClass::Transient, vec![3001, 3002, 9999, 1, -5]),
    ];
    for (expected, codes) in rows {
        for number in codes {
            assert_eq!(class(&code(number)), expected, "code {number}");
        }
    }
    let statuses = [
        (ErrorClass::Misconfigured, vec![401, 402, 403]),
        (ErrorClass::NotFound, vec![404]),
        (throttled(None), vec![429]),
        (ErrorClass::Transient, vec![408, 500, 502, 503, 504]),
        (ErrorClass::Protocol, vec![200, 301, 400, 405]),
    ];
    for (expected, statuses) in statuses {
        for status in statuses {
            assert_eq!(class(&http(status, "<html>")), expected, "HTTP {status}");
        }
    }
    let later = Answer {
        retry_after: Some(Duration::from_secs(2)),
        ..http(429, "")
    };
    assert_eq!(class(&later), throttled(Some(2)));
    assert_eq!(
        class(&http(200, r#"{"code":1000,"body":{}}"#)),
        ErrorClass::Protocol
    );
}

fn state_of(item: Value) -> WorkState {
    let mut item = item;
    item["id"] = json!(1);
    callback(item.to_string().as_bytes()).unwrap().state
}

#[test]
fn process_status_table() {
    use FailureClass as F;
    for status in [-3, -2, -1, 0] {
        // Progress of 100 and a URL do not finish a pending work.
        let state = state_of(
            json!({"processStatus": status, "processProgress": 100.0, "videoUrl": "https://c/x"}),
        );
        assert_eq!(
            state,
            WorkState::Pending {
                progress: Some(100.0),
                unrecognised: None
            },
            "{status}"
        );
    }
    let failures = [
        (F::Input, vec![2, 3, 14]),
        (
            F::Permanent,
            vec![5, 99, 100, 16, 26, 24, 27, 28, 29, 30, 31, 32],
        ),
        (F::Redo, vec![18, 23, 111, 43]),
        (F::Support, vec![6, 7, 13, 20, 21, 22]),
        (F::Unpaid, vec![73]),
        (F::Locked, vec![83]),
        (F::Operator, vec![98]),
        (
            F::Unrecognised,
            vec![
                4,
                8,
                15,
                17,
                19,
                25,
                33,
                44,
                74,
                97,
                101,
                112,
                999,
                1001,
                i64::MAX,
            ],
        ),
    ];
    let mut seen = std::collections::HashSet::new();
    for (class, statuses) in failures {
        for status in statuses {
            assert!(seen.insert(status));
            for progress in [json!(100.0), json!(40), json!(null)] {
                let item = json!({"processStatus": status, "processProgress": progress, "videoUrl": "https://c/x", "errorDetail": "why"});
                let expected = WorkState::Failed {
                    class,
                    code: status.to_string(),
                    detail: "why".to_owned(),
                };
                assert_eq!(state_of(item), expected, "{status}");
            }
        }
    }
    for status in [json!(1), json!("1"), json!(1.0), json!(1000)] {
        let done = WorkState::Succeeded {
            result_url: "https://c/x".to_owned(),
        };
        assert_eq!(
            state_of(json!({"processStatus": status, "videoUrl": "https://c/x"})),
            done
        );
        for url in [json!(null), json!(""), json!(7)] {
            let state =
                state_of(json!({"processStatus": status, "videoUrl": url, "processProgress": 100}));
            assert!(
                matches!(
                    state,
                    WorkState::Pending {
                        unrecognised: Some(_),
                        ..
                    }
                ),
                "{status} {url}"
            );
        }
    }
}

#[test]
fn odd_statuses_keep_pending_and_say_so() {
    for (item, word) in [
        (json!({"processStatus": -4}), "-4"),
        (json!({}), "no processStatus"),
        (json!({"processStatus": "?"}), "no processStatus"),
    ] {
        let expected = WorkState::Pending {
            progress: None,
            unrecognised: Some(word.to_owned()),
        };
        assert_eq!(state_of(item), expected);
    }
    let from_enum = state_of(json!({"processStatusEnum": {"code": 20, "description": "擦除失败"}}));
    let expected = WorkState::Failed {
        class: FailureClass::Support,
        code: "20".to_owned(),
        detail: "擦除失败".to_owned(),
    };
    assert_eq!(from_enum, expected);
}

#[test]
fn the_detail_has_three_names() {
    let detail = |item| match state_of(item) {
        WorkState::Failed { detail, .. } => detail,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        detail(
            json!({"processStatus": 26, "errorDetail": "a", "error_detail": "b", "errorMsg": "c"})
        ),
        "a"
    );
    assert_eq!(
        detail(
            json!({"processStatus": 26, "errorDetail": " ", "error_detail": "b", "errorMsg": "c"})
        ),
        "b"
    );
    assert_eq!(
        detail(json!({"processStatus": 26, "errorDetail": null, "errorMsg": "c"})),
        "c"
    );
    assert_eq!(
        detail(json!({"processStatus": 3, "errorDetail": "GET https://b/a.mp4?X-Sig=1 403"})),
        "GET https://b/a.mp4 403"
    );
    assert_eq!(detail(json!({"processStatus": 26})), "");
}

#[test]
fn status_items_are_read_whole() {
    let answer = http(
        200,
        r#"{"code":1000,"msg":"success","body":{"content":[
        {"id":488026661,"idProject":230953994,"name":"vj-0f8b","url":"https://media.example.com/a.mp4","processStatus":1,
         "processStatusEnum":{"code":1,"description":"成功"},"processProgress":100.0,"paidPoint":1.5,"duration":12.0,
         "videoUrl":"https://cdn.example.com/result.mp4","errorDetail":"","createTime":1760000123456},
        {"processStatus":1,"videoUrl":"https://cdn.example.com/nobody.mp4"}, null, 7,
        {"id":"488026662","processStatus":0,"processProgress":37.5,"videoUrl":"","errorDetail":""}]}}"#,
    );
    let expected = [
        Work {
            task_id: "488026661".to_owned(),
            project_id: Some("230953994".to_owned()),
            source_url: Some("https://media.example.com/a.mp4".to_owned()),
            name: Some("vj-0f8b".to_owned()),
            callback_url: None,
            created_at_ms: Some(1_760_000_123_456),
            state: WorkState::Succeeded {
                result_url: "https://cdn.example.com/result.mp4".to_owned(),
            },
            charged: Some(1.5),
        },
        Work {
            task_id: "488026662".to_owned(),
            project_id: None,
            source_url: None,
            name: None,
            callback_url: None,
            created_at_ms: None,
            state: WorkState::Pending {
                progress: Some(37.5),
                unrecognised: None,
            },
            charged: None,
        },
    ];
    assert_eq!(works(&answer).unwrap(), expected);
}

#[test]
fn balance_is_the_sum_of_the_assets() {
    let of = |assets: Value| {
        balance(&http(
            200,
            json!({"code": 1000, "body": {"pointAssets": assets}}).to_string(),
        ))
    };
    assert_eq!(
        of(json!([{"pointBalance": 651.5}, {"pointBalance": "8"}])).unwrap(),
        659.5
    );
    assert_eq!(of(json!([])).unwrap(), 0.0);
    assert_eq!(
        of(json!([{"pointBalance": null}])).unwrap_err().class,
        ErrorClass::Protocol
    );
    assert_eq!(of(json!(null)).unwrap_err().class, ErrorClass::Protocol);
    assert_eq!(
        balance(&code(2003)).unwrap_err().class,
        ErrorClass::Misconfigured
    );
}

/// Everything that reads an answer, for the properties below.
fn read_all(answer: &Answer) -> SubmitAnswer {
    let _ = (
        redo("7", answer),
        works(answer),
        balance(answer),
        callback(&answer.body),
    );
    submit(answer)
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_never_accepted(status in any::<u16>(), body in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert_ne!(class(&read_all(&http(status, body))), "accepted");
    }

    #[test]
    fn arbitrary_json_is_read_and_accepted_only_with_1000_and_an_id(status in 100u16..600, json in any_json()) {
        let answer = read_all(&http(status, json.to_string()));
        if let SubmitAnswer::Accepted { task_id, .. } = answer {
            prop_assert_eq!(integer(&json["code"]), Some(1000));
            prop_assert_eq!(Some(task_id), id(&json["body"]["dataList"][0]["id"]));
        }
    }

    #[test]
    fn a_work_succeeds_only_by_its_status_and_with_a_url(json in any_json()) {
        let done = matches!(work(&json), Some(Work { state: WorkState::Succeeded { .. }, .. }));
        prop_assert!(!done || text(&json, &["videoUrl"]).is_some());
        let status = integer(&json["processStatus"]).or_else(|| integer(&json["processStatusEnum"]["code"]));
        prop_assert!(!done || matches!(status, Some(1 | 1000)));
    }
}
