//! What holds for every command: an example in its help, a document for programs, and one table of exit statuses.

use clap::{Command, CommandFactory as _};
use fleet::{Environment, Kind, binary};
use producer::cli::Cli;
use producer::cli::exit::TABLE;
use sandbox::SandboxConfig;
use serde_json::json;
use worker::config::WorkerConfig;

use crate::api::Producer;
use crate::command::producer;
use crate::sql::{execute, value, with_database};

/// Commands that run something, with their names.
fn leaves(name: String, command: &Command, found: &mut Vec<(String, Command)>) {
    let inner: Vec<_> = command
        .get_subcommands()
        .filter(|inner| inner.get_name() != "help")
        .collect();
    if inner.is_empty() || !command.is_subcommand_required_set() {
        found.push((name.clone(), command.clone()));
    }
    for inner in inner {
        leaves(format!("{name} {}", inner.get_name()), inner, found);
    }
}

fn commands() -> Vec<(String, Command)> {
    let mut producer = Cli::command();
    producer.build();
    let mut found = Vec::new();
    leaves("producer".to_owned(), &producer, &mut found);
    found.push(("worker".to_owned(), WorkerConfig::command()));
    assert!(found.len() > 25, "{}", found.len());
    found
}

#[test]
fn the_help_of_every_command_has_an_example() {
    let mut faults = Vec::new();
    for (name, command) in commands() {
        let help = command
            .get_after_long_help()
            .or_else(|| command.get_after_help());
        let help = help.map(ToString::to_string).unwrap_or_default();
        let program = name.split(' ').next().unwrap_or_default();
        let last = name.split(' ').next_back().unwrap_or_default();
        let has_example = help.contains("Example") && help.contains(program) && help.contains(last);
        if !has_example {
            faults.push(name);
        }
    }
    assert!(
        faults.is_empty(),
        "without an example of themselves: {faults:?}"
    );
    // However wide the terminal is.
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let help = Cli::command().render_help().to_string();
    assert!(words(&help).contains(&words(TABLE)), "{help}");
}

#[test]
fn every_command_that_prints_has_a_document_for_programs() {
    // What they print is a script, or nothing but logs.
    let others = ["producer completions", "producer serve", "worker"];
    let mut without = Vec::new();
    for (name, command) in commands() {
        let has = command
            .get_arguments()
            .any(|arg| arg.get_long() == Some("json"));
        if has == others.contains(&name.as_str()) {
            without.push(name);
        }
    }
    assert!(without.is_empty(), "{without:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn shells_learn_the_commands() -> anyhow::Result<()> {
    let environment = Environment::fast(
        "postgres://nobody@127.0.0.1:1/none",
        "amqp://127.0.0.1:1",
        "p",
        [],
    );
    for shell in ["bash", "zsh", "fish"] {
        let script = producer(&environment, &["completions", shell]).await?;
        for word in ["dead-letters", "confirm-not-accepted", "dry-run"] {
            script.said(0, word);
        }
    }
    producer(&environment, &["completions", "dos"])
        .await?
        .said(2, "fish");
    Ok(())
}

/// Whoever forgets to migrate is told so, and not the name of a table.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_without_a_schema_is_told_as_such() -> anyhow::Result<()> {
    with_database(false, async |url, _| {
        let environment = Environment::fast(url, "amqp://127.0.0.1:1", "p", []);
        let status = producer(&environment, &["status"]).await?;
        status.said(4, "run `producer migrate`");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_print_one_object_and_end_as_the_table_says() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let environment = &fleet.environment;
        for (args, key) in [
            (&["migrate"] as &[&str], "applied"),
            (&["status"], "workers"),
            (&["workers", "list"], "workers"),
            (&["vendors", "list"], "vendors"),
            (&["vendors"], "vendors"),
            (&["costs"], "days"),
            (&["series"], "points"),
            (&["tokens", "list"], "tokens"),
            (&["unknowns", "list"], "unknowns"),
            (&["jobs", "list"], "jobs"),
            (&["dead-letters", "list"], "groups"),
            (&["dead-letters", "list", "--flat"], "letters"),
            (&["dead-letters", "preview", "--all"], "letters"),
            (
                &["jobs", "cancel", "--status", "queued", "--reason", "r"],
                "jobs",
            ),
            (&["stop-paid", "--reason", "r"], "paid_sends_stopped"),
            (&["resume-paid", "--reason", "r"], "allowed"),
            (&["retention", "--dry-run"], "removed"),
        ] {
            let document = producer(environment, &[args, &["--json"]].concat())
                .await?
                .json(0);
            assert!(document.get(key).is_some(), "{args:?}: {document}");
        }
        let nobody = "00000000-0000-0000-0000-000000000000";
        for args in [
            &["jobs", "show", nobody] as &[&str],
            &["jobs", "cancel", nobody, "--reason", "r"],
            &["jobs", "resume", nobody, "--reason", "r"],
            &["jobs", "retry", nobody, "--reason", "r"],
            &["dead-letters", "show", "999"],
            &["dead-letters", "preview", "999"],
            &["unknowns", "show", nobody],
            &[
                "unknowns",
                "adopt",
                nobody,
                "--task-id",
                "1",
                "--reason",
                "r",
            ],
            &["tokens", "revoke", "nobody", "--reason", "r"],
            &[
                "vendors",
                "pause",
                "sync",
                "--account",
                "nobody",
                "--reason",
                "r",
            ],
        ] {
            producer(environment, args).await?.said(3, "there is no ");
        }
        for args in [
            &["jobs", "cancel", "--reason", "r"] as &[&str],
            &["dead-letters", "discard", "--reason", "r"],
            &[
                "vendors",
                "set",
                "sync",
                "--balance-floor",
                "1",
                "--reason",
                "r",
            ],
            &["retention", "--retain-events", "1d"],
            &["no-such-command"],
        ] {
            let ended = producer(environment, args).await?;
            assert_eq!(ended.code, Some(2), "{ended:?}");
        }
        let away = environment
            .clone()
            .with("DATABASE_URL", "postgres://nobody@127.0.0.1:1/none");
        producer(&away, &["status"]).await?.said(4, "database");
        let contradictory = environment.clone().with("SEND_DEADLINE", "1h");
        producer(&contradictory, &["serve"])
            .await?
            .said(2, "contradicts itself");
        let worker = tokio::process::Command::new(binary("worker")?)
            .env_clear()
            .envs(contradictory.variables())
            .kill_on_drop(true)
            .output();
        let worker = tokio::time::timeout(fleet::DEADLINE, worker).await??;
        assert_eq!(worker.status.code(), Some(2), "{worker:?}");
        let overview = producer(environment, &["status", "--json"]).await?.json(0);
        assert_eq!(overview["status"]["paid_sends_stopped"], json!(null));
        // Nobody works for this fleet, and its jobs say so.
        assert_eq!(overview["workers"]["running"], 0);
        let status = producer(environment, &["status"]).await?;
        status.said(0, "NONE RUNS");
        Ok(())
    })
    .await
}

