//! What can be checked of the documents and of the layout without running anything: the configuration reference is what the
//! binaries accept, ARCHITECTURE.md names what exists, and the rules of CONTRIBUTING.md hold in every source file.

use std::path::{Path, PathBuf};

use clap::builder::PossibleValue;
use clap::{Arg, ArgAction, Command, CommandFactory as _};
use producer::cli::Cli;
use shared::domain::Stage;
use shared::domain::transition::{Event, Next, next};
use worker::config::WorkerConfig;

const INTRODUCTION: &str = "\
# Configuration

Every setting is a flag and, but for a few, an environment variable; the flag wins. `producer serve --help` and
`worker --help` say the same as this page. Durations are written `500ms`, `45s`, `2m`, `24h`; lists of delays
`10s*6,30s*10,1m` (six times ten seconds, then ten times thirty, then every minute). A binary that finds a setting missing
or wrong, or two that contradict each other, says so and does not start.

The smallest configuration: `DATABASE_URL`, `AMQP_URL`, `AWS_S3_BUCKET`, `SYNC_API_KEY`, `GHOSTCUT_API_KEY` and
`GHOSTCUT_APP_SECRET`, with AWS keys in the environment or in the AWS credentials file. Secrets belong in the
environment: flags are visible to every user of the machine.

Give the producer and the workers the same values in every section that names both. The times nest, and both binaries check
it when they start: `VENDOR_REQUEST_TIMEOUT` < `SEND_DEADLINE` < `STAGE_LEASE` < RabbitMQ's consumer timeout (30 minutes
unless `rabbitmq.conf` says otherwise; it must not be set below that).

This page is written by a test: `UPDATE_REFERENCE=1 cargo test --workspace --test it reference` renews it.
";

/// A setting and who has it.
struct Setting {
    heading: String,
    row: String,
    used_by: Vec<String>,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The commands with their names: `producer serve`, …, `worker`.
fn commands() -> Vec<(String, Command)> {
    let mut producer = Cli::command();
    // Gives the subcommands the arguments that all of them have.
    producer.build();
    let mut commands = Vec::new();
    collect("producer", &producer, &mut commands);
    commands.push(("`worker`".to_owned(), WorkerConfig::command()));
    commands
}

/// A command and its subcommands, however deep.
fn collect(name: &str, command: &Command, commands: &mut Vec<(String, Command)>) {
    commands.push((format!("`{name}`"), command.clone()));
    for inner in command.get_subcommands() {
        if inner.get_name() != "help" {
            collect(&format!("{name} {}", inner.get_name()), inner, commands);
        }
    }
}

fn row(arg: &Arg) -> String {
    let name = match arg.get_long() {
        Some(long) => format!("`--{long}`"),
        None => format!("`{}` (argument)", arg.get_id()),
    };
    let variable = arg
        .get_env()
        .map_or_else(String::new, |name| format!("`{}`", name.to_string_lossy()));
    let is_switch = matches!(arg.get_action(), ArgAction::SetTrue);
    let defaults: Vec<_> = arg
        .get_default_values()
        .iter()
        .map(|value| value.to_string_lossy())
        .collect();
    let default = match defaults.as_slice() {
        _ if arg.is_required_set() => "required".to_owned(),
        [] => String::new(),
        _ if is_switch => String::new(),
        values => format!("`{}`", values.join(",")),
    };
    let help = arg.get_long_help().or_else(|| arg.get_help());
    let help = help.map(ToString::to_string).unwrap_or_default();
    let mut help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    let values = arg.get_possible_values();
    if !is_switch && !values.is_empty() {
        let values: Vec<_> = values.iter().map(PossibleValue::get_name).collect();
        help += &format!(": {}", values.join(", "));
    }
    format!(
        "| {name} | {variable} | {default} | {} |",
        help.trim_end_matches('.').replace('|', "\\|")
    )
}

/// Every setting once, in the order in which the commands name them, those of one heading together.
fn settings() -> Vec<Setting> {
    let mut settings: Vec<Setting> = Vec::new();
    for (command, definition) in commands() {
        for arg in definition.get_arguments() {
            if matches!(arg.get_id().as_str(), "help" | "version") {
                continue;
            }
            let heading = arg.get_help_heading().unwrap_or("Arguments").to_owned();
            let row = row(arg);
            let known = |known: &&mut Setting| known.row == row && known.heading == heading;
            match settings.iter_mut().find(known) {
                Some(known) => known.used_by.push(command.clone()),
                None => settings.push(Setting {
                    heading,
                    row,
                    used_by: vec![command.clone()],
                }),
            }
        }
    }
    let headings: Vec<_> = settings.iter().map(|s| s.heading.clone()).collect();
    settings.sort_by_key(|s| headings.iter().position(|heading| *heading == s.heading));
    settings
}

fn reference() -> String {
    let settings = settings();
    let mut page = INTRODUCTION.to_owned();
    for section in settings.chunk_by(|a, b| (&a.heading, &a.used_by) == (&b.heading, &b.used_by)) {
        let Setting {
            heading, used_by, ..
        } = &section[0];
        // What has no heading in the help belongs to its commands.
        let heading = match (heading.as_str(), &used_by[..]) {
            ("Arguments", [only]) => format!("Arguments of {only}"),
            ("Arguments", _) => "Arguments of several commands".to_owned(),
            (heading, _) => heading.to_owned(),
        };
        page += &format!(
            "\n## {heading}\n\nFor {}.\n\n| Flag | Variable | Default | Meaning |\n|---|---|---|---|\n",
            used_by.join(", ")
        );
        for setting in section {
            page += &format!("{}\n", setting.row);
        }
    }
    page
}

#[test]
fn the_configuration_reference_is_what_the_binaries_accept() {
    let (path, reference) = (root().join("docs/configuration.md"), reference());
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        std::fs::write(&path, &reference).unwrap();
    }
    let page = std::fs::read_to_string(&path).unwrap();
    let differs = page
        .lines()
        .zip(reference.lines())
        .find(|(page, reference)| page != reference);
    assert!(
        page == reference,
        "docs/configuration.md is out of date (UPDATE_REFERENCE=1 renews it); first difference: {differs:#?}"
    );
}

