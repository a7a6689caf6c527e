//! `producer submit` as a process: local files in, exit codes and reports out.

use std::process::{ExitStatus, Stdio};

use fleet::{Environment, Fleet, binary};
use futures::TryStreamExt as _;
use sandbox::media::sample;
use sandbox::{Fault, FaultRule, Operation, SandboxConfig, Vendor};
use serde_json::{Value, json};

use crate::api::stored;
use crate::sql::values;

const USER: &str = "7b0c6c7e-0f8b-4a1e-9d0a-0f8b00000001";
const SEGMENTS: &str = r#"[{"startTime":0,"endTime":1,"audioInput":{"refId":"first"}},
    {"startTime":1,"endTime":2,"audioInput":{"refId":"second"}}]"#;
const EFFECTS: &str = r#"[{"type":"text","startTime":0,"endTime":2,
    "region":{"x":0.1,"y":0.8,"width":0.8,"height":0.15}}]"#;

/// How a command ended and what it wrote.
#[derive(Debug)]
struct Ended {
    status: ExitStatus,
    stdout: String,
    stderr: String,
}

/// Runs `producer submit` in the fleet's folder, where its files are.
async fn submit(environment: &Environment, fleet: &Fleet, args: &[&str]) -> anyhow::Result<Ended> {
    let output = tokio::process::Command::new(binary("producer")?)
        .arg("submit")
        .args(args)
        .env_clear()
        .envs(environment.variables())
        .current_dir(fleet.folder())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(fleet::DEADLINE, output).await??;
    Ok(Ended {
        status: output.status,
        stdout: String::from_utf8(output.stdout)?,
        stderr: String::from_utf8(output.stderr)?,
    })
}

impl Ended {
    /// The JSON lines of a run that ended with this code.
    fn reports(&self, code: i32) -> Vec<Value> {
        assert_eq!(self.status.code(), Some(code), "{self:?}");
        let lines = self.stdout.lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// The only one.
    fn report(&self, code: i32) -> Value {
        let [report] = &self.reports(code)[..] else {
            panic!("not one line: {self:?}");
        };
        report.clone()
    }
}

fn write_samples(fleet: &Fleet, names: &[&str]) -> anyhow::Result<()> {
    for name in names {
        std::fs::write(fleet.folder().join(name), sample(name).unwrap().bytes)?;
    }
    Ok(())
}

/// The object that a column of a job's metadata names.
async fn object(fleet: &Fleet, id: &Value, path: &str) -> anyhow::Result<Vec<u8>> {
    let id = id.as_str().unwrap();
    let query =
        format!("SELECT job_metadata #>> '{path}' AS value FROM video_jobs WHERE id = '{id}'");
    let url = values(&fleet.database.url, &query)
        .await?
        .remove(0)
        .unwrap();
    let key = fleet.storage.key_of(&url).unwrap();
    let object = fleet.storage.get(&key, None).await?;
    Ok(object.body.try_collect::<Vec<_>>().await?.concat())
}

/// Files that clients have put into the bucket.
fn uploads(fleet: &Fleet) -> usize {
    fn count(folder: &std::path::Path) -> usize {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries
            .map(|entry| match entry.file_type() {
                Ok(kind) if kind.is_dir() => count(&entry.path()),
                _ => 1,
            })
            .sum()
    }
    let bucket = fleet
        .sandbox
        .data_dir()
        .join("s3")
        .join(fleet.storage.bucket());
    assert!(bucket.is_dir());
    count(&bucket.join("users"))
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_followed_to_their_ends_and_the_exit_code_says_how() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        write_samples(
            fleet,
            &["talk.mp4", "bars.mp4", "tone-330.wav", "tone-660.wav"],
        )?;
        std::fs::write(fleet.folder().join("segments.json"), SEGMENTS)?;
        let producer = fleet.producer()?;
        let workers = fleet.workers(1)?;
        let run = async |args: &[&str]| submit(&fleet.environment, fleet, args).await;

        let args = [
            "talk.mp4",
            "second=tone-660.wav",
            "tone-330.wav",
            "--user-id",
            USER,
        ];
        let args = [&args[..], &["--segments", "segments.json", "--json"]].concat();
        let job = run(&args).await?.report(0);
        assert_eq!(
            (&job["status"], &job["progress_percentage"]),
            (&json!("completed"), &json!(100))
        );
        assert_eq!(job["original_filename"], "talk.mp4");
        assert!(job["output_url"].is_string() && job["line"].is_null());
        for (path, name) in [
            ("{video_s3_url}", "talk.mp4"),
            ("{audio_url_mapping,first}", "tone-330.wav"),
            ("{audio_url_mapping,second}", "tone-660.wav"),
        ] {
            let uploaded = object(fleet, &job["id"], path).await?;
            assert!(
                uploaded == sample(name).unwrap().bytes,
                "{path} is not {name}"
            );
        }

        // Status 5: the video is too long. It is the job's own fault.
        let too_long = Fault::Statuses {
            codes: vec![0, 5],
            step_ms: None,
            progress: None,
        };
        let rule = FaultRule::new(Vendor::Ghostcut, Operation::Process, too_long);
        fleet.sandbox.faults().add(rule.times(1))?;
        let args = ["bars.mp4", "--user-id", USER, "--effects", EFFECTS];
        let failed = run(&[&args[..], &["--json"]].concat()).await?.report(1);
        assert_eq!(failed["status"], "failed");
        assert!(failed["error"]["code"].is_string(), "{failed}");
        let human = run(&args).await?;
        assert_eq!(human.status.code(), Some(0), "{human:?}");
        assert!(human.stdout.contains(" completed http"), "{human:?}");
        assert!(human.stderr.contains("100 % completed"), "{human:?}");
        for service in workers.into_iter().chain([producer]) {
            service.stop().await?;
        }
        Ok(())
    })
    .await
}

