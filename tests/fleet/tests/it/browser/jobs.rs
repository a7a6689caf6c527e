//! Jobs on the page: one is watched to its end, found again, and read.

use fleet::Kind;
use serde_json::Value;

use super::chromium::row;
use super::{Desk, signed_in};

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
