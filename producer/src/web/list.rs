//! The parameters of lists, above all of `GET /v1/jobs`, and the cursors between their pages.

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query};
use chrono::{DateTime, NaiveDateTime, Utc};
use shared::db::{JobFilter, JobPlace};
use shared::domain::fields::{FieldCode, FieldError};
use shared::domain::{JobStatus, Stage, StageState, Vendor};
use uuid::Uuid;

use super::problem::{Kind, Problem};

/// Rows on a page when nothing else is asked for.
pub(super) const DEFAULT_LIMIT: i64 = 50;
/// Most rows on a page.
pub(super) const MAX_LIMIT: i64 = 200;
/// Longest text of a filter, in characters.
const MAX_TEXT: usize = 200;
/// 9999-12-31T23:59:59.999999Z, which stands for no time. Adopted rows may have none; they come first.
pub(super) const MAX_MICROS: i64 = 253_402_300_799_999_999;
/// Sixteen hexadecimal digits of time and thirty-two of id.
const CURSOR_LENGTH: usize = 48;
/// Parameters that are looked at. Among so many there is an unknown or repeated one.
const MAX_PARAMETERS: usize = 32;

/// The query string as axum read it.
pub(super) type Parameters = Result<Query<Vec<(String, String)>>, QueryRejection>;
/// What is wrong with a value.
pub(crate) type Fault = (FieldCode, String);

/// Gives every parameter to `set`, each of which may be given once. The path of a fault is the name of the parameter.
pub(super) fn each(
    parameters: Parameters,
    set: impl FnMut(&str, &str) -> Result<(), Fault>,
) -> Result<(), Problem> {
    let Query(parameters) = parameters.map_err(|_| {
        let detail = "the query string cannot be read";
        Problem::new(Kind::InvalidParameters, detail)
    })?;
    let faults = faults(&parameters, set);
    if faults.is_empty() {
        return Ok(());
    }
    Err(Problem::faults(Kind::InvalidParameters, faults))
}

/// A parameter that the route does not have.
pub(super) fn unknown() -> Fault {
    (
        FieldCode::UnknownField,
        "is not a known parameter".to_owned(),
    )
}

/// Which page of which jobs.
#[derive(Debug)]
pub(super) struct JobQuery {
    pub(super) filter: JobFilter,
    pub(super) before: Option<JobPlace>,
    pub(super) limit: i64,
}

impl Default for JobQuery {
    fn default() -> Self {
        Self {
            filter: JobFilter::default(),
            before: None,
            limit: DEFAULT_LIMIT,
        }
    }
}

impl JobQuery {
    fn set(&mut self, name: &str, value: &str) -> Result<(), Fault> {
        match name {
            "limit" => self.limit = read_limit(value)?,
            "cursor" => {
                let before = read_cursor(value).map(|(created_at, id)| JobPlace { created_at, id });
                let message = || "must be the `next_cursor` of a page".to_owned();
                self.before = Some(before.ok_or_else(|| (FieldCode::Malformed, message()))?);
            }
            name => return set(&mut self.filter, name, value),
        }
        Ok(())
    }
}

/// Reads the parameters of the list of jobs.
pub(super) fn read(parameters: Parameters) -> Result<JobQuery, Problem> {
    let mut query = JobQuery::default();
    each(parameters, |name, value| query.set(name, value))?;
    Ok(query)
}

fn faults(
    parameters: &[(String, String)],
    mut set: impl FnMut(&str, &str) -> Result<(), Fault>,
) -> Vec<FieldError> {
    let mut faults = Vec::new();
    for (index, (name, value)) in parameters.iter().enumerate().take(MAX_PARAMETERS) {
        let read = if parameters[..index].iter().any(|(other, _)| other == name) {
            Err((FieldCode::Malformed, "may be given once".to_owned()))
        } else {
            set(name, value)
        };
        if let Err((code, message)) = read {
            let path = name.clone();
            faults.push(FieldError {
                path,
                code,
                message,
            });
        }
    }
    faults
}

