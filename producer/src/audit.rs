//! Compares the ledger with the vendors' lists, on a timer and for `producer audit`, and books what was paid for and forgotten.
//!
//! What differs is `domain::audit`'s to say. A repair only adds what a vendor shows; it never takes a booked work away, and it pays
//! for nothing.

mod orders;
mod told;

use std::time::Duration;

use anyhow::Context as _;
use chrono::{DateTime, TimeDelta, Utc};
use prometheus::{
    Gauge, IntGaugeVec, Opts, register_gauge_with_registry, register_int_gauge_vec_with_registry,
};
use serde_json::{Value, json};
use shared::crash::{self, Point};
use shared::db::{
    Db, DbResult, Forgotten, LedgerVerdict, MetadataVerdict, NewAudit, Rebuild, Seen, UnknownFilter,
};
use shared::domain::answer::Work;
use shared::domain::audit::{Comparison, Finding, FindingKind, Window, compare};
use shared::domain::search::{AROUND, Marker};
use shared::domain::{LedgerState, Vendor};
use shared::telemetry::{Registry, chain};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::booking::{About, found};
use crate::config::AuditConfig;
use crate::vendors::Vendors;
pub use orders::{AuditOrders, Order};
use told::{blind, words};

/// How long a vendor's list may lag behind, and a submission be unclear, before that is a finding.
const LAG: TimeDelta = AROUND;

/// Who audits, in the trail.
const ACTOR: &str = "audit";

/// What an audit came to.
#[derive(Debug, Default)]
pub struct Audited {
    /// What each vendor's list showed; not of a vendor whose list could not be read.
    pub comparisons: Vec<Comparison>,
    /// Why it counts as not made: what was found is true, but proves nothing about the rest.
    pub failed: Option<String>,
}

/// The handles of an audit.
#[derive(Clone)]
pub struct Auditor {
    /// Database.
    pub db: Db,
    /// Both vendors.
    pub vendors: Vendors,
}

impl Auditor {
    /// Runs an audit that has begun under this number, and stores what it came to.
    ///
    /// # Errors
    /// When what it came to cannot be stored.
    pub async fn run(&self, id: i64, since: DateTime<Utc>, repair: bool) -> DbResult<Audited> {
        let audited = self.compare_all(since, repair).await;
        crash::point(Point::AuditCompared);
        match &audited.failed {
            // It counts as not made: it must not allow paid sends again, nor silence the alert.
            Some(error) => {
                let found = &audited.comparisons;
                self.db.fail_audit(id, error, found).await?;
            }
            None => self.db.finish_audit(id, &audited.comparisons).await?,
        }
        Ok(audited)
    }

    /// Stops paid sends if the vendor has a work of ours that the ledger does not have, still: whatever else it does not have would
    /// be paid for again.
    async fn stop_if_forgotten(&self, comparison: &Comparison, seen: Seen) -> DbResult<()> {
        let findings = comparison.findings.iter();
        let is_forgotten =
            |finding: &&Finding| finding.kind == FindingKind::Orphan && finding.is_open();
        let mut orphans = findings.filter(is_forgotten);
        let Some(orphan) = orphans.next() else {
            return Ok(());
        };
        let oldest = orphans.filter_map(|other| other.at).chain(orphan.at).min();
        let reason = format!(
            "{} has the work {} of submission {}, which is not in the ledger: the database forgot commits",
            comparison.vendor,
            orphan.task_id.as_deref().unwrap_or_default(),
            orphan.token
        );
        let forgotten = Forgotten {
            reason,
            from: self.db.forgotten_from(oldest).await?,
            seen,
        };
        self.db.stop_forgotten(&forgotten, ACTOR).await
    }

    /// Each vendor alone: what one shows must not wait for the other's list. Paid sends are stopped before the audit counts as made:
    /// killed in between, it is made again, and not only after its interval.
    async fn compare_all(&self, since: DateTime<Utc>, repair: bool) -> Audited {
        let mut audited = Audited::default();
        // What somebody resumes from now on counts more than what is found.
        let seen = match self.db.last_resume().await {
            Ok(seen) => seen,
            Err(error) => {
                audited.failed = Some(chain(&error).to_string());
                return audited;
            }
        };
        let mut why = Vec::new();
        for vendor in Vendor::ALL {
            let comparison = match self.compare(*vendor, since, repair).await {
                Ok(comparison) => comparison,
                Err(error) => {
                    why.push(format!("{error:#}"));
                    continue;
                }
            };
            for finding in comparison.findings.iter().filter(|f| f.is_open()) {
                tracing::error!(vendor = %comparison.vendor, kind = %finding.kind, job.id = %finding.job,
                    submission.token = %finding.token, task = finding.task_id, detail = finding.detail,
                    "the ledger and the vendor's list differ");
            }
            if let Err(error) = self.stop_if_forgotten(&comparison, seen).await {
                why.push(format!("paid sends cannot be stopped: {}", chain(&error)));
            }
            why.extend(blind(&comparison));
            audited.comparisons.push(comparison);
        }
        audited.failed = (!why.is_empty()).then(|| why.join("; "));
        audited
    }

