//! Every crash point (`shared::crash`): a process that kills itself there with SIGKILL, and another one that takes its place.
//! The job ends as if nothing had happened, and the vendors are paid as if nothing had happened.

mod acts;
mod errand;
mod story;

use std::fmt::Debug;
use std::os::unix::process::ExitStatusExt as _;

use anyhow::Context as _;
use fleet::{DEADLINE, Process};
use futures::StreamExt as _;
use sandbox::SandboxConfig;
use shared::crash::Point;
use story::Story;

/// Walks at a time: most of their time goes by waiting for deadlines and leases.
const AT_A_TIME: usize = 8;

/// Which process crashes; the other one runs on.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Victim {
    Producer,
    Worker,
}

impl Victim {
    const fn program(self) -> &'static str {
        match self {
            Self::Producer => "producer",
            Self::Worker => "worker",
        }
    }

    const fn other(self) -> Self {
        match self {
            Self::Producer => Self::Worker,
            Self::Worker => Self::Producer,
        }
    }
}

/// Who crashes where, at which passing, and what brings it there.
#[derive(Clone, Copy, Debug)]
struct Walk(Victim, Point, u32, Story);

const fn producer(point: Point, story: Story) -> Walk {
    Walk(Victim::Producer, point, 1, story)
}

const fn worker(point: Point, story: Story) -> Walk {
    Walk(Victim::Worker, point, 1, story)
}

