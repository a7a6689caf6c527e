//! Reading JSON from outside so that every fault is found, each with its place.
//!
//! serde stops at the first fault; somebody who fills in a job wants to see all of them. Must not know what the
//! fields mean, and never repeats a value in a message: values may be signed URLs.

use std::borrow::Cow;
use std::cell::RefCell;

use serde::Serialize;
use serde_json::{Map, Value};

use super::words::vocabulary;

/// A report longer than this helps nobody; a hostile document could have a fault in every byte.
const MAX_FAULTS: usize = 100;

vocabulary! {
    /// What is wrong with a field, for programs.
    FieldCode {
        /// Required and not there.
        Missing = "missing",
        /// Another JSON type than the one expected.
        WrongType = "wrong_type",
        /// A field nobody reads, perhaps a misspelt one.
        UnknownField = "unknown_field",
        /// The right type, but not of the form expected.
        Malformed = "malformed",
        /// A number, length or count beyond its limits.
        OutOfRange = "out_of_range",
        /// Two times in the wrong order, or two segments that overlap.
        Order = "order",
        /// One of two fields that only make sense together.
        Incomplete = "incomplete",
        /// A reference to, or from, nothing.
        Unmatched = "unmatched",
        /// Nothing to do.
        Empty = "empty",
    }
}

/// One fault of a document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// Where: a JSON pointer (RFC 6901); for a stored row it begins with the name of the column.
    pub path: String,
    /// What is wrong, for programs.
    pub code: FieldCode,
    /// What is wrong, for people. Never holds the value.
    pub message: String,
}

impl std::fmt::Display for FieldError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

/// Who wrote the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// A client of our API: fields nobody reads are refused.
    Request,
    /// A row, maybe written by the replaced application or by hand: fields nobody reads are ignored and its old
    /// spellings understood. What would be paid for is checked all the same.
    Stored,
}

/// The faults found so far in one document.
#[derive(Default)]
pub(super) struct Faults(RefCell<Vec<FieldError>>);

impl Faults {
    /// What was read, if there was nothing wrong with it.
    pub(super) fn unless_any<T>(self, read: Option<T>) -> Result<T, Vec<FieldError>> {
        let faults = self.0.into_inner();
        match read {
            Some(read) if faults.is_empty() => Ok(read),
            _ => Err(faults),
        }
    }
}

/// A place in a document, with or without a value. What cannot be read is reported and comes back as `None`.
#[derive(Clone)]
pub(super) struct Node<'a> {
    path: String,
    value: Option<&'a Value>,
    faults: &'a Faults,
}

impl<'a> Node<'a> {
    pub(super) fn new(
        path: impl Into<String>,
        value: Option<&'a Value>,
        faults: &'a Faults,
    ) -> Self {
        Self {
            path: path.into(),
            value,
            faults,
        }
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    pub(super) fn value(&self) -> Option<&'a Value> {
        self.value
    }

    pub(super) fn fault(&self, code: FieldCode, message: impl Into<String>) {
        let mut faults = self.faults.0.borrow_mut();
        if faults.len() < MAX_FAULTS {
            faults.push(FieldError {
                path: self.path.clone(),
                code,
                message: message.into(),
            });
        }
    }

    /// The place of a key, whether or not something is there.
    pub(super) fn get(&self, key: &str) -> Self {
        let escaped = key.replace('~', "~0").replace('/', "~1");
        let value = self.value.and_then(|value| value.get(key));
        Self::new(format!("{}/{escaped}", self.path), value, self.faults)
    }

    /// Whether the key is not there at all; JSON null counts as there.
    pub(super) fn is_absent(&self) -> bool {
        self.value.is_none()
    }

    /// Whether there is nothing to read: no key, or JSON null.
    pub(super) fn is_null(&self) -> bool {
        self.value.is_none_or(Value::is_null)
    }

    /// Whether nothing was asked for: no key, null or an empty list.
    pub(super) fn is_nothing(&self) -> bool {
        self.is_null()
            || self
                .value
                .and_then(Value::as_array)
                .is_some_and(Vec::is_empty)
    }

    fn expect<T>(&self, what: &str, convert: impl FnOnce(&'a Value) -> Option<T>) -> Option<T> {
        let Some(value) = self.value else {
            self.fault(FieldCode::Missing, "is required");
            return None;
        };
        let converted = convert(value);
        if converted.is_none() {
            self.fault(FieldCode::WrongType, format!("must be {what}"));
        }
        converted
    }

    /// The object here; in a request it may only have the keys given.
    pub(super) fn object(&self, origin: Origin, known: &[&str]) -> Option<&'a Map<String, Value>> {
        let map = self.map()?;
        if origin == Origin::Request {
            for key in map.keys().filter(|key| !known.contains(&key.as_str())) {
                self.get(key)
                    .fault(FieldCode::UnknownField, "is not a known field");
            }
        }
        Some(map)
    }

