//! What audits found that somebody has to deal with: what is open, and what people have said about it. Findings stand in the audits
//! that found them, and what was said in the operators' trail; neither is changed.

use diesel::QueryableByName;
use diesel::sql_types::{Array, BigInt, Jsonb, Nullable, Text, Uuid as SqlUuid};
use diesel_async::RunQueryDsl as _;
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::audits::AuditRecord;
use super::{Db, DbError, DbResult};
use crate::domain::Vendor;
use crate::domain::audit::{Comparison, Finding, FindingKind};

/// What was noted as dealt with.
#[derive(Clone, Debug, QueryableByName)]
pub struct AcknowledgedFindings {
    /// How many findings.
    #[diesel(sql_type = BigInt)]
    pub findings: i64,
    /// Submissions of which no audit has found such a thing; if there are any, nothing was noted.
    #[diesel(sql_type = Array<SqlUuid>)]
    pub without: Vec<Uuid>,
}

/// What somebody has said about a finding.
#[derive(Clone, Debug, QueryableByName)]
struct Acknowledged {
    /// The submission.
    #[diesel(sql_type = SqlUuid)]
    token: Uuid,
    /// What kind of finding.
    #[diesel(sql_type = Nullable<Text>)]
    kind: Option<String>,
    /// The work that was found.
    #[diesel(sql_type = Nullable<Text>)]
    task_id: Option<String>,
    /// Who, and why.
    #[diesel(sql_type = Text)]
    words: String,
}

#[derive(QueryableByName)]
struct Works {
    #[diesel(sql_type = BigInt)]
    works: i64,
}

#[derive(QueryableByName)]
struct OpenFinding {
    #[diesel(sql_type = Text)]
    vendor: String,
    #[diesel(sql_type = Jsonb)]
    finding: Value,
}

/// A work that was one too many, and what somebody has said about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, QueryableByName, utoipa::ToSchema)]
pub struct PaidTwice {
    /// The vendor's id of the work, as far as it is known.
    #[diesel(sql_type = Nullable<Text>)]
    pub task_id: Option<String>,
    /// Who has dealt with it and why; null while nobody has.
    #[diesel(sql_type = Nullable<Text>)]
    pub dealt_with: Option<String>,
}

/// What the ledger and the trail say was paid for twice: the one place that says so, for whoever counts, shows or ends it.
pub(super) const PAID_TWICE: &str = "\
    SELECT token, vendor, job_id, 'second_submission' AS kind, vendor_task_id AS task_id FROM submissions WHERE state = 'duplicate' \
    UNION SELECT s.token, s.vendor, s.job_id, CASE e.kind WHEN 'duplicate' THEN 'second_submission' ELSE e.kind END, e.detail ->> 'task_id' \
    FROM job_events e JOIN submissions s ON s.token = e.token WHERE e.kind IN ('duplicate', 'second_work')";

/// Whether an operator's line (`o`) is about a work (`d`) of these; another work of the same submission is another matter.
pub(super) const IS_ABOUT: &str = "o.action = 'finding_acknowledged' AND o.subject = d.token::text AND o.detail ->> 'kind' = d.kind \
    AND o.detail ->> 'task_id' IS NOT DISTINCT FROM d.task_id";