const WALKS: &[Walk] = &[
    producer(Point::JobCommitted, Story::Api),
    producer(Point::RowAdopted, Story::Adopted),
    producer(Point::DuePicked, Story::Lipsync),
    producer(Point::DuePicked, Story::Inpaint),
    producer(Point::MessagesPublished, Story::Lipsync),
    producer(Point::PublishAnswered, Story::Lipsync),
    producer(Point::PublishAnswered, Story::Unconfirmed),
    producer(Point::DeadLetterStored, Story::GivenUp),
    producer(Point::CallbackStored, Story::CalledBack),
    producer(Point::CallbacksPicked, Story::CalledBack),
    producer(Point::CallbackHinted, Story::CalledBack),
    producer(Point::CallbacksFinished, Story::CalledBack),
    producer(Point::CallbackLooked, Story::HealedByCallback),
    producer(Point::CallbackSettled, Story::HealedByCallback),
    producer(Point::NoticesPicked, Story::Told),
    producer(Point::NoticeSent, Story::Told),
    producer(Point::ForgettingSeen, Story::ForgottenCalledBack),
    producer(Point::PaidStopped, Story::ForgottenCalledBack),
    producer(Point::ClaimsExpired, Story::Lipsync),
    producer(Point::SweepAnswered, Story::Canceled),
    producer(Point::SweepSettled, Story::Canceled),
    producer(Point::OperationPieceDone, Story::Operated),
    producer(Point::LostListed, Story::Lost),
    producer(Point::LostSearched, Story::Lost),
    producer(Point::LostBooked, Story::Found),
    producer(Point::AuditBegun, Story::ForgottenAudited),
    producer(Point::ForgettingSeen, Story::ForgottenAudited),
    producer(Point::PaidStopped, Story::ForgottenAudited),
    producer(Point::AuditCompared, Story::ForgottenAudited),
    producer(Point::RetentionBegun, Story::Swept),
    producer(Point::BalanceRead, Story::Inpaint),
    producer(Point::StopBegun, Story::ToldToStop),
    producer(Point::StopDrained, Story::ToldToStop),
    worker(Point::StopBegun, Story::ToldToStop),
    worker(Point::StopDrained, Story::ToldToStop),
    worker(Point::WorkerSeen, Story::Lipsync),
    worker(Point::WorkerLeft, Story::ToldToStop),
    worker(Point::OrderRead, Story::Quieted),
    worker(Point::ConsumerQuiet, Story::Quieted),
    worker(Point::DeliveryTaken, Story::Lipsync),
    worker(Point::Loaded, Story::Inpaint),
    worker(Point::ForgettingSeen, Story::FromTheFuture),
    worker(Point::PaidStopped, Story::FromTheFuture),
    worker(Point::UnknownKept, Story::NobodyKnows),
    worker(Point::SourceCopied, Story::Inpaint),
    worker(Point::ClaimCommitted, Story::Lipsync),
    worker(Point::ClaimCommitted, Story::InpaintAfterAnother),
    worker(Point::PaidAnswerBegun, Story::Lipsync),
    worker(Point::PaidAnswerBegun, Story::Inpaint),
    // The second paid call is the redo.
    Walk(Victim::Worker, Point::PaidAnswerBegun, 2, Story::Redone),
    worker(Point::PaidAnswered, Story::Lipsync),
    worker(Point::PaidAnswered, Story::Inpaint),
    worker(Point::ReplayPending, Story::SyncAnswerLost),
    worker(Point::ReplayAnswered, Story::SyncAnswerLost),
    // The ledger still has the older answer, which says that nothing was taken.
    worker(Point::ReplayAnswered, Story::SyncThrottled),
    worker(Point::ListAnswered, Story::SyncTooOld),
    worker(Point::ListAnswered, Story::GhostcutAnswerLost),
    worker(Point::SearchRecorded, Story::SyncTooOld),
    worker(Point::SearchRecorded, Story::GhostcutRequestLost),
    worker(Point::SourceDeleted, Story::GhostcutRequestLost),
    worker(Point::SourceDeletionRecorded, Story::GhostcutRequestLost),
    worker(Point::SourceRestored, Story::RedoneWithoutSource),
    worker(Point::RedoPermitted, Story::Redone),
    worker(Point::RedoClaimed, Story::Redone),
    worker(Point::RedoAnswered, Story::Redone),
    worker(Point::MultipartBegun, Story::LargeResult),
    worker(Point::PartsSent, Story::LargeResult),
    worker(Point::FileTransferred, Story::Imported),
    worker(Point::FileTransferred, Story::Lipsync),
    worker(Point::FileTransferred, Story::Inpaint),
    worker(Point::LeaseRenewed, Story::SlowResult),
    // The first three settlements of a job: submitted, polled, stored or polled again.
    worker(Point::SettleCommitted, Story::Lipsync),
    Walk(Victim::Worker, Point::SettleCommitted, 2, Story::Both),
    Walk(Victim::Worker, Point::SettleCommitted, 3, Story::Both),
    worker(Point::SettleCommitted, Story::Inpaint),
    worker(Point::RejectPending, Story::GivenUp),
    worker(Point::Acknowledged, Story::Lipsync),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_crash_point_is_survived() -> anyhow::Result<()> {
    take_all(WALKS, take).await
}

/// `CRASH_WALKS=ClaimCommitted,Redo` takes only the walks whose description contains one of these words.
async fn take_all<W: Debug>(
    walks: &[W],
    take: impl AsyncFn(&W) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let only = std::env::var("CRASH_WALKS").unwrap_or_default();
    let chosen = walks.iter().filter(|walk| {
        let text = format!("{walk:?}");
        only.split(',').any(|word| text.contains(word))
    });
    let take = &take;
    let ends = chosen.map(async |walk| (walk, take(walk).await));
    let ends = futures::stream::iter(ends).buffer_unordered(AT_A_TIME);
    let failed: Vec<_> = ends
        .filter_map(|(walk, result)| async move {
            let error = result.err()?;
            Some(format!("{walk:?}: {error:#}"))
        })
        .collect()
        .await;
    anyhow::ensure!(failed.is_empty(), "{}", failed.join("\n"));
    Ok(())
}

#[test]
fn no_crash_point_is_left_out() {
    let walked = WALKS.iter().map(|Walk(_, point, ..)| point);
    let walked: Vec<_> = walked.chain(errand::points()).collect();
    let left_out: Vec<_> = Point::ALL
        .iter()
        .filter(|point| !walked.contains(point))
        .collect();
    assert!(left_out.is_empty(), "{left_out:?}");
}

/// The features of a build of the two binaries alone, as cargo resolves them.
#[test]
fn a_production_build_has_no_crash_points() {
    let features = |packages: &[&str]| {
        let output = std::process::Command::new(env!("CARGO"))
            .args([
                "tree",
                "--offline",
                "--locked",
                "--edges",
                "features,normal",
            ])
            .args(packages)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let production = features(&["--package", "producer", "--package", "worker"]);
    assert!(production.contains("shared v"), "{production}");
    assert!(!production.contains("crash-points"), "{production}");
    assert!(features(&["--workspace"]).contains("crash-points"));
}

async fn take(walk: &Walk) -> anyhow::Result<()> {
    let Walk(victim, point, passing, story) = *walk;
    fleet::run(SandboxConfig::default(), async |fleet| {
        let environment = story.environment(fleet)?;
        let before = story.prepare(fleet, &environment).await?;
        let mark = fleet.folder().join("mark");
        let armed = story
            .environment_of_victim(environment.clone())
            .with("CRASH_POINT", format!("{point:?}:{passing}"))
            .with("CRASH_MARK", mark.to_string_lossy());
        let _other = fleet.process("other", victim.other().program(), &environment)?;
        let mut crashing = fleet.process("victim", victim.program(), &armed)?;
        let mut jobs = story.begin(fleet, &mut crashing).await?;
        crashed_at(&mut crashing, point, &mark).await?;

        let mut heir = fleet.process("heir", victim.program(), &environment)?;
        story.end(fleet, &environment, &mut heir, &mut jobs).await?;
        jobs.extend(before);
        let books = fleet.books(&jobs).await?;
        anyhow::ensure!(books.balanced(), "{:#?}", books.differences);
        heir.started().await?;
        let end = heir.terminate(DEADLINE).await?;
        anyhow::ensure!(end.success(), "the heir ended with {end}");
        Ok(())
    })
    .await
}

/// Waits for the victim's own SIGKILL at this point and nowhere else.
async fn crashed_at(
    victim: &mut Process,
    point: Point,
    mark: &std::path::Path,
) -> anyhow::Result<()> {
    let end = victim
        .end(DEADLINE)
        .await
        .context("the point was not reached")?;
    anyhow::ensure!(end.signal() == Some(9), "not killed but ended with {end}");
    let reached = std::fs::read_to_string(mark).context("killed without a mark")?;
    anyhow::ensure!(reached == format!("{point:?}"), "the mark names {reached}");
    Ok(())
}
