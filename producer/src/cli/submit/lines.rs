//! JSON Lines: one request a line, maybe with an `idempotency_key`.

use serde_json::Value;
use shared::db::RequestKey;
use shared::domain::fields::{FieldCode, FieldError};

use crate::intake;

/// The field that is ours and not the request's.
const KEY_FIELD: &str = "idempotency_key";

/// A line that was read.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// Its number from 1; none for the job of the command line.
    pub(super) number: Option<usize>,
    /// As `POST /v1/jobs` takes it, apart from local files.
    pub(super) request: Value,
    /// Of the request as it was written: uploads go under new keys each time.
    pub(super) key: Option<RequestKey>,
    /// What is wrong with the key.
    pub(super) key_fault: Option<FieldError>,
}

/// Every line that is not blank, with its number; the error is of a line that is not JSON.
pub(super) fn read(text: &str) -> impl Iterator<Item = (usize, Result<Line, FieldError>)> {
    text.lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(index, line)| (index + 1, read_line(index + 1, line)))
}

fn read_line(number: usize, text: &str) -> Result<Line, FieldError> {
    let request = serde_json::from_str(text).map_err(|error| FieldError {
        path: String::new(),
        code: FieldCode::Malformed,
        message: format!("is not JSON at column {}", error.column()),
    })?;
    let mut line = Line {
        number: Some(number),
        request,
        ..Line::default()
    };
    let key = line.request.as_object_mut();
    match key.and_then(|map| map.shift_remove(KEY_FIELD)) {
        None | Some(Value::Null) => {}
        Some(Value::String(key)) if intake::is_request_key(&key) => {
            line.key = Some(intake::request_key(&key, &line.request));
        }
        Some(_) => {
            line.key_fault = Some(FieldError {
                path: format!("/{KEY_FIELD}"),
                code: FieldCode::Malformed,
                message: "must be a text of 1 to 255 visible ASCII characters".to_owned(),
            });
        }
    }
    Ok(line)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lines_are_read_with_their_numbers_and_keys() {
        let text = "{\"a\":1,\"idempotency_key\":\"k\",\"b\":2}\r\n\n  \n{\"b\":2, \"a\":1.0}\n[]";
        let lines: Vec<_> = read(text).map(|(_, line)| line.unwrap()).collect();
        let numbers: Vec<_> = lines.iter().filter_map(|line| line.number).collect();
        assert_eq!(numbers, [1, 4, 5]);
        assert_eq!(lines[0].request, json!({"a": 1, "b": 2}));
        let key = lines[0].key.as_ref().unwrap();
        assert_eq!(key.key, "k");
        // What the HTTP API would compute of the request and its header.
        assert_eq!(
            key.sha256,
            intake::request_key("k", &lines[1].request).sha256
        );
        assert!(lines[1].key.is_none());
    }

    #[test]
    fn bad_lines_name_their_place() {
        let text = "{}\n{\"a\":\n{\"idempotency_key\":\"a b\"}\n{\"idempotency_key\":7}\n{\"idempotency_key\":null}";
        let faults: Vec<_> = read(text)
            .filter_map(|(number, line)| {
                let fault = line.map_or_else(Some, |line| line.key_fault);
                fault.map(|error| (number, error.path))
            })
            .collect();
        let key = "/idempotency_key".to_owned();
        assert_eq!(faults, [(2, String::new()), (3, key.clone()), (4, key)]);
    }
}
