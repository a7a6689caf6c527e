//! How commands end: one table of exit statuses for all of them.

use std::io;
use std::process::ExitCode;

use shared::broker::BrokerError;
use shared::config::Contradiction;
use shared::db::DbError;
use shared::storage::StorageError;
use shared::vendor::VendorError;

/// The table, for `producer --help`.
pub const TABLE: &str = "\
Exit status, of every command:
  0  done
  1  not as asked: refused, something differs, or something was left undone; the output says what
  2  the command line or the settings are wrong; nothing was done
  3  what was named is not there; nothing was done
  4  could not be done or finished: database, broker, bucket or vendor failed. Repeat it: that is safe";

/// An exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Everything is as asked.
    Done = 0,
    /// Refused, different, or left undone in part.
    Differs = 1,
    /// The arguments or settings are wrong. `clap` ends so too.
    Usage = 2,
    /// What was named does not exist.
    NotFound = 3,
    /// Something outside failed.
    Failed = 4,
}

/// Arguments that cannot be meant together; says which.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// What was named does not exist; says what.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NotFound(pub String);

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl Exit {
    /// [`Exit::Done`] if everything is as asked, else [`Exit::Differs`].
    #[must_use]
    pub const fn done_if(is_as_asked: bool) -> Self {
        if is_as_asked {
            Self::Done
        } else {
            Self::Differs
        }
    }

    /// How a command ends that failed with this.
    #[must_use]
    pub fn of(error: &anyhow::Error) -> Self {
        let caused = |is: fn(&(dyn std::error::Error + 'static)) -> bool| error.chain().any(is);
        let is_setting = |cause: &(dyn std::error::Error + 'static)| {
            cause.is::<Usage>()
                || cause.is::<Contradiction>()
                || matches!(cause.downcast_ref(), Some(DbError::Setting(_)))
        };
        if caused(is_setting) {
            Self::Usage
        } else if caused(|cause| cause.is::<NotFound>()) {
            Self::NotFound
        } else if caused(|cause| {
            cause.is::<DbError>()
                || cause.is::<StorageError>()
                || cause.is::<VendorError>()
                || cause.is::<BrokerError>()
                || cause.is::<io::Error>()
        }) {
            Self::Failed
        } else {
            Self::Differs
        }
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn errors_end_as_the_table_says() {
        let wrapped = |error: anyhow::Error| Err::<(), _>(error).context("outside").unwrap_err();
        let cases = [
            (Usage("two of them".to_owned()).into(), Exit::Usage),
            (NotFound("no job".to_owned()).into(), Exit::NotFound),
            (DbError::Value("odd".to_owned()).into(), Exit::Failed),
            (io::Error::other("closed").into(), Exit::Failed),
            (Contradiction(vec!["a".to_owned()]).into(), Exit::Usage),
            (anyhow::anyhow!("the name is taken"), Exit::Differs),
        ];
        for (error, exit) in cases {
            let error = wrapped(error);
            assert_eq!(Exit::of(&error), exit, "{error:#}");
            assert!(TABLE.contains(&format!("\n  {}  ", exit as u8)));
        }
    }
}
