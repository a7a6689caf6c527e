//! `GET /v1/find`: whatever has this id.

use axum::Json;
use axum::extract::State;
use shared::db::Found;
use shared::domain::fields::FieldCode;
use shared::domain::find::Sought;

use super::job_actions::Operator;
use super::jobs::database;
use super::list::{self, Parameters};
use super::problem::Problem;

/// Find jobs, submissions and users by whatever id you have
///
/// A job's id, a submission's token, a user's id, or the first six or more digits of one; the marker that the vendors are shown
/// (`gf-…`), alone or within a text such as a URL; the vendor's own id of a work. At most ten of each kind; `GET /v1/jobs` finds by
/// names and errors.
#[utoipa::path(get, path = "/v1/find", tag = "jobs", operation_id = "find",
    params(("id" = String, Query, min_length = 1, max_length = 200, description = "What you have")),
    responses((status = 200, description = "What was found; empty lists when nothing was", body = Found)))]
pub(super) async fn find(
    State(Operator { db, .. }): State<Operator>,
    parameters: Parameters,
) -> Result<Json<Found>, Problem> {
    let mut sought = None;
    list::each(parameters, |name, value| {
        match name {
            "id" => sought = Some(Sought::read(&list::read_text(value)?)),
            _ => return Err(list::unknown()),
        }
        Ok(())
    })?;
    let Some(sought) = sought else {
        return Err(list::fault("id", FieldCode::Missing, "has to be there"));
    };
    let found = db.find(&sought).await;
    found.map(Json).map_err(|error| database(&error))
}
