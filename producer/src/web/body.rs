//! The bodies of operators' requests: small objects whose every fault is named by its JSON pointer. Never repeats a value.

use std::ops::RangeInclusive;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, FromRequestParts as _, Request};
use axum::http::HeaderMap;
use chrono::{DateTime, Utc};
use serde_json::{Map, Value};
use shared::db::LetterFilter;
use shared::domain::Stage;
use shared::domain::fields::{FieldCode, FieldError, SAID, is_said};
use uuid::Uuid;

use super::access::Caller;
use super::jobs::read_body;
use super::list::{Fault, one_of, read_time};
use super::problem::{Kind, Problem};

/// Longest text of an operator, in characters.
const MAX_TEXT: usize = 1000;
/// Most letters named by number.
const MAX_IDS: usize = 1000;

/// An object that is being read; what nobody has taken at the end is unknown.
pub(super) struct Body {
    fields: Map<String, Value>,
    faults: Vec<FieldError>,
}

/// Who and why: the whole body of a request that says no more.
pub(super) struct Who {
    pub(super) by: String,
    pub(super) reason: String,
}

impl<S: Send + Sync> FromRequest<S> for Who {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let (mut parts, body) = request.into_parts();
        let caller = Caller::from_request_parts(&mut parts, state).await?;
        let headers = parts.headers.clone();
        let body = Bytes::from_request(Request::from_parts(parts, body), state);
        let mut body = Body::read(&headers, body.await)?;
        let who = body.who(&caller);
        body.finish()?;
        Ok(who)
    }
}

/// A limit that may be set.
pub(super) struct Limit {
    pub(super) name: &'static str,
    /// Without decimals.
    pub(super) whole: bool,
    pub(super) range: RangeInclusive<f64>,
}

impl Limit {
    /// JSON does not tell 6 from 6.0, the database does.
    fn read(&self, value: &Value) -> Option<Value> {
        let number = value
            .as_f64()
            .filter(|number| self.range.contains(number))?;
        match self.whole {
            false => Some(number.into()),
            true if number.fract() == 0.0 => Some((number as i64).into()),
            true => None,
        }
    }
}

impl Body {
    pub(super) fn read(
        headers: &HeaderMap,
        body: Result<Bytes, BytesRejection>,
    ) -> Result<Self, Problem> {
        match read_body(headers, body)? {
            Value::Object(fields) => Ok(Self {
                fields,
                faults: Vec::new(),
            }),
            _ => {
                let fault = fault("", FieldCode::WrongType, "must be an object");
                Err(Problem::faults(Kind::InvalidRequest, vec![fault]))
            }
        }
    }

    /// `reason`, which has to be there, and `by`. A token's name counts before `by`, or anybody could act under any name.
    pub(super) fn who(&mut self, caller: &Caller) -> Who {
        let reason = self.text("reason", None);
        Who {
            reason,
            by: self.by(caller),
        }
    }

    /// `by` alone, of a request that is its own reason.
    pub(super) fn by(&mut self, caller: &Caller) -> String {
        let by = self.text("by", Some("api"));
        caller.name.clone().unwrap_or(by)
    }

    /// `reason` and `by` of a request that changes nothing: checked where they are there, so that the same body can be sent to do it.
    pub(super) fn who_would(&mut self, caller: &Caller) -> Who {
        self.fields
            .entry("reason")
            .or_insert_with(|| "preview".into());
        self.who(caller)
    }

    /// `token`, which has to be there.
    pub(super) fn token(&mut self) -> String {
        match self.fields.remove("token") {
            Some(Value::String(text)) => return text,
            Some(_) => self.fault("token", FieldCode::WrongType, "must be a text"),
            None => self.fault("token", FieldCode::Missing, "has to be there"),
        }
        String::new()
    }

    /// A text.
    pub(super) fn text(&mut self, name: &str, default: Option<&str>) -> String {
        match (self.fields.remove(name), default) {
            (Some(Value::String(text)), _) if is_said(&text) => text,
            (None, Some(default)) => default.to_owned(),
            (None, None) => {
                let message = match name {
                    "reason" => "has to be there: say why, for the others",
                    _ => "has to be there",
                };
                self.fault(name, FieldCode::Missing, message);
                String::new()
            }
            (Some(_), _) => {
                self.fault(name, FieldCode::Malformed, SAID);
                String::new()
            }
        }
    }

    /// `note`: what somebody says, in lines, or null for none; it has to be there.
    pub(super) fn note(&mut self) -> Option<String> {
        match self.fields.remove("note") {
            Some(Value::Null) => {}
            Some(Value::String(text)) if is_said(&text.replace('\n', " ")) => return Some(text),
            Some(_) => self.fault(
                "note",
                FieldCode::Malformed,
                &format!("{SAID}, or lines of it"),
            ),
            None => self.fault("note", FieldCode::Missing, "has to be there, or null"),
        }
        None
    }