/// A line of a jobs file for an inpainting job.
fn line(video: &str, key: &str) -> Value {
    let effects: Value = serde_json::from_str(EFFECTS).unwrap();
    json!({ "user_id": USER, "video_url": video, "effects": effects, "idempotency_key": key })
}

fn write_lines(fleet: &Fleet, name: &str, lines: &[Value]) -> anyhow::Result<()> {
    let lines: Vec<_> = lines.iter().map(Value::to_string).collect();
    Ok(std::fs::write(fleet.folder().join(name), lines.join("\n"))?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_file_of_jobs_finds_its_jobs() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        write_samples(fleet, &["talk.mp4", "bars.mp4"])?;
        fleet
            .storage
            .put(
                "mine.mp4",
                "video/mp4",
                sample("zoom.mp4").unwrap().bytes.into(),
            )
            .await?;
        let object = format!("s3://{}/mine.mp4", fleet.storage.bucket());
        let mut lines = vec![
            line("talk.mp4", "1"),
            line("file:bars.mp4", "2"),
            line(&object, "3"),
        ];
        write_lines(fleet, "jobs.jsonl", &lines)?;
        let args = ["--jobs", "jobs.jsonl", "--no-follow", "--json"];
        let run = async || submit(&fleet.environment, fleet, &args).await;
        let reports = run().await?.reports(0);
        let ids =
            |reports: &[Value]| -> Vec<_> { reports.iter().map(|job| job["id"].clone()).collect() };
        for (report, number) in reports.iter().zip(1..) {
            assert_eq!(
                (&report["line"], &report["status"]),
                (&json!(number), &json!("queued"))
            );
        }
        assert_eq!(stored(fleet).await?, [3, 3, 3, 3]);
        assert_eq!(uploads(fleet), 2);

        // What a job has taken may be gone; it is not sent again either.
        fleet.storage.delete("mine.mp4").await?;
        std::fs::remove_file(fleet.folder().join("bars.mp4"))?;
        let repeat = run().await?;
        assert_eq!(ids(&repeat.reports(0)), ids(&reports));
        assert!(!repeat.stderr.contains("uploading"), "{repeat:?}");
        assert_eq!(stored(fleet).await?, [3, 3, 3, 3]);
        assert_eq!(uploads(fleet), 2);

        lines[0]["display_name"] = json!("other");
        lines.push(line("talk.mp4", "4"));
        write_lines(fleet, "jobs.jsonl", &lines)?;
        let mixed = run().await?.reports(1);
        assert_eq!(ids(&mixed)[1..3], ids(&reports)[1..]);
        let taken = mixed[0]["error"]["message"].as_str().unwrap();
        assert!(
            taken.contains(reports[0]["id"].as_str().unwrap()),
            "{taken}"
        );
        assert_eq!(mixed[3]["status"], "queued");
        assert_eq!(stored(fleet).await?, [4, 4, 4, 4]);
        assert_eq!(uploads(fleet), 3);
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_file_arrives_whole() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        // A `free` box after the sample; above 8 MiB an upload has several parts.
        let mut file = sample("talk.mp4").unwrap().bytes.to_vec();
        let filler = 20_000_003;
        file.extend_from_slice(&u32::try_from(filler + 8)?.to_be_bytes());
        file.extend_from_slice(b"free");
        file.extend((0..filler).map(|n| (n % 251) as u8));
        std::fs::write(fleet.folder().join("large.mp4"), &file)?;
        let args = [
            "large.mp4",
            "--user-id",
            USER,
            "--effects",
            EFFECTS,
            "--no-follow",
            "--json",
        ];
        let job = submit(&fleet.environment, fleet, &args).await?.report(0);
        assert!(
            object(fleet, &job["id"], "{video_s3_url}").await? == file,
            "another file arrived"
        );
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_wrong_is_told_before_anything_is_stored() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        write_samples(fleet, &["talk.mp4", "tone-330.wav"])?;
        std::fs::write(fleet.folder().join("notes.txt"), "no video")?;
        let mut wrong = line("talk.mp4", "3");
        wrong["effects"][0]["region"]["width"] = json!("wide");
        let missing = format!("s3://{}/no.mp4", fleet.storage.bucket());
        let lines = [
            line("talk.mp4", "1"),
            line("https://a.example/v.mp4", "2"),
            wrong,
            line(&missing, "a b"),
        ];
        write_lines(fleet, "jobs.jsonl", &lines)?;
        std::fs::write(
            fleet.folder().join("broken.jsonl"),
            format!("{}\n\n{{\n", lines[0]),
        )?;
        std::fs::write(fleet.folder().join("empty.jsonl"), "\n")?;

        let job = ["talk.mp4", "--user-id", USER];
        let with = |more: &[&'static str]| [&job[..], more].concat();
        for (args, told) in [
            (vec![], &["<FILE>"][..]),
            (vec!["talk.mp4"], &["--user-id"]),
            (with(&["--colour", "red"]), &["--colour"]),
            (with(&["--jobs", "jobs.jsonl"]), &["--jobs"]),
            (with(&["--priority", "urgent"]), &["--priority"]),
            (with(&[]), &["/segments: a job needs segments or effects"]),
            (with(&["--effects", "[{]"]), &["--effects: is not JSON"]),
            (
                with(&["--segments", "no.json"]),
                &["--segments: no.json: cannot be read"],
            ),
            (
                with(&["--segments", SEGMENTS]),
                &["2 refId(s) (first, second)"],
            ),
            (
                vec!["notes.txt", "--user-id", USER, "--effects", EFFECTS],
                &["/video_url: notes.txt: is not a known media"],
            ),
            (
                vec!["tone-330.wav", "--user-id", USER, "--effects", EFFECTS],
                &["/video_url: is wav"],
            ),
            (
                vec!["no.mp4", "--user-id", USER, "--effects", EFFECTS],
                &["/video_url: no.mp4: cannot be read"],
            ),
            (
                vec!["--jobs", "jobs.jsonl"],
                &[
                    "line 3: /effects/0/region/width: must be",
                    "line 4: /idempotency_key: must be",
                    "line 4: /video_url: names an object that does not exist",
                ],
            ),
            (
                vec!["--jobs", "broken.jsonl"],
                &["line 3: is not JSON at column"],
            ),
            (vec!["--jobs", "empty.jsonl"], &["empty.jsonl: has no jobs"]),
            (vec!["--jobs", "no.jsonl"], &["no.jsonl: cannot be read"]),
        ] {
            let ended = submit(&fleet.environment, fleet, &args).await?;
            assert_eq!(ended.reports(2), Vec::<Value>::new());
            for text in told {
                assert!(ended.stderr.contains(text), "{args:?}: {}", ended.stderr);
            }
            assert!(
                !ended.stderr.contains("line 1:") && !ended.stderr.contains("line 2:"),
                "{}",
                ended.stderr
            );
        }

        let args = with(&["--effects", EFFECTS]);
        // A file that cannot be stored is that order's fate alone, and told so.
        for (name, nobody, code) in [
            ("DATABASE_URL", "postgres://nobody@127.0.0.1:1/nothing", 4),
            ("S3_ENDPOINT_URL", "http://127.0.0.1:1", 1),
        ] {
            let environment = fleet.environment.clone().with(name, nobody);
            let ended = submit(&environment, fleet, &args).await?;
            assert_eq!(ended.status.code(), Some(code), "{name}: {ended:?}");
            assert!(!ended.stderr.contains("panicked"), "{ended:?}");
        }
        assert_eq!(stored(fleet).await?, [0; 4]);
        assert_eq!(uploads(fleet), 0);
        Ok(())
    })
    .await
}
