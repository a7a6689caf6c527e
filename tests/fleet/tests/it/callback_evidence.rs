//! What a callback may and may not bring about: works that the ledger does not know, bodies nobody signed, works of somebody
//! else.

use std::time::Duration;

use anyhow::Context as _;
use fleet::{DEADLINE, Environment, Fleet, Kind, Service, eventually};
use producer::config::ServeConfig;
use sandbox::SandboxConfig;
use serde_json::json;
use shared::config::{CallbackConfig, GhostcutApi, Secret, VendorTimeouts};
use shared::db::{
    Claim, Claimed, Fact, LedgerVerdict, Move, MoveState, MoveVerdict, Settlement, Verdict,
};
use shared::domain::answer::SubmitAnswer;
use shared::domain::search::Marker;
use shared::domain::{LedgerState, Stage, Vendor};
use shared::service::Stopper;
use shared::vendor::ghostcut::SubmitRequest;
use shared::vendor::{Metrics, ghostcut, signature};
use uuid::Uuid;

use crate::callbacks::{called, called_only, came_to, outcomes, services, stop};
use crate::sql::value;

/// A submission made by hand: claimed, and sent to GhostCut for real, with a callback asked for.
pub(crate) struct ByHand {
    pub(crate) job: Uuid,
    epoch: i64,
    pub(crate) token: Uuid,
    pub(crate) task_id: String,
}

pub(crate) struct Hand<'a> {
    fleet: &'a Fleet,
    callbacks: CallbackConfig,
    client: ghostcut::Client,
}

impl<'a> Hand<'a> {
    pub(crate) fn new(fleet: &'a Fleet, environment: &Environment) -> anyhow::Result<Self> {
        let api: GhostcutApi = environment.parse()?;
        let timeouts: VendorTimeouts = environment.parse()?;
        let metrics = Metrics::register(&shared::telemetry::Registry::default())?;
        Ok(Self {
            fleet,
            callbacks: environment.parse()?,
            client: ghostcut::Client::new(&api, timeouts, metrics)?,
        })
    }

    pub(crate) async fn claim(
        &self,
        job: Uuid,
        attempt: i32,
    ) -> anyhow::Result<(i64, Uuid, Claimed)> {
        let lease = Duration::from_secs(600);
        let picked = self
            .fleet
            .db
            .pick_due(Stage::InpaintSubmit, 10, 10, lease, None)
            .await?;
        let epoch = picked.iter().find(|row| row.job_id == job);
        let epoch = epoch.context("the job is not due")?.epoch;
        let token = Uuid::new_v4();
        let claim = Claim {
            job,
            stage: Stage::InpaintSubmit,
            epoch,
            actor: "by hand".to_owned(),
            vendor: Vendor::Ghostcut,
            account: "default".to_owned(),
            attempt,
            token,
            source_key: None,
            source_url: None,
            metadata: Some(json!({ "ghostcut_video_url": "https://bucket.example/source.mp4" })),
            send_within_ms: 60_000,
            cost_reserved: None,
        };
        let claimed = self.fleet.db.claim(&claim, b"{}").await?;
        Ok((epoch, token, claimed))
    }

    pub(crate) async fn submit(&self, job: Uuid, attempt: i32) -> anyhow::Result<ByHand> {
        let (epoch, token, claimed) = self.claim(job, attempt).await?;
        anyhow::ensure!(matches!(claimed, Claimed::Claimed { .. }), "{claimed:?}");
        let callback = self.callbacks.url(Vendor::Ghostcut, token);
        let marker = Marker {
            job,
            attempt,
            token,
        };
        let task_id = self.send(marker, callback.as_deref()).await?;
        Ok(ByHand {
            job,
            epoch,
            token,
            task_id,
        })
    }

    /// A work without a name, as a person may make one in the account.
    pub(crate) async fn send_nameless(&self) -> anyhow::Result<()> {
        let life = Duration::from_secs(3600);
        let source = self.fleet.storage.presign("samples/talk.mp4", life).await?;
        let body = json!({ "urls": [source], "needChineseOcclude": 1, "videoInpaintLang": "all" })
            .to_string();
        let within = Duration::from_secs(2);
        let answer = self.client.submit(body.as_bytes(), within).await;
        anyhow::ensure!(
            matches!(answer, SubmitAnswer::Accepted { .. }),
            "{answer:?}"
        );
        Ok(())
    }

