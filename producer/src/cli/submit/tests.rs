//! What `producer submit` makes of its arguments and of what happened.

use clap::{CommandFactory as _, FromArgMatches as _, Parser};
use serde_json::json;

use super::*;

const USER: &str = "7b0c6c7e-0f8b-4a1e-9d0a-0f8b00000001";

#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    submit: SubmitArgs,
}

/// Parses without looking at the environment of whoever runs the tests.
fn parse(args: &[&str]) -> Result<SubmitArgs, clap::Error> {
    let fixed = [
        "submit",
        "--database-url=postgres://u:SECRET@127.0.0.1/x",
        "--aws-s3-bucket=ours",
    ];
    let command = Cli::command().mut_args(|arg| arg.env(clap::builder::Resettable::Reset));
    let matches = command.try_get_matches_from(fixed.iter().chain(args))?;
    Ok(Cli::from_arg_matches(&matches)?.submit)
}

async fn read_args(args: &[&str]) -> Result<(Vec<Draft>, Vec<Fault>), String> {
    read(&parse(args).unwrap(), "ours").await
}

#[test]
fn the_arguments_are_those_of_one_job_or_a_file_of_jobs() {
    for good in [
        &["v.mp4", "--user-id", USER][..],
        &["v.mp4", "a.wav", "--user-id", USER, "--priority", "high"],
        &["--jobs", "-", "--no-follow", "--json"],
    ] {
        assert!(parse(good).is_ok(), "{good:?}");
    }
    for bad in [
        &[][..],
        &["v.mp4"],
        &["--user-id", USER],
        &["v.mp4", "--user-id", "me"],
        &["v.mp4", "--user-id", USER, "--priority", "urgent"],
        &["v.mp4", "--jobs", "jobs.jsonl"],
        &["--jobs", "jobs.jsonl", "--user-id", USER],
        &["--jobs", "jobs.jsonl", "--effects", "[]"],
        &["--jobs", "-", "--max-segments", "11"],
    ] {
        assert!(parse(bad).is_err(), "{bad:?}");
    }
    let shown = format!("{:?}", parse(&["--jobs", "-"]).unwrap());
    assert!(!shown.contains("SECRET"));
}

#[tokio::test]
async fn the_arguments_become_a_request() {
    let segments = json!([
        {"startTime": 0, "endTime": 5, "audioInput": {"refId": "x"}},
        {"startTime": 5, "endTime": 9, "audioInput": {"refId": "y"}},
    ]);
    let (drafts, faults) = read_args(&[
        "https://a.example/v.mp4",
        "https://a.example/1.wav",
        "x=https://a.example/2.wav",
        "--user-id",
        USER,
        "--segments",
        &segments.to_string(),
        "--priority=low",
        "--display-name=Talk",
        "--callback-url=https://hooks.example/end",
    ])
    .await
    .unwrap();
    assert!(faults.is_empty() && drafts.len() == 1);
    assert_eq!(
        drafts[0].request,
        json!({
            "user_id": USER,
            "display_name": "Talk",
            "priority": "low",
            "callback_url": "https://hooks.example/end",
            "video_url": "https://a.example/v.mp4",
            "audio": {"x": "https://a.example/2.wav", "y": "https://a.example/1.wav"},
            "segments": segments,
            "effects": null,
        })
    );
}

#[tokio::test]
async fn wrong_use_is_told_in_one_sentence() {
    for (args, expected) in [
        (
            &["v.mp4", "a.wav", "--user-id", USER][..],
            "--segments has to say",
        ),
        (
            &["v.mp4", "--user-id", USER, "--effects", "[1,"],
            "--effects: is not JSON at line 1",
        ),
        (
            &["v.mp4", "--user-id", USER, "--segments", "gone.json"],
            "--segments: gone.json: cannot be read",
        ),
        (&["--jobs", "gone.jsonl"], "gone.jsonl: cannot be read"),
        (&["--jobs", "/dev/null"], "/dev/null: has no jobs"),
    ] {
        let message = read_args(args).await.unwrap_err();
        assert!(message.starts_with(expected), "{message}");
    }
}

#[test]
fn reports_say_what_became_of_each_line() {
    let reports = [
        Report {
            line: Some(1),
            outcome: Ok(Watched::new(Some(1), Uuid::nil())),
        },
        Report {
            line: Some(12),
            outcome: Err("away".to_owned()),
        },
    ];
    assert!(reports[0].is_good(false) && !reports[0].is_good(true));
    assert!(!reports[1].is_good(false));
    let print = |as_json| {
        let mut out = Vec::new();
        report::print(&mut out, &reports, as_json).unwrap();
        String::from_utf8(out).unwrap()
    };
    let rows = print(false);
    let rows: Vec<_> = rows.lines().map(str::trim).collect();
    assert_eq!(rows.len(), 3);
    assert!(rows[1].starts_with("1  00000000-"), "{rows:?}");
    assert!(rows[2].starts_with("12  -") && rows[2].ends_with("not stored  away"));
    let objects: Vec<Value> = print(true)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(objects[1]["line"], 12);
    assert_eq!(objects[1]["error"]["message"], "away");
}
