//! The operator's files against each other and against the code: `docs/metrics.md` is what the processes export, rules and dashboard
//! use only what exists, every alert has its section in the runbook and its unit test, and the runbook's commands are commands.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use clap::{Arg, CommandFactory as _};
use producer::cli::Cli;
use producer::web::{self, OTHER_METHOD};
use shared::domain::admission::Refusal;
use shared::domain::audit::FindingKind;
use shared::domain::outcome::Reason;
use shared::domain::retention::Kind;
use shared::domain::{JobStatus, LedgerState, Stage, StageState, Vendor};
use shared::telemetry::{self, Description};

const INTRODUCTION: &str = "\
# Metrics

What `/metrics` on the admin port (`ADMIN_ADDR`) of both binaries shows. Rules and alerts are in
[deploy/prometheus](../deploy/prometheus), a dashboard is in [deploy/grafana](../deploy/grafana), and what to do about an alert in
[deploy/runbook.md](../deploy/runbook.md).

The producer's gauges count the whole fleet, on a timer (`GAUGE_INTERVAL`): of several producers take the maximum, not the sum.
Counters and histograms are each process's own. A series that an alert watches starts at zero; others appear when they are first
counted.

This page is written by a test: `UPDATE_REFERENCE=1 cargo test --workspace --test it reference` renews it.

";

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

pub(crate) fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

/// Every metric of both binaries, and which of them has it.
pub(crate) fn metrics() -> BTreeMap<String, (Description, Vec<&'static str>)> {
    let (producer, worker) = (
        telemetry::registry("producer").unwrap(),
        telemetry::registry("worker").unwrap(),
    );
    producer::metrics::Metrics::register(&producer).unwrap();
    worker::metrics::Metrics::register(&worker).unwrap();
    let mut metrics: BTreeMap<String, (Description, Vec<_>)> = BTreeMap::new();
    for (binary, registry) in [("producer", producer), ("worker", worker)] {
        for description in registry.described() {
            let name = description.name.clone();
            let (known, binaries) = metrics
                .entry(name)
                .or_insert((description.clone(), Vec::new()));
            assert_eq!(*known, description, "the binaries disagree");
            binaries.push(binary);
        }
    }
    metrics
}

/// What a metric's values count in; its name says so.
fn unit(metric: &Description) -> &'static str {
    let name = metric.name.as_str();
    if name.ends_with("_timestamp_seconds") {
        "seconds since 1970"
    } else if name.ends_with("_seconds") {
        "seconds"
    } else if name.ends_with("_ratio") {
        "0 to 1"
    } else if name.contains("balance") || name.contains("cost") {
        "vendor's unit"
    } else {
        "number"
    }
}

/// Every label, and all values it may have. A label without a list is bounded by what it says instead.
pub(crate) fn labels() -> BTreeMap<&'static str, Vec<&'static str>> {
    fn words<T: Copy>(all: &[T], word: fn(T) -> &'static str) -> Vec<&'static str> {
        all.iter().map(|one| word(*one)).collect()
    }
    let with = |mut words: Vec<&'static str>, more: &[&'static str]| {
        words.extend(more);
        words
    };
    let runs = [
        "advance", "later", "retry", "park", "fail", "over", "give_up",
    ];
    let requests = [
        "ok",
        "transient",
        "throttled",
        "misconfigured",
        "not_found",
        "protocol",
        "accepted",
        "not_sent",
        "rejected",
        "out_of_credit",
        "unknown",
    ];
    let callbacks = [
        "hinted",
        "late",
        "adopted",
        "duplicate",
        "second",
        "taken",
        "kept",
        "not_ours",
        "unreadable",
        "unknown_token",
        "failed",
        "repeated",
        "refused",
    ];
    let mut outcomes: Vec<_> = [words(LedgerState::ALL, LedgerState::as_str)]
        .concat()
        .into_iter()
        .chain(words(JobStatus::ALL, JobStatus::as_str))
        .chain(runs)
        .chain(requests)
        .chain(callbacks)
        .chain(["confirmed", "returned", "nacked", "lost"])
        .chain(["delivered", "put_off", "given_up"])
        .collect();
    outcomes.sort_unstable();
    outcomes.dedup();
    let mut methods: Vec<_> = web::methods().collect();
    methods.sort_unstable();
    methods.dedup();
    let mut reasons = with(words(Reason::ALL, Reason::as_str), &["undecidable"]);
    reasons.extend(words(Refusal::PAUSES, Refusal::as_str));
    BTreeMap::from([
        ("binary", vec!["producer", "worker"]),
        ("how", vec!["adopted", "imported", "occupied", "stale"]),
        (
            "kind",
            with(
                words(FindingKind::ALL, FindingKind::as_str),
                &[
                    words(Kind::ALL, Kind::as_str),
                    vec!["reserved", "charged", "wasted"],
                ]
                .concat(),
            ),
        ),
        ("method", with(methods, &[OTHER_METHOD])),
        (
            "operation",
            vec![
                "balance", "create", "get", "list", "redo", "status", "submit",
            ],
        ),
        ("outcome", outcomes),
        ("part", vec!["connection", "consumer"]),
        ("reason", reasons),
        ("redelivered", vec!["no", "yes"]),
        ("route", vec![]),
        (
            "stage",
            with(words(Stage::ALL, Stage::as_str), &["unknown"]),
        ),
        ("state", words(StageState::ALL, StageState::as_str)),
        ("status", vec![]),
        ("vendor", words(Vendor::ALL, Vendor::as_str)),
        ("version", vec![]),
    ])
}