/// Every file of a folder and of those in it: its path from the root, and its text.
fn files(folder: &str, extension: &str) -> Vec<(String, String)> {
    let mut folders = vec![root().join(folder)];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                let name = path.strip_prefix(root()).unwrap().to_string_lossy();
                found.push((name.into_owned(), std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(!found.is_empty());
    found
}

fn sources() -> Vec<(String, String)> {
    let folders = ["producer", "worker", "shared", "tests"];
    folders
        .iter()
        .flat_map(|folder| files(folder, "rs"))
        .collect()
}

/// A word, the places that may use it, and the places in which the rule holds.
struct OnlyIn {
    word: &'static str,
    allowed: &'static [&'static str],
    within: &'static [&'static str],
}

const PRODUCT: &[&str] = &["producer/", "worker/", "shared/src/"];
const DOMAIN: &[&str] = &["shared/src/domain/"];
const RULES: &[OnlyIn] = &[
    // An adapter is the only way to its outside system.
    OnlyIn {
        word: "diesel",
        allowed: &["shared/src/db/"],
        within: PRODUCT,
    },
    OnlyIn {
        word: "lapin::",
        allowed: &["shared/src/broker/"],
        within: PRODUCT,
    },
    OnlyIn {
        word: "rusoto",
        allowed: &["shared/src/storage/"],
        within: PRODUCT,
    },
    // The two binaries meet in the database and at the broker only, and only one of them publishes.
    OnlyIn {
        word: "worker::",
        allowed: &["worker/"],
        within: PRODUCT,
    },
    OnlyIn {
        word: "producer::",
        allowed: &["producer/"],
        within: PRODUCT,
    },
    OnlyIn {
        word: "Publisher",
        allowed: &["producer/", "shared/src/broker/"],
        within: PRODUCT,
    },
    // Adapters do not know each other, and the domain knows none of them.
    OnlyIn {
        word: "crate::db",
        allowed: &["shared/src/db/"],
        within: &["shared/src/"],
    },
    OnlyIn {
        word: "crate::broker",
        allowed: &["shared/src/broker/"],
        within: &["shared/src/"],
    },
    OnlyIn {
        word: "crate::storage",
        allowed: &["shared/src/storage/"],
        within: &["shared/src/"],
    },
    OnlyIn {
        word: "crate::vendor",
        allowed: &["shared/src/vendor/"],
        within: &["shared/src/"],
    },
    OnlyIn {
        word: "crate::service",
        allowed: &["shared/src/service.rs"],
        within: &["shared/src/"],
    },
    OnlyIn {
        word: "crate::config",
        allowed: &[],
        within: DOMAIN,
    },
    OnlyIn {
        word: "crate::telemetry",
        allowed: &[],
        within: DOMAIN,
    },
    OnlyIn {
        word: "tokio",
        allowed: &[],
        within: DOMAIN,
    },
    OnlyIn {
        word: "reqwest",
        allowed: &[],
        within: DOMAIN,
    },
    // A test waits for a state with a deadline, never for a while; the simulators' delays are what they simulate.
    OnlyIn {
        word: "sleep(",
        allowed: &[
            "tests/fleet/src/wait.rs",
            "tests/fleet/src/proxy.rs",
            "tests/fleet/src/bin/",
            "tests/sandbox/src/",
            "tests/fleet/tests/it/reference.rs",
        ],
        within: &["tests/", "shared/tests/"],
    },
];

