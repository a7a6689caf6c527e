//! Reading single keys of `video_jobs.job_metadata`, which several applications write.
//!
//! Must agree with what SQL sees through `job_metadata->>'key'`: a key that is there but odd counts as there, so
//! that nothing paid is sent because an id was stored in an unexpected type.

use serde_json::Value;

/// What an old bug stored for "no id": Python's `str(None)`.
const PYTHON_NONE: &str = "None";

/// The text under a key. Absent means: not an object, no key, JSON null, or the text `None`.
/// Numbers come back as text (ids were stored either way), any other type as its JSON.
#[must_use]
pub fn text(metadata: &Value, key: &str) -> Option<String> {
    match metadata.as_object()?.get(key)? {
        Value::Null => None,
        Value::String(text) if text == PYTHON_NONE => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn absence_has_four_forms() {
        for metadata in [
            json!(null),
            json!("text"),
            json!(["id"]),
            json!({}),
            json!({"id": null}),
            json!({"id": "None"}),
        ] {
            assert_eq!(text(&metadata, "id"), None, "{metadata}");
        }
    }

    #[test]
    fn everything_else_is_there() {
        for (value, expected) in [
            (json!("488026661"), "488026661"),
            (json!(488026661), "488026661"),
            (json!(""), ""),
            (json!("none"), "none"),
            (json!(false), "false"),
            (json!({"a": 1}), r#"{"a":1}"#),
        ] {
            assert_eq!(text(&json!({"id": value}), "id").as_deref(), Some(expected));
        }
    }

    proptest! {
        #[test]
        fn a_stored_id_reads_back(id in "\\PC{0,40}", number: u64, key in "[a-z_]{1,12}") {
            prop_assume!(id != PYTHON_NONE);
            prop_assert_eq!(text(&json!({key.clone(): id.clone()}), &key), Some(id));
            prop_assert_eq!(text(&json!({key.clone(): number}), &key), Some(number.to_string()));
        }
    }
}
