//! GhostCut simulator: routes, signature and envelope. Each endpoint's rules are in its own file.

mod query;
mod submit;
mod work;

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use md5::{Digest, Md5};
use serde_json::{Value, json};

use crate::Core;
use crate::fault::{Fault, IdForm, Operation, When};
use crate::http::{Call, Dialect, Hangup, Payload, Reply, exchange};
use crate::truth::Vendor;

/// `AppSign` and `Callback-Sign`: `md5hex(md5hex(body) + secret)`.
pub(crate) fn sign(body: &[u8], secret: &str) -> String {
    let inner = hex::encode(Md5::digest(body));
    hex::encode(Md5::digest(format!("{inner}{secret}")))
}

#[derive(Clone, Copy)]
struct GhostCut;

impl Dialect for GhostCut {
    const VENDOR: Vendor = Vendor::Ghostcut;

    fn error(status: StatusCode, _: Option<&str>) -> Reply {
        let reason = status.canonical_reason().unwrap_or("error");
        Reply::text(status, format!("<html><body>{reason}</body></html>"))
    }

    fn own_error(fault: &Fault, stage: When, _: Option<&Reply>) -> Option<Reply> {
        match fault {
            Fault::Code { code, when } if *when == stage => Some(refuse(*code)),
            _ => None,
        }
    }
}

/// An error envelope; HTTP 200, as no other status is documented.
fn refuse(code: i64) -> Reply {
    let message = match code {
        2001 => "Requires Http header AppKey & AppSign",
        2002 => "POST only",
        2003 => "AppKey is invalid",
        2004 => "AppSign is invalid",
        3001 => "Data process failure",
        3002 => "Data update failure",
        3003 => "Id not existed",
        3006 => "Data process Limit",
        3007 => "Identity is required",
        3008 => "urls is required",
        4001 => "illegal parameter",
        4002 => "no function selected",
        9999 => "System error",
        _ => "error",
    };
    refuse_because(code, message)
}

fn refuse_because(code: i64, message: &str) -> Reply {
    Reply::json(
        StatusCode::OK,
        json!({"code": code, "msg": message, "body": null, "trace": trace()}),
    )
}

fn succeed(body: Value) -> Reply {
    Reply::json(
        StatusCode::OK,
        json!({"code": 1000, "msg": "success", "trace": trace(), "body": body}),
    )
}

fn trace() -> String {
    uuid::Uuid::new_v4().simple().to_string()[..8].to_owned()
}

/// Answers one request.
pub(crate) async fn handle(
    core: Arc<Core>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Hangup> {
    let path = request.uri().path();
    let operation = match path.strip_prefix("/v-w-c/") {
        Some("gateway/ve/work/free") => Operation::Submit,
        Some("gateway/ve/work/status") => Operation::Status,
        Some("gateway/ve/work/list") => Operation::List,
        Some("gateway/ve/work/video/redo") => Operation::Redo,
        Some("gateway/ve/point/query") => Operation::Balance,
        Some("enum/query2") => Operation::Catalogue,
        _ => {
            let mut response = Response::new(Body::from("not found"));
            *response.status_mut() = StatusCode::NOT_FOUND;
            return Ok(response);
        }
    };
    exchange(
        core,
        GhostCut,
        operation,
        request,
        move |core, call| async move {
            let mut reply = answer(&core, &call, operation).await;
            arrange(&core, &call, &mut reply);
            reply
        },
    )
    .await
}

async fn answer(core: &Arc<Core>, call: &Call, operation: Operation) -> Reply {
    if call.method != Method::POST {
        return refuse(2002);
    }
    if operation != Operation::Catalogue
        && let Err(code) = check_signature(core, &call.headers, &call.body)
    {
        return refuse(code);
    }
    let Ok(Value::Object(body)) = serde_json::from_slice(&call.body) else {
        return refuse_because(4001, "body is not a JSON object");
    };
    match operation {
        Operation::Submit => submit::submit(core, call, body).await,
        Operation::Status => query::status(core, call, &body),
        Operation::List => query::list(core, call, &body),
        Operation::Redo => query::redo(core, &body),
        Operation::Balance => query::balance(core),
        _ => query::catalogue(&body),
    }
}

fn check_signature(core: &Core, headers: &HeaderMap, body: &[u8]) -> Result<(), i64> {
    let text = |name: &str| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .filter(|value| !value.is_empty())
    };
    let (Some(key), Some(signature)) = (text("AppKey"), text("AppSign")) else {
        return Err(2001);
    };
    let known = &core.config.credentials;
    if key != known.ghostcut_key {
        return Err(2003);
    }
    if signature != sign(body, &known.ghostcut_secret) {
        return Err(2004);
    }
    Ok(())
}

/// Form and order of ids and items: settings and faults.
fn arrange(core: &Core, call: &Call, reply: &mut Reply) {
    let Payload::Json(value) = &mut reply.body else {
        return;
    };
    let mut form = if core.settings().ghostcut.text_ids {
        IdForm::Text
    } else {
        IdForm::Number
    };
    for fault in &call.faults {
        match fault {
            Fault::Ids { form: wanted } => form = *wanted,
            Fault::ReverseItems => {
                if let Some(items) = items_of(value) {
                    items.reverse();
                }
            }
            Fault::DropItems { contains } => {
                if let Some(items) = items_of(value) {
                    items.retain(|item| !item.to_string().contains(contains));
                }
            }
            _ => {}
        }
    }
    if form == IdForm::Text {
        ids_to_text(&mut value["body"]);
    }
}

fn items_of(envelope: &mut Value) -> Option<&mut Vec<Value>> {
    envelope.get_mut("body")?.get_mut("content")?.as_array_mut()
}

fn ids_to_text(value: &mut Value) {
    match value {
        Value::Object(object) => {
            for (key, inner) in object {
                match inner.as_u64() {
                    Some(number) if key == "id" || key == "idProject" => {
                        *inner = number.to_string().into()
                    }
                    _ => ids_to_text(inner),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(ids_to_text),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::sign;

    #[test]
    fn signatures_match_the_known_vectors() {
        let secret = "test-app-secret-0001";
        let vectors = [
            (
                r#"{"idWorks":["521461135"]}"#,
                "60900d1c44bd27d7911ba2ea9b49864a",
            ),
            (
                r#"{"idWorks": ["521461135"]}"#,
                "9fdbb8b56477b55260e799c4a66c0627",
            ),
            (
                r#"{"idWorks":[521461135,521461136]}"#,
                "bcb6c8c43fa8a1d38d94d46cb0c43f4a",
            ),
            (
                r#"{"urls":["https://media.example.com/a.mp4"],"names":["vj-0f8b"],"needChineseOcclude":1,"videoInpaintLang":"all"}"#,
                "44ff5e83d8a9a3a5e52a545d3661766d",
            ),
            (
                r#"{"names":["测试"],"urls":["https://media.example.com/a.mp4"]}"#,
                "d13daeabd5beb2145989bde80d2fbeb2",
            ),
            (
                r#"{"id":488026661,"idProject":230953994,"processStatus":1,"processProgress":100.0,"videoUrl":"https://media.example.com/out.mp4","errorDetail":""}"#,
                "67d38ab14006c778350cf7c4260d64b0",
            ),
        ];
        for (body, signature) in vectors {
            assert_eq!(sign(body.as_bytes(), secret), signature, "{body}");
        }
    }
}