    /// A switch, off by default.
    pub(super) fn flag(&mut self, name: &str) -> bool {
        match self.fields.remove(name) {
            None => false,
            Some(Value::Bool(flag)) => flag,
            Some(_) => {
                self.fault(name, FieldCode::WrongType, "must be true or false");
                false
            }
        }
    }

    /// A time.
    pub(super) fn time(&mut self, name: &str) -> Option<DateTime<Utc>> {
        let read = match self.fields.remove(name)? {
            Value::String(text) => read_time(&text),
            _ => Err((FieldCode::WrongType, "must be a text".to_owned())),
        };
        read.map_err(|(code, message)| self.fault(name, code, &message))
            .ok()
    }

    /// A number from 1, of at most 31 bits.
    pub(super) fn count(&mut self, name: &str) -> Option<u32> {
        let value = self.fields.remove(name)?;
        let count = value
            .as_u64()
            .and_then(|n| u32::try_from(n).ok())
            .filter(|n| (1..=i32::MAX.unsigned_abs()).contains(n));
        if count.is_none() {
            self.fault(name, FieldCode::OutOfRange, "must be a number from 1");
        }
        count
    }

    /// The limits that are named: a number that fits, or null for none. There has to be one.
    pub(super) fn limits(&mut self, known: &[Limit]) -> Value {
        let mut limits = Map::new();
        for limit in known {
            let Some(value) = self.fields.remove(limit.name) else {
                continue;
            };
            let read = if value.is_null() {
                Some(Value::Null)
            } else {
                limit.read(&value)
            };
            if read.is_none() {
                let kind = if limit.whole {
                    "whole number"
                } else {
                    "number"
                };
                let (from, to) = (limit.range.start(), limit.range.end());
                let message = format!("must be a {kind} from {from} to {to}, or null for no limit");
                self.fault(limit.name, FieldCode::OutOfRange, &message);
            }
            limits.insert(limit.name.to_owned(), read.unwrap_or_default());
        }
        if limits.is_empty() {
            self.fault("", FieldCode::Empty, "names no limit");
        }
        limits.into()
    }

    /// One of these words, which has to be there.
    pub(super) fn word<T: std::str::FromStr + std::fmt::Display>(
        &mut self,
        name: &str,
        words: &[T],
    ) -> Option<T> {
        let read = match self.fields.remove(name) {
            Some(Value::String(text)) => text.parse().map_err(|_| FieldCode::Malformed),
            Some(_) => Err(FieldCode::WrongType),
            None => Err(FieldCode::Missing),
        };
        read.map_err(|code| self.fault(name, code, &one_of(words)))
            .ok()
    }

    /// `filter` of dead letters, which has to be there and has to name something, unless `all` says that everything is meant.
    pub(super) fn filter(&mut self) -> LetterFilter {
        let (mut filter, mut ids) = (LetterFilter::default(), Vec::new());
        let read_list = |name: &str, value: &Value| match name {
            "ids" => Some(read_ids(value).map(|read| ids = read)),
            _ => None,
        };
        self.object(read_list, |name, text| match name {
            "closed" => Err(unknown()),
            name => set(&mut filter, name, text),
        });
        filter.ids = ids;
        filter
    }

    /// `filter` whose fields are texts, which has to be there and has to name something, unless `all` says that everything is meant.
    pub(super) fn selection(&mut self, set: impl FnMut(&str, &str) -> Result<(), Fault>) {
        self.object(|_, _| None, set);
    }

    fn object(
        &mut self,
        mut list: impl FnMut(&str, &Value) -> Option<Result<(), Fault>>,
        mut set: impl FnMut(&str, &str) -> Result<(), Fault>,
    ) {
        let all = self.flag("all");
        let mut is_empty = true;
        match self.fields.remove("filter") {
            Some(Value::Object(fields)) => {
                is_empty = fields.is_empty();
                for (name, value) in fields {
                    let read = match (list(&name, &value), &value) {
                        (Some(read), _) => read,
                        (None, Value::String(text)) => set(&name, text),
                        (None, _) => match set(&name, "") {
                            Err((FieldCode::UnknownField, _)) => Err(unknown()),
                            _ => Err((FieldCode::WrongType, "must be a text".to_owned())),
                        },
                    };
                    if let Err((code, message)) = read {
                        self.fault(&format!("filter/{name}"), code, &message);
                    }
                }
            }
            None if all => {}
            None => {
                is_empty = false;
                self.fault(
                    "filter",
                    FieldCode::Missing,
                    "has to be there, or `all`: true",
                );
            }
            Some(_) => {
                is_empty = false;
                self.fault("filter", FieldCode::WrongType, "must be an object");
            }
        }
        if is_empty && !all {
            self.fault(
                "filter",
                FieldCode::Empty,
                "names nothing; say `all`: true if everything is meant",
            );
        }
    }

    /// The end: every fault, unknown fields among them.
    pub(super) fn finish(mut self) -> Result<(), Problem> {
        for name in std::mem::take(&mut self.fields).keys() {
            self.faults
                .push(fault(name, FieldCode::UnknownField, "is not a known field"));
        }
        if self.faults.is_empty() {
            return Ok(());
        }
        self.faults.truncate(100);
        Err(Problem::faults(Kind::InvalidRequest, self.faults))
    }

