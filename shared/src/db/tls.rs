//! Where the database is and how the way to it is protected: `sslmode` and `sslrootcert` of `DATABASE_URL`, as libpq has them
//! (<https://www.postgresql.org/docs/current/libpq-ssl.html>), by rustls.
//!
//! | `sslmode` | Encrypted | The server is |
//! |---|---|---|
//! | none, `disable`, `allow`, `prefer` | no | not checked |
//! | `require` without `sslrootcert` | yes | not checked: whoever is in between can read |
//! | `require` with it, `verify-ca`, `verify-full` | yes | the one of the URL's host, by certificates of `sslrootcert`, else of the system |
//!
//! Stricter than libpq in one thing: where a certificate is checked, the name is too.

use std::path::Path;
use std::sync::Arc;

use diesel::ConnectionError;
use diesel_async::AsyncPgConnection;
use percent_encoding::percent_decode_str;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_postgres::NoTls;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{DbError, DbResult};
use crate::telemetry::chain;

/// A database and the way to it. Cheap to clone.
#[derive(Clone)]
pub(super) struct Target {
    config: tokio_postgres::Config,
    tls: Option<MakeRustlsConnect>,
}

/// What the server is checked against.
#[derive(Clone, Debug, PartialEq)]
enum Check {
    Nothing,
    System,
    File(String),
}

impl Target {
    /// Reads the URL and the certificates; connects to nothing.
    ///
    /// # Errors
    /// [`DbError::Setting`] says what is wrong; the URL is not shown: it holds a password.
    pub(super) fn new(url: &str) -> DbResult<Self> {
        let wrong = |why: String| DbError::Setting(format!("DATABASE_URL: {why}"));
        let (url, check) = split(url).map_err(wrong)?;
        let config: tokio_postgres::Config = url.parse().map_err(|error| wrong(chain(&error)))?;
        let tls = match check {
            None => None,
            Some(check) => Some(MakeRustlsConnect::new(client(&check).map_err(wrong)?)),
        };
        Ok(Self { config, tls })
    }

    /// A new connection.
    pub(super) async fn connect(&self) -> Result<AsyncPgConnection, ConnectionError> {
        let failed = |error: tokio_postgres::Error| ConnectionError::BadConnection(chain(&error));
        match &self.tls {
            Some(tls) => {
                let (client, connection) =
                    self.config.connect(tls.clone()).await.map_err(failed)?;
                AsyncPgConnection::try_from_client_and_connection(client, connection).await
            }
            None => {
                let (client, connection) = self.config.connect(NoTls).await.map_err(failed)?;
                AsyncPgConnection::try_from_client_and_connection(client, connection).await
            }
        }
    }
}

/// The URL as the driver understands it, and how the server is checked; none: nothing is encrypted.
fn split(url: &str) -> Result<(String, Option<Check>), String> {
    let Some((base, query)) = url.split_once('?') else {
        return Ok((url.to_owned(), None));
    };
    let (mut mode, mut file, mut rest) = (None, None, Vec::new());
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = || percent_decode_str(value).decode_utf8_lossy().into_owned();
        match name {
            "sslmode" => mode = Some(value()),
            "sslrootcert" => file = Some(value()),
            _ => rest.push(pair),
        }
    }
    let file = file.filter(|file| !file.is_empty());
    let check = match (mode.as_deref(), file) {
        (None | Some("disable" | "allow" | "prefer"), None) => None,
        (None | Some("disable" | "allow" | "prefer"), Some(_)) => {
            return Err("sslrootcert is used with sslmode=verify-full alone".to_owned());
        }
        (Some("require"), None) => Some(Check::Nothing),
        (Some("verify-ca" | "verify-full"), None) => Some(Check::System),
        (Some("require" | "verify-ca" | "verify-full"), Some(file)) if file == "system" => {
            Some(Check::System)
        }
        (Some("require" | "verify-ca" | "verify-full"), Some(file)) => Some(Check::File(file)),
        (Some(_), _) => {
            return Err("sslmode must be disable, require or verify-full".to_owned());
        }
    };
    rest.push(if check.is_some() {
        "sslmode=require"
    } else {
        "sslmode=disable"
    });
    Ok((format!("{base}?{}", rest.join("&")), check))
}

fn client(check: &Check) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let config = match check {
        Check::Nothing => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
            .with_no_client_auth(),
        Check::System => {
            let found = rustls_native_certs::load_native_certs();
            let roots = store(found.certs);
            if roots.is_empty() {
                return Err(
                    "this machine has no certificates of authorities; name a file by sslrootcert"
                        .to_owned(),
                );
            }
            builder.with_root_certificates(roots).with_no_client_auth()
        }
        Check::File(file) => {
            let unreadable = |error| format!("sslrootcert {file} cannot be read: {error}");
            let certificates: Vec<CertificateDer<'static>> =
                CertificateDer::pem_file_iter(Path::new(file))
                    .and_then(Iterator::collect)
                    .map_err(unreadable)?;
            let roots = store(certificates);
            if roots.is_empty() {
                return Err(format!("sslrootcert {file} has no certificate"));
            }
            builder.with_root_certificates(roots).with_no_client_auth()
        }
    };
    Ok(config)
}

/// Those that can be used.
fn store(certificates: Vec<CertificateDer<'static>>) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates);
    roots
}

/// Takes any certificate, but only from who has its key: `sslmode=require`, which is about being overheard, not about whom one
/// talks to.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(query: &str) -> (String, Option<Check>) {
        split(&format!("postgres://u:p%3F@h/d{query}")).unwrap()
    }

    #[test]
    fn the_mode_decides_what_is_checked() {
        let file = |name: &str| Some(Check::File(name.to_owned()));
        for (query, check) in [
            ("", None),
            ("?", None),
            ("?sslmode=disable", None),
            ("?sslmode=prefer", None),
            ("?sslmode=require", Some(Check::Nothing)),
            ("?sslmode=verify-full", Some(Check::System)),
            (
                "?sslmode=verify-full&sslrootcert=system",
                Some(Check::System),
            ),
            (
                "?sslmode=verify-ca&sslrootcert=/a%20b.pem",
                file("/a b.pem"),
            ),
            ("?sslrootcert=/ca.pem&sslmode=require", file("/ca.pem")),
        ] {
            assert_eq!(way(query).1, check, "{query}");
        }
        let (url, _) = way("?application_name=x&sslmode=verify-full&connect_timeout=3");
        assert_eq!(
            url,
            "postgres://u:p%3F@h/d?application_name=x&connect_timeout=3&sslmode=require"
        );
        for (wrong, why) in [
            ("?sslmode=always", "sslmode must be"),
            ("?sslrootcert=/ca.pem", "verify-full"),
        ] {
            let error = split(&format!("postgres://u:secret@h/d{wrong}")).unwrap_err();
            assert!(error.contains(why) && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_certificate_that_cannot_be_read_is_named() {
        let target =
            Target::new("postgres://u:secret@h/d?sslmode=verify-full&sslrootcert=/none.pem");
        let error = target.err().unwrap().to_string();
        assert!(error.contains("sslrootcert /none.pem"), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }
}
