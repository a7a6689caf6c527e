//! Details of a job's trail, for people: what is ordinary is left out, the rest is words. Programs get them whole, with `--json`.

use serde_json::Value;

/// What a line says beyond its kind; empty when everything went as it should.
pub(super) fn in_words(detail: &Value) -> String {
    let Some(detail) = detail.as_object() else {
        return String::new();
    };
    let words = detail.iter().filter_map(|(name, value)| {
        let value = plain(value)?;
        match (name.as_str(), value.as_str()) {
            // What nearly every line says.
            ("move", "moved" | "none")
            | ("ledger", "written" | "none")
            | ("metadata", "set" | "same" | "none") => None,
            ("move", "lost") => Some("the job was elsewhere and stays there".to_owned()),
            ("move", "held") => Some("the job waits instead of failing".to_owned()),
            ("ledger", "same") => Some("known before".to_owned()),
            ("ledger", "kept") => Some("the ledger knew more".to_owned()),
            ("metadata", "other") => Some("paid twice: the job has another work".to_owned()),
            // `Stored { effects: false }`
            ("event", event) => Some(event.split(' ').next()?.to_lowercase()),
            ("error" | "said" | "reason", said) => Some(said.to_owned()),
            (name, value) => Some(format!("{} {value}", name.replace('_', " "))),
        }
    });
    let mut told: Vec<String> = Vec::new();
    for word in words {
        // A vendor's words are often the error too.
        if !told.contains(&word) {
            told.push(word);
        }
    }
    told.join("; ")
}

fn plain(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) if text.is_empty() => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_is_news_is_said() {
        let ordinary = json!({ "event": "Stored { effects: false }", "move": "moved", "ledger": "written", "metadata": "none" });
        assert_eq!(in_words(&ordinary), "stored");
        let answered = json!({ "answer": "misconfigured", "said": "HTTP 401", "move": "moved", "ledger": "none" });
        assert_eq!(in_words(&answered), "answer misconfigured; HTTP 401");
        let twice_said = json!({ "error": "HTTP 429", "said": "HTTP 429" });
        assert_eq!(in_words(&twice_said), "HTTP 429");
        let twice =
            json!({ "task_id": "7", "ledger": "written", "metadata": "other", "move": "lost" });
        let said = "task id 7; paid twice: the job has another work; the job was elsewhere and stays there";
        assert_eq!(in_words(&twice), said);
        assert_eq!(in_words(&Value::Null), "");
    }
}