    /// A work that the ledger knows nothing of.
    pub(crate) async fn send(
        &self,
        marker: Marker,
        callback: Option<&str>,
    ) -> anyhow::Result<String> {
        let life = Duration::from_secs(3600);
        let source = self.fleet.storage.presign("samples/talk.mp4", life).await?;
        let body = SubmitRequest {
            source_url: &source,
            marker: &marker.to_string(),
            callback,
            uid: None,
            mode: 1,
            masks_json: None,
        }
        .to_bytes();
        match self.client.submit(&body, Duration::from_secs(2)).await {
            SubmitAnswer::Accepted { task_id, .. } => Ok(task_id),
            other => anyhow::bail!("{other:?}"),
        }
    }

    /// Settles a fact, and puts the job where `mv` says.
    pub(crate) async fn settle(
        &self,
        sent: &ByHand,
        state: LedgerState,
        mv: Option<(Stage, u64)>,
    ) -> anyhow::Result<Verdict> {
        let mut fact = Fact::new(sent.token, state);
        fact.task_id = (state == LedgerState::Accepted).then(|| sent.task_id.clone());
        let mv = mv.map(|(stage, delay_ms)| Move {
            state: MoveState::Waiting,
            stage: Some(stage),
            delay_ms,
            tries: Some(0),
            reason: None,
            from: &[],
        });
        let settlement = Settlement {
            job: sent.job,
            stage: Stage::InpaintSubmit,
            epoch: sent.epoch,
            actor: "by hand".to_owned(),
            fact: Some(fact),
            r#move: mv,
            job_patch: None,
            event: None,
            signal: None,
        };
        Ok(self.fleet.db.settle(&settlement).await?)
    }

    /// What happens to a submission that the searches did not find, although the vendor has it.
    async fn absent(&self, sent: &ByHand, delay_ms: u64) -> anyhow::Result<()> {
        self.settle(sent, LedgerState::Unknown, None).await?;
        let next = Some((Stage::InpaintSubmit, delay_ms));
        let verdict = self.settle(sent, LedgerState::Absent, next).await?;
        let (ledger, moved) = (verdict.ledger, verdict.r#move);
        assert_eq!(
            (ledger, moved),
            (LedgerVerdict::Written, MoveVerdict::Moved)
        );
        Ok(())
    }
}

const TEN_MINUTES_MS: u64 = 600_000;

fn patient(fleet: &Fleet) {
    fleet
        .sandbox
        .change_settings(|settings| settings.ghostcut.callback_retry_ms = 200);
}

/// A search has proved wrongly that the vendor does not have the work, and the job waits to pay again.
#[tokio::test(flavor = "multi_thread")]
async fn a_callback_for_an_absent_submission_makes_it_the_jobs() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        patient(fleet);
        let environment = called_only(fleet)?;
        let job = fleet.submit_kind(Kind::Inpaint, 0).await?;
        let hand = Hand::new(fleet, &environment)?;
        let sent = hand.submit(job.job, 1).await?;
        hand.absent(&sent, TEN_MINUTES_MS).await?;
        let running = services(&environment).await?;
        fleet
            .books(std::slice::from_ref(&job))
            .await?
            .assert_balanced();
        came_to(fleet, &["ghostcut adopted"]).await?;
        stop(running).await
    })
    .await
}

/// The same, but the job has paid again already: the late one is recorded as what it is.
#[tokio::test(flavor = "multi_thread")]
async fn a_callback_for_an_absent_submission_that_was_replaced_is_a_duplicate() -> anyhow::Result<()>
{
    fleet::run(SandboxConfig::default(), async |fleet| {
        patient(fleet);
        let environment = called_only(fleet)?;
        let job = fleet.submit_kind(Kind::Inpaint, 0).await?;
        let hand = Hand::new(fleet, &environment)?;
        let first = hand.submit(job.job, 1).await?;
        hand.absent(&first, 0).await?;
        let second = hand.submit(job.job, 2).await?;
        let next = Some((Stage::InpaintPoll, TEN_MINUTES_MS));
        hand.settle(&second, LedgerState::Accepted, next).await?;
        let running = services(&environment).await?;
        came_to(fleet, &["ghostcut duplicate", "ghostcut hinted"]).await?;
        fleet.wait_for(std::slice::from_ref(&job)).await?;
        let states = "SELECT string_agg(state || ' ' || vendor_task_id, ', ' ORDER BY attempt) AS value FROM submissions";
        let expected = format!("duplicate {}, succeeded {}", first.task_id, second.task_id);
        assert_eq!(value(&fleet.database.url, states).await?, Some(expected));
        stop(running).await
    })
    .await
}

type Header<'a> = (&'a str, &'a str);

/// What is posted to a producer by somebody who has, or has not, the vendor's secret.
struct Poster {
    client: reqwest::Client,
    base: String,
    secret: Secret,
}

