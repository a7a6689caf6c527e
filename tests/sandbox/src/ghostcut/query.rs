//! GhostCut's read endpoints and redo. Status and list share items, paging and the time window.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::submit::number;
use super::{refuse, refuse_because, succeed, work};
use crate::Core;
use crate::http::{Call, Reply};
use crate::truth::{Phase, Status, Vendor, Work, now_ms};

const MAX_PAGE_SIZE: u64 = 2000;

/// `processStatus` values the vendor documents, with its and an English description.
const STATUSES: [(i32, &str, &str); 34] = [
    (-3, "草稿就绪", "draft ready"),
    (-2, "素材准备中", "material in preparation"),
    (-1, "待处理", "waiting"),
    (0, "处理中", "processing"),
    (1, "成功", "success"),
    (2, "无法解析链接", "URL cannot be parsed"),
    (3, "下载失败", "download failed"),
    (5, "视频过长", "video longer than 15 minutes"),
    (6, "平台错误", "platform failure"),
    (7, "算法错误", "algorithm failure"),
    (13, "平台错误", "platform failure"),
    (14, "对象不存在", "object missing"),
    (16, "视频损坏", "damaged video"),
    (18, "超时", "time-out"),
    (20, "擦除失败", "erase failed"),
    (21, "平台错误", "platform failure"),
    (22, "远程调度失败", "remote dispatch failed"),
    (23, "超时", "time-out"),
    (24, "配音参数错误", "dubbing input invalid"),
    (26, "参数错误", "parameters invalid"),
    (27, "字幕参数错误", "subtitle input invalid"),
    (28, "字幕参数错误", "subtitle input invalid"),
    (29, "字幕参数错误", "subtitle input invalid"),
    (30, "字幕参数错误", "subtitle input invalid"),
    (31, "字幕参数错误", "subtitle input invalid"),
    (32, "字幕参数错误", "subtitle input invalid"),
    (43, "未知错误", "unknown error"),
    (73, "点数不足，未开始", "points ran out, not started"),
    (
        83,
        "点数不足，已完成但锁定",
        "points ran out, done but locked",
    ),
    (98, "存储耗尽", "storage exhausted"),
    (99, "视频过长", "video longer than 15 minutes"),
    (100, "视频过大", "video of 1000 MB or larger"),
    (111, "超时", "time-out"),
    (1000, "成功", "success"),
];

fn description(code: i32) -> (&'static str, &'static str) {
    STATUSES
        .iter()
        .find(|(known, ..)| *known == code)
        .map_or(("", ""), |(_, own, english)| (own, english))
}

/// Error text of a failed work.
pub(super) fn failure_text(code: i32) -> &'static str {
    description(code).1
}

/// A work as status, list and callback show it.
pub(super) fn item(work: &Work) -> Value {
    let Status::Code(code) = work.status else {
        return Value::Null;
    };
    json!({
        "id": number(&work.id),
        "idProject": work.batch_id,
        "name": work.marker,
        "url": work.source_url,
        "createTime": work.accepted_at,
        "processStatus": code,
        "processStatusEnum": {"code": code, "description": description(code).0},
        "processProgress": work.progress,
        "paidPoint": work.paid_points,
        "videoUrl": work.result.as_ref().map_or("", |result| result.url.as_str()),
        "srcSrtUrl": "",
        "tgtSrtUrl": "",
        "errorDetail": work.error.as_deref().unwrap_or_default(),
    })
}

struct Page {
    number: u64,
    size: u64,
    from: i64,
    to: i64,
}

impl Page {
    fn parse(core: &Core, body: &Map<String, Value>) -> Result<Self, String> {
        let integer = |key: &str| match body.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => value
                .as_i64()
                .filter(|value| *value >= 0)
                .map(Some)
                .ok_or(format!("{key} must be an integer")),
        };
        let default = core.settings().ghostcut.default_page_size as u64;
        let size = integer("pageSize")?.map_or(default, i64::unsigned_abs);
        if size == 0 || size > MAX_PAGE_SIZE {
            return Err(format!("pageSize must be 1 to {MAX_PAGE_SIZE}"));
        }
        Ok(Self {
            number: integer("page")?.map_or(0, i64::unsigned_abs),
            size,
            from: integer("createTimeGreaterThanOrEqualTo")?.unwrap_or(i64::MIN),
            to: integer("createTimeLessThan")?.unwrap_or(i64::MAX),
        })
    }

    fn answer(
        &self,
        core: &Core,
        call: &Call,
        ids: Option<&[String]>,
        wanted: impl Fn(&Work) -> bool,
    ) -> Reply {
        let now = now_ms();
        let filter = |work: &Work| {
            (self.from..self.to).contains(&work.accepted_at)
                && wanted(work)
                && !call.hides(work.accepted_at, now)
        };
        let skip = usize::try_from(self.number.saturating_mul(self.size)).unwrap_or(usize::MAX);
        let size = self.size as usize;
        let works = core.truth.page(Vendor::Ghostcut, ids, (skip, size), filter);
        succeed(json!({"content": works.iter().map(item).collect::<Vec<_>>()}))
    }
}

