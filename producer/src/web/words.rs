//! `GET /v1/words`: what the words of the API mean, for people who know only the words and for programs that show them.

use axum::Json;
use serde::Serialize;
use shared::domain::admission::Refusal;
use shared::domain::audit::FindingKind;
use shared::domain::outcome::Reason;
use utoipa::ToSchema;

/// Words of closed vocabularies.
#[derive(Serialize, ToSchema)]
pub(super) struct Words {
    /// Why a job stands or has failed: `reason` of its stage, `code` of its error. Adopted jobs may have other error codes.
    reasons: Vec<ReasonWord>,
    /// Why nothing is sent to an account: `refusal` of the account, `by` of what holds a job.
    refusals: Vec<RefusalWord>,
    /// How the ledger and a vendor's list differ: `kind` of an audit's findings.
    findings: Vec<FindingWord>,
}

/// Why a job stands or has failed.
#[derive(Serialize, ToSchema)]
struct ReasonWord {
    /// The word, as filters take it.
    code: Reason,
    /// What it means.
    meaning: &'static str,
    /// What a person can do about it.
    remedy: &'static str,
}

/// Why nothing is sent to an account.
#[derive(Serialize, ToSchema)]
struct RefusalWord {
    /// The word.
    code: Refusal,
    /// What it means.
    meaning: &'static str,
}

/// How the ledger and a vendor's list differ.
#[derive(Serialize, ToSchema)]
struct FindingWord {
    /// The word.
    code: FindingKind,
    /// What it means.
    meaning: &'static str,
    /// Whether a repair ends it; what it does not, a person acknowledges.
    repairable: bool,
}

/// What the words of the API mean
///
/// They change with the version of the producer alone.
#[utoipa::path(get, path = "/v1/words", tag = "fleet", operation_id = "words",
    responses((status = 200, description = "The words", body = Words)))]
pub(super) async fn words() -> Json<Words> {
    let reason = |code: &Reason| ReasonWord {
        code: *code,
        meaning: code.meaning(),
        remedy: code.remedy(),
    };
    let refusal = |code: &Refusal| RefusalWord {
        code: *code,
        meaning: code.meaning(),
    };
    let finding = |code: &FindingKind| FindingWord {
        code: *code,
        meaning: code.meaning(),
        repairable: code.repairable(),
    };
    Json(Words {
        reasons: Reason::ALL.iter().map(reason).collect(),
        refusals: Refusal::ALL.iter().map(refusal).collect(),
        findings: FindingKind::ALL.iter().map(finding).collect(),
    })
}
