//! `GET /v1/jobs/{id}/result`.

use std::time::Duration;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use shared::db::Db;
use shared::storage::Storage;
use shared::telemetry::chain;
use uuid::Uuid;

use super::jobs::{database, no_job, read_id};
use super::problem::{Kind, Problem};
use crate::results::{self, NoResult, ResultLink};

/// What links to results need.
#[derive(Clone)]
pub(super) struct Results {
    pub(super) db: Db,
    pub(super) storage: Storage,
    /// How long a link lives.
    pub(super) life: Duration,
}

/// The result of a job
///
/// This path stays the same; the link it leads to is made when it is asked for and ends after a while, unless results are public.
/// Programs that ask for `application/json` get the link in a document instead of a redirect.
#[utoipa::path(get, path = "/v1/jobs/{id}/result", tag = "jobs", operation_id = "job_result",
    params(("id" = Uuid, Path, description = "The job")),
    responses((status = 200, description = "The link; with `Accept: application/json`", body = ResultLink),
        (status = 303, description = "To the result", headers(("Location" = String, description = "The link"))),
        (status = 404, description = "There is no such job, or its result is no longer there"),
        (status = 409, description = "The job has no result, or none yet")))]
pub(super) async fn show(
    State(Results { db, storage, life }): State<Results>,
    id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let id = read_id(id)?;
    let found = async {
        let place = results::find(&db, &storage, id).await?;
        results::link(&storage, place, life).await
    };
    let link = found.await.map_err(|error| refusal(id, error))?;
    // The link is a secret that ends.
    let private = (header::CACHE_CONTROL, "no-store".to_owned());
    if wants_json(&headers) {
        return Ok(([private], Json(link)).into_response());
    }
    let location = (header::LOCATION, link.url);
    Ok((StatusCode::SEE_OTHER, [private, location]).into_response())
}

/// Whether JSON is asked for by name. Browsers and download tools take anything, and want the result.
fn wants_json(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter();
    accepted
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|kind| {
            let name = kind.split(';').next().unwrap_or_default();
            name.trim().eq_ignore_ascii_case("application/json")
        })
}

fn refusal(id: Uuid, error: NoResult) -> Problem {
    match error {
        NoResult::NoJob(_) => no_job(id),
        NoResult::NotThere(_) => Problem::new(Kind::NoResult, error.to_string()).about(id),
        NoResult::Gone => Problem::new(Kind::ResultGone, error.to_string()).about(id),
        NoResult::Db(error) => database(&error),
        NoResult::Storage(error) => {
            tracing::warn!(job.id = %id, error = chain(&error), "no link to a result could be made");
            Problem::new(Kind::Unavailable, "the object store is away, or refuses us")
        }
    }
}
