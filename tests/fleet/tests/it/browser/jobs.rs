//! Jobs on the page: one is watched to its end, found again, and read.

use fleet::Kind;
use serde_json::{Value, json};
use shared::db::VendorChange;
use shared::domain::Vendor;
use shared::domain::outcome::Reason;

use super::chromium::row;
use super::pictures::LOOKS;
use super::{Desk, signed_in};
use crate::sql::execute;

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_watched_to_its_end_and_found_again() -> anyhow::Result<()> {
    signed_in("job", "read", async |Desk { fleet, browser, .. }| {
        let other = fleet.submit_kind(Kind::Inpaint, 1).await?;
        let job = fleet.submit_kind(Kind::Both, 0).await?;
        let permalink = format!("/#/jobs/{}", job.job);
        browser.open(&permalink).await?;
        browser.see("job-status[data-status=queued]").await?;
        browser.see("live[data-state=live]").await?;
        browser.picture("1-queued").await?;

        // Loaded once, and never again.
        browser.script("window.isTheSame = true").await?;
        let worker = fleet.worker_process("worker-1").await?;
        browser.see("job-status[data-status=processing]").await?;
        browser.see("job-status[data-status=completed]").await?;
        let same = browser.script("return window.isTheSame").await?;
        anyhow::ensure!(same == true, "the page was loaded again");
        browser.picture("2-completed").await?;
        for stage in [
            "lipsync.submit",
            "lipsync.poll",
            "lipsync.store",
            "inpaint.submit",
            "inpaint.poll",
            "inpaint.store",
        ] {
            browser.see(&row("timeline-row", stage)).await?;
        }
        // Every move with what it changed, and the vendor's id where it came into the job.
        let line = |kind: &str| format!("event-row[data-kind={kind}]");
        let accepted = "stage lipsync.submit dispatched → lipsync.poll waiting";
        browser.says(&line("advanced"), accepted).await?;
        browser
            .says(&line("advanced"), "status queued → processing")
            .await?;
        browser
            .says(&line("task_id_set"), "sync_generation_id not set → ")
            .await?;
        let ended = "return document.querySelector('[data-test=event-row]:last-child').innerText";
        let ended = browser.script(ended).await?;
        let ended = ended.as_str().unwrap_or_default();
        anyhow::ensure!(ended.contains("inpaint.store dispatched → none"), "{ended}");
        anyhow::ensure!(ended.contains("processing → completed"), "{ended}");
        for line in fleet.db.job_submissions(job.job).await? {
            let submission = row("submission", line.token);
            browser.says(&submission, "succeeded").await?;
            browser
                .says(&submission, &line.vendor_task_id.unwrap_or_default())
                .await?;
        }
        fleet.wait_for(std::slice::from_ref(&other)).await?;

        browser.click("nav-jobs").await?;
        let (found, hidden) = (row("job-row", job.job), row("job-row", other.job));
        browser.see(&hidden).await?;
        browser.choose("filter-status", "completed").await?;
        browser.fill("filter-text", "both 0").await?;
        browser.click("filter-apply").await?;
        browser.gone(&hidden).await?;
        browser.see(&found).await?;
        let filtered = browser.view().await?;
        anyhow::ensure!(filtered.contains("status=completed"), "{filtered}");
        browser.picture("3-found").await?;

        browser.click(&format!("{found} job-link")).await?;
        browser.see("timeline").await?;
        anyhow::ensure!(browser.view().await? == permalink);
        browser.reload().await?;
        browser.see("job-status[data-status=completed]").await?;
        anyhow::ensure!(browser.script("return window.isTheSame").await? == Value::Null);
        browser.script("history.back()").await?;
        browser.see(&found).await?;
        browser.gone(&hidden).await?;
        anyhow::ensure!(browser.view().await? == filtered);
        drop(worker);
        Ok(())
    })
    .await
}

/// What holds a job is said wherever it is shown; filters take the words that are shown.
#[tokio::test(flavor = "multi_thread")]
async fn a_held_job_says_so_and_a_reason_is_found_by_its_words() -> anyhow::Result<()> {
    signed_in("held", "operate", async |Desk { fleet, browser, .. }| {
        let pause = VendorChange::pause(
            Vendor::Ghostcut,
            "default".to_owned(),
            None,
            "bob".to_owned(),
            "double charges".to_owned(),
        );
        anyhow::ensure!(fleet.db.change_vendor(&pause).await?.is_some());
        let held = fleet.submit_kind(Kind::Inpaint, 0).await?.job;
        let stands = fleet.submit_kind(Kind::Inpaint, 1).await?.job;
        let waits = fleet.submit_kind(Kind::Inpaint, 2).await?.job;
        let changes = format!(
            "UPDATE job_stages SET state = 'parked', due_at = NULL, reason = 'outcome_undecided' WHERE job_id = '{stands}'; \
             INSERT INTO job_events (job_id, kind, actor, stage, epoch, detail) SELECT job_id, 'retry', 'w', stage, epoch - 1, \
                 '{{\"answer\": \"throttled\", \"said\": \"come again later\"}}' FROM job_stages WHERE job_id = '{waits}'; \
             UPDATE job_stages SET due_at = now() + interval '1 hour', tries = 1 WHERE job_id = '{waits}'"
        );
        execute(&fleet.database.url, &changes).await?;
        let looks = async |what: &str| {
            for (name, scheme, size) in LOOKS {
                browser.prefer(scheme).await?;
                browser.resize(size).await?;
                browser.fits().await?;
                browser.picture(&format!("{what}-{name}")).await?;
            }
            anyhow::Ok(())
        };

        let stage = row("stage-row", "inpaint.submit");
        let stage_held = format!("{stage} stage-held");
        browser.says(&stage_held, "1 held: paused by an operator").await?;
        looks("1-overview").await?;

        browser.click("nav-jobs").await?;
        let why = "nothing new is sent to ghostcut/default: paused by an operator: double charges (bob)";
        browser.says(&format!("{} held", row("job-row", held)), why).await?;
        let put_off = format!("{} put-off", row("job-row", waits));
        browser.says(&put_off, "ghostcut answered throttled: come again later").await?;
        browser.says(&row("job-row", stands), "outcome_undecided").await?;
        looks("2-jobs").await?;

        let codes = "return [...document.getElementById('reasons').options].map(option => option.value)";
        let codes = browser.script(codes).await?;
        let all: Vec<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        anyhow::ensure!(codes == json!(all), "{codes}");
        for words in ["outcome undecided", "Nobody can tell whether the vendor has the work"] {
            browser.open("/#/jobs").await?;
            browser.see(&row("job-row", held)).await?;
            browser.fill("filter-reason", words).await?;
            browser.click("filter-apply").await?;
            browser.gone(&row("job-row", held)).await?;
            browser.see(&row("job-row", stands)).await?;
            let filtered = browser.view().await?;
            anyhow::ensure!(filtered == "/#/jobs?reason=outcome_undecided", "{filtered}");
        }

        browser.open(&format!("/#/jobs/{held}")).await?;
        browser.says("why", why).await?;
        let created = "event-row[data-kind=created]";
        browser.says(&format!("{created} change"), "stage none → inpaint.submit waiting").await?;
        browser.says(created, " UTC").await?;
        looks("3-job").await?;
        browser.open(&format!("/#/jobs/{waits}")).await?;
        browser.says("why", "come again later. A resume does not wait. One try has failed so far.").await?;
        Ok(())
    })
    .await
}