/// What bounds the labels without a list.
const BOUNDED: [(&str, &str); 3] = [
    (
        "route",
        "the template of a route of the API, or `unmatched`",
    ),
    ("status", "an HTTP status"),
    ("version", "the version of the build"),
];

fn page() -> String {
    let mut page = INTRODUCTION.to_owned();
    page += "| Metric | Type | Labels | Unit | From | Meaning |\n|---|---|---|---|---|---|\n";
    for (name, (metric, binaries)) in metrics() {
        let labels: Vec<_> = metric
            .labels
            .iter()
            .map(|label| format!("`{label}`"))
            .collect();
        let from = match binaries.as_slice() {
            [one] => one,
            _ => "both",
        };
        page += &format!(
            "| `{name}` | {} | {} | {} | {from} | {} |\n",
            metric.kind,
            labels.join(", "),
            unit(&metric),
            metric.help.trim_end_matches('.').replace('|', "\\|")
        );
    }
    page += "\n## Labels\n\nNo label has a value from outside: no id, no name, no text of a person or a vendor.\n\n";
    page += "| Label | Values |\n|---|---|\n";
    for (label, values) in labels() {
        let values = if values.is_empty() {
            BOUNDED
                .iter()
                .find(|(bounded, _)| *bounded == label)
                .unwrap()
                .1
                .to_owned()
        } else {
            let values: Vec<_> = values.iter().map(|value| format!("`{value}`")).collect();
            values.join(", ")
        };
        page += &format!("| `{label}` | {values} |\n");
    }
    page
}

#[test]
fn the_metrics_reference_is_what_the_binaries_export() {
    let (path, page) = (root().join("docs/metrics.md"), page());
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = found
        .lines()
        .zip(page.lines())
        .find(|(found, page)| found != page);
    assert!(
        found == page,
        "docs/metrics.md is out of date (UPDATE_REFERENCE=1 renews it); first difference: {differs:#?}"
    );
}

#[test]
fn every_metric_has_a_conventional_name_and_bounded_labels() {
    let labels = labels();
    for (name, (metric, _)) in metrics() {
        assert_eq!(name.ends_with("_total"), metric.kind == "counter", "{name}");
        if metric.kind == "histogram" {
            assert!(
                name.ends_with("_seconds") || name.ends_with("_size"),
                "{name}"
            );
        }
        assert!(metric.help.len() > 10, "{name} has no help");
        for label in &metric.labels {
            assert!(
                labels.contains_key(label.as_str()),
                "{name}: {label} is not in `labels`"
            );
        }
    }
}

/// The names that begin with this prefix, as PromQL delimits names.
fn names<'a>(text: &'a str, prefix: &str) -> BTreeSet<&'a str> {
    let in_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    text.split(|c| !in_name(c))
        .filter(|word| word.starts_with(prefix))
        .collect()
}

/// The blocks of a rule file that begin with `- alert: ` or `- record: `, by name.
fn blocks<'a>(text: &'a str, kind: &str) -> BTreeMap<&'a str, &'a str> {
    let mut blocks = BTreeMap::new();
    for block in text.split("\n      - ").skip(1) {
        if let Some(rest) = block.strip_prefix(kind) {
            let (name, body) = rest.split_once('\n').unwrap();
            assert!(blocks.insert(name.trim(), body).is_none(), "{name} twice");
        }
    }
    assert!(!blocks.is_empty());
    blocks
}