/// Sets one filter from its text, as queries, operations and commands have it.
pub(crate) fn set(filter: &mut JobFilter, name: &str, value: &str) -> Result<(), Fault> {
    let malformed = |message: String| (FieldCode::Malformed, message);
    match name {
        "user_id" => {
            let user = value
                .parse()
                .map_err(|_| malformed("must be a UUID".to_owned()))?;
            filter.user_id = Some(user);
        }
        "status" => {
            let status = value
                .parse()
                .map_err(|_| malformed(one_of(JobStatus::ALL)))?;
            filter.status = Some(status);
        }
        "stage" => {
            let stage = value.parse().map_err(|_| malformed(one_of(Stage::ALL)))?;
            filter.stage = Some(stage);
        }
        "state" => {
            let state = value
                .parse()
                .map_err(|_| malformed(one_of(StageState::ALL)))?;
            filter.state = Some(state);
        }
        "reason" => filter.reason = Some(read_text(value)?),
        "vendor" => {
            let vendor = value.parse().map_err(|_| malformed(one_of(Vendor::ALL)))?;
            filter.vendor = Some(vendor);
        }
        "error_code" => filter.error_code = Some(read_text(value)?),
        "text" => filter.text = Some(read_text(value)?),
        "created_from" => filter.created_from = Some(read_time(value)?),
        "created_before" => filter.created_before = Some(read_time(value)?),
        _ => return Err(unknown()),
    }
    Ok(())
}

/// How many on a page.
pub(super) fn read_limit(value: &str) -> Result<i64, Fault> {
    let limit = value
        .parse()
        .ok()
        .filter(|limit| (1..=MAX_LIMIT).contains(limit));
    limit.ok_or_else(|| {
        let message = format!("must be a number from 1 to {MAX_LIMIT}");
        (FieldCode::OutOfRange, message)
    })
}

/// A text to look for.
pub(super) fn read_text(value: &str) -> Result<String, Fault> {
    if (1..=MAX_TEXT).contains(&value.chars().count()) && !value.contains('\0') {
        return Ok(value.to_owned());
    }
    let message = format!("must be a text of 1 to {MAX_TEXT} characters");
    Err((FieldCode::Malformed, message))
}

/// A time of RFC 3339, in the years that PostgreSQL and chrono both know.
pub(super) fn read_time(value: &str) -> Result<DateTime<Utc>, Fault> {
    let time = DateTime::parse_from_rfc3339(value).map(|time| time.with_timezone(&Utc));
    time.ok()
        .filter(|time| (0..=MAX_MICROS).contains(&time.timestamp_micros()))
        .ok_or_else(|| {
            let message = "must be a time such as `2026-11-22T16:00:00Z`";
            (FieldCode::Malformed, message.to_owned())
        })
}

/// Limit and cursor of a list that is in the order of a number and has no filters.
pub(super) fn read_numbered(parameters: Parameters) -> Result<(i64, Option<i64>), Problem> {
    let (mut limit, mut before) = (DEFAULT_LIMIT, None);
    each(parameters, |name, value| {
        match name {
            "limit" => limit = read_limit(value)?,
            "cursor" => before = Some(read_number(value)?),
            _ => return Err(unknown()),
        }
        Ok(())
    })?;
    Ok((limit, before))
}

/// The number at the end of a path.
pub(super) fn read_number_in_path(id: Result<Path<String>, PathRejection>) -> Result<i64, Problem> {
    let id: Option<i64> = id.ok().and_then(|Path(id)| id.parse().ok());
    id.ok_or_else(|| fault("id", FieldCode::Malformed, "must be a number"))
}

/// What is wrong with one parameter.
pub(super) fn fault(path: &str, code: FieldCode, message: &str) -> Problem {
    let fault = FieldError {
        path: path.to_owned(),
        code,
        message: message.to_owned(),
    };
    Problem::faults(Kind::InvalidParameters, vec![fault])
}

/// The cursor of lists that are in the order of a number: its text.
pub(super) fn read_number(value: &str) -> Result<i64, Fault> {
    let number = value.parse().ok().filter(|number| *number >= 0);
    number.ok_or_else(|| {
        let message = "must be the `next_cursor` of a page";
        (FieldCode::Malformed, message.to_owned())
    })
}

pub(super) fn one_of<T: std::fmt::Display>(words: &[T]) -> String {
    let words: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
    format!("must be one of {}", words.join(", "))
}

/// The cursor of the page that begins after this place.
pub(super) fn cursor_after(place: JobPlace) -> String {
    let micros = place
        .created_at
        .map(|time| time.and_utc().timestamp_micros());
    time_and_id(micros.unwrap_or(MAX_MICROS), place.id)
}

/// The cursor of lists that are in the order of a time, in microseconds, and an id.
pub(super) fn time_and_id(micros: i64, id: Uuid) -> String {
    format!("{:016x}{}", micros.clamp(0, MAX_MICROS), id.simple())
}