/// As on the page and over HTTP: with a submission at a vendor, and between two times.
#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_found_by_vendor_and_by_when_they_were_created() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let (environment, url) = (&fleet.environment, &fleet.database.url);
        let sent = fleet.submit_kind(Kind::Inpaint, 0).await?.job;
        let old = fleet.submit_kind(Kind::Inpaint, 1).await?.job;
        let rows = format!(
            "INSERT INTO submissions (token, job_id, vendor, account, attempt, state, request_body, request_sha256, send_deadline) \
             VALUES (gen_random_uuid(), '{sent}', 'ghostcut', 'default', 1, 'rejected', '', sha256(''), clock_timestamp() + interval '1 s'); \
             UPDATE video_jobs SET created_at = created_at - interval '2 days' WHERE id = '{old}'"
        );
        execute(url, &rows).await?;
        let cases = [
            (&["--vendor", "ghostcut"] as &[&str], sent, old),
            (&["--since", "1day"], sent, old),
            (&["--before", "1day"], old, sent),
            (&["--since", "3days", "--before", "1day"], old, sent),
        ];
        for (filter, found, other) in cases {
            let listed = producer(environment, &[&["jobs", "list"], filter].concat()).await?;
            listed.said(0, &found.to_string());
            assert!(!listed.stdout.contains(&other.to_string()), "{filter:?}: {listed:?}");
        }
        let list = ["jobs", "list", "--vendor", "snc"];
        producer(environment, &list).await?.said(2, "possible values: sync, ghostcut");

        // Each is enough to say which jobs are meant, and the trail says it too.
        let trail = "SELECT concat_ws(' ', detail ->> 'vendor', (detail ->> 'before')::timestamptz < now()) AS value \
                     FROM operator_events WHERE action = 'jobs_canceled' ORDER BY id DESC LIMIT 1";
        for (filter, found, words) in [
            (["--vendor", "ghostcut"], sent, "ghostcut"),
            (["--before", "1day"], old, "t"),
        ] {
            let cancel = ["jobs", "cancel", "--reason", "r", "--json"];
            let lines = producer(environment, &[&cancel[..], &filter].concat()).await?.json(0);
            assert_eq!(lines["jobs"].as_array().map(Vec::len), Some(1), "{lines}");
            assert_eq!(lines["jobs"][0]["job"], found.to_string());
            assert_eq!(value(url, trail).await?.as_deref(), Some(words));
        }
        Ok(())
    })
    .await
}

/// What `GET /v1/series` says, and for people only the minutes in which something happened.
#[tokio::test(flavor = "multi_thread")]
async fn the_minutes_in_which_something_happened_are_shown() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let environment = &fleet.environment;
        producer(environment, &["series"]).await?.said(0, "nothing happened");
        let job = fleet.submit_kind(Kind::Inpaint, 0).await?.job;
        let ended = format!(
            "DELETE FROM job_stages; UPDATE video_jobs SET status = 'completed', completed_at = timezone('utc', now()), \
             created_at = timezone('utc', now()) - interval '90 s' WHERE id = '{job}'"
        );
        execute(&fleet.database.url, &ended).await?;
        let table = producer(environment, &["series"]).await?;
        table.said(0, "90.0");
        assert_eq!(table.stdout.lines().count(), 2, "{table:?}");
        let all = producer(environment, &["series", "--minutes", "30", "--all"]).await?;
        all.said(0, "90.0");
        assert_eq!(all.stdout.lines().count(), 31, "{all:?}");
        let api = Producer::start(fleet, environment).await?;
        let series = producer(environment, &["series", "--minutes", "5", "--json"]).await?.json(0);
        let answered = api.get("/v1/series?minutes=5").await?.json;
        let minutes = |series: &serde_json::Value| {
            let points = series["points"].as_array().cloned().unwrap_or_default();
            points.iter().filter(|point| point["finished"] == 1).cloned().collect::<Vec<_>>()
        };
        // A minute may have begun between the two.
        assert_eq!(minutes(&series), minutes(&answered));
        assert_eq!(minutes(&series).len(), 1, "{series}");
        api.stop().await?;
        producer(environment, &["series", "--minutes", "1441"]).await?.said(2, "1440");
        Ok(())
    })
    .await
}
