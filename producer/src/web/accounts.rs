//! `/v1/vendors`: the accounts, their limits and pauses. A change may say which version it is for.

use std::ops::RangeInclusive;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use shared::db::{Db, VendorChange, VendorStatus};
use shared::domain::Vendor;
use shared::domain::fields::{FieldCode, FieldError};
use utoipa::ToSchema;

use super::access::Caller;
use super::body::{Body, Limit, Who};
use super::job_actions::{Operator, RawBody, detached};
use super::jobs::database;
use super::precondition;
use super::problem::{Kind, Problem};
use super::requests::{LimitsRequest, PauseRequest, ReasonRequest};

/// Most of an amount or a rate; far beyond any plan.
const MAX_AMOUNT: f64 = 1e9;
/// Most of a count: the columns are `integer`.
const MAX_COUNT: f64 = i32::MAX as f64;

/// Every account as it stands.
#[derive(Serialize, ToSchema)]
pub(super) struct VendorList {
    vendors: Vec<VendorStatus>,
}

type Account = Result<Path<(String, String)>, PathRejection>;

/// Show the accounts: limits, works in flight, spent today, and why nothing is sent
#[utoipa::path(get, path = "/v1/vendors", tag = "vendors", operation_id = "list_vendors",
    responses((status = 200, description = "The accounts", body = VendorList)))]
pub(super) async fn list(
    State(Operator { db, .. }): State<Operator>,
) -> Result<Json<VendorList>, Problem> {
    let vendors = db.vendor_status().await.map_err(|error| database(&error))?;
    Ok(Json(VendorList { vendors }))
}

/// Show an account
#[utoipa::path(get, path = "/v1/vendors/{vendor}/{account}", tag = "vendors", operation_id = "show_vendor",
    params(("vendor" = Vendor, Path, description = "The vendor"), ("account" = String, Path, description = "The account's name")),
    responses((status = 200, description = "The account", body = VendorStatus,
            headers(("ETag" = String, description = "Its version, for `If-Match`"))),
        (status = 404, description = "There is no such account")))]
pub(super) async fn show(
    State(Operator { db, .. }): State<Operator>,
    account: Account,
) -> Result<Response, Problem> {
    Ok(shown(find(&db, account).await?))
}

/// Set limits at once for the whole fleet
#[utoipa::path(patch, path = "/v1/vendors/{vendor}/{account}", tag = "vendors", operation_id = "limit_vendor",
    request_body = LimitsRequest,
    params(("vendor" = Vendor, Path, description = "The vendor"), ("account" = String, Path, description = "The account's name"),
        ("If-Match" = Option<String>, Header, description = "The `ETag` that the change is for")),
    responses((status = 200, description = "The account, changed", body = VendorStatus,
            headers(("ETag" = String, description = "Its version, for `If-Match`"))),
        (status = 404, description = "There is no such account"), (status = 412, description = "Somebody has changed it meanwhile")))]
pub(super) async fn limit(
    State(Operator { db, .. }): State<Operator>,
    account: Account,
    caller: Caller,
    headers: HeaderMap,
    body: RawBody,
) -> Result<Response, Problem> {
    let mut body = Body::read(&headers, body)?;
    let Who { by, reason } = body.who(&caller);
    let limits = body.limits(&[
        limit_of("max_in_flight", true, 1.0..=MAX_COUNT),
        limit_of("max_per_minute", false, 0.001..=MAX_AMOUNT),
        limit_of("burst", true, 1.0..=MAX_COUNT),
        limit_of("daily_budget", false, 0.0..=MAX_AMOUNT),
        limit_of("balance_floor", false, 0.0..=MAX_AMOUNT),
    ]);
    body.finish()?;
    let found = find(&db, account).await?;
    let vendor = vendor(&found)?;
    // A floor that is never compared with anything would look like a safeguard.
    if vendor != Vendor::Ghostcut && limits["balance_floor"].is_number() {
        let fault = FieldError {
            path: "/balance_floor".to_owned(),
            code: FieldCode::OutOfRange,
            message: format!(
                "{vendor} does not tell its balance; `daily_budget` limits what is spent there"
            ),
        };
        return Err(Problem::faults(Kind::InvalidRequest, vec![fault]));
    }
    let change = VendorChange::limits(vendor, found.account, limits, by, reason);
    changed(&db, &headers, change).await
}