    async fn compare(
        &self,
        vendor: Vendor,
        since: DateTime<Utc>,
        repair: bool,
    ) -> anyhow::Result<Comparison> {
        let now = self.db.now().await?;
        let listed = self.vendors.list(vendor, since, now + AROUND).await;
        let works = listed.with_context(|| format!("{vendor} cannot be audited"))?;
        // The ledger is read after the list: whatever the list shows was claimed before it was sent.
        let ids: Vec<String> = works
            .iter()
            .flat_map(|work| [Some(work.task_id.clone()), work.project_id.clone()])
            .flatten()
            .collect();
        let tokens: Vec<_> = works
            .iter()
            .filter_map(Marker::of)
            .map(|marker| marker.token)
            .collect();
        let account = self.vendors.account(vendor);
        let ledger = self
            .db
            .booked(vendor, account, since, &ids, &tokens)
            .await?;
        let window = Window {
            since,
            now,
            lag: LAG,
        };
        let mut comparison = compare(vendor, &ledger, &works, window);
        self.db.note_acknowledged(&mut comparison).await?;
        if repair {
            for finding in &mut comparison.findings {
                let work = works
                    .iter()
                    .find(|work| Some(&work.task_id) == finding.task_id.as_ref());
                if let Some(work) = work.filter(|_| finding.kind.repairable()) {
                    self.repair(vendor, finding, work).await?;
                }
            }
        }
        Ok(comparison)
    }

    /// Books a work. Killed between two of them: the next audit finds the rest.
    async fn repair(
        &self,
        vendor: Vendor,
        finding: &mut Finding,
        work: &Work,
    ) -> anyhow::Result<()> {
        let about = About {
            vendor,
            job: finding.job,
            token: finding.token,
        };
        let detail = json!({ "task_id": work.task_id, "finding": finding.kind });
        let settlement = found(about, work, ACTOR, "audited", detail);
        let verdict = if finding.kind == FindingKind::Orphan {
            let rebuild = Rebuild {
                token: finding.token,
                job: finding.job,
                vendor,
                account: self.vendors.account(vendor).to_owned(),
                attempt: finding.attempt,
                at: finding.at,
                metadata: given_source(vendor, work),
                settlement,
            };
            self.db.rebuild(&rebuild).await?
        } else {
            self.db.settle(&settlement).await?
        };
        crash::point(Point::AuditRepaired);
        finding.repaired = matches!(verdict.ledger, LedgerVerdict::Written | LedgerVerdict::Same);
        let others = match verdict.metadata {
            MetadataVerdict::Other => self.job_has(finding).await?,
            _ => None,
        };
        let told = words(verdict, others.as_deref());
        tracing::warn!(%vendor, job.id = %finding.job, submission.token = %finding.token, task = work.task_id,
            "a work that the ledger did not know: {told}");
        finding.repair = Some(told);
        Ok(())
    }

    /// The work that is the job's own, if it is not this one.
    async fn job_has(&self, finding: &Finding) -> DbResult<Option<String>> {
        let filter = UnknownFilter {
            job: Some(finding.job),
            ..UnknownFilter::default()
        };
        let rows = self.db.unknowns(filter).await?;
        let vendor = |token| {
            rows.iter()
                .find(|row| row.token == token)
                .map(|row| &row.vendor)
        };
        let ours = vendor(finding.token);
        let own = rows.iter().find(|row| {
            let occupies = (row.state.parse::<LedgerState>()).is_ok_and(LedgerState::occupies);
            row.token != finding.token && Some(&row.vendor) == ours && occupies
        });
        Ok(own.and_then(|row| row.task_id.clone()))
    }
}

/// What GhostCut was given, without its signature: all that is left of a claim that the database forgot.
fn given_source(vendor: Vendor, work: &Work) -> Option<Value> {
    let url = work.source_url.as_deref()?;
    let url = url.split_once('?').map_or(url, |(url, _)| url);
    (vendor == Vendor::Ghostcut).then(|| json!({ "ghostcut_video_url": url }))
}

