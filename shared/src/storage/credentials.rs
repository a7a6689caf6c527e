//! Where credentials come from: the configuration, else a profile file.
//!
//! The instance metadata service is not asked: where there is none, the question hangs.

use super::StorageError;
use crate::config::storage::StorageConfig;
use rusoto_credential::{AwsCredentials, CredentialsError, ProfileProvider, ProvideAwsCredentials};

/// The source of the credentials of every request.
#[derive(Clone)]
pub(super) enum Credentials {
    /// From the configuration (flags or environment).
    Fixed(AwsCredentials),
    /// Read anew for each request, so that a rotated file is picked up.
    Profile(ProfileProvider),
}

impl Credentials {
    pub(super) fn new(config: &StorageConfig) -> Result<Self, StorageError> {
        let key = config
            .aws_access_key_id
            .as_deref()
            .filter(|key| !key.is_empty());
        let secret = config
            .aws_secret_access_key
            .as_ref()
            .filter(|secret| !secret.expose().is_empty());
        let token = config
            .aws_session_token
            .as_ref()
            .filter(|token| !token.expose().is_empty());
        match (key, secret) {
            (Some(key), Some(secret)) => Ok(Self::Fixed(AwsCredentials::new(
                key,
                secret.expose(),
                token.map(|token| token.expose().to_owned()),
                config.aws_credential_expiration,
            ))),
            (None, None) => {
                let mut profile = ProfileProvider::new().map_err(StorageError::Credentials)?;
                if let Some(name) = config
                    .aws_profile
                    .as_deref()
                    .filter(|name| !name.is_empty())
                {
                    profile.set_profile(name);
                }
                Ok(Self::Profile(profile))
            }
            (Some(_), None) => Err(unset("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID")),
            (None, Some(_)) => Err(unset("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")),
        }
    }
}

fn unset(setting: &'static str, other: &str) -> StorageError {
    StorageError::Setting {
        setting,
        reason: format!("is not set although {other} is"),
    }
}

impl ProvideAwsCredentials for Credentials {
    fn credentials<'a, 'b>(
        &'a self,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<AwsCredentials, CredentialsError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        match self {
            Self::Fixed(credentials) => Box::pin(std::future::ready(Ok(credentials.clone()))),
            Self::Profile(profile) => profile.credentials(),
        }
    }
}
