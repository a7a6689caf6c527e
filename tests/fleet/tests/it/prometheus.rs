//! A real Prometheus with the shipped configuration, rules and dashboard, scraping a running fleet.

use std::fs::{self, File};
use std::path::Path;
use std::process::Stdio;

use anyhow::Context as _;
use fleet::{DEADLINE, Fleet, Kind, Process, eventually};
use futures::future::try_join_all;
use reqwest::Client;
use sandbox::SandboxConfig;
use serde_json::Value;
use tokio::process::{Child, Command};

use crate::command;
use crate::metrics::{labels, metrics, promtool, read};
use crate::sql::execute;

/// Series one process may have: its metrics over the whole product of their labels, with room to spare. It does not depend on how
/// many jobs there are.
const MOST_SERIES: f64 = 2500.0;

/// Enough to keep both workers busy for some scrapes.
const JOBS: usize = 60;

/// A Prometheus of its own, killed when dropped.
struct Prometheus {
    _process: Child,
    client: Client,
    url: String,
}

impl Prometheus {
    /// Starts one with the shipped files in this folder. Only the intervals are shorter.
    async fn start(
        folder: &Path,
        producers: &[String],
        workers: &[String],
    ) -> anyhow::Result<Self> {
        let folder = folder.join("prometheus");
        for part in ["rules", "targets"] {
            fs::create_dir_all(folder.join(part))?;
        }
        let config = read("deploy/prometheus/prometheus.yml");
        anyhow::ensure!(config.matches("_interval: 15s").count() == 2);
        let config = config.replace("_interval: 15s", "_interval: 1s");
        fs::write(folder.join("prometheus.yml"), config)?;
        for rules in ["rules/alerts.yml", "rules/recording.yml"] {
            fs::write(
                folder.join(rules),
                read(&format!("deploy/prometheus/{rules}")),
            )?;
        }
        for (name, addresses) in [("producers", producers), ("workers", workers)] {
            let targets = format!("- targets: {}\n", serde_json::to_string(addresses)?);
            fs::write(folder.join(format!("targets/{name}.yml")), targets)?;
        }
        let log = folder.join("log");
        let mut process = Command::new("prometheus")
            .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"])
            .arg("--web.listen-address=127.0.0.1:0")
            .current_dir(&folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .kill_on_drop(true)
            .spawn()
            .context("`prometheus` is needed: `deploy/local install prometheus` installs it")?;
        let address = eventually(DEADLINE, async || {
            let text = fs::read_to_string(&log)?;
            if let Some(status) = process.try_wait()? {
                return Ok(Err(anyhow::anyhow!("it ended: {status}\n{text}")));
            }
            let mut lines = text
                .lines()
                .filter(|line| line.contains("\"Listening on\""));
            let line = lines.next().context("it does not listen yet")?;
            let (_, address) = line.rsplit_once("address=").context("no address")?;
            Ok(Ok(address.to_owned()))
        });
        Ok(Self {
            url: format!("http://{}", address.await??),
            _process: process,
            client: Client::builder().no_proxy().timeout(DEADLINE).build()?,
        })
    }

    /// The `data` of an answer.
    async fn get(&self, path: &str, query: &[(&str, &str)]) -> anyhow::Result<Value> {
        let request = self.client.get(format!("{}/api/v1/{path}", self.url));
        let mut answer: Value = request.query(query).send().await?.json().await?;
        anyhow::ensure!(answer["status"] == "success", "{query:?}: {answer}");
        Ok(answer["data"].take())
    }

    /// What an expression is now: the samples with their labels.
    async fn query(&self, expression: &str) -> anyhow::Result<Vec<Value>> {
        let data = self.get("query", &[("query", expression)]).await?;
        Ok(data["result"].as_array().context("no result")?.clone())
    }

    /// Waits until an expression has samples.
    async fn has(&self, expression: &str) -> anyhow::Result<Vec<Value>> {
        eventually(DEADLINE, async || {
            let found = self.query(expression).await?;
            anyhow::ensure!(!found.is_empty(), "no data: {expression}");
            Ok(found)
        })
        .await
    }

    /// The names of the alerts whose condition holds, for however short.
    async fn alerts(&self) -> anyhow::Result<Vec<String>> {
        let data = self.get("alerts", &[]).await?;
        let alerts = data["alerts"].as_array().context("no alerts")?;
        let name = |alert: &Value| alert["labels"]["alertname"].as_str().map(str::to_owned);
        let mut names: Vec<_> = alerts.iter().filter_map(name).collect();
        names.sort();
        names.dedup();
        Ok(names)
    }

    /// Waits until exactly these alerts have their condition.
    async fn alerts_are(&self, expected: &[&str]) -> anyhow::Result<()> {
        eventually(DEADLINE, async || {
            let found = self.alerts().await?;
            anyhow::ensure!(found == expected, "{found:?} instead of {expected:?}");
            Ok(())
        })
        .await
    }
}

/// The value of a sample.
fn number(sample: &Value) -> f64 {
    sample["value"][1].as_str().unwrap().parse().unwrap()
}

#[expect(
    clippy::print_stderr,
    reason = "how long a scrape takes is for people to read: a loaded machine would make any bound fail"
)]
fn eprint_samples(expression: &str, samples: &[Value]) {
    for sample in samples {
        eprintln!(
            "{expression}: {} {}",
            sample["metric"]["job"], sample["value"][1]
        );
    }
}

