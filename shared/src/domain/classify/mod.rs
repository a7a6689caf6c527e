//! What the vendors' answers mean, vendor by vendor: from status code and bytes to [`super::answer`].
//!
//! Total and pure: any bytes give an answer, none a panic. Nothing in here sends, waits or logs. What a vendor does not
//! say is *unknown*, never guessed: a submission counts as refused only where its documentation says so.

use std::time::Duration;

use serde_json::Value;

use super::answer::SubmitAnswer;

pub mod ghostcut;
pub mod sync;

/// Longest vendor text that is kept, in characters: enough for a message, too little for a page of HTML.
const TEXT_LIMIT: usize = 300;

/// Most values (objects, members, elements) an answer may hold. The largest answer there is, a page of 2000 works, has about
/// 60,000; in memory a value takes some seventy times what it takes to write a small one.
const MAX_VALUES: usize = 500_000;

/// Longest result URL that is believed, in bytes: it is stored. Signed ones have about 1,500.
const URL_LIMIT: usize = 8 * 1024;

/// Longest id that is believed, in bytes. Real ones are 9 digits (GhostCut) or a UUID (Sync.so).
const ID_LIMIT: usize = 128;

/// An HTTP answer that was read to its end.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status code.
    pub status: u16,
    /// `Retry-After`, where it was given in seconds.
    pub retry_after: Option<Duration>,
    /// The whole body.
    pub body: Vec<u8>,
}

/// Why there is no [`Answer`].
#[derive(Clone, Debug)]
pub enum NoAnswer {
    /// No connection stood (name lookup, TCP, TLS), so not a byte of the request was written.
    NotConnected {
        /// What failed, without URLs or secrets.
        reason: String,
    },
    /// The request was, or may have been, written and no whole answer came back.
    Lost {
        /// What failed, without URLs or secrets.
        reason: String,
    },
}

impl From<NoAnswer> for SubmitAnswer {
    fn from(no_answer: NoAnswer) -> Self {
        match no_answer {
            NoAnswer::NotConnected { reason } => Self::NotSent { reason },
            NoAnswer::Lost { reason } => Self::Unknown { reason, hint: None },
        }
    }
}

/// Why a free call (status, list, balance) has no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryError {
    /// What to do about it.
    pub class: ErrorClass,
    /// The vendor's code and message.
    pub reason: String,
}

/// What to do about a failed free call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorClass {
    /// Ask again later.
    Transient,
    /// Ask less often.
    Throttled {
        /// When the vendor said to come back.
        retry_after: Option<Duration>,
    },
    /// Our key, signature, plan or balance is at fault: the vendor is to be paused.
    Misconfigured,
    /// The vendor does not know what was asked for.
    NotFound,
    /// The vendor did not understand us, or we do not understand it: asking again will not help.
    Protocol,
}

/// The class of an answer that carries no code of the vendor, from its HTTP status alone.
fn class_of_status(answer: &Answer) -> ErrorClass {
    match answer.status {
        401..=403 => ErrorClass::Misconfigured,
        404 => ErrorClass::NotFound,
        429 => ErrorClass::Throttled {
            retry_after: answer.retry_after,
        },
        408 | 500..=599 => ErrorClass::Transient,
        _ => ErrorClass::Protocol,
    }
}

/// A vendor's text fit for logs and the database: one line, bounded, and no query strings of URLs, which hold signatures.
fn public_text(text: &str) -> String {
    let mut shown = String::new();
    let (mut in_url, mut in_query) = (false, false);
    for c in text.replace("\\/", "/").chars().take(TEXT_LIMIT * 10) {
        if shown.chars().count() >= TEXT_LIMIT {
            shown.push('…');
            break;
        }
        if c.is_whitespace() || c.is_control() {
            (in_url, in_query) = (false, false);
            if !shown.ends_with(' ') {
                shown.push(' ');
            }
        } else if matches!(c, '"' | '\'' | '<' | '>' | '`') {
            (in_url, in_query) = (false, false);
            shown.push(c);
        } else if in_url && matches!(c, '?' | '#') {
            in_query = true;
        } else if !in_query {
            shown.push(c);
            in_url |= shown.ends_with("://");
        }
    }
    shown.trim().to_owned()
}

/// A body as JSON, if it is that: at most [`MAX_VALUES`] values, none deeper than 128 levels (the parser's own limit). Of a
/// member that comes twice the last counts.
fn json(body: &[u8]) -> Option<Value> {
    // Before each value but the first stands one of these.
    let values = body
        .iter()
        .filter(|byte| matches!(byte, b',' | b'[' | b'{'));
    (values.count() < MAX_VALUES)
        .then(|| serde_json::from_slice(body).ok())
        .flatten()
}