#[test]
fn the_source_files_keep_the_rules() {
    let mut faults = Vec::new();
    for (name, text) in sources() {
        if !text.starts_with("//!") {
            faults.push(format!(
                "{name}: does not begin with a line of `//!` that says what it is for"
            ));
        }
        let starts = |places: &[&str]| places.iter().any(|place| name.starts_with(place));
        let rules = RULES
            .iter()
            .filter(|rule| starts(rule.within) && !starts(rule.allowed));
        for OnlyIn { word, .. } in rules {
            let used = |line: &str| line.contains(word) && !line.trim_start().starts_with("//");
            for (number, line) in text.lines().enumerate().filter(|(_, line)| used(line)) {
                faults.push(format!(
                    "{name}:{}: `{word}` does not belong here: {}",
                    number + 1,
                    line.trim()
                ));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// The transition table as the domain has it.
fn transitions() -> String {
    use Event as E;
    let events = [
        E::Imported,
        E::Accepted,
        E::AnswerLost,
        E::Absent,
        E::Succeeded,
        E::Resubmit,
        E::Stored { effects: false },
        E::Stored { effects: true },
        E::ResultGone,
    ];
    let mut table = String::new();
    for stage in Stage::ALL {
        for event in events {
            match next(*stage, event) {
                Ok(Next::Stage(to)) => table += &format!("{stage} --{event:?}--> {to}\n"),
                Ok(Next::Finished) => table += &format!("{stage} --{event:?}--> finished\n"),
                Err(_) => {}
            }
        }
    }
    table
}

#[test]
fn architecture_is_short_and_names_only_what_exists() {
    let page = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    assert!(page.lines().count() < 200);
    assert!(page.contains(&format!("```\n{}```", transitions())));

    let mut sources = sources();
    sources.extend(files("migrations", "sql"));
    let exists = |name: &str| {
        if name.ends_with(".rs") {
            return sources.iter().any(|(path, _)| path.ends_with(name));
        }
        // Names as long as this are tests and constraints.
        let is_long = name.matches('_').count() > 3 && !name.contains(' ');
        let defined = [format!("fn {name}("), format!("CONSTRAINT {name} ")];
        let is_defined = |text: &str| defined.iter().any(|place| text.contains(place));
        !is_long || sources.iter().any(|(_, text)| is_defined(text))
    };
    // The pieces between backquotes; none is broken over lines.
    let names = page
        .lines()
        .flat_map(|line| line.split('`').skip(1).step_by(2));
    let missing: Vec<_> = names.filter(|name| !exists(name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
