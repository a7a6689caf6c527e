//! What somebody who operates a fleet does on the page.

use anyhow::Context as _;
use fleet::{DEADLINE, Expectation, Fleet, Kind, eventually};
use sandbox::{Fault, FaultRule, Operation, Vendor as Payee};
use thirtyfour::Key;
use uuid::Uuid;

use super::chromium::{PHONE, row};
use super::pictures::broken_results;
use super::{Desk, signed_in};
use crate::audit::{SECOND_SUBMISSION, forget};
use crate::sql::execute;

/// How many controls of the view a toast lies over; null where none is shown.
const COVERED: &str = "const toast = document.querySelector('[data-test=toast] p')?.getBoundingClientRect(); \
    const over = box => box.width > 0 && box.left < toast.right && box.right > toast.left && box.top < toast.bottom && box.bottom > toast.top; \
    return toast ? [...document.querySelectorAll('main button, main a, main input')].filter(node => over(node.getBoundingClientRect())).length : null";

/// Runs a job whose answer of GhostCut is lost, and whose work GhostCut's list does not show from now on, until it waits for a
/// person. Returns it, the submission's token, and the id of the work that was paid for.
pub(super) async fn undecided(fleet: &Fleet) -> anyhow::Result<(Uuid, Uuid, String)> {
    let everything = Fault::DropItems {
        contains: String::new(),
    };
    fleet
        .sandbox
        .faults()
        .add(FaultRule::new(Payee::Ghostcut, Operation::List, everything))?;
    let lost = FaultRule::new(Payee::Ghostcut, Operation::Submit, Fault::LoseAnswer).times(1);
    fleet.sandbox.faults().add(lost)?;
    let job = fleet.submit_kind(Kind::Inpaint, 0).await?.job;
    let token = eventually(DEADLINE, async || {
        let stage = fleet.db.job_stage(job).await?;
        anyhow::ensure!(
            stage.as_ref().is_some_and(|stage| stage.state == "parked"),
            "{stage:?}"
        );
        let submissions = fleet.db.job_submissions(job).await?;
        Ok(submissions.last().context("nothing was claimed")?.token)
    })
    .await?;
    let works = fleet.sandbox.truth().works(Payee::Ghostcut);
    let marker = token.to_string();
    let mut works = works.into_iter();
    let work = works.find(|work| {
        work.marker
            .as_deref()
            .is_some_and(|name| name.contains(&marker))
    });
    Ok((job, token, work.context("nothing was paid")?.id))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_work_whose_answer_was_lost_is_adopted() -> anyhow::Result<()> {
    signed_in(
        "unknown",
        "operate",
        async |Desk { fleet, browser, .. }| {
            let worker = fleet.worker_process("worker-1").await?;
            let (job, token, work) = undecided(fleet).await?;
            browser.open("/#/").await?;
            browser.see("strip[data-act=true]").await?;
            browser.picture("1-overview").await?;
            browser.click("nav-unknowns").await?;
            browser.see(&row("unknown-row", token)).await?;
            browser.open(&format!("/#/unknowns/{token}")).await?;
            browser.says("evidence", &token.to_string()).await?;
            browser.picture("2-evidence").await?;
            browser.click("adopt").await?;
            browser.fill("dialog-task_id", "404404404").await?;
            browser
                .fill("dialog-reason", "seen in the vendor's dashboard")
                .await?;
            browser.expect(&format!("/v1/unknowns/{token}/adopt 409"));
            browser.click("dialog-confirm").await?;
            browser.says("dialog problem", "404404404").await?;
            browser.picture("3-refused").await?;
            browser.fill("dialog-task_id", &work).await?;
            browser.click("dialog-confirm").await?;
            browser.gone("dialog").await?;
            browser.open(&format!("/#/jobs/{job}")).await?;
            browser.see("job-status[data-status=completed]").await?;
            browser.see("event-row[data-kind=operator]").await?;
            browser.picture("4-completed").await?;
            anyhow::ensure!(
                fleet.sandbox.truth().paid(Payee::Ghostcut) == 1,
                "paid twice"
            );
            drop(worker);
            Ok(())
        },
    )
    .await
}

/// From the page alone: the ledger is compared now, and a vendor's id leads to its job.
#[tokio::test(flavor = "multi_thread")]
async fn an_audit_is_made_now_and_a_job_is_found_by_a_vendors_id() -> anyhow::Result<()> {
    signed_in(
        "audit",
        "operate",
        async |Desk { fleet, browser, .. }| {
            let worker = fleet.worker_process("worker-1").await?;
            let job = fleet.submit_kind(Kind::Inpaint, 0).await?;
            fleet.wait_for(std::slice::from_ref(&job)).await?;
            let work = fleet.sandbox.truth().works(Payee::Ghostcut).remove(0).id;

            browser.open("/#/jobs").await?;
            for id in [&work, &job.job.to_string()[..8]] {
                browser.fill("filter-text", id).await?;
                browser.click("filter-apply").await?;
                browser.see("view[data-view=job][data-ready=true]").await?;
                browser.says("view", &job.job.to_string()).await?;
                browser.open("/#/jobs").await?;
            }
            browser.open("/#/audits").await?;
            browser.click("audit-now").await?;
            browser
                .fill("dialog-reason", "is all as it should be?")
                .await?;
            browser.picture("1-dialog").await?;
            browser.click("dialog-confirm").await?;
            browser.gone("dialog").await?;
            browser
                .see("view[data-view=audit][data-ready=true]")
                .await?;
            browser
                .says("view", "The ledger and the vendors agree.")
                .await?;
            browser.picture("2-audit").await?;
            drop(worker);
            Ok(())
        },
    )
    .await
}

/// What a backup forgot is repaired, and what was paid twice is dealt with, each where the strip leads.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_audit_finds_is_repaired_and_dealt_with() -> anyhow::Result<()> {
    signed_in(
        "findings",
        "operate",
        async |Desk { fleet, browser, .. }| {
            let worker = fleet.worker_process("worker-1").await?;
            let jobs = [
                fleet.submit_kind(Kind::Inpaint, 0).await?,
                fleet.submit_kind(Kind::Lipsync, 2).await?,
            ];
            fleet.wait_for(&jobs).await?;
            execute(&fleet.database.url, SECOND_SUBMISSION).await?;
            forget(&fleet.database.url, "vendor = 'sync'").await?;
            let audited = async |button: &str, reason: &str| {
                browser.click(button).await?;
                browser.fill("dialog-reason", reason).await?;
                browser.click("dialog-confirm").await?;
                browser.gone("dialog").await
            };
            browser.open("/#/audits").await?;
            audited("audit-now", "is all as it should be?").await?;
            browser
                .says(
                    "view",
                    "2 works differ; 1 can be repaired; 1 of them wait until",
                )
                .await?;
            browser.says("view", "paid for and forgotten").await?;
            browser.picture("1-found").await?;
            audited("repair", "the backup is a day old").await?;
            browser
                .says("view", "nothing is left to be repaired")
                .await?;
            browser.says("view", "✓ repaired").await?;
            let found = browser.view().await?;
            browser.open(&format!("/#/jobs/{}", jobs[0].job)).await?;
            browser.says("paid-twice", "the work 4711").await?;
            audited("acknowledge", "the vendor refunds it").await?;
            browser.gone("paid-twice").await?;
            browser
                .says(
                    "view",
                    "work 4711: dealt with by ann: the vendor refunds it",
                )
                .await?;
            browser.open(&found).await?;
            audited("audit-again", "is it known now?").await?;
            browser
                .says("view", "dealt with by ann: the vendor refunds it")
                .await?;
            browser.picture("2-dealt-with").await?;
            browser.open("/#/").await?;
            browser
                .says("duplicates", "paid twice, and dealt with")
                .await?;
            drop(worker);
            Ok(())
        },
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_is_paused_by_keys_and_resumed_by_mouse() -> anyhow::Result<()> {
    signed_in("vendor", "operate", async |Desk { browser, .. }| {
        let account = row("vendor", "ghostcut/default");
        let pause = format!("{account} pause");
        let key = async |key: Key| browser.press(key.value().to_string()).await;
        browser.open("/#/vendors").await?;
        browser
            .see("view[data-view=vendors][data-ready=true]")
            .await?;
        browser.tab_to(&pause).await?;
        key(Key::Enter).await?;
        browser.see("dialog").await?;
        key(Key::Escape).await?;
        browser.gone("dialog").await?;
        // The focus is back where it was.
        key(Key::Enter).await?;
        browser.tab_to("dialog-reason").await?;
        browser.press("the vendor's results are broken").await?;
        browser.picture("1-dialog").await?;
        browser.tab_to("dialog-confirm").await?;
        key(Key::Enter).await?;
        browser.gone("dialog").await?;
        // What was done is said where it lies over nothing that can be pressed.
        let covers = browser.script(COVERED).await?;
        anyhow::ensure!(
            covers == 0,
            "the toast covers {covers} controls, or is not there"
        );
        browser
            .see(&format!("{account}[data-refusal=manual]"))
            .await?;
        browser
            .says(&account, "the vendor's results are broken")
            .await?;
        browser.picture("2-paused").await?;
        browser.click("nav-overview").await?;
        browser.see("strip[data-act=true]").await?;

        browser.click("nav-vendors").await?;
        browser.click(&format!("{account} unpause")).await?;
        browser.fill("dialog-reason", "they are mended").await?;
        browser.click("dialog-confirm").await?;
        browser.gone("dialog").await?;
        browser
            .gone(&format!("{account}[data-refusal=manual]"))
            .await?;
        browser.see(&pause).await?;
        browser.click("nav-jobs").await?;
        browser.see("filter-text").await?;
        browser.press("/").await?;
        browser.press("needle").await?;
        let typed = browser
            .script(
                "return document.activeElement.dataset.test + '=' + document.activeElement.value",
            )
            .await?;
        anyhow::ensure!(typed == "filter-text=needle", "{typed}");
        Ok(())
    })
    .await
}

/// What a vendor answers may be a page, and a time may pass: people read neither markup nor that something ends in the past. Why an
/// account gets nothing is on its card, also when it is the stop of all.
#[tokio::test(flavor = "multi_thread")]
async fn an_account_says_in_words_why_it_gets_nothing() -> anyhow::Result<()> {
    signed_in("account", "operate", async |Desk { fleet, browser, .. }| {
        let open = "UPDATE vendors SET open_kind = 'failures', opened_at = now(), open_until = now() + interval '1 hour', \
                    open_reason = 'HTTP 502 without a code: <html><head><title>502</title></head><body>no route</body></html>'";
        execute(&fleet.database.url, open).await?;
        browser.resize(PHONE).await?;
        browser.open("/#/").await?;
        // Reached at once, and so are all links, which say what waits there.
        let reach = "const of = test => document.querySelector(`[data-test=${test}]`).getBoundingClientRect(); \
                     const links = [...document.querySelectorAll('nav a')].map(link => link.getBoundingClientRect().right); \
                     return [Math.max(...links) - innerWidth, of('stop-paid').bottom]";
        browser.see("stop-paid").await?;
        let reach = browser.script(reach).await?;
        anyhow::ensure!(reach[0].as_f64() <= Some(0.0) && reach[1].as_f64() < Some(400.0), "{reach}");
        browser.click("stop-paid").await?;
        browser.fill("dialog-reason", "the vendor is down").await?;
        browser.click("dialog-confirm").await?;
        browser.gone("dialog").await?;
        let all = "All paid sends are stopped: the vendor is down (ann).";
        for (view, card) in [("/#/", "vendor-row"), ("/#/vendors", "vendor")] {
            browser.open(view).await?;
            let card = row(card, "ghostcut/default");
            browser.says(&format!("{card} all-stopped"), all).await?;
            let refusal = browser.says(&format!("{card} refusal"), "HTTP 502 without a code: no route, until 2").await?;
            anyhow::ensure!(!refusal.contains('<'), "{refusal}");
            browser.says(&format!("{card} spent-today"), "Charged and reserved today (UTC)").await?;
            browser.click(&format!("{card} whole")).await?;
            browser.says(&format!("{card} whole"), "<html>").await?;
            let strip = browser.says("strip", "no route").await?;
            anyhow::ensure!(!strip.contains("<html"), "{strip}");
            browser.fits().await?;
        }
        browser.picture("1-phone").await?;
        let past = "return import('/assets/why.js').then(why => why.stopped({ refusal: 'throttled', refusal_until: '2020-01-01T00:00:00Z' }))";
        let past = browser.script(past).await?;
        let past = past.as_str().unwrap_or_default();
        anyhow::ensure!(past.ends_with("about to be tried again") && !past.contains("until"), "{past}");
        for amount in ["charged", "reserved", "wasted"] {
            browser.says("costs-meaning", amount).await?;
        }
        // What is asked beside the reason has room.
        browser.click("resume-paid").await?;
        let size = "const box = document.querySelector('[data-test=dialog-force]').getBoundingClientRect(); return box.width";
        browser.see("dialog-force").await?;
        let size = browser.script(size).await?;
        anyhow::ensure!(size.as_f64() >= Some(16.0), "{size} wide");
        browser.picture("2-dialog").await?;
        Ok(())
    })
    .await
}

/// Nobody can tell, a person says that the vendor has nothing, and the job pays anew: nothing is left behind as if it ran.
#[tokio::test(flavor = "multi_thread")]
async fn a_work_that_is_not_there_leaves_nothing_running_behind() -> anyhow::Result<()> {
    signed_in("absent", "operate", async |Desk { fleet, browser, .. }| {
        let worker = fleet.worker_process("worker-1").await?;
        let (job, token, _) = undecided(fleet).await?;
        browser.open(&format!("/#/unknowns/{token}")).await?;
        browser.click("confirm-not-accepted").await?;
        browser.fill("dialog-reason", "not in the dashboard").await?;
        browser.expect(&format!("/v1/unknowns/{token}/confirm-not-accepted 409"));
        browser.click("dialog-confirm").await?;
        // In words that are on the page.
        let refused = browser.says("dialog problem", "force").await?;
        anyhow::ensure!(!refused.contains(['`', '{']), "{refused}");
        browser.script("document.querySelector('[data-test=dialog-force]').click()").await?;
        browser.picture("1-dialog").await?;
        browser.click("dialog-confirm").await?;
        browser.gone("dialog").await?;
        browser.open(&format!("/#/jobs/{job}")).await?;
        browser.see("job-status[data-status=completed]").await?;
        let states = "return [...document.querySelectorAll('[data-test=timeline-row]')].map(row => \
                      `${row.dataset.id} ${row.querySelector('.badge').innerText}`)";
        let states = browser.script(states).await?;
        let rows: Vec<_> = states.as_array().into_iter().flatten().filter_map(|row| row.as_str()).collect();
        anyhow::ensure!(rows.len() > 4 && rows.iter().all(|row| !row.contains("running")), "{rows:?}");
        let twice = rows.iter().filter(|row| row.starts_with("inpaint.submit")).count();
        let polls = rows.iter().filter(|row| row.starts_with("inpaint.poll")).count();
        anyhow::ensure!((twice, polls) == (2, 1), "{rows:?}");
        browser.picture("2-completed").await?;
        drop(worker);
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_of_dead_letters_is_replayed_behind_a_canary() -> anyhow::Result<()> {
    const JOBS: usize = 5;
    signed_in(
        "dead-letters",
        "operate",
        async |Desk { fleet, browser, .. }| {
            let worker = fleet.worker_process("worker-1").await?;
            let broken = fleet.sandbox.faults().add(broken_results())?;
            let mut jobs = Vec::new();
            for number in 0..JOBS {
                jobs.push(fleet.submit_kind(Kind::Lipsync, 2 * number).await?);
            }
            let failed = |job: &Expectation| Expectation {
                status: "failed",
                ..job.clone()
            };
            let failed: Vec<_> = jobs.iter().map(failed).collect();
            fleet.wait_for(&failed).await?;
            browser.says("count-dead-letters", "5").await?;
            browser.click("nav-dead-letters").await?;
            // In place of what differs between its errors.
            browser.says("group", "<n> sent no video").await?;
            browser.click("group-preview").await?;
            browser.says("group preview", "5 of 5 can go on").await?;
            browser
                .says("group preview", "Nothing is paid for.")
                .await?;
            browser.picture("1-preview").await?;
            browser.click("group-note").await?;
            browser.fill("dialog-note", "their CDN, since noon").await?;
            browser.click("dialog-confirm").await?;
            browser.gone("dialog").await?;
            browser
                .says("group-note-text", "their CDN, since noon")
                .await?;

            // Its aftermath: the vendor's results are well again.
            fleet.sandbox.faults().remove(broken);
            browser.click("group-replay").await?;
            browser.fill("dialog-reason", "the vendor is back").await?;
            let canary = browser
                .script("return document.querySelector('[data-test=dialog-canary]').checked")
                .await?;
            anyhow::ensure!(canary == true, "a canary is what is proposed");
            browser.click("dialog-confirm").await?;
            browser.gone("dialog").await?;
            browser.see("operation[data-state=awaiting]").await?;
            browser.says("canary-row", "settled").await?;
            browser.picture("2-canary").await?;
            browser.reload().await?;
            browser.says("canary-row", "settled").await?;
            browser.click("continue").await?;
            browser.fill("dialog-reason", "the canary is well").await?;
            browser.click("dialog-confirm").await?;
            browser.gone("dialog").await?;
            browser.see("operation[data-state=done]").await?;
            let which = browser.says("view", "in lipsync.store").await?;
            anyhow::ensure!(
                which.contains("up to no.") && !which.contains("upto"),
                "{which}"
            );
            // What had the focus is gone; keys go on in the view.
            let focus = "return document.querySelector('main').contains(document.activeElement)";
            anyhow::ensure!(browser.script(focus).await? == true, "the focus is lost");
            browser.says("view", "5 of 5").await?;
            browser.picture("3-done").await?;
            fleet.wait_for(&jobs).await?;
            browser.click("nav-dead-letters").await?;
            browser
                .see("view[data-view=dead-letters][data-ready=true]")
                .await?;
            browser.gone("group").await?;
            // What was known is still there, with what is closed.
            browser.click("closed").await?;
            browser
                .says("group group-note-text", "their CDN, since noon")
                .await?;
            browser.says("letter-row", "replayed").await?;
            browser.picture("4-closed").await?;
            anyhow::ensure!(
                fleet.sandbox.truth().paid(Payee::Sync) == JOBS,
                "paid twice"
            );
            drop(worker);
            Ok(())
        },
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_is_quieted_resumed_and_stopped() -> anyhow::Result<()> {
    signed_in(
        "worker",
        "operate",
        async |Desk { fleet, browser, .. }| {
            let mut worker = fleet.worker_process("worker-1").await?;
            let stands =
                |state: &str| format!("worker-row[data-name=worker-1][data-state={state}]");
            let asks = async |state: &str, what: &str, why: &str| {
                browser.click(&format!("{} {what}", stands(state))).await?;
                browser.fill("dialog-reason", why).await?;
                if what != "worker-resume" {
                    browser
                        .says("last-worker", "No other worker takes work")
                        .await?;
                }
                browser.picture(what).await?;
                browser.click("dialog-confirm").await?;
                browser.gone("dialog").await
            };
            asks("running", "worker-quiet", "its disk is full").await?;
            browser.says(&stands("quiet"), "its disk is full").await?;
            browser.says("strip", "every worker is quiet").await?;
            let job = fleet.submit_kind(Kind::Inpaint, 0).await?;
            let nobody = "o worker takes inpaint.submit: 1 job waits";
            browser.says("unserved", nobody).await?;
            browser
                .says(
                    &format!("{} stage-unserved", row("stage-row", "inpaint.submit")),
                    nobody,
                )
                .await?;
            browser.picture("quiet").await?;
            browser.open(&format!("/#/jobs/{}", job.job)).await?;
            let why = browser
                .says(
                    "why",
                    "no worker takes inpaint.submit, and one that could is quiet",
                )
                .await?;
            anyhow::ensure!(!why.contains("It moves"), "{why}");
            browser
                .says(&row("timeline-row", "inpaint.submit"), "held")
                .await?;
            browser.open("/#/").await?;
            asks("quiet", "worker-resume", "disk cleared").await?;
            browser.see(&stands("running")).await?;
            fleet.wait_for(std::slice::from_ref(&job)).await?;
            browser.gone("unserved").await?;
            asks("running", "worker-stop", "the machine goes").await?;
            anyhow::ensure!(worker.end(DEADLINE).await?.success());
            browser.says(&stands("stopped"), "ago").await?;
            browser
                .enabled(&format!("{} worker-stop", stands("stopped")), false)
                .await?;
            browser.open("/#/trail").await?;
            browser.says("view", "the machine goes").await?;
            Ok(())
        },
    )
    .await
}