#[test]
fn rules_and_dashboard_use_only_what_exists() {
    let metrics = metrics();
    let recording = read("deploy/prometheus/rules/recording.yml");
    let recorded = blocks(&recording, "record: ");
    for path in [
        "deploy/prometheus/rules/recording.yml",
        "deploy/prometheus/rules/alerts.yml",
        "deploy/prometheus/tests/alerts.yml",
        "deploy/grafana/ghostfleet.json",
        "deploy/runbook.md",
    ] {
        let text = read(path);
        for name in names(&text, "ghostfleet_") {
            let series = ["_bucket", "_count", "_sum"].iter();
            let base = series.filter_map(|suffix| name.strip_suffix(suffix)).next();
            let is_histogram = |base: &str| {
                metrics
                    .get(base)
                    .is_some_and(|(m, _)| m.kind == "histogram")
            };
            let exists = match base {
                Some(base) => is_histogram(base) || metrics.contains_key(name),
                None => metrics
                    .get(name)
                    .is_some_and(|(m, _)| m.kind != "histogram"),
            };
            assert!(exists, "{path}: {name} does not exist");
        }
        for name in names(&text, "ghostfleet:") {
            assert!(
                recorded.contains_key(name),
                "{path}: {name} is not recorded"
            );
        }
    }
}

#[test]
fn every_alert_has_a_runbook_section_and_a_unit_test() {
    let (rules, runbook, tests) = (
        read("deploy/prometheus/rules/alerts.yml"),
        read("deploy/runbook.md"),
        read("deploy/prometheus/tests/alerts.yml"),
    );
    let alerts = blocks(&rules, "alert: ");
    let sections: BTreeMap<_, _> = runbook
        .split("\n## ")
        .skip(1)
        .filter_map(|section| section.split_once('\n'))
        .filter(|(title, _)| title.starts_with("GhostFleet"))
        .collect();
    let titles: Vec<_> = sections.keys().collect();
    assert_eq!(titles, alerts.keys().collect::<Vec<_>>());
    for (alert, body) in &alerts {
        let anchor = format!("runbook_url: deploy/runbook.md#{}\n", alert.to_lowercase());
        let is_severe = ["critical", "warning"]
            .iter()
            .any(|severity| body.contains(&format!("labels: {{severity: {severity}}}\n")));
        assert!(is_severe, "{alert}: no severity");
        assert!(
            format!("{}\n", body.trim_end()).contains(&anchor),
            "{alert}: no {anchor}"
        );
        for part in ["summary: ", "description: "] {
            assert!(body.contains(part), "{alert}: no {part}");
        }
        for part in ["**Means:**", "**Look at:**", "**Do:**"] {
            assert!(
                sections[alert].contains(part),
                "{alert}: no {part} in the runbook"
            );
        }
        let fires = format!("ALERTS{{alertname=\"{alert}\", alertstate=\"firing\"");
        assert!(tests.contains(&fires), "{alert} has no unit test");
    }
}

/// The words of a line of a shell, quotes removed.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (n, piece) in line.split('"').enumerate() {
        if n % 2 == 1 {
            words.push(piece.to_owned());
        } else {
            words.extend(piece.split_whitespace().map(str::to_owned));
        }
    }
    words
}

/// A command that does without what the environment gives.
fn without_environment(command: clap::Command) -> clap::Command {
    let names: Vec<_> = command
        .get_subcommands()
        .map(|inner| inner.get_name().to_owned())
        .collect();
    let relax = |arg: Arg| {
        let is_given = arg.get_env().is_some();
        if is_given { arg.required(false) } else { arg }
    };
    names
        .into_iter()
        .fold(command.mut_args(relax), |command, name| {
            command.mut_subcommand(name, without_environment)
        })
}

#[test]
fn the_commands_of_the_runbook_are_commands() {
    let runbook = read("deploy/runbook.md");
    let mut seen = 0;
    for line in runbook.lines().map(str::trim) {
        let Some(command) = line.strip_prefix("producer ") else {
            continue;
        };
        let command = command.split(" # ").next().unwrap();
        // What a person has to fill in.
        let command = command
            .replace("TOKEN", "00000000-0000-0000-0000-000000000000")
            .replace("NOTICE", "00000000-0000-0000-0000-000000000000")
            .replace("JOB", "00000000-0000-0000-0000-000000000000")
            .replace("LETTER", "1");
        let arguments = std::iter::once("producer".to_owned()).chain(words(&command));
        let cli = without_environment(Cli::command());
        if let Err(error) = cli.try_get_matches_from(arguments) {
            panic!("{line}: {error}");
        }
        seen += 1;
    }
    assert!(seen > 20);
}

/// Runs `promtool` in `deploy/prometheus`.
pub(crate) fn promtool(args: &[&str], input: Stdio) -> Output {
    Command::new("promtool")
        .args(args)
        .current_dir(root().join("deploy/prometheus"))
        .stdin(input)
        .output()
        .expect("promtool is needed: `deploy/local install prometheus` installs it")
}

#[test]
fn promtool_finds_no_fault_in_configuration_and_rules() {
    for args in [
        ["check", "config", "prometheus.yml"],
        ["test", "rules", "tests/alerts.yml"],
    ] {
        let output = promtool(&args, Stdio::null());
        assert!(output.status.success(), "{args:?}: {output:?}");
    }
}
