//! The result of a run: a table for people, JSON for programs, and whether it is what was promised.

use std::io::Write;
use std::path::Path;

use anyhow::Context as _;
use fleet::{Books, PerVendor};
use serde::Serialize;

/// The result of a run.
#[derive(Serialize)]
pub(crate) struct Report {
    jobs: usize,
    finished: usize,
    expected_paid: PerVendor,
    paid: PerVendor,
    ledger: PerVendor,
    duplicates: usize,
    unknowns_resolved: usize,
    kills: usize,
    seconds: f64,
    #[serde(skip)]
    kills_wanted: usize,
    #[serde(skip)]
    differences: Vec<String>,
}

impl Report {
    pub(crate) fn new(books: &Books, kills_wanted: u32, kills: usize, seconds: f64) -> Self {
        Self {
            jobs: books.jobs,
            finished: books.finished,
            expected_paid: books.expected_paid,
            paid: books.paid,
            ledger: books.ledger,
            duplicates: books.duplicates,
            unknowns_resolved: books.unknowns_resolved,
            kills,
            seconds: (seconds * 10.0).round() / 10.0,
            kills_wanted: kills_wanted as usize,
            differences: books.differences.clone(),
        }
    }

    /// Everything that is not as promised: each job finished, each paid exactly once, every kill while jobs ran.
    pub(crate) fn faults(&self) -> Vec<String> {
        let mut faults = self.differences.clone();
        if self.kills != self.kills_wanted {
            let (kills, wanted) = (self.kills, self.kills_wanted);
            faults.push(format!(
                "only {kills} of {wanted} workers were killed while jobs ran"
            ));
        }
        faults
    }

    /// Writes the report as JSON.
    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        std::fs::write(path, text + "\n").with_context(|| path.display().to_string())
    }

    /// Prints the report as a table.
    pub(crate) fn print(&self, out: &mut impl Write) -> std::io::Result<()> {
        let pair = |pair: &PerVendor| format!("{:>8}  {:>8}", pair.sync, pair.ghostcut);
        writeln!(out, "                         Sync.so  GhostCut")?;
        writeln!(out, "expected to be paid     {}", pair(&self.expected_paid))?;
        writeln!(out, "paid, by the vendors    {}", pair(&self.paid))?;
        writeln!(out, "paid, by the ledger     {}", pair(&self.ledger))?;
        writeln!(
            out,
            "jobs finished           {:>8} of {}",
            self.finished, self.jobs
        )?;
        writeln!(out, "duplicates              {:>8}", self.duplicates)?;
        writeln!(out, "unknowns resolved       {:>8}", self.unknowns_resolved)?;
        writeln!(out, "workers killed          {:>8}", self.kills)?;
        writeln!(out, "seconds                 {:>8}", self.seconds)?;
        out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_the_promised_keys_and_a_missing_kill_is_a_fault() {
        let mut report = Report {
            jobs: 1,
            finished: 1,
            expected_paid: PerVendor::default(),
            paid: PerVendor::default(),
            ledger: PerVendor::default(),
            duplicates: 0,
            unknowns_resolved: 0,
            kills: 2,
            seconds: 1.0,
            kills_wanted: 2,
            differences: Vec::new(),
        };
        assert!(report.faults().is_empty());
        report.kills = 1;
        assert_eq!(report.faults().len(), 1);
        let json = serde_json::to_value(&report).unwrap();
        let keys: Vec<_> = json.as_object().unwrap().keys().collect();
        let promised =
            "jobs finished expected_paid paid ledger duplicates unknowns_resolved kills seconds";
        assert_eq!(keys, promised.split(' ').collect::<Vec<_>>());
    }
}
