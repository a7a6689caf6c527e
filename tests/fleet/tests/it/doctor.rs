//! `producer doctor`: well on a sound fleet, and each thing that is wrong is named with what to do.

use sandbox::SandboxConfig;
use serde_json::Value;

use crate::command::producer;
use crate::sql::execute;

/// The check of this name.
fn check<'a>(report: &'a Value, part: &str, what: &str) -> &'a Value {
    let checks = report["checks"].as_array().unwrap();
    let found = checks
        .iter()
        .find(|check| check["part"] == part && check["what"] == what);
    found.unwrap_or_else(|| panic!("no {part} {what} in {report:#}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sound_fleet_is_found_well_and_nothing_is_paid() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let report = producer(&fleet.environment, &["doctor", "--json"])
            .await?
            .json(0);
        assert_eq!(report["healthy"], true);
        for (part, what) in [
            ("database", "fsync"),
            ("database", "schema"),
            ("database", "failover"),
            ("broker", "version"),
            ("broker", "messages"),
            ("bucket", "presigned URL"),
            ("bucket", "uploads"),
            ("bucket", "delete"),
            ("sync", "key"),
            ("ghostcut", "balance"),
        ] {
            assert_eq!(check(&report, part, what)["level"], "ok", "{report:#}");
        }
        let version = &check(&report, "broker", "version")["found"];
        let digits = version
            .as_str()
            .and_then(|found| found.strip_prefix("RabbitMQ "));
        let said = digits.is_some_and(|version| version.starts_with(|c: char| c.is_ascii_digit()));
        assert!(said, "{version}");
        let truth = fleet.sandbox.truth();
        let paid =
            [sandbox::Vendor::Sync, sandbox::Vendor::Ghostcut].map(|vendor| truth.paid(vendor));
        assert_eq!(paid, [0, 0]);
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_named_with_what_to_do() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let mut environment = fleet.environment.clone();
        execute(&fleet.database.url, "DELETE FROM __diesel_schema_migrations WHERE version = (SELECT max(version) FROM __diesel_schema_migrations)").await?;
        environment.set("SYNC_API_KEY", "not-our-key");
        environment.set("GHOSTCUT_APP_SECRET", "not-our-secret");
        environment.set("AWS_SECRET_ACCESS_KEY", "not-our-secret");
        environment.set("AMQP_URL", "amqp://guest:wrong@127.0.0.1:1");
        environment.set("PUBLIC_URL", "http://127.0.0.1:1");
        environment.set("SYNC_WEBHOOK_SECRET", "secret");
        environment.set("SEND_DEADLINE", "1h");
        let report = producer(&environment, &["doctor", "--json"]).await?.json(1);
        for (part, what, advice) in [
            ("settings", "times", "do not start"),
            ("database", "schema", "producer migrate"),
            ("broker", "answers", "AMQP_URL"),
            ("bucket", "write", "s3:PutObject"),
            ("sync", "key", "SYNC_API_KEY"),
            ("ghostcut", "key", "GHOSTCUT_APP_SECRET"),
            ("callbacks", "PUBLIC_URL", "HTTP_ADDR"),
        ] {
            let check = check(&report, part, what);
            assert_eq!(check["level"], "wrong", "{check:#}");
            assert!(check["advice"].as_str().unwrap().contains(advice), "{check:#}");
        }
        let text = report.to_string();
        assert!(!text.contains("not-our-secret") && !text.contains("guest:wrong"), "{text}");
        Ok(())
    })
    .await
}