/// Stop paid sends to an account, replays and redos included; polling and storing go on
#[utoipa::path(post, path = "/v1/vendors/{vendor}/{account}/pause", tag = "vendors", operation_id = "pause_vendor",
    request_body = PauseRequest,
    params(("vendor" = Vendor, Path, description = "The vendor"), ("account" = String, Path, description = "The account's name"),
        ("If-Match" = Option<String>, Header, description = "The `ETag` that the change is for")),
    responses((status = 200, description = "The account, changed", body = VendorStatus,
            headers(("ETag" = String, description = "Its version, for `If-Match`"))),
        (status = 404, description = "There is no such account"), (status = 412, description = "Somebody has changed it meanwhile")))]
pub(super) async fn pause(
    State(Operator { db, .. }): State<Operator>,
    account: Account,
    caller: Caller,
    headers: HeaderMap,
    body: RawBody,
) -> Result<Response, Problem> {
    let mut body = Body::read(&headers, body)?;
    let Who { by, reason } = body.who(&caller);
    let seconds = body.count("seconds");
    body.finish()?;
    let duration = seconds.map(|seconds| Duration::from_secs(seconds.into()));
    let found = find(&db, account).await?;
    let change = VendorChange::pause(vendor(&found)?, found.account, duration, by, reason);
    changed(&db, &headers, change).await
}

/// End every pause of an account, also those that the vendor's answers made; limits stay
///
/// Jobs that such an answer put off, or that wait to ask Sync.so again for a lost one, become due.
#[utoipa::path(post, path = "/v1/vendors/{vendor}/{account}/resume", tag = "vendors", operation_id = "resume_vendor",
    request_body = ReasonRequest,
    params(("vendor" = Vendor, Path, description = "The vendor"), ("account" = String, Path, description = "The account's name"),
        ("If-Match" = Option<String>, Header, description = "The `ETag` that the change is for")),
    responses((status = 200, description = "The account, changed", body = VendorStatus,
            headers(("ETag" = String, description = "Its version, for `If-Match`"))),
        (status = 404, description = "There is no such account"), (status = 412, description = "Somebody has changed it meanwhile")))]
pub(super) async fn resume(
    State(Operator { db, .. }): State<Operator>,
    account: Account,
    headers: HeaderMap,
    Who { by, reason }: Who,
) -> Result<Response, Problem> {
    let found = find(&db, account).await?;
    let change = VendorChange::resume(vendor(&found)?, found.account, by, reason);
    changed(&db, &headers, change).await
}

fn limit_of(name: &'static str, whole: bool, range: RangeInclusive<f64>) -> Limit {
    Limit { name, whole, range }
}

async fn find(db: &Db, account: Account) -> Result<VendorStatus, Problem> {
    let no_account = || {
        let detail = "`GET /v1/vendors` lists the accounts";
        Problem::new(Kind::AccountNotFound, detail)
    };
    let Path((vendor, account)) = account.map_err(|_| no_account())?;
    let accounts = db.vendor_status().await.map_err(|error| database(&error))?;
    let mut accounts = accounts.into_iter();
    accounts
        .find(|status| status.vendor == vendor && status.account == account)
        .ok_or_else(no_account)
}

fn vendor(account: &VendorStatus) -> Result<Vendor, Problem> {
    let vendor = account.vendor.parse::<Vendor>();
    vendor.map_err(|error| super::jobs::internal(&error))
}

async fn changed(db: &Db, headers: &HeaderMap, change: VendorChange) -> Result<Response, Problem> {
    let if_version = precondition::if_match(headers)?;
    let change = VendorChange {
        if_version,
        ..change
    };
    let (vendor, account) = (change.vendor.as_str().to_owned(), change.account.clone());
    let writer = db.clone();
    let changed = detached(async move { writer.change_vendor(&change).await });
    if changed.await?.is_none() {
        return Err(precondition::outdated());
    }
    Ok(shown(find(db, Ok(Path((vendor, account)))).await?))
}

fn shown(account: VendorStatus) -> Response {
    (precondition::etag(account.version), Json(account)).into_response()
}
