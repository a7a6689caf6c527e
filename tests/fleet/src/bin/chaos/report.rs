//! The result of a run: lines for people, JSON for programs, and whether it is what was promised.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use anyhow::Context as _;
use serde::Serialize;

use crate::aftermath::Aftermath;
use crate::books::Books;
use crate::watch::Watch;
use crate::yard::Tally;

/// Submissions whose outcome was unknown.
#[derive(Serialize)]
pub(crate) struct Unknowns {
    opened: usize,
    closed: usize,
    /// Still undecided in the end.
    open: usize,
}

/// The result of a run.
#[derive(Serialize)]
pub(crate) struct Report {
    seed: u64,
    minutes: f64,
    brokers: usize,
    faults: BTreeMap<String, usize>,
    jobs: usize,
    finished: usize,
    submissions: usize,
    /// Works that the vendors were paid for, failed ones included.
    paid: usize,
    duplicates: usize,
    lost: usize,
    unknowns: Unknowns,
    /// Requests that came through after their submission had been proved absent; their works failed for want of a source.
    late_works: usize,
    /// Jobs that were not completed without a person's help, by where they stood and why.
    stood: BTreeMap<String, usize>,
    /// What the operator did about it, by command.
    operator: BTreeMap<&'static str, usize>,
    /// Times a process gave up because its servers were away, and was started again.
    exits: usize,
    invariants_checked: usize,
    seconds: f64,
    /// Everything that is not as promised.
    violations: Vec<String>,
}

/// What a run is described by.
pub(crate) struct Run {
    pub(crate) seed: u64,
    pub(crate) minutes: f64,
    pub(crate) brokers: usize,
    pub(crate) jobs: usize,
    pub(crate) seconds: f64,
}

impl Report {
    pub(crate) fn new(
        run: &Run,
        tally: Tally,
        books: Books,
        watch: Watch,
        aftermath: Aftermath,
    ) -> Self {
        let counts = (books.duplicates.len(), books.lost.len());
        let mut violations: Vec<_> = watch.violations.into_iter().collect();
        violations.extend(books.duplicates);
        violations.extend(books.lost);
        violations.extend(books.unfinished);
        violations.extend(books.differences);
        violations.extend(tally.crashes);
        violations.extend(aftermath.unhealthy);
        Self {
            seed: run.seed,
            minutes: run.minutes,
            brokers: run.brokers,
            faults: tally.faults,
            jobs: run.jobs,
            finished: books.finished,
            submissions: books.submissions,
            paid: books.paid,
            duplicates: counts.0,
            lost: counts.1,
            unknowns: Unknowns {
                opened: books.unknowns_opened,
                closed: books.unknowns_opened.saturating_sub(books.unknowns_open),
                open: books.unknowns_open,
            },
            late_works: books.late,
            stood: aftermath.stood,
            operator: aftermath.deeds,
            exits: tally.exits.len(),
            invariants_checked: watch.looks - watch.missed,
            seconds: run.seconds.round(),
            violations,
        }
    }

    /// Everything that is not as promised.
    pub(crate) fn violations(&self) -> &[String] {
        &self.violations
    }

    /// Writes the report as JSON.
    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        std::fs::write(path, text + "\n").with_context(|| path.display().to_string())
    }

    /// Prints the report as a table.
    pub(crate) fn print(&self, out: &mut impl Write) -> std::io::Result<()> {
        let faults: usize = self.faults.values().sum();
        writeln!(out, "faults")?;
        for (kind, count) in &self.faults {
            writeln!(out, "  {kind:<30}{count:>8}")?;
        }
        let Unknowns {
            opened,
            closed,
            open,
        } = self.unknowns;
        let lines = [
            ("faults injected", faults),
            ("jobs", self.jobs),
            ("finished", self.finished),
            ("submissions", self.submissions),
            ("paid, by the vendors", self.paid),
            ("unknowns opened", opened),
            ("unknowns closed", closed),
            ("unknowns open", open),
            ("late works, failed", self.late_works),
            ("processes that gave up", self.exits),
            ("looks at the invariants", self.invariants_checked),
        ];
        for (name, count) in lines {
            writeln!(out, "{name:<32}{count:>8}")?;
        }
        for (place, count) in &self.stood {
            writeln!(out, "stood: {place:<50}{count:>8}")?;
        }
        for (deed, count) in &self.operator {
            writeln!(out, "{:<32}{count:>8}", format!("operator: {deed}"))?;
        }
        writeln!(out, "{:<32}{:>8}", "duplicates", self.duplicates)?;
        writeln!(out, "{:<32}{:>8}", "lost jobs", self.lost)?;
        writeln!(out, "{:<32}{:>8}", "seconds", self.seconds)?;
        writeln!(out, "{:<32}{:>8}", "seed", self.seed)?;
        out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_the_promised_keys_and_every_fault_of_the_books_is_a_violation() {
        let run = Run {
            seed: 7,
            minutes: 0.5,
            brokers: 1,
            jobs: 1,
            seconds: 30.0,
        };
        let books = Books {
            duplicates: vec!["twice".to_owned()],
            lost: vec!["gone".to_owned()],
            unfinished: vec!["failed".to_owned()],
            differences: vec!["odd".to_owned()],
            unknowns_opened: 3,
            unknowns_open: 1,
            ..Books::default()
        };
        let tally = Tally {
            faults: BTreeMap::from([("vendor_garbage".to_owned(), 2)]),
            ..Tally::default()
        };
        let aftermath = Aftermath {
            stood: BTreeMap::from([("failed input_unreadable".to_owned(), 3)]),
            deeds: BTreeMap::from([("retried", 2)]),
            unhealthy: vec!["ill".to_owned()],
        };
        let report = Report::new(&run, tally, books, Watch::default(), aftermath);
        assert_eq!(
            report.violations(),
            ["twice", "gone", "failed", "odd", "ill"]
        );
        let json = serde_json::to_value(&report).unwrap();
        let promised = "seed minutes faults jobs finished submissions duplicates lost unknowns";
        for key in promised.split(' ') {
            assert!(!json[key].is_null(), "{key}");
        }
        let unknowns = serde_json::json!({ "opened": 3, "closed": 2, "open": 1 });
        assert_eq!(json["unknowns"], unknowns);
        assert_eq!(
            (json["duplicates"].as_u64(), json["lost"].as_u64()),
            (Some(1), Some(1))
        );
        assert_eq!(json["faults"]["vendor_garbage"], 2);
        assert_eq!(json["stood"]["failed input_unreadable"], 3);
        assert_eq!(json["operator"]["retried"], 2);
    }
}