/// The first of these members that holds a URL which can be stored.
fn url<'a>(item: &'a Value, names: &[&str]) -> Option<&'a str> {
    text(item, names).filter(|url| url.len() <= URL_LIMIT && !url.contains(char::is_control))
}

/// An id as text. Vendors show ids as text or number; the words in which software says "nothing" are not ids.
fn id(value: &Value) -> Option<String> {
    let text = match value {
        Value::String(text) => text.trim().to_owned(),
        Value::Number(number) => number.as_u64()?.to_string(),
        _ => return None,
    };
    let plausible = !text.is_empty()
        && text.len() <= ID_LIMIT
        && text.bytes().all(|byte| byte.is_ascii_graphic())
        && !matches!(text.as_str(), "0" | "None" | "null" | "undefined");
    plausible.then_some(text)
}

/// An integer, also where it comes as text or as `1.0`.
fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::String(text) => text.trim().parse().ok(),
        Value::Number(number) => number.as_i64().or_else(|| {
            let float = number.as_f64()?;
            // Within 2^53 a float that has no fraction is that integer.
            (float.fract() == 0.0 && float.abs() < 9e15).then_some(float as i64)
        }),
        _ => None,
    }
}

/// A finite number, also where it comes as text.
fn number(value: &Value) -> Option<f64> {
    let number = match value {
        Value::String(text) => text.trim().parse().ok(),
        _ => value.as_f64(),
    };
    number.filter(|number: &f64| number.is_finite())
}

