//! Carries the plan out. A fault that was begun is also ended, and only one that struck is counted.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use fleet::{Carriage, local_urls};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Confirmation};
use serde_json::json;
use shared::domain::Stage;
use uuid::Uuid;

use crate::plan::{Fault, Place, Route, Step};
use crate::yard::{INSTANCE, PREFIX, Yard, broker_name};

/// Old messages that fill a queue.
const FLOOD: usize = 60;
/// How long the broker may take to confirm or refuse them.
const FLOOD_PATIENCE: Duration = Duration::from_secs(5);
/// Bodies nobody can read, or which ask for what does not exist.
const POISON: [&str; 5] = [
    "not json",
    r#"{"v":0,"stage":"inpaint.poll","jobs":[]}"#,
    r#"{"v":1,"stage":"inpaint.poll","jobs":[]}"#,
    r#"{"v":1,"stage":"inpaint.dream","jobs":[{"id":"6f1f0b3e-0000-4000-8000-000000000001","epoch":2}]}"#,
    r#"{"v":1,"stage":"lipsync.submit","jobs":[{"id":"6f1f0b3e-0000-4000-8000-000000000002","epoch":2}]}"#,
];

/// Runs a lane to its end, or until the run is over `length` after its start: on a slow machine servers come back late, and the
/// lane with them. `jobs` are those to make old messages of.
pub(crate) async fn run(
    yard: Arc<Yard>,
    started: Instant,
    length: Duration,
    lane: Vec<Step>,
    jobs: Arc<std::sync::Mutex<Vec<Uuid>>>,
) -> anyhow::Result<()> {
    for step in lane {
        tokio::time::sleep_until((started + step.at).into()).await;
        if started.elapsed() > length {
            break;
        }
        let known = jobs.lock().map(|jobs| jobs.clone()).unwrap_or_default();
        let struck = inflict(&yard, &step, &known).await;
        let struck = struck.with_context(|| format!("{:?}", step.fault))?;
        if let (true, Some(kind)) = (struck, step.kind()) {
            *yard.tally().faults.entry(kind).or_default() += 1;
        }
    }
    Ok(())
}

/// Whether the fault struck.
async fn inflict(yard: &Yard, step: &Step, jobs: &[Uuid]) -> anyhow::Result<bool> {
    let hold = || tokio::time::sleep(step.hold);
    match &step.fault {
        Fault::Kill(place) => return yard.kill(*place).await,
        Fault::Freeze(place) => return freeze(yard, *place, step.hold).await,
        Fault::BrokerKill(node) => {
            let name = broker_name(*node);
            yard.servers(&["kill", &name]).await?;
            hold().await;
            yard.servers(&["restart", &name]).await?;
        }
        Fault::MemoryAlarm => {
            let ctl = ["ctl", "--", "set_vm_memory_high_watermark"];
            yard.servers(&[&ctl[..], &["0.00001"]].concat()).await?;
            hold().await;
            yard.servers(&[&ctl[..], &["absolute", "1GB"]].concat())
                .await?;
        }
        Fault::FullQueues => return fill_queues(yard, step.hold, jobs).await,
        Fault::Poison => poison().await?,
        Fault::DatabaseKill => {
            yard.servers(&["kill", "postgresql"]).await?;
            hold().await;
            yard.servers(&["restart", "postgresql"]).await?;
        }
        Fault::DatabaseImmediate => {
            yard.servers(&["immediate", "postgresql"]).await?;
            hold().await;
            yard.servers(&["restart", "postgresql"]).await?;
        }
        Fault::DatabaseRestart => yard.servers(&["restart", "postgresql"]).await?,
        Fault::Cut(route) => return Ok(yard.proxy(*route)?.cut() > 0),
        Fault::Stall(route) => carry(yard, *route, Carriage::Stall, step.hold).await?,
        Fault::Delay(route, time) => carry(yard, *route, Carriage::Delay(*time), step.hold).await?,
        Fault::LoseAnswers(route) => carry(yard, *route, Carriage::LoseAnswers, step.hold).await?,
        Fault::Vendor(rule) => {
            let id = yard.control.add_fault(rule).await?;
            hold().await;
            yard.control.remove_fault(id).await?;
        }
    }
    Ok(true)
}

async fn freeze(yard: &Yard, place: Place, hold: Duration) -> anyhow::Result<bool> {
    let frozen = yard.freeze(place, true).await?;
    if frozen {
        tokio::time::sleep(hold).await;
        yard.freeze(place, false).await?;
    }
    Ok(frozen)
}

async fn carry(yard: &Yard, route: Route, how: Carriage, hold: Duration) -> anyhow::Result<()> {
    let proxy = yard.proxy(route)?;
    proxy.carry(how);
    tokio::time::sleep(hold).await;
    proxy.carry(Carriage::Pass);
    Ok(())
}

/// Makes the queues of the stages tiny for a while and fills them with messages that are long out of date. It struck when the
/// broker refused some of them.
async fn fill_queues(yard: &Yard, hold: Duration, jobs: &[Uuid]) -> anyhow::Result<bool> {
    let queues = format!("^{PREFIX}\\.(source|lipsync|inpaint)\\.");
    let policy = ["ctl", "--", "set_policy", "full"];
    let limit = r#"{"max-length":2}"#;
    let apply = ["--apply-to", "queues"];
    yard.servers(&[&policy[..], &[&queues, limit], &apply].concat())
        .await?;
    let mut bodies = Vec::new();
    for number in 0..FLOOD {
        for stage in Stage::ALL {
            let job = jobs.get(number % jobs.len().max(1)).copied();
            let job = job.unwrap_or_else(Uuid::new_v4);
            let reference = json!({ "id": job, "epoch": 1 });
            let body = json!({ "v": 1, "stage": stage, "jobs": [reference] });
            bodies.push((*stage, body.to_string()));
        }
    }
    let refused = publish(bodies).await?;
    tokio::time::sleep(hold).await;
    yard.servers(&["ctl", "--", "clear_policy", "full"]).await?;
    Ok(refused > 0)
}

async fn poison() -> anyhow::Result<()> {
    let stages = Stage::ALL.iter().cycle();
    let bodies = stages
        .zip(POISON)
        .map(|(stage, body)| (*stage, body.to_owned()));
    publish(bodies.collect()).await?;
    Ok(())
}

/// Publishes past the proxies, straight into the stages' queues, and says how many messages the broker refused.
async fn publish(bodies: Vec<(Stage, String)>) -> anyhow::Result<usize> {
    let (_, amqp) = local_urls(INSTANCE).await?;
    let mut refused = 0;
    let node = amqp.split(',').next().unwrap_or_default();
    let connection = lapin::Connection::connect(node, Default::default()).await?;
    let channel = connection.create_channel().await?;
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await?;
    let mut confirms = Vec::new();
    for (stage, body) in bodies {
        let queue = format!("{PREFIX}.{stage}");
        let properties = BasicProperties::default().with_delivery_mode(2);
        let options = BasicPublishOptions::default();
        let sent = channel.basic_publish(
            "".into(),
            queue.as_str().into(),
            options,
            body.as_bytes(),
            properties,
        );
        confirms.push(sent.await?);
    }
    for confirm in confirms {
        match tokio::time::timeout(FLOOD_PATIENCE, confirm).await {
            Ok(confirmation) => {
                refused += usize::from(matches!(confirmation?, Confirmation::Nack(_)))
            }
            Err(_) => break,
        }
    }
    connection.close(200, "done".into()).await?;
    Ok(refused)
}
