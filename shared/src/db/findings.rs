//! What audits found that somebody has to deal with: what is open, and what people have said about it. Findings stand in the audits
//! that found them, and what was said in the operators' trail; neither is changed.

use diesel::QueryableByName;
use diesel::sql_types::{Array, BigInt, Jsonb, Nullable, Text, Uuid as SqlUuid};
use diesel_async::RunQueryDsl as _;
use serde_json::Value;
use uuid::Uuid;

use super::audits::AuditRecord;
use super::{Db, DbError, DbResult};
use crate::domain::Vendor;
use crate::domain::audit::{Comparison, Finding, FindingKind};

/// What was noted as dealt with.
#[derive(Clone, Debug, QueryableByName)]
pub struct Noted {
    /// How many findings.
    #[diesel(sql_type = BigInt)]
    pub findings: i64,
    /// Submissions of which no audit has found such a thing; if there are any, nothing was noted.
    #[diesel(sql_type = Array<SqlUuid>)]
    pub without: Vec<Uuid>,
}

/// What somebody has said about a finding.
#[derive(Clone, Debug, QueryableByName)]
pub struct Acknowledged {
    /// The submission.
    #[diesel(sql_type = SqlUuid)]
    pub token: Uuid,
    /// What kind of finding.
    #[diesel(sql_type = Nullable<Text>)]
    pub kind: Option<String>,
    /// The work that was found.
    #[diesel(sql_type = Nullable<Text>)]
    pub task_id: Option<String>,
    /// Who, and why.
    #[diesel(sql_type = Text)]
    pub words: String,
}

#[derive(QueryableByName)]
struct OpenFinding {
    #[diesel(sql_type = Text)]
    vendor: String,
    #[diesel(sql_type = Jsonb)]
    finding: Value,
}

impl Db {
    /// What operators have said about findings of these submissions that no repair can end.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn acknowledged(&self, tokens: &[Uuid]) -> DbResult<Vec<Acknowledged>> {
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
    ) -> DbResult<Noted> {
        let kinds = FindingKind::ALL.iter();
        let lasting: Vec<_> = kinds
            .filter(|kind| !kind.repairable())
            .map(|kind| kind.as_str())
            .collect();
        let mut connection = self.connection().await?;
        Ok(diesel::sql_query(
            "WITH found AS ( \
                 SELECT f ->> 'token' AS token, f -> 'kind' AS kind, f -> 'task_id' AS task_id \
                 FROM audits a, jsonb_array_elements(a.comparisons) c, jsonb_array_elements(c -> 'findings') f \
                 WHERE a.finished_at > now() - interval '90 days' AND jsonb_typeof(a.comparisons) = 'array' \
                 AND f ->> 'token' = ANY($1::text[]) AND f ->> 'kind' = ANY($4) \
                 UNION SELECT s.token::text, to_jsonb('second_submission'::text), to_jsonb(s.vendor_task_id) \
                 FROM submissions s WHERE s.token = ANY($1) AND s.state = 'duplicate' \
                 UNION SELECT e.token::text, to_jsonb('second_work'::text), e.detail -> 'task_id' \
                 FROM job_events e WHERE e.token = ANY($1) AND e.kind = 'second_work'), \
             without AS (SELECT t.token FROM unnest($1) t(token) WHERE NOT EXISTS (SELECT FROM found f WHERE f.token = t.token::text)), \
             noted AS ( \
                 INSERT INTO operator_events (actor, reason, action, subject, detail) \
                 SELECT $2, $3, 'finding_acknowledged', token, jsonb_build_object('kind', kind, 'task_id', task_id) \
                 FROM found WHERE NOT EXISTS (SELECT FROM without) RETURNING 1) \
             SELECT (SELECT count(*) FROM noted) AS findings, ARRAY(SELECT token FROM without) AS without",
        )
        .bind::<Array<SqlUuid>, _>(tokens)
        .bind::<Text, _>(by)
        .bind::<Text, _>(reason)
        .bind::<Array<Text>, _>(lasting)
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
        let kinds = FindingKind::ALL.iter();
        let in_vain: Vec<_> = kinds
            .filter(|kind| kind.is_in_vain())
            .map(|kind| kind.as_str())
            .collect();
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
        .bind::<Array<Text>, _>(in_vain)
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
