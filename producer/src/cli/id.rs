//! Ids on the command line.

use uuid::Uuid;

/// Reads the id of a job, user or submission.
///
/// # Errors
/// What is expected.
pub fn id(text: &str) -> Result<Uuid, String> {
    let wanted = || "must be a UUID such as 7b0c6c7e-0f8b-4a1e-9d0a-0f8b00000001".to_owned();
    text.parse().map_err(|_| wanted())
}
