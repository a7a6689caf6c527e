//! The parameters of `GET /v1/jobs` and the cursor between its pages.

use chrono::{DateTime, NaiveDateTime};
use shared::db::{JobFilter, JobRow};
use shared::domain::fields::{FieldCode, FieldError};
use shared::domain::{JobStatus, Stage, StageState};
use uuid::Uuid;

/// Jobs on a page when nothing else is asked for.
const DEFAULT_LIMIT: i64 = 50;
/// Most jobs on a page.
const MAX_LIMIT: i64 = 200;
/// 9999-12-31T23:59:59.999999Z, which stands for no time. Adopted rows may have none; they come first.
const MAX_MICROS: i64 = 253_402_300_799_999_999;
/// Sixteen hexadecimal digits of time and thirty-two of id.
const CURSOR_LENGTH: usize = 48;
/// Parameters that are looked at. Among so many there is an unknown or repeated one.
const MAX_PARAMETERS: usize = 32;

/// Reads the parameters; each may be given once. The path of a fault is the name of the parameter.
pub(super) fn read(parameters: &[(String, String)]) -> Result<JobFilter, Vec<FieldError>> {
    let mut filter = JobFilter {
        limit: DEFAULT_LIMIT,
        ..JobFilter::default()
    };
    let mut faults = Vec::new();
    for (index, (name, value)) in parameters.iter().enumerate().take(MAX_PARAMETERS) {
        let read = if parameters[..index].iter().any(|(other, _)| other == name) {
            Err((FieldCode::Malformed, "may be given once".to_owned()))
        } else {
            set(&mut filter, name, value)
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
    if faults.is_empty() {
        Ok(filter)
    } else {
        Err(faults)
    }
}

fn set(filter: &mut JobFilter, name: &str, value: &str) -> Result<(), (FieldCode, String)> {
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
        "limit" => {
            let limit = value
                .parse()
                .ok()
                .filter(|limit| (1..=MAX_LIMIT).contains(limit));
            filter.limit = limit.ok_or_else(|| {
                let message = format!("must be a number from 1 to {MAX_LIMIT}");
                (FieldCode::OutOfRange, message)
            })?;
        }
        "cursor" => {
            let before = read_cursor(value)
                .ok_or_else(|| malformed("must be the `next_cursor` of a page".to_owned()))?;
            filter.before = Some(before);
        }
        _ => {
            return Err((
                FieldCode::UnknownField,
                "is not a known parameter".to_owned(),
            ));
        }
    }
    Ok(())
}

pub(super) fn one_of<T: std::fmt::Display>(words: &[T]) -> String {
    let words: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
    format!("must be one of {}", words.join(", "))
}

/// The cursor of the page that begins after this job.
pub(super) fn cursor_after(job: &JobRow) -> String {
    let micros = job.created_at.map_or(MAX_MICROS, |time| {
        time.and_utc().timestamp_micros().clamp(0, MAX_MICROS)
    });
    format!("{micros:016x}{}", job.id.simple())
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

    fn job(created_at: Option<NaiveDateTime>) -> JobRow {
        JobRow {
            id: Uuid::from_u128(7),
            user_id: Uuid::nil(),
            original_filename: "v.mp4".to_owned(),
            display_name: None,
            status: "queued".to_owned(),
            progress_percentage: None,
            progress_message: None,
            output_url: None,
            created_at,
            updated_at: None,
            completed_at: None,
            error_message: None,
            error_code: None,
        }
    }

    #[test]
    fn a_cursor_reads_back_to_the_microsecond() {
        let time = DateTime::from_timestamp_micros(1_790_000_000_123_456).unwrap();
        let cursor = cursor_after(&job(Some(time.naive_utc())));
        assert_eq!(
            read_cursor(&cursor),
            Some((Some(time.naive_utc()), Uuid::from_u128(7)))
        );
        let cursor = cursor_after(&job(None));
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
        let filter = read(&parameters(&[
            ("user_id", &id.to_string()),
            ("status", "processing"),
            ("stage", "inpaint.poll"),
            ("limit", "200"),
        ]))
        .unwrap();
        assert_eq!(filter.user_id, Some(id));
        assert_eq!(filter.status, Some(JobStatus::Processing));
        assert_eq!(filter.stage, Some(Stage::InpaintPoll));
        assert_eq!((filter.limit, filter.before), (200, None));
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
            ]
        );
    }
}