impl Poster {
    fn new(environment: &Environment) -> anyhow::Result<Self> {
        Ok(Self {
            client: reqwest::Client::builder().no_proxy().build()?,
            base: format!("{}/webhooks", environment.get("PUBLIC_URL")?),
            secret: Secret::from(environment.get("GHOSTCUT_APP_SECRET")?.to_owned()),
        })
    }

    /// Status and body of the answer to a POST under these headers.
    async fn post(
        &self,
        path: &str,
        body: impl Into<Vec<u8>>,
        headers: &[Header<'_>],
    ) -> anyhow::Result<(u16, String)> {
        let mut request = self.client.post(format!("{}/{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.body(body.into()).send().await?;
        Ok((answer.status().as_u16(), answer.text().await?))
    }

    /// As GhostCut does.
    async fn signed(&self, token: Uuid, body: &str) -> anyhow::Result<(u16, String)> {
        let sign = signature::ghostcut(&self.secret, body.as_bytes());
        self.post(
            &format!("ghostcut/{token}"),
            body,
            &[("Callback-Sign", &sign)],
        )
        .await
    }
}

async fn listening(poster: &Poster) -> anyhow::Result<()> {
    eventually(DEADLINE, async || {
        poster.client.get(&poster.base).send().await?;
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_signed_is_not_stored() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        // The vector of the vendor's documentation.
        let environment = called(fleet)?.with("SYNC_WEBHOOK_SECRET", "whsec_test_secret_0001");
        let producer = Service::producer(&environment)?;
        let poster = Poster::new(&environment)?;
        listening(&poster).await?;
        let (token, ok) = (Uuid::new_v4(), (200, "ok".to_owned()));
        let sync = r#"{"id":"6533643b-aceb-4c40-967e-d9ba9baac39e","status":"COMPLETED","outputUrl":"https://media.example.com/out.mp4"}"#;
        let right = "t=1760000000,v1=55dc5769a3f03a9022206f8ddbbf5e233e07b7eeebd7054ee450bf7cc43cc80a";
        let later = right.replace("t=1", "t=2");
        let own = signature::ghostcut(&poster.secret, b"{}");
        let foreign = signature::ghostcut(&Secret::from("another".to_owned()), b"{}");
        let refused: [(&str, &str, &[Header<'_>]); 9] = [
            ("sync", sync, &[]),
            ("sync", sync, &[("Sync-Signature", "")]),
            ("sync", sync, &[("Sync-Signature", &later)]),
            ("sync", "{}", &[("Sync-Signature", right)]),
            ("sync", sync, &[("Callback-Sign", right)]),
            ("ghostcut", "{}", &[]),
            ("ghostcut", "{}", &[("Callback-Sign", "")]),
            ("ghostcut", "{}", &[("Callback-Sign", &foreign)]),
            ("ghostcut", "{} ", &[("Callback-Sign", &own)]),
        ];
        for (vendor, body, headers) in refused {
            let (status, text) = poster.post(&format!("{vendor}/{token}"), body, headers).await?;
            assert_eq!(status, 401, "{vendor} {body} {headers:?}: {text}");
        }
        let own: &[Header<'_>] = &[("Callback-Sign", &own)];
        assert_eq!(poster.post("ghostcut/not-a-uuid", "{}", own).await?.0, 404);
        assert_eq!(poster.post(&format!("other/{token}"), "{}", own).await?.0, 404);
        let long = vec![b' '; (256 << 10) + 1];
        assert_eq!(poster.post(&format!("ghostcut/{token}"), long, own).await?.0, 413);
        assert_eq!(outcomes(fleet).await?, Vec::<String>::new());

        // Signed, and the ledger does not know the token: the vendor has a work of ours that we forgot. Kept, once.
        let signed = [("Sync-Signature", right)];
        assert_eq!(poster.post(&format!("sync/{token}"), sync, &signed).await?, ok);
        assert_eq!(poster.signed(token, "{}").await?, ok);
        assert_eq!(poster.signed(token, "{}").await?, ok, "again");
        assert_eq!(poster.signed(Uuid::new_v4(), "{}").await?, ok, "under another token");
        came_to(fleet, &["ghostcut unknown_token", "sync unknown_token"]).await?;
        producer.stop().await
    })
    .await
}

/// The routes are there in any case; what cannot be checked is refused.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_secret_nothing_of_sync_is_believed() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let environment = called(fleet)?;
        let poster = Poster::new(&environment)?;
        let mut config: ServeConfig = environment.parse()?;
        config.sync.webhook_secret = None;
        config.callbacks.public_url = None;
        let stopper = Stopper::default();
        let producer = tokio::spawn(producer::run(config, stopper.clone()));
        listening(&poster).await?;
        let headers = [("Sync-Signature", "t=1,v1=00"), ("Sync-Signature", "")];
        for header in headers {
            let path = format!("sync/{}", Uuid::new_v4());
            assert_eq!(
                poster.post(&path, "{}", &[header]).await?.0,
                401,
                "{header:?}"
            );
        }
        assert_eq!(outcomes(fleet).await?, Vec::<String>::new());
        stopper.drain.cancel();
        producer.await?
    })
    .await
}

/// A signed callback says nothing that the vendor itself does not confirm, and it does not stand in the way for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_callback_is_evidence_and_no_truth() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let environment = called(fleet)?.with("CALLBACK_RETRY_SCHEDULE", "100ms*3");
        // The vendor's own callback about the other work would come in between.
        fleet
            .sandbox
            .change_settings(|settings| settings.ghostcut.process_ms = (3_600_000, 3_600_000));
        let hand = Hand::new(fleet, &environment)?;
        let other = fleet.submit_kind(Kind::Inpaint, 0).await?;
        let other = hand.submit(other.job, 1).await?;
        let job = fleet.submit_kind(Kind::Inpaint, 2).await?.job;
        let (epoch, token, claimed) = hand.claim(job, 1).await?;
        anyhow::ensure!(matches!(claimed, Claimed::Claimed { .. }), "{claimed:?}");
        let producer = Service::producer(&environment)?;
        let poster = Poster::new(&environment)?;
        listening(&poster).await?;

        let another = format!(
            r#"{{"id":{},"processStatus":1,"videoUrl":"https://x/y"}}"#,
            other.task_id
        );
        poster.signed(token, &another).await?;
        came_to(fleet, &["ghostcut not_ours"]).await?;
        poster.signed(token, r#"{"processStatus":1}"#).await?;
        poster.signed(token, "no JSON at all \u{0}").await?;
        let expected = [
            "ghostcut not_ours",
            "ghostcut unreadable",
            "ghostcut unreadable",
        ];
        came_to(fleet, &expected).await?;

        // A work that the vendor does not show: asked for again and again, then kept as failed.
        let sent = ByHand {
            job,
            epoch,
            token,
            task_id: String::new(),
        };
        hand.absent(&sent, 0).await?;
        poster
            .signed(
                token,
                r#"{"id":1,"processStatus":1,"videoUrl":"https://x/y"}"#,
            )
            .await?;
        let expected = [
            "ghostcut failed",
            "ghostcut not_ours",
            "ghostcut unreadable",
            "ghostcut unreadable",
        ];
        came_to(fleet, &expected).await?;
        let failed =
            "SELECT detail || ' ' || tries AS value FROM callbacks WHERE outcome = 'failed'";
        let detail = value(&fleet.database.url, failed).await?;
        assert_eq!(
            detail.as_deref(),
            Some("the vendor does not show the work 3")
        );
        let state = format!("SELECT state AS value FROM submissions WHERE token = '{token}'");
        assert_eq!(
            value(&fleet.database.url, &state).await?.as_deref(),
            Some("absent")
        );
        producer.stop().await
    })
    .await
}

/// A work that shows the token was paid for, and the ledger does not know it: more may be forgotten. The signature does not cover
/// the path, so that a token alone is anybody's.
#[tokio::test(flavor = "multi_thread")]
async fn a_callback_for_a_forgotten_submission_stops_paid_sends_if_the_work_shows_its_token()
-> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let environment = called(fleet)?;
        let hand = Hand::new(fleet, &environment)?;
        let token = Uuid::new_v4();
        let marker = Marker {
            job: Uuid::new_v4(),
            attempt: 1,
            token,
        };
        let work = hand.send(marker, None).await?;
        let producer = Service::producer(&environment)?;
        let poster = Poster::new(&environment)?;
        listening(&poster).await?;
        let body = |points| {
            format!(
                r#"{{"id":{work},"processStatus":1,"videoUrl":"https://x/y","paidPoint":{points}}}"#
            )
        };
        poster.signed(Uuid::new_v4(), &body(1)).await?;
        came_to(fleet, &["ghostcut unknown_token"]).await?;
        let stop = fleet.db.paid_stop().await?;
        assert!(stop.is_none(), "the work shows another token: {stop:?}");

        poster.signed(token, &body(2)).await?;
        came_to(fleet, &["ghostcut unknown_token"; 2]).await?;
        let stop = fleet.db.paid_stop().await?.context("not stopped")?;
        assert!(stop.audit_first && stop.by == "callback", "{stop:?}");
        assert!(stop.reason.contains(&token.to_string()), "{stop:?}");
        producer.stop().await
    })
    .await
}