/// The first of these members that holds a text with something in it.
fn text<'a>(item: &'a Value, names: &[&str]) -> Option<&'a str> {
    names
        .iter()
        .filter_map(|name| item.get(name)?.as_str())
        .map(str::trim)
        .find(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::answer::WorkState;
    use proptest::prelude::*;
    use serde_json::json;

    /// Any JSON value, with member names of the vendors so that the parsers get past their first look.
    pub(super) fn any_json() -> impl Strategy<Value = Value> {
        let name = prop::sample::select(vec![
            "code",
            "body",
            "content",
            "dataList",
            "id",
            "idProject",
            "processStatus",
            "videoUrl",
            "status",
            "errorCode",
            "outputUrl",
            "input",
            "type",
            "url",
            "generationId",
            "pointAssets",
            "pointBalance",
            "createdAt",
            "message",
            "processProgress",
            "processStatusEnum",
            "createTime",
            "other",
        ]);
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            prop::sample::select(vec![
                json!(1000),
                json!(1),
                json!("COMPLETED"),
                json!("FAILED"),
                json!("video"),
                json!("20")
            ]),
            ".{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 48, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((name.clone(), inner), 0..6).prop_map(|members| {
                    Value::Object(
                        members
                            .into_iter()
                            .map(|(k, v)| (k.to_owned(), v))
                            .collect(),
                    )
                }),
            ]
        })
    }

    #[test]
    fn no_connection_is_not_sent_and_everything_after_it_is_unknown() {
        let reason = || "connection reset".to_owned();
        assert_eq!(
            SubmitAnswer::from(NoAnswer::NotConnected { reason: reason() }),
            SubmitAnswer::NotSent { reason: reason() }
        );
        assert_eq!(
            SubmitAnswer::from(NoAnswer::Lost { reason: reason() }),
            SubmitAnswer::Unknown {
                reason: reason(),
                hint: None
            }
        );
    }

    #[test]
    fn text_for_logs_has_no_signatures_and_ends() {
        assert_eq!(
            public_text(
                "cannot read \"https://b.example.com/a.mp4?X-Amz-Signature=ab&x=1\", why?\n\t no"
            ),
            "cannot read \"https://b.example.com/a.mp4\", why? no"
        );
        assert_eq!(
            public_text(r#"{"u":"https:\/\/b.example.com\/a?sig=ab"}"#),
            r#"{"u":"https://b.example.com/a"}"#
        );
        assert_eq!(
            public_text(&"ü".repeat(5000)).chars().count(),
            TEXT_LIMIT + 1
        );
    }

    #[test]
    fn an_id_is_text_or_number_but_never_a_word_for_nothing() {
        assert_eq!(id(&json!(488_026_661)).as_deref(), Some("488026661"));
        assert_eq!(id(&json!(" 488026661 ")).as_deref(), Some("488026661"));
        for nothing in [
            json!(null),
            json!(""),
            json!("None"),
            json!("null"),
            json!(0),
            json!(-1),
            json!(1.5),
            json!([1]),
            json!("a b"),
        ] {
            assert_eq!(id(&nothing), None, "{nothing}");
        }
    }

    /// Answers that want to break the reader. None of them says that a work exists.
    fn hostile() -> Vec<Vec<u8>> {
        let long = "x".repeat(10_000);
        let mut bodies: Vec<Vec<u8>> = [
            "[".repeat(100_000),
            r#"{"body":"#.repeat(100_000),
            format!(r#"{{"id":"6533643b","code":1000,"body":{{"dataList":[{{"id":1}}]}},"x":{}{}}}"#,
                "[".repeat(200), "]".repeat(200)),
            format!("[{}0]", "0,".repeat(MAX_VALUES)),
            format!(r#"{{"id":"6533643b","code":1000,"body":{{"dataList":[{{"id":1}}]}},"x":[{}0]}}"#,
                "{},".repeat(MAX_VALUES / 2)),
            r#"{"id":1e999,"code":1e999}"#.to_owned(),
            r#"{"id":18446744073709551616,"code":1000,"body":{"dataList":[{"id":18446744073709551616}]}}"#.to_owned(),
            r#"{"id":"\u0000","code":1000,"body":{"dataList":[{"id":"\u0000"}]}}"#.to_owned(),
            r#"{"id":"\ud800","code":1000,"body":{"dataList":[{"id":"\ud800"}]}}"#.to_owned(),
            format!(r#"{{"id":"{long}","code":1000,"body":{{"dataList":[{{"id":"{long}"}}]}}}}"#),
            r#"{"id":["a"],"code":[1000],"body":[1],"status":{},"processStatus":[]}"#.to_owned(),
            r#"{"id":{"id":"a"},"code":1000,"body":{"dataList":{"0":{"id":1}}}}"#.to_owned(),
            // Of a member that comes twice the last counts.
            r#"{"id":"a","id":null,"code":1000,"code":9999,"body":{"dataList":[{"id":1}]}}"#.to_owned(),
            "\u{feff}{}".to_owned(),
            "{}\0".to_owned(),
            String::new(),
        ]
        .map(String::into_bytes)
        .into();
        bodies.push(b"{\"id\":\"\xff\",\"code\":1000}".to_vec());
        bodies
    }

    #[test]
    fn hostile_answers_are_unknown_and_hostile_callbacks_are_none() {
        for body in hostile() {
            let shown = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
            for status in [200, 201] {
                let answer = Answer {
                    status,
                    retry_after: None,
                    body: body.clone(),
                };
                for paid in [
                    sync::create(&answer),
                    ghostcut::submit(&answer),
                    ghostcut::redo("1", &answer),
                ] {
                    assert!(
                        matches!(paid, SubmitAnswer::Unknown { .. }),
                        "{shown}: {paid:?}"
                    );
                }
                let _ = (sync::generation(&answer), sync::generations(&answer));
                let _ = (ghostcut::works(&answer), ghostcut::balance(&answer));
            }
            let called = (sync::callback(&body), ghostcut::callback(&body));
            assert!(matches!(called, (None, None)), "{shown}: {called:?}");
        }
    }

    #[test]
    fn a_result_url_that_cannot_be_stored_is_none() {
        let long = format!("https://m/{}", "x".repeat(URL_LIMIT));
        for url in [
            long.as_str(),
            "https://m/\\u0000.mp4",
            "https://m/a\\nb.mp4",
        ] {
            let sync = format!(r#"{{"id":"a","status":"COMPLETED","outputUrl":"{url}"}}"#);
            let ghostcut = format!(r#"{{"id":1,"processStatus":1,"videoUrl":"{url}"}}"#);
            for work in [
                sync::callback(sync.as_bytes()),
                ghostcut::callback(ghostcut.as_bytes()),
            ] {
                let state = work.map(|work| work.state);
                assert!(
                    matches!(
                        state,
                        Some(WorkState::Pending {
                            unrecognised: Some(_),
                            ..
                        })
                    ),
                    "{state:?}"
                );
            }
        }
    }

    #[test]
    fn the_largest_page_there_is_can_be_read() {
        let work = r#"{"id":1,"idProject":2,"name":"n","url":"https://m/v.mp4","processStatus":0,"processStatusEnum":{"code":0,"description":"d"},"processProgress":5.0,"paidPoint":1.0,"duration":12.0,"videoUrl":"","videoUrlOut":"","srcSrtUrl":"","tgtSrtUrl":"","errorDetail":"","sourceLang":"","lang":"","createTime":1,"lastUpdateTime":1,"deleted":0}"#;
        let page = format!(
            r#"{{"code":1000,"body":{{"content":[{}]}}}}"#,
            vec![work; 2000].join(",")
        );
        let answer = Answer {
            status: 200,
            retry_after: None,
            body: page.into_bytes(),
        };
        assert_eq!(ghostcut::works(&answer).unwrap().len(), 2000);
    }

    proptest! {
        #[test]
        fn public_text_is_one_bounded_line(text in "(?s).{0,2000}") {
            let shown = public_text(&text);
            prop_assert!(shown.chars().count() <= TEXT_LIMIT + 1);
            prop_assert!(!shown.contains(char::is_control));
        }
    }
}