impl Db {
    /// The works of a submission that were one too many, by the ledger, the trail, and audits of the last 90 days.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn paid_twice(&self, token: Uuid) -> DbResult<Vec<PaidTwice>> {
        let mut connection = self.connection().await?;
        Ok(diesel::sql_query(format!(
            "SELECT DISTINCT d.task_id, (SELECT o.actor || ': ' || o.reason FROM operator_events o WHERE {IS_ABOUT} \
                 ORDER BY o.id DESC LIMIT 1) AS dealt_with \
             FROM (SELECT token, kind, task_id FROM ({PAID_TWICE}) t WHERE token = $1 \
                 UNION SELECT (f ->> 'token')::uuid, f ->> 'kind', f ->> 'task_id' \
                 FROM audits a, jsonb_array_elements(a.comparisons) c, jsonb_array_elements(c -> 'findings') f \
                 WHERE a.findings > 0 AND a.finished_at > now() - interval '90 days' AND f ->> 'token' = $1::text \
                 AND f ->> 'kind' = ANY($2)) d ORDER BY 1, 2"
        ))
        .bind::<SqlUuid, _>(token)
        .bind::<Array<Text>, _>(kinds(FindingKind::is_twice))
        .load(&mut connection)
        .await?)
    }

    /// Works that were ever paid for twice and that somebody has dealt with, also those that only a vendor's list showed.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn duplicates_dealt_with(&self) -> DbResult<i64> {
        let mut connection = self.connection().await?;
        let works: Works = diesel::sql_query(
            "SELECT count(DISTINCT (o.subject, o.detail ->> 'task_id')) AS works FROM operator_events o \
             WHERE o.action = 'finding_acknowledged' AND o.detail ->> 'kind' = ANY($1)",
        )
        .bind::<Array<Text>, _>(kinds(FindingKind::is_twice))
        .get_result(&mut connection)
        .await?;
        Ok(works.works)
    }

    /// What operators have said about findings of these submissions that no repair can end.
    async fn acknowledged(&self, tokens: &[Uuid]) -> DbResult<Vec<Acknowledged>> {
        let mut connection = self.connection().await?;
        Ok(diesel::sql_query(
            "SELECT u.token, e.detail ->> 'kind' AS kind, e.detail ->> 'task_id' AS task_id, e.actor || ': ' || e.reason AS words \
             FROM unnest($1) u(token) JOIN operator_events e ON e.action = 'finding_acknowledged' AND e.subject = u.token::text \
             ORDER BY e.id DESC",
        )
        .bind::<Array<SqlUuid>, _>(tokens)
        .load(&mut connection)
        .await?)
    }

    /// Says that somebody has dealt with what audits of the last 90 days found about these submissions and no repair can end, or what the
    /// ledger itself has as paid twice: each kind and work as it was found, so that another work counts again. All of them or, if there is
    /// nothing about one, none.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn acknowledge_findings(
        &self,
        tokens: &[Uuid],
        by: &str,
        reason: &str,
    ) -> DbResult<AcknowledgedFindings> {
        let mut connection = self.connection().await?;
        Ok(diesel::sql_query(format!(
            "WITH found AS ( \
                 SELECT f ->> 'token' AS token, f -> 'kind' AS kind, coalesce(f -> 'task_id', 'null') AS task_id \
                 FROM audits a, jsonb_array_elements(a.comparisons) c, jsonb_array_elements(c -> 'findings') f \
                 WHERE a.finished_at > now() - interval '90 days' AND jsonb_typeof(a.comparisons) = 'array' \
                 AND f ->> 'token' = ANY($1::text[]) AND f ->> 'kind' = ANY($4) \
                 UNION SELECT d.token::text, to_jsonb(d.kind), coalesce(to_jsonb(d.task_id), 'null') \
                 FROM ({PAID_TWICE}) d WHERE d.token = ANY($1)), \
             without AS (SELECT t.token FROM unnest($1) t(token) WHERE NOT EXISTS (SELECT FROM found f WHERE f.token = t.token::text)), \
             noted AS ( \
                 INSERT INTO operator_events (actor, reason, action, subject, detail) \
                 SELECT $2, $3, 'finding_acknowledged', token, jsonb_build_object('kind', kind, 'task_id', task_id) \
                 FROM found WHERE NOT EXISTS (SELECT FROM without) RETURNING 1) \
             SELECT (SELECT count(*) FROM noted) AS findings, ARRAY(SELECT token FROM without) AS without"
        ))
        .bind::<Array<SqlUuid>, _>(tokens)
        .bind::<Text, _>(by)
        .bind::<Text, _>(reason)
        .bind::<Array<Text>, _>(kinds(|kind| !kind.repairable()))
        .get_result(&mut connection)
        .await?)
    }

    /// Marks what somebody has said to have dealt with. What can be repaired is not ended by words.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn note_acknowledged(&self, comparison: &mut Comparison) -> DbResult<()> {
        let lasting = |finding: &&mut Finding| !finding.kind.repairable();
        let tokens: Vec<_> = (comparison.findings.iter_mut().filter(lasting))
            .map(|finding| finding.token)
            .collect();
        let known = self.acknowledged(&tokens).await?;
        for finding in comparison.findings.iter_mut().filter(lasting) {
            let of = known.iter().find(|said| {
                said.token == finding.token
                    && said.kind.as_deref() == Some(finding.kind.as_str())
                    && said.task_id == finding.task_id
            });
            finding.acknowledged = of.map(|said| said.words.clone());
        }
        Ok(())
    }

    /// What audits found and nobody has repaired or acknowledged, once each: by the last good one and one that failed since, and whatever
    /// was paid for in vain by any of the last 90 days, as long as it can be acknowledged. That stays true when it is older than what
    /// audits look back to.
    ///
    /// # Errors
    /// When the database is away, or a newer build wrote one.
    pub async fn open_findings(
        &self,
        newest: impl IntoIterator<Item = &AuditRecord>,
    ) -> DbResult<Vec<(Vendor, Finding)>> {
        let newest: Vec<i64> = newest.into_iter().map(|audit| audit.id).collect();
        let mut connection = self.connection().await?;
        let rows: Vec<OpenFinding> = diesel::sql_query(
            "SELECT DISTINCT ON (f ->> 'token', f ->> 'kind', f ->> 'task_id') c ->> 'vendor' AS vendor, f AS finding \
             FROM audits a, jsonb_array_elements(a.comparisons) c, jsonb_array_elements(c -> 'findings') f \
             WHERE a.findings > 0 AND (a.id = ANY($1) OR a.finished_at > now() - interval '90 days' AND f ->> 'kind' = ANY($2)) \
             AND NOT coalesce((f ->> 'repaired')::boolean, false) \
             AND NOT EXISTS (SELECT FROM operator_events o WHERE o.action = 'finding_acknowledged' AND o.subject = f ->> 'token' \
                 AND o.detail ->> 'kind' = f ->> 'kind' AND o.detail ->> 'task_id' IS NOT DISTINCT FROM f ->> 'task_id') \
             ORDER BY f ->> 'token', f ->> 'kind', f ->> 'task_id', a.id DESC",
        )
        .bind::<Array<BigInt>, _>(newest)
        .bind::<Array<Text>, _>(kinds(FindingKind::is_in_vain))
        .load(&mut connection)
        .await?;
        let read = |row: OpenFinding| {
            let finding = serde_json::from_value(row.finding);
            Ok((
                row.vendor.parse()?,
                finding.map_err(|error| DbError::Value(error.to_string()))?,
            ))
        };
        rows.into_iter().map(read).collect()
    }
}

/// The words of the kinds that are so.
fn kinds(are: impl Fn(FindingKind) -> bool) -> Vec<&'static str> {
    let kinds = FindingKind::ALL.iter().copied();
    kinds
        .filter(|kind| are(*kind))
        .map(FindingKind::as_str)
        .collect()
}
