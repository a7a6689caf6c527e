//! Every view of a fleet in which much goes on: on a phone, in the dark, and for the README.

use std::path::Path;

use anyhow::Context as _;
use fleet::{Expectation, Fleet, Kind};
use sandbox::{Fault, FaultRule, Operation, Vendor as Payee, When};

use super::chromium::{Browser, DESKTOP, PHONE};
use super::operator::undecided;
use super::{Desk, signed_in};
use crate::sql::execute;

/// Views without a subject.
const VIEWS: [&str; 8] = [
    "",
    "jobs",
    "dead-letters",
    "unknowns",
    "vendors",
    "operations",
    "audits",
    "trail",
];

/// How every view is looked at: the pictures' name, the preferred colours, and the window.
pub(super) const LOOKS: [(&str, &str, [u32; 2]); 3] = [
    ("phone", "light", PHONE),
    ("dark", "dark", DESKTOP),
    ("light", "light", DESKTOP),
];

/// No picture of the README is larger.
const MOST_BYTES: u64 = 200_000;

/// Results that are no videos: jobs die with their works paid for.
pub(super) fn broken_results() -> FaultRule {
    let page = Fault::Status {
        status: 200,
        error_code: None,
        body: Some("<html>maintenance</html>".to_owned()),
        when: When::Before,
    };
    FaultRule::new(Payee::Sync, Operation::Result, page)
}

/// What the jobs are called that people see in the README.
const NAMES: [&str; 6] = [
    "Harbour interview",
    "Spring collection, cut 3",
    "Town hall, part 2",
    "Plum cake, Portuguese",
    "Onboarding 2026",
    "Trailer without captions",
];

/// An hour of a fleet, for the charts: copies of a finished job and of its submissions, one every 14 seconds.
const HOUR: &str = "\
    WITH copies AS ( \
        SELECT gen_random_uuid() AS id, now() - n * interval '14 seconds' AS ended, (50 + n * 37 % 61) * interval '1 second' AS took \
        FROM generate_series(1, 250) n), \
    jobs AS ( \
        INSERT INTO video_jobs SELECT copy.* FROM copies c, video_jobs j, jsonb_populate_record(j, jsonb_build_object('id', c.id, \
            'created_at', (c.ended - c.took) AT TIME ZONE 'UTC', 'completed_at', c.ended AT TIME ZONE 'UTC')) copy WHERE j.id = '{job}') \
    INSERT INTO submissions SELECT copy.* FROM copies c, submissions s, jsonb_populate_record(s, jsonb_build_object( \
        'token', gen_random_uuid(), 'job_id', c.id, 'vendor_task_id', gen_random_uuid(), \
        'claimed_at', c.ended - c.took, 'send_deadline', c.ended)) copy WHERE s.job_id = '{job}'";

async fn submit(fleet: &Fleet, kind: Kind, number: usize) -> anyhow::Result<Expectation> {
    let mut request = fleet.media.request(kind, number);
    request["display_name"] = NAMES[number % NAMES.len()].into();
    Ok(Expectation::completed(fleet.submit(&request).await?, kind))
}

/// Makes a dead letter, some finished jobs and an hour of the past; the dead job is the last.
async fn history(fleet: &Fleet) -> anyhow::Result<Vec<Expectation>> {
    let broken = fleet.sandbox.faults().add(broken_results())?;
    let dead = submit(fleet, Kind::Lipsync, 1).await?;
    let dead = Expectation {
        status: "failed",
        ..dead
    };
    fleet.wait_for(std::slice::from_ref(&dead)).await?;
    fleet.sandbox.faults().remove(broken);
    let mut jobs = Vec::new();
    for number in 0..6 {
        jobs.push(submit(fleet, Kind::ALL[number % 3], number).await?);
    }
    fleet.wait_for(&jobs).await?;
    let hour = HOUR.replace("{job}", &jobs[0].job.to_string());
    execute(&fleet.database.url, &hour).await?;
    jobs.push(dead);
    Ok(jobs)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_view_fits_a_phone_and_a_desk_in_light_and_dark() -> anyhow::Result<()> {
    signed_in(
        "views",
        "operate",
        async |Desk { fleet, browser, .. }| {
            let workers = [
                fleet.worker_process("worker-1").await?,
                fleet.worker_process("worker-2").await?,
            ];
            let (stuck, unknown, _) = undecided(fleet).await?;
            let jobs = history(fleet).await?;
            // From here on works take longer than the test.
            fleet.sandbox.change_settings(|settings| {
                settings.sync.process_ms = (600_000, 600_000);
                settings.ghostcut.process_ms = (600_000, 600_000);
            });
            for number in 0..9 {
                submit(fleet, Kind::ALL[number % 3], number).await?;
            }
            let mut views: Vec<String> = VIEWS.iter().map(|view| format!("/#/{view}")).collect();
            for id in [jobs[0].job, stuck, jobs[jobs.len() - 1].job] {
                views.push(format!("/#/jobs/{id}"));
            }
            views.push(format!("/#/unknowns/{unknown}"));
            for (number, view) in views.iter().enumerate() {
                look(browser, view).await?;
                for (name, scheme, size) in LOOKS {
                    browser.prefer(scheme).await?;
                    browser.resize(size).await?;
                    browser.fits().await?;
                    browser.picture(&format!("{name}-{number}")).await?;
                }
            }
            for_the_readme(browser, "overview", "/#/").await?;
            for_the_readme(browser, "job", &format!("/#/jobs/{}", jobs[0].job)).await?;
            drop(workers);
            Ok(())
        },
    )
    .await
}

/// Opens a view in place of the one before, whose elements must not be taken for its own.
async fn look(browser: &Browser, view: &str) -> anyhow::Result<()> {
    browser.open(view).await?;
    browser.reload().await?;
    browser.see("view[data-ready=true]").await?;
    browser.gone("view problem").await
}

/// Takes a picture of the README; with `UPDATE_SCREENSHOTS` it becomes the README's.
async fn for_the_readme(browser: &Browser, name: &str, view: &str) -> anyhow::Result<()> {
    look(browser, view).await?;
    browser.see("live[data-state=live]").await?;
    let picture = browser.picture(name).await?;
    let size = picture.metadata()?.len();
    anyhow::ensure!(size < MOST_BYTES, "{} has {size} bytes", picture.display());
    if std::env::var_os("UPDATE_SCREENSHOTS").is_some() {
        let images = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/images");
        std::fs::create_dir_all(&images)?;
        std::fs::copy(&picture, images.join(format!("{name}.png"))).context("docs/images")?;
    }
    Ok(())
}