    /// The object here, whatever its keys.
    pub(super) fn map(&self) -> Option<&'a Map<String, Value>> {
        self.expect("an object", Value::as_object)
    }

    /// The elements here, at most `max`; null or nothing is an empty list.
    pub(super) fn list(&self, max: usize) -> Option<Vec<Self>> {
        if self.is_null() {
            return Some(Vec::new());
        }
        let items = self.expect("a list", Value::as_array)?;
        if items.len() > max {
            self.fault(
                FieldCode::OutOfRange,
                format!("must have at most {max} elements"),
            );
            return None;
        }
        let nodes = items.iter().enumerate().map(|(index, item)| {
            Self::new(format!("{}/{index}", self.path), Some(item), self.faults)
        });
        Some(nodes.collect())
    }

    /// The number here. JSON has no infinities, so it is finite.
    pub(super) fn number(&self) -> Option<f64> {
        self.expect("a number", Value::as_f64)
    }

    /// The time here: seconds, not negative.
    pub(super) fn seconds(&self) -> Option<f64> {
        let seconds = self.number()?;
        if seconds < 0.0 {
            self.fault(FieldCode::OutOfRange, "must not be negative");
            return None;
        }
        Some(seconds)
    }

    /// The text here if there is one; anything else is not reported.
    pub(super) fn as_text(&self) -> Option<&'a str> {
        self.value.and_then(Value::as_str)
    }

    /// The text here, whatever it holds.
    pub(super) fn raw_text(&self) -> Option<&'a str> {
        self.expect("a text", Value::as_str)
    }

    /// The text here: 1 to `max` characters, none of them a control character (PostgreSQL stores no NUL).
    pub(super) fn text(&self, max: usize) -> Option<&'a str> {
        let text = self.raw_text()?;
        if text.is_empty() || text.chars().count() > max {
            self.fault(
                FieldCode::OutOfRange,
                format!("must have 1 to {max} characters"),
            );
            return None;
        }
        if text.chars().any(char::is_control) {
            self.fault(FieldCode::Malformed, "must not contain control characters");
            return None;
        }
        Some(text)
    }
}

/// What [`is_said`] asks for, in words.
pub const SAID: &str = "must be a text of 1 to 1000 characters, not blanks alone, in one line and without control characters";

/// Whether this is what a person may say for others to read: a line that shows as what it is in a terminal and in a table, so nothing
/// that moves the cursor or turns the direction of what follows.
#[must_use]
pub fn is_said(text: &str) -> bool {
    let is_hidden =
        |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    !text.trim().is_empty() && text.chars().count() <= 1000 && !text.chars().any(is_hidden)
}

/// A stored value, read once more where it is JSON inside a text, as the replaced application wrote it.
pub(super) fn decoded<'a>(path: &str, value: Option<&'a Value>, faults: &Faults) -> Cow<'a, Value> {
    match value {
        None => Cow::Owned(Value::Null),
        Some(Value::String(text)) => Cow::Owned(serde_json::from_str(text).unwrap_or_else(|_| {
            Node::new(path, None, faults)
                .fault(FieldCode::Malformed, "is a text that does not hold JSON");
            Value::Null
        })),
        Some(value) => Cow::Borrowed(value),
    }
}

/// The shortest JSON number: `0`, `0.1`, `12.5`; never `0.0` or `-0`.
pub(super) fn json_number(number: f64) -> Value {
    /// Every whole number up to here is exact in an f64.
    const MAX_EXACT: f64 = 9_007_199_254_740_992.0;
    if number.fract() == 0.0 && number.abs() <= MAX_EXACT {
        Value::from(number as i64)
    } else {
        Value::from(number)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(faults: Faults) -> Vec<FieldError> {
        faults.unless_any(Some(())).unwrap_err()
    }

    #[test]
    fn keys_are_escaped_in_pointers() {
        let (value, faults) = (json!({"a/b~c": {}}), Faults::default());
        Node::new("", Some(&value), &faults).get("a/b~c").number();
        let faults = found(faults);
        assert_eq!(faults[0].path, "/a~1b~0c");
        assert!(value.pointer(&faults[0].path).is_some());
    }

    #[test]
    fn missing_and_null_are_told_apart() {
        let (value, faults) = (json!({"there": null}), Faults::default());
        let root = Node::new("", Some(&value), &faults);
        assert!(root.get("there").is_null() && !root.get("there").is_absent());
        root.get("there").number();
        root.get("gone").number();
        let codes: Vec<_> = found(faults).iter().map(|fault| fault.code).collect();
        assert_eq!(codes, [FieldCode::WrongType, FieldCode::Missing]);
    }

    #[test]
    fn a_hostile_document_gets_a_bounded_report() {
        let map: Map<_, _> = (0..1000).map(|i| (i.to_string(), Value::Null)).collect();
        let (value, faults) = (Value::Object(map), Faults::default());
        Node::new("", Some(&value), &faults).object(Origin::Request, &[]);
        assert_eq!(found(faults).len(), MAX_FAULTS);
    }

    #[test]
    fn numbers_are_written_short() {
        for (number, text) in [
            (0.0, "0"),
            (-0.0, "0"),
            (0.1, "0.1"),
            (0.95, "0.95"),
            (12.5, "12.5"),
            (99_999.0, "99999"),
            (1e300, "1e+300"),
        ] {
            assert_eq!(json_number(number).to_string(), text);
        }
    }
}
