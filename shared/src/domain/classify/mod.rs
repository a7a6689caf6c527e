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

    proptest! {
        #[test]
        fn public_text_is_one_bounded_line(text in "(?s).{0,2000}") {
            let shown = public_text(&text);
            prop_assert!(shown.chars().count() <= TEXT_LIMIT + 1);
            prop_assert!(!shown.contains(char::is_control));
        }
    }
}
