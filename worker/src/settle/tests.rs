//! What every outcome becomes.

use clap::Parser as _;
use shared::db::{Fact, Submission};
use shared::domain::LedgerState;
use uuid::Uuid;

use super::*;

#[derive(clap::Parser)]
struct Defaults {
    #[command(flatten)]
    protocol: ProtocolConfig,
}

fn item(tries: u32, state: Option<LedgerState>) -> WorkItem {
    let now = chrono::Utc::now();
    WorkItem {
        job_id: Uuid::from_u128(1),
        epoch: 7,
        tries,
        starts: 1,
        lease: Duration::from_secs(60),
        in_stage: Duration::ZERO,
        now,
        dispatched_at: Some(now - chrono::TimeDelta::seconds(1)),
        user_id: Uuid::from_u128(2),
        status: Some(JobStatus::Processing),
        processing_config: None,
        segments_data: None,
        job_metadata: None,
        video_seconds: None,
        submission: state.map(|state| Submission {
            token: Uuid::from_u128(3),
            attempt: 1,
            state,
            imported: false,
            request_body: Vec::new(),
            source_key: None,
            source_url: None,
            source_deleted_at: None,
            task_id: None,
            project_id: None,
            work_state: None,
            answer: Value::Null,
            claimed_at: now,
            send_deadline: now,
            settled_at: None,
            redos: 0,
            searches: 0,
            last_searched_at: None,
        }),
        attempts: 1,
        failed_attempts: 0,
    }
}

fn settle(stage: Stage, item: &WorkItem, mut run: Run) -> Settlement {
    let defaults = Defaults::parse_from(["test"]);
    run.bound(item, defaults.protocol.max_tries);
    let context = Context {
        actor: "test",
        account: "default",
        protocol: &defaults.protocol,
        jitter: 1.0,
    };
    settlement(stage, item, run, context)
}

fn moved(settlement: &Settlement) -> (MoveState, Option<Stage>, Option<u32>) {
    let mv = settlement.r#move.as_ref().unwrap();
    (mv.state, mv.stage, mv.tries)
}

#[test]
fn passing_errors_exhaust_a_job_only_while_nothing_is_paid() {
    let last = ProtocolConfig::retry(&Defaults::parse_from(["test"]).protocol).max_tries - 1;
    let stage = Stage::LipsyncSubmit;
    let again = settle(stage, &item(last - 1, None), Run::retry("away"));
    assert_eq!(moved(&again), (MoveState::Waiting, Some(stage), Some(last)));
    let given_up = settle(stage, &item(last, None), Run::retry("away"));
    assert_eq!(moved(&given_up), (MoveState::Dead, None, None));
    assert_eq!(
        given_up.job_patch.unwrap().error_code,
        Some(Reason::TriesExhausted)
    );
    for alive in [
        LedgerState::Claimed,
        LedgerState::Unknown,
        LedgerState::Accepted,
        LedgerState::Redoing,
    ] {
        let waits = settle(stage, &item(last + 100, Some(alive)), Run::retry("away"));
        assert_eq!(moved(&waits).0, MoveState::Waiting, "{alive}");
    }
    let just_unknown =
        Run::retry("lost").with_fact(Fact::new(Uuid::from_u128(3), LedgerState::Unknown));
    assert_eq!(
        moved(&settle(stage, &item(last, None), just_unknown)).0,
        MoveState::Waiting
    );
}

#[test]
fn what_users_see_follows_the_replaced_application() {
    let stored = |has_effects| StoredResult {
        url: "u".to_owned(),
        has_segments: true,
        has_effects,
    };
    let run = |event, has_effects| Run {
        stored: Some(stored(has_effects)),
        ..Run::advance(event, Duration::ZERO)
    };
    let accepted = Run::advance(Event::Accepted, Duration::ZERO);
    let seen = |stage, run| {
        let patch = settle(stage, &item(0, None), run).job_patch.unwrap();
        (
            patch.status.map(JobStatus::as_str),
            patch.progress,
            patch.message.unwrap_or_default(),
        )
    };
    let processing = Some("processing");
    assert_eq!(
        seen(Stage::LipsyncSubmit, accepted.clone()),
        (processing, Some(0), String::new())
    );
    assert_eq!(
        seen(
            Stage::LipsyncStore,
            run(Event::Stored { effects: true }, true)
        ),
        (
            processing,
            Some(60),
            "Lip-sync completed. Starting text inpainting...".to_owned()
        )
    );
    assert_eq!(
        seen(Stage::InpaintReconcile, accepted),
        (
            processing,
            Some(70),
            "Text inpainting in progress...".to_owned()
        )
    );
    assert_eq!(
        seen(
            Stage::LipsyncStore,
            run(Event::Stored { effects: false }, false)
        ),
        (
            Some("completed"),
            Some(100),
            "Pro video processing completed (lip-sync only)".to_owned()
        )
    );
    let failed = settle(
        Stage::InpaintSubmit,
        &item(0, None),
        Run::fail(Reason::Rejected, "4001"),
    )
    .job_patch
    .unwrap();
    assert_eq!(
        failed.error.as_deref(),
        Some("Failed to start text inpainting: 4001")
    );
    let failed = settle(
        Stage::LipsyncPoll,
        &item(0, None),
        Run::fail(Reason::VendorFailed, "too long"),
    )
    .job_patch
    .unwrap();
    assert_eq!(
        failed.message.as_deref(),
        Some("Lip-sync generation failed: too long")
    );
    assert_eq!(failed.error.as_deref(), Some("too long"));
}

#[test]
fn a_result_that_is_always_gone_does_not_go_round_for_ever() {
    let of = |state, stage, tries, event| {
        moved(&settle(
            stage,
            &item(tries, Some(state)),
            Run::advance(event, Duration::ZERO),
        ))
        .2
    };
    let tries = |stage, tries, event| of(LedgerState::Succeeded, stage, tries, event);
    assert_eq!(tries(Stage::InpaintStore, 3, Event::ResultGone), Some(4));
    assert_eq!(tries(Stage::InpaintPoll, 4, Event::Succeeded), Some(4));
    let (poll, succeeded) = (Stage::InpaintPoll, Event::Succeeded);
    assert_eq!(
        of(LedgerState::Accepted, poll, 4, succeeded),
        Some(0),
        "polls that failed while it ran are no tries of the store"
    );
    assert_eq!(
        tries(Stage::LipsyncStore, 4, Event::Stored { effects: true }),
        Some(0)
    );
}

#[test]
fn an_event_that_cannot_happen_is_our_fault_and_a_dead_letter() {
    let wrong = settle(
        Stage::InpaintPoll,
        &item(0, None),
        Run::advance(Event::Imported, Duration::ZERO),
    );
    assert_eq!(moved(&wrong).0, MoveState::Dead);
    assert_eq!(
        wrong.job_patch.unwrap().error_code,
        Some(Reason::InternalError)
    );
}