/// What the last audit found, as every producer shows it.
pub struct Gauges {
    findings: IntGaugeVec,
    last_success: Gauge,
}

impl Gauges {
    /// Registers them.
    ///
    /// # Errors
    /// When a name is taken.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        Ok(Self {
            findings: register_int_gauge_vec_with_registry!(
                Opts::new(
                    "audit_findings",
                    "Differences between the ledger and the vendor's list that nobody has repaired or acknowledged: of the last audit, and what was paid for in vain of any"
                ),
                &["vendor", "kind"],
                registry
            )?,
            last_success: register_gauge_with_registry!(
                "audit_last_success_timestamp_seconds",
                "When the last audit that was finished began; 0 when there is none",
                registry
            )?,
        })
    }

    async fn show(&self, db: &Db) -> anyhow::Result<()> {
        let last = db.last_audit().await?;
        let failed = db.failed_audit(last.as_ref()).await?;
        if let Some(last) = &last {
            self.last_success.set(last.started_at.timestamp() as f64);
        }
        let open = db.open_findings(last.iter().chain(&failed)).await?;
        for vendor in Vendor::ALL {
            for kind in FindingKind::ALL {
                let found = open
                    .iter()
                    .filter(|(of, finding)| of == vendor && finding.kind == *kind);
                self.findings
                    .with_label_values(&[vendor.as_str(), kind.as_str()])
                    .set(i64::try_from(found.count()).unwrap_or(i64::MAX));
            }
        }
        Ok(())
    }
}

/// Audits on a timer, of several producers one at a time, and when it is asked to; shows the last result.
pub struct AuditSweep {
    auditor: Auditor,
    config: AuditConfig,
    ordered: mpsc::Receiver<Order>,
    gauges: Gauges,
}

impl AuditSweep {
    /// A sweep that has not begun.
    #[must_use]
    pub const fn new(
        auditor: Auditor,
        config: AuditConfig,
        ordered: mpsc::Receiver<Order>,
        gauges: Gauges,
    ) -> Self {
        Self {
            auditor,
            config,
            ordered,
            gauges,
        }
    }

    /// Looks every `every` whether an audit is due, and makes those that are asked for, until told to stop.
    pub async fn run(mut self, every: Duration, stop: CancellationToken) {
        while !stop.is_cancelled() {
            // Not cut off half-way: only the pause ends early.
            if !self.config.audit_interval.is_zero()
                && let Err(error) = self.audit_when_due().await
            {
                tracing::warn!("cannot audit: {error:#}");
            }
            if let Err(error) = self.auditor.db.fail_cut_off_audits().await {
                tracing::warn!(error = chain(&error), "cannot end audits that were cut off");
            }
            if let Err(error) = self.gauges.show(&self.auditor.db).await {
                tracing::warn!("cannot show the last audit: {error:#}");
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                Some(order) = self.ordered.recv() => self.audit_as_ordered(&order).await,
                () = tokio::time::sleep(every) => {}
            }
        }
        self.ordered.close();
        // Those too whose row is being written: the place that was taken for them is waited for.
        while let Some(order) = self.ordered.recv().await {
            let failed = self
                .auditor
                .db
                .fail_audit(order.id, "the producer was stopped", &[]);
            if let Err(error) = failed.await {
                tracing::warn!(
                    audit = order.id,
                    error = chain(&error),
                    "an audit will not be made"
                );
            }
        }
    }

    async fn audit_as_ordered(&self, order: &Order) {
        let made = self.auditor.run(order.id, order.since, order.repair);
        match made.await {
            Ok(Audited { failed: None, .. }) => {}
            Ok(Audited {
                failed: Some(error),
                ..
            }) => tracing::warn!(audit = order.id, error, "cannot audit"),
            Err(error) => tracing::warn!(
                audit = order.id,
                error = chain(&error),
                "cannot store an audit"
            ),
        }
    }

    async fn audit_when_due(&self) -> anyhow::Result<()> {
        let db = &self.auditor.db;
        let lookback = TimeDelta::from_std(self.config.audit_lookback)?;
        let since = db.now().await? - lookback;
        let audit = NewAudit {
            since,
            by: ACTOR,
            reason: "scheduled",
            repair: false,
        };
        let Some(id) = db
            .begin_audit(&audit, Some(self.config.audit_interval))
            .await?
        else {
            return Ok(());
        };
        crash::point(Point::AuditBegun);
        match self.auditor.run(id, since, false).await?.failed {
            Some(error) => Err(anyhow::anyhow!(error)),
            None => Ok(()),
        }
    }
}