/// Reads one that has a time.
pub(super) fn read_time_and_id(text: &str) -> Option<(DateTime<Utc>, Uuid)> {
    let (time, id) = read_cursor(text)?;
    Some((time?.and_utc(), id))
}

fn read_cursor(text: &str) -> Option<(Option<NaiveDateTime>, Uuid)> {
    if text.len() != CURSOR_LENGTH || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let (time, id) = text.split_at(16);
    let micros = i64::from_str_radix(time, 16).ok()?;
    // PostgreSQL refuses times that chrono can say.
    let micros = (0..=MAX_MICROS).contains(&micros).then_some(micros)?;
    let time = DateTime::from_timestamp_micros(micros)?.naive_utc();
    let time = (micros < MAX_MICROS).then_some(time);
    Some((time, Uuid::try_parse(id).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(query: &[(&str, &str)]) -> Vec<(String, String)> {
        query
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    fn read(parameters: &[(String, String)]) -> Result<JobQuery, Vec<FieldError>> {
        let mut query = JobQuery::default();
        let faults = faults(parameters, |name, value| query.set(name, value));
        if faults.is_empty() {
            Ok(query)
        } else {
            Err(faults)
        }
    }

    fn place(created_at: Option<NaiveDateTime>) -> JobPlace {
        let id = Uuid::from_u128(7);
        JobPlace { created_at, id }
    }

    #[test]
    fn a_cursor_reads_back_to_the_microsecond() {
        let time = DateTime::from_timestamp_micros(1_790_000_000_123_456).unwrap();
        let cursor = cursor_after(place(Some(time.naive_utc())));
        assert_eq!(
            read_cursor(&cursor),
            Some((Some(time.naive_utc()), Uuid::from_u128(7)))
        );
        let cursor = cursor_after(place(None));
        assert_eq!(read_cursor(&cursor), Some((None, Uuid::from_u128(7))));
    }

    #[test]
    fn other_texts_are_no_cursor() {
        let id = "0".repeat(32);
        for text in [
            "",
            "x",
            &"g".repeat(48),
            &"0".repeat(47),
            &format!("+00000000000000f{id}"),
            &format!("7fffffffffffffff{id}"),
            &format!("ffffffffffffffff{id}"),
            &"测".repeat(16),
        ] {
            assert_eq!(read_cursor(text), None, "{text}");
        }
    }

    #[test]
    fn parameters_become_a_filter() {
        let id = Uuid::from_u128(9);
        let query = read(&parameters(&[
            ("user_id", &id.to_string()),
            ("status", "processing"),
            ("stage", "inpaint.poll"),
            ("limit", "200"),
        ]))
        .unwrap();
        let filter = query.filter;
        assert_eq!(filter.user_id, Some(id));
        assert_eq!(filter.status, Some(JobStatus::Processing));
        assert_eq!(filter.stage, Some(Stage::InpaintPoll));
        assert_eq!((query.limit, query.before), (200, None));
        assert_eq!(read(&[]).unwrap().limit, DEFAULT_LIMIT);
    }

    #[test]
    fn all_faults_are_told_together() {
        let faults = read(&parameters(&[
            ("user_id", "1"),
            ("status", "done"),
            ("stage", "lipsync"),
            ("limit", "201"),
            ("limit", "5"),
            ("cursor", "1"),
            ("state", "x"),
            ("colour", "x"),
            ("vendor", "x"),
            ("text", ""),
            ("created_from", "2026-11-22"),
            ("created_before", "-0001-01-01T00:00:00Z"),
        ]))
        .unwrap_err();
        let found: Vec<_> = faults.iter().map(|f| (f.path.as_str(), f.code)).collect();
        assert_eq!(
            found,
            [
                ("user_id", FieldCode::Malformed),
                ("status", FieldCode::Malformed),
                ("stage", FieldCode::Malformed),
                ("limit", FieldCode::OutOfRange),
                ("limit", FieldCode::Malformed),
                ("cursor", FieldCode::Malformed),
                ("state", FieldCode::Malformed),
                ("colour", FieldCode::UnknownField),
                ("vendor", FieldCode::Malformed),
                ("text", FieldCode::Malformed),
                ("created_from", FieldCode::Malformed),
                ("created_before", FieldCode::Malformed),
            ]
        );
    }
}