/// Ids as text, from numbers or texts; `None` when the key is absent.
fn ids(body: &Map<String, Value>, key: &str) -> Result<Option<Vec<String>>, String> {
    let Some(value) = body.get(key).filter(|value| !value.is_null()) else {
        return Ok(None);
    };
    let id = |value: &Value| match value {
        Value::String(text) if text.parse::<u64>().is_ok() => Some(text.clone()),
        Value::Number(number) => number.as_u64().map(|number| number.to_string()),
        _ => None,
    };
    let ids: Option<Vec<String>> = value
        .as_array()
        .and_then(|items| items.iter().map(id).collect());
    ids.map(Some)
        .ok_or_else(|| format!("{key} must be an array of ids"))
}

pub(super) fn status(core: &Core, call: &Call, body: &Map<String, Value>) -> Reply {
    let parsed = Page::parse(core, body)
        .and_then(|page| Ok((page, ids(body, "idWorks")?, ids(body, "idProjects")?)));
    let (page, works, projects) = match parsed {
        Ok(parsed) => parsed,
        Err(problem) => return refuse_because(4001, &problem),
    };
    match (
        works.filter(|ids| !ids.is_empty()),
        projects.filter(|ids| !ids.is_empty()),
    ) {
        (Some(ids), _) => page.answer(core, call, Some(&ids), |_| true),
        (None, Some(ids)) => page.answer(core, call, None, |work| {
            work.batch_id
                .is_some_and(|batch| ids.contains(&batch.to_string()))
        }),
        (None, None) => page.answer(core, call, None, |_| true),
    }
}

pub(super) fn list(core: &Core, call: &Call, body: &Map<String, Value>) -> Reply {
    match Page::parse(core, body) {
        Ok(page) => page.answer(core, call, None, |_| true),
        Err(problem) => refuse_because(4001, &problem),
    }
}

pub(super) fn redo(core: &Arc<Core>, body: &Map<String, Value>) -> Reply {
    let id = match body.get("id") {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        _ => return refuse_because(4001, "id is required"),
    };
    let mut restarts = false;
    let found = core.truth.update(Vendor::Ghostcut, &id, |work| {
        restarts = work.status.phase() == Phase::Failed;
        if restarts {
            work.status = Status::Code(-1);
        }
    });
    if found.is_none() {
        return refuse(3003);
    }
    if restarts {
        core.spawn(work::process(core.clone(), id));
    }
    succeed(restarts.into())
}

pub(super) fn balance(core: &Core) -> Reply {
    let left = core.settings().ghostcut.points;
    let bought = core.config.settings.ghostcut.points.max(left);
    let asset = json!({
        "id": 1_308_671, "uid": core.config.credentials.ghostcut_uid, "pointAmount": bought, "pointBalance": left,
        "expireTime": 4_102_444_800_000_u64, "orderNo": "sandbox-1", "remark": "package",
    });
    let assets = if left > 0.0 { vec![asset] } else { Vec::new() };
    let mut reply = succeed(json!({"pointAssets": assets}));
    if let crate::http::Payload::Json(envelope) = &mut reply.body {
        envelope["count"] = assets.len().into();
    }
    reply
}

pub(super) fn catalogue(body: &Map<String, Value>) -> Reply {
    if body.get("text").and_then(Value::as_str) != Some("ProcessStatus") {
        return refuse_because(4001, "unknown enum");
    }
    let items = STATUSES.iter().map(|(code, own, english)| {
        json!({"code": code, "description": own, "descriptionEn": english, "descriptionPt": english})
    });
    succeed(items.collect())
}
