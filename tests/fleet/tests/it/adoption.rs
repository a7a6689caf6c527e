//! Rows that another application puts into `video_jobs` by itself.

use fleet::{Expectation, Fleet, Kind, PerVendor, eventually};
use sandbox::{SandboxConfig, Vendor as Payee};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::sql::{execute, value};

/// Inserts a row as the replaced application wrote it; `sets` are assignments beside the usual ones.
pub(crate) async fn insert(fleet: &Fleet, kind: Kind, sets: &str) -> anyhow::Result<Expectation> {
    let request = fleet.media.request(kind, 0);
    let url = |location: &Value| {
        let key = fleet.storage.key_of(location.as_str().unwrap()).unwrap();
        fleet.storage.object_url(&key)
    };
    let audio: serde_json::Map<_, _> = request["audio"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(ref_id, location)| (ref_id.clone(), json!(url(location))))
        .collect();
    let metadata =
        json!({ "video_s3_url": url(&request["video_url"]), "audio_url_mapping": audio });
    let config = json!({ "effects": request["effects"] });
    let segments = match &request["segments"] {
        Value::Null => "NULL".to_owned(),
        segments => format!("'{}'", json!({ "segments": segments })),
    };
    let job = Uuid::new_v4();
    let user = Uuid::from_u128(1);
    // One transaction: the fleet must never see the row without its `sets`.
    execute(
        &fleet.database.url,
        &format!(
            "BEGIN; INSERT INTO video_jobs (id, user_id, original_filename, status, is_pro_job, processing_config, segments_data, \
             job_metadata) VALUES ('{job}', '{user}', 'talk.mp4', 'queued', true, '{config}', {segments}, '{metadata}'); \
             UPDATE video_jobs SET {sets} WHERE id = '{job}'; COMMIT"
        ),
    )
    .await?;
    Ok(Expectation::completed(job, kind))
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_another_application_are_run_and_paid_once() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let services = [
            fleet.workers(2)?,
            vec![fleet.producer()?, fleet.producer()?],
        ];
        let mut jobs = Vec::new();
        for kind in Kind::ALL {
            jobs.push(insert(fleet, kind, "status = 'queued'").await?);
        }
        let nothing_paid = |job: Expectation, status| Expectation {
            status,
            paid: PerVendor::default(),
            ..job
        };
        let faulty = insert(
            fleet,
            Kind::Both,
            r#"segments_data = '{"segments": [{"startTime": 5, "endTime": 1, "audioInput": {"refId": "first"}}]}'"#,
        )
        .await?;
        jobs.push(nothing_paid(faulty, "failed"));
        // Not ready, not ours, or forgotten long ago.
        for (sets, status) in [
            ("status = 'uploading'", "uploading"),
            ("is_pro_job = false", "queued"),
            ("updated_at = updated_at - interval '2 hours'", "queued"),
        ] {
            jobs.push(nothing_paid(insert(fleet, Kind::Both, sets).await?, status));
        }
        // What PostgreSQL takes and we cannot read, beside the others in the same page.
        for sets in [
            r#"processing_config = '{"effects": 1e400}'"#,
            r#"job_metadata = ('{"deep": ' || repeat('[', 200) || repeat(']', 200) || '}')::jsonb"#,
        ] {
            jobs.push(nothing_paid(insert(fleet, Kind::Both, sets).await?, "failed"));
        }
        fleet.wait_for(&jobs).await?;
        fleet.books(&jobs).await?.assert_balanced();
        let error = fleet.db.job(jobs[3].job).await?.unwrap().error_message;
        assert!(error.unwrap().contains("segments_data"), "names the field");
        for service in services.into_iter().flatten() {
            service.stop().await?;
        }
        Ok(())
    })
    .await
}

/// Switched off, adoption is a part that is not there, and not one that has ended.
#[tokio::test(flavor = "multi_thread")]
async fn a_producer_that_adopts_nothing_goes_on() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let environment = fleet.environment.clone().with("ADOPT_WITHIN", "0s");
        let mut services = fleet.workers(1)?;
        services.push(fleet::Service::producer(&environment)?);
        let job = fleet.submit_kind(Kind::Lipsync, 0).await?;
        fleet.wait_for(std::slice::from_ref(&job)).await?;
        fleet.books(&[job]).await?.assert_balanced();
        for service in services {
            service.stop().await?;
        }
        Ok(())
    })
    .await
}

/// The replaced application was stopped in the middle of its jobs: what it paid for is followed, not paid for again.
#[tokio::test(flavor = "multi_thread")]
async fn works_named_in_a_row_are_followed_and_not_paid_again() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let services = [fleet.workers(1)?, vec![fleet.producer()?]];
        let first = fleet.submit_kind(Kind::Both, 0).await?;
        fleet.wait_for(std::slice::from_ref(&first)).await?;
        let truth = fleet.sandbox.truth();
        let generation = truth.works(Payee::Sync).remove(0).id;
        let work = truth.works(Payee::Ghostcut).remove(0).id;
        // Its works become those of rows that the ledger knows nothing of.
        let forget = "ALTER TABLE submissions DISABLE TRIGGER ALL; DELETE FROM submissions; \
                      ALTER TABLE submissions ENABLE TRIGGER ALL";
        let url = &fleet.database.url;
        execute(url, forget).await?;
        let sets = format!(
            "status = 'processing', zhaoli_task_id = '{generation}', \
             job_metadata = job_metadata || '{{\"ghostcut_task_id\": \"{work}\"}}'"
        );
        let inpainting = insert(fleet, Kind::Both, &sets).await?;
        fleet.wait_for(std::slice::from_ref(&inpainting)).await?;
        assert_eq!((truth.paid(Payee::Sync), truth.paid(Payee::Ghostcut)), (1, 1));
        let states = "SELECT string_agg(vendor || ' ' || state || ' ' || imported, ', ' ORDER BY vendor) AS value FROM submissions";
        eventually(fleet::DEADLINE, async || {
            let states = value(url, states).await?;
            anyhow::ensure!(
                states.as_deref() == Some("ghostcut succeeded true, sync succeeded true"),
                "both are followed to their end: {states:?}"
            );
            Ok(())
        })
        .await?;

        execute(url, forget).await?;
        let sets = format!("status = 'processing', zhaoli_task_id = '{generation}'");
        let lipsynced = insert(fleet, Kind::Both, &sets).await?;
        fleet.wait_for(std::slice::from_ref(&lipsynced)).await?;
        assert_eq!((truth.paid(Payee::Sync), truth.paid(Payee::Ghostcut)), (1, 2));
        for service in services.into_iter().flatten() {
            service.stop().await?;
        }
        Ok(())
    })
    .await
}