/// Every rule of the shipped files is evaluated without an error; gives the names of the recorded ones.
async fn rules_are_healthy(prometheus: &Prometheus) -> anyhow::Result<Vec<String>> {
    eventually(DEADLINE, async || {
        let data = prometheus.get("rules", &[]).await?;
        let groups = data["groups"].as_array().context("no groups")?;
        let rules: Vec<_> = groups
            .iter()
            .flat_map(|group| group["rules"].as_array().unwrap())
            .collect();
        anyhow::ensure!(rules.len() > 40, "{} rules", rules.len());
        for rule in &rules {
            anyhow::ensure!(rule["health"] == "ok", "{rule}");
        }
        let recorded = rules.iter().filter(|rule| rule["type"] == "recording");
        Ok(recorded
            .map(|rule| rule["name"].as_str().unwrap().to_owned())
            .collect())
    })
    .await
}

/// Every query of the dashboard.
fn dashboard() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/ghostfleet.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels
        .filter_map(|panel| panel["targets"].as_array())
        .flatten();
    let queries: Vec<_> = targets
        .map(|target| target["expr"].as_str().unwrap().to_owned())
        .collect();
    assert!(queries.len() > 30);
    queries
}

/// A scrape: well-formed, all of it documented, and no label with a value that is not in the list.
fn is_documented(text: &str, folder: &Path) -> anyhow::Result<()> {
    let file = folder.join("scrape");
    fs::write(&file, text)?;
    let checked = promtool(&["check", "metrics"], File::open(&file)?.into());
    anyhow::ensure!(
        checked.status.success(),
        "{}",
        String::from_utf8_lossy(&checked.stderr)
    );
    let (metrics, labels) = (metrics(), labels());
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').context("no type")?;
            let (documented, _) = metrics
                .get(name)
                .with_context(|| format!("{name} is not documented"))?;
            anyhow::ensure!(documented.kind == kind, "{name} is a {kind}");
        }
        // What stands between the braces; no value of ours holds a quote.
        let Some((_, pairs)) = line.split_once('{').filter(|_| !line.starts_with('#')) else {
            continue;
        };
        let (pairs, _) = pairs.rsplit_once('}').context("no end of labels")?;
        for pair in pairs.split("\",") {
            let (label, value) = pair.split_once("=\"").context("no value")?;
            let value = value.trim_end_matches('"');
            let is_allowed = match label {
                "le" => value == "+Inf" || value.parse::<f64>().is_ok(),
                "status" => value
                    .parse()
                    .is_ok_and(|status: u16| (100..600).contains(&status)),
                "version" => value == env!("CARGO_PKG_VERSION"),
                "route" => {
                    value == "unmatched"
                        || value.starts_with("/v1/")
                        || value.starts_with("/webhooks/")
                }
                label => labels
                    .get(label)
                    .is_some_and(|values| values.contains(&value)),
            };
            anyhow::ensure!(
                is_allowed,
                "{label}=\"{value}\" is not a documented value: {line}"
            );
        }
    }
    Ok(())
}

