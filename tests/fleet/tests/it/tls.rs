//! The way to the database by TLS: a real PostgreSQL with a certificate of an authority of our own, and who is refused.

use std::path::Path;

use fleet::{Database, Servers};
use shared::db::Db;

use crate::sql::{config, execute, value};

/// Runs `openssl` in a folder.
async fn openssl(folder: &Path, args: &str) -> anyhow::Result<()> {
    let output = tokio::process::Command::new("openssl")
        .args(args.split(' '))
        .current_dir(folder)
        .kill_on_drop(true)
        .output()
        .await?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "openssl {args}: {stderr}");
    Ok(())
}

/// An authority of this name, and a certificate of it for `subject` in `<subject>.crt`.
async fn certify(folder: &Path, authority: &str, subject: &str, names: &str) -> anyhow::Result<()> {
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    let issue = format!(
        "req -x509 {key} -keyout {authority}.key -out {authority}.crt -days 2 -subj /CN={authority}"
    );
    openssl(folder, &issue).await?;
    let ask = format!("req {key} -keyout {subject}.key -out {subject}.csr -subj /CN={subject}");
    openssl(folder, &ask).await?;
    std::fs::write(folder.join("names"), format!("subjectAltName={names}"))?;
    let sign = format!(
        "x509 -req -in {subject}.csr -CA {authority}.crt -CAkey {authority}.key -CAcreateserial -days 2 -extfile names -out {subject}.crt"
    );
    openssl(folder, &sign).await
}

/// Has the server show this certificate from now on.
async fn show(url: &str, folder: &Path, subject: &str) -> anyhow::Result<()> {
    for (file, setting) in [("crt", "ssl_cert_file"), ("key", "ssl_key_file")] {
        let text = std::fs::read_to_string(folder.join(format!("{subject}.{file}")))?;
        // Line by line, as the server's own user: the server reads no key that others can read.
        let lines: Vec<_> = text.lines().map(|line| format!("('{line}')")).collect();
        let copy = format!(
            "COPY (VALUES {}) TO PROGRAM 'umask 077; cat > gf-{subject}.{file}'",
            lines.join(", ")
        );
        execute(url, &copy).await?;
        execute(
            url,
            &format!("ALTER SYSTEM SET {setting} = 'gf-{subject}.{file}'"),
        )
        .await?;
    }
    execute(url, "ALTER SYSTEM SET ssl = on").await?;
    execute(url, "SELECT pg_reload_conf()").await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_way_to_the_database_is_encrypted_and_a_wrong_server_is_refused() -> anyhow::Result<()>
{
    // Of its own: its settings are changed.
    let servers = Servers::private("tls").await?;
    let database = Database::create(&servers.database_url).await?;
    let folder = std::env::temp_dir().join(format!("gf-tls-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    certify(&folder, "ours", "here", "IP:127.0.0.1,DNS:localhost").await?;
    certify(&folder, "theirs", "elsewhere", "DNS:db.example").await?;
    show(&database.url, &folder, "here").await?;

    let url = |query: String| format!("{}?application_name=gf_tls&{query}", database.url);
    let root = |name: &str| format!("sslrootcert={}", folder.join(name).display());
    let ping = async |query: String| -> Result<(), String> {
        let told = |error: shared::db::DbError| shared::telemetry::chain(&error);
        let mut config = config(&url(query));
        config.database_pool_size = 1;
        let db = Db::new(&config).map_err(told)?;
        db.ping().await.map_err(told)?;
        let encrypted = "SELECT bool_and(s.ssl)::text AS value FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid) \
                         WHERE a.application_name = 'gf_tls'";
        let encrypted = value(&database.url, encrypted)
            .await
            .map_err(|error| error.to_string())?;
        match encrypted.as_deref() {
            Some("true") => Ok(()),
            other => Err(format!("not encrypted: {other:?}")),
        }
    };
    let refused = |outcome: Result<(), String>, why: &str| {
        let error = outcome.unwrap_err();
        assert!(error.contains(why), "`{why}` is not in `{error}`");
    };
    let verified = |name: &str| format!("sslmode=verify-full&{}", root(name));
    fleet::eventually(fleet::DEADLINE, async || {
        // The server takes its new settings in its own time.
        ping(verified("ours.crt")).await.map_err(anyhow::Error::msg)
    })
    .await?;
    ping("sslmode=require".to_owned()).await.unwrap();
    // Everything of the fleet connects so: migrations too.
    Db::migrate(&config(&url(verified("ours.crt")))).await?;
    refused(ping(verified("theirs.crt")).await, "UnknownIssuer");
    refused(
        ping("sslmode=verify-full".to_owned()).await,
        "UnknownIssuer",
    );
    refused(ping("sslmode=prefer".to_owned()).await, "not encrypted");

    // The right authority, and another server's name.
    certify(&folder, "ours", "other", "DNS:db.example").await?;
    show(&database.url, &folder, "other").await?;
    fleet::eventually(fleet::DEADLINE, async || {
        let error = ping(verified("ours.crt")).await.err();
        anyhow::ensure!(
            error
                .as_ref()
                .is_some_and(|error| error.contains("not valid for name")),
            "{error:?}"
        );
        Ok(())
    })
    .await?;
    ping("sslmode=require".to_owned()).await.unwrap();
    std::fs::remove_dir_all(&folder)?;
    database.drop().await?;
    servers.release().await;
    Ok(())
}
