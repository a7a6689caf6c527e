//! `POST /v-w-c/gateway/ve/work/free`: checks a submit and accepts one paid work per URL.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::{refuse, refuse_because, succeed, work};
use crate::Core;
use crate::callback;
use crate::http::{Call, Reply};
use crate::truth::{NewWork, Vendor};

const MAX_URLS: usize = 20;

pub(super) async fn submit(core: &Arc<Core>, call: &Call, body: Map<String, Value>) -> Reply {
    let urls = match texts(&body, "urls") {
        Ok(Some(urls)) if !urls.is_empty() => urls,
        Ok(_) => return refuse(3008),
        Err(problem) => return refuse_because(4001, &problem),
    };
    let names = match texts(&body, "names")
        .and_then(|names| check(&body, &urls, names.as_deref()).map(|()| names))
    {
        Ok(names) => names,
        Err(problem) => return refuse_because(4001, &problem),
    };
    if !body.contains_key("needChineseOcclude") && !body.contains_key("videoInpaintLang") {
        return refuse(4002);
    }
    let request = Value::Object(body);
    let hash = hex::encode(Sha256::digest(&call.body));
    let works = urls.iter().enumerate().map(|(index, url)| NewWork {
        source_url: url.clone(),
        marker: names.as_ref().map(|names| names[index].clone()),
        callback_url: request["callback"].as_str().map(str::to_owned),
        request: request.clone(),
        body_sha256: hash.clone(),
        ..NewWork::default()
    });
    let Ok(accepted) = core
        .truth
        .accept(Vendor::Ghostcut, works.collect(), None, None)
    else {
        return refuse(3006);
    };
    for work in &accepted {
        core.spawn(work::process(core.clone(), work.id.clone()));
    }
    callback::before_answer(core, &call.faults, &accepted).await;
    let data: Vec<Value> = accepted
        .iter()
        .map(|work| json!({"url": work.source_url, "id": number(&work.id)}))
        .collect();
    succeed(json!({"idProject": accepted[0].batch_id, "dataList": data}))
}

/// The JSON number of an id kept as text.
pub(super) fn number(id: &str) -> Value {
    id.parse::<u64>().map_or(Value::Null, Value::from)
}

fn texts(body: &Map<String, Value>, key: &str) -> Result<Option<Vec<String>>, String> {
    match body.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(items)) => {
            let texts: Option<Vec<String>> = items
                .iter()
                .map(|item| item.as_str().map(str::to_owned))
                .collect();
            texts
                .map(Some)
                .ok_or_else(|| format!("{key} must hold texts"))
        }
        Some(_) => Err(format!("{key} must be an array")),
    }
}

fn check(
    body: &Map<String, Value>,
    urls: &[String],
    names: Option<&[String]>,
) -> Result<(), String> {
    if urls.len() > MAX_URLS {
        return Err(format!("at most {MAX_URLS} urls"));
    }
    for url in urls {
        let parsed = url::Url::parse(url).map_err(|error| format!("url: {error}"))?;
        if !matches!(parsed.scheme(), "http" | "https") || !url.is_ascii() {
            return Err("url must be http or https, in ASCII".into());
        }
    }
    if names.is_some_and(|names| names.len() != urls.len()) {
        return Err("names must have one entry per url".into());
    }
    one_of(body, "resolution", &["480p", "720p", "1080p"])?;
    one_of(
        body,
        "videoInpaintLang",
        &["all", "zh", "en", "ja", "ko", "ar"],
    )?;
    for key in ["callback", "uid"] {
        if body.get(key).is_some_and(|value| !value.is_string()) {
            return Err(format!("{key} must be a text"));
        }
    }
    let masks = embedded(body, "videoInpaintMasks")?;
    embedded(body, "extraOptions")?;
    match (body.get("needChineseOcclude").map(Value::as_i64), &masks) {
        (None | Some(Some(1)), _) => {}
        (Some(Some(2)), Some(Value::Array(masks))) if !masks.is_empty() => {}
        (Some(Some(2)), _) => {
            return Err("videoInpaintMasks is required when needChineseOcclude is 2".into());
        }
        _ => return Err("needChineseOcclude must be 1 or 2".into()),
    }
    match masks {
        None => Ok(()),
        Some(Value::Array(masks)) => masks.iter().try_for_each(check_mask),
        Some(_) => Err("videoInpaintMasks must hold a JSON array".into()),
    }
}

fn one_of(body: &Map<String, Value>, key: &str, allowed: &[&str]) -> Result<(), String> {
    match body.get(key) {
        None => Ok(()),
        Some(value) if value.as_str().is_some_and(|text| allowed.contains(&text)) => Ok(()),
        Some(_) => Err(format!("{key} must be one of {}", allowed.join(", "))),
    }
}

/// JSON inside a text field.
fn embedded(body: &Map<String, Value>, key: &str) -> Result<Option<Value>, String> {
    match body.get(key) {
        None => Ok(None),
        Some(Value::String(text)) => serde_json::from_str(text)
            .map(Some)
            .map_err(|error| format!("{key} is not JSON: {error}")),
        Some(_) => Err(format!("{key} must be a text that holds JSON")),
    }
}

fn check_mask(mask: &Value) -> Result<(), String> {
    const TYPES: [&str; 5] = [
        "remove",
        "remove_only_ocr",
        "keep",
        "keep_no_trans",
        "trans_only_ocr",
    ];
    if !mask["type"]
        .as_str()
        .is_some_and(|kind| TYPES.contains(&kind))
    {
        return Err("mask: unknown type".into());
    }
    if !mask["start"].is_number() {
        return Err("mask: start must be a number".into());
    }
    if mask["end"].is_number() == mask["to_end"].is_number() {
        return Err("mask: exactly one of end and to_end".into());
    }
    let relative = |value: &Value| {
        value
            .as_f64()
            .is_some_and(|value| (0.0..=1.0).contains(&value))
    };
    let corner = |point: &Value| {
        point
            .as_array()
            .is_some_and(|xy| xy.len() == 2 && xy.iter().all(relative))
    };
    let region = mask["region"].as_array();
    if !region.is_some_and(|points| points.len() == 4 && points.iter().all(corner)) {
        return Err("mask: region must be four points within 0..1".into());
    }
    Ok(())
}