/// A fleet at work: its processes and their admin addresses, the producer's first.
async fn processes(fleet: &Fleet) -> anyhow::Result<(Vec<Process>, Vec<String>)> {
    // The tests' fleets do not audit by themselves.
    let environment = fleet.environment.clone().with("AUDIT_INTERVAL", "1h");
    let (mut processes, mut addresses) = (Vec::new(), Vec::new());
    for (name, program) in [
        ("producer", "producer"),
        ("worker-1", "worker"),
        ("worker-2", "worker"),
    ] {
        let mut process = fleet.process(name, program, &environment)?;
        let started = process.started().await?;
        addresses.push(started["admin"].as_str().context("no address")?.to_owned());
        if program == "producer" {
            let jobs = format!(
                "http://{}/v1/jobs",
                started["http"].as_str().context("no address")?
            );
            reqwest::get(jobs).await?.error_for_status()?;
        }
        processes.push(process);
    }
    Ok((processes, addresses))
}

/// Limits, so that there is something to show of them.
async fn set_limits(fleet: &Fleet) -> anyhow::Result<()> {
    for limits in [
        [
            "vendors",
            "set",
            "sync",
            "--daily-budget=1e9",
            "--max-in-flight=50",
            "--reason=test",
        ],
        [
            "vendors",
            "set",
            "ghostcut",
            "--balance-floor=1",
            "--daily-budget=1e9",
            "--reason=test",
        ],
    ] {
        let ended = command::producer(&fleet.environment, &limits).await?;
        anyhow::ensure!(ended.code == Some(0), "{ended:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_watches_a_running_fleet() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let (mut processes, addresses) = processes(fleet).await?;
        set_limits(fleet).await?;
        let (producers, workers) = addresses.split_at(1);
        let prometheus = Prometheus::start(fleet.folder(), producers, workers).await?;
        eventually(DEADLINE, async || {
            let up = prometheus.query("up == 1").await?;
            anyhow::ensure!(up.len() == 3, "{up:?}");
            Ok(())
        })
        .await?;

        let kinds = Kind::ALL.iter().cycle().take(JOBS).enumerate();
        let jobs = try_join_all(kinds.map(|(n, kind)| fleet.submit_kind(*kind, n))).await?;
        fleet.wait_for(&jobs).await?;
        prometheus.alerts_are(&[]).await?;

        // Conditions of three alerts, of which each says so.
        let stop = ["stop-paid", "--reason=test"];
        command::producer(&fleet.environment, &stop)
            .await?
            .said(0, "");
        let letter = "INSERT INTO dead_letters (reason, body) VALUES ('undecidable', 'x')";
        execute(&fleet.database.url, letter).await?;
        processes[2].kill().await?;
        prometheus
            .alerts_are(&[
                "GhostFleetDeadLetters",
                "GhostFleetInstanceDown",
                "GhostFleetPaidSendsStopped",
            ])
            .await?;

        for recorded in rules_are_healthy(&prometheus).await? {
            prometheus.has(&recorded).await?;
        }
        for query in dashboard() {
            prometheus.has(&query).await?;
        }
        let count = prometheus
            .query("sum(ghostfleet_job_duration_seconds_count)")
            .await?;
        // The killed worker's count is no longer there.
        let counted = number(&count[0]);
        anyhow::ensure!(counted > 0.0 && counted <= jobs.len() as f64, "{count:?}");
        for sample in prometheus.query("scrape_samples_scraped").await? {
            anyhow::ensure!(number(&sample) < MOST_SERIES, "{sample}");
        }
        for quantile in [0.5, 0.9, 1.0] {
            let took = format!("quantile_over_time({quantile}, scrape_duration_seconds[10m])");
            eprint_samples(&took, &prometheus.query(&took).await?);
        }
        // As fast as it is when nobody else has the cores.
        for sample in prometheus
            .query("min_over_time(scrape_duration_seconds[10m])")
            .await?
        {
            anyhow::ensure!(number(&sample) < 0.05, "{sample}");
        }
        for address in &addresses[..2] {
            let text = reqwest::get(format!("http://{address}/metrics"))
                .await?
                .text()
                .await?;
            is_documented(&text, fleet.folder())?;
        }
        Ok(())
    })
    .await
}