    pub(super) fn fault(&mut self, name: &str, code: FieldCode, message: &str) {
        self.faults.push(fault(name, code, message));
    }
}

fn fault(name: &str, code: FieldCode, message: &str) -> FieldError {
    let path = if name.is_empty() {
        String::new()
    } else {
        format!("/{name}")
    };
    FieldError {
        path,
        code,
        message: message.to_owned(),
    }
}

fn unknown() -> (FieldCode, String) {
    (FieldCode::UnknownField, "is not a known filter".to_owned())
}

/// Sets one filter from its text, as queries and bodies both have it.
pub(crate) fn set(
    filter: &mut LetterFilter,
    name: &str,
    value: &str,
) -> Result<(), (FieldCode, String)> {
    let malformed = |message: String| (FieldCode::Malformed, message);
    let uuid = || {
        value
            .parse::<Uuid>()
            .map_err(|_| malformed("must be a UUID".to_owned()))
    };
    let word = || match value.chars().count() {
        1..=MAX_TEXT if !value.contains('\0') => Ok(value.to_owned()),
        _ => Err(malformed(format!(
            "must be a text of 1 to {MAX_TEXT} characters"
        ))),
    };
    match name {
        "stage" => {
            if value != "unknown" && value.parse::<Stage>().is_err() {
                return Err(malformed(format!("{} or `unknown`", one_of(Stage::ALL))));
            }
            filter.stage = Some(value.to_owned());
        }
        "reason" => filter.reason = Some(word()?),
        "class" => filter.class = Some(word()?),
        "since" => {
            filter.since = Some(read_time(value)?);
        }
        "job" => filter.job = Some(uuid()?),
        "user" => filter.user = Some(uuid()?),
        "closed" => {
            filter.closed = value
                .parse()
                .map_err(|_| malformed("must be `true` or `false`".to_owned()))?;
        }
        _ => return Err(unknown()),
    }
    Ok(())
}

fn read_ids(value: &Value) -> Result<Vec<i64>, (FieldCode, String)> {
    let ids = value
        .as_array()
        .filter(|ids| (1..=MAX_IDS).contains(&ids.len()));
    let ids = ids.and_then(|ids| ids.iter().map(Value::as_i64).collect());
    ids.ok_or_else(|| {
        (
            FieldCode::Malformed,
            format!("must be a list of 1 to {MAX_IDS} numbers"),
        )
    })
}

#[cfg(test)]
mod tests {
    use axum::body::Bytes;
    use axum::http::{HeaderValue, header};
    use serde_json::json;

    use super::*;

    fn body(value: &Value) -> Body {
        let mut headers = HeaderMap::new();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        Body::read(&headers, Ok(Bytes::from(value.to_string()))).unwrap()
    }

    fn faults(value: &Value) -> Vec<(String, FieldCode)> {
        let mut body = body(value);
        body.who(&Caller::LOCAL);
        body.flag("preview");
        body.count("per_minute");
        body.filter();
        let faults = body.faults.clone();
        let unknown = body
            .fields
            .keys()
            .map(|name| (format!("/{name}"), FieldCode::UnknownField));
        let unknown: Vec<_> = unknown.collect();
        faults
            .into_iter()
            .map(|f| (f.path, f.code))
            .chain(unknown)
            .collect()
    }

    #[test]
    fn every_fault_is_named_and_nothing_is_assumed() {
        use FieldCode as F;
        let named = |faults: Vec<(String, FieldCode)>, expected: &[(&str, FieldCode)]| {
            let found: Vec<_> = faults
                .iter()
                .map(|(path, code)| (path.as_str(), *code))
                .collect();
            assert_eq!(found, expected);
        };
        named(
            faults(&json!({})),
            &[("/reason", F::Missing), ("/filter", F::Missing)],
        );
        named(
            faults(&json!({"reason": "r", "filter": {}})),
            &[("/filter", F::Empty)],
        );
        named(faults(&json!({"reason": "r", "all": true})), &[]);
        named(
            faults(
                &json!({"reason": "r", "filter": {"stage": "unknown", "since": "2026-11-22T16:00:00Z"}}),
            ),
            &[],
        );
        named(
            faults(
                &json!({"reason": 1, "by": "", "preview": "yes", "per_minute": 0, "colour": 1,
                "filter": {"ids": [], "job": "x", "user": 1, "stage": "lipsync", "closed": "true", "x": "y", "y": 1}}),
            ),
            &[
                ("/reason", F::Malformed),
                ("/by", F::Malformed),
                ("/preview", F::WrongType),
                ("/per_minute", F::OutOfRange),
                ("/filter/ids", F::Malformed),
                ("/filter/job", F::Malformed),
                ("/filter/user", F::WrongType),
                ("/filter/stage", F::Malformed),
                ("/filter/closed", F::UnknownField),
                ("/filter/x", F::UnknownField),
                ("/filter/y", F::UnknownField),
                ("/colour", F::UnknownField),
            ],
        );
    }
}
