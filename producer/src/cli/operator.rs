//! Who acts and why: every command that changes something says it, and the trail keeps it.

use shared::domain::fields::{SAID, is_said};

/// Arguments of every command that changes something.
#[derive(Clone, Debug, clap::Args)]
pub struct OperatorArgs {
    /// Why, for the others; kept in the trail
    #[arg(long, value_parser = said)]
    pub reason: String,
    /// Who; kept in the trail
    #[arg(long, env = "USER", default_value = "operator", value_parser = said)]
    pub by: String,
}

/// The same of commands that can also only say what they would do.
#[derive(Clone, Debug, clap::Args)]
pub struct PreviewOperatorArgs {
    /// Why, for the others; kept in the trail; required without --preview
    #[arg(long, required_unless_present = "preview", value_parser = said)]
    pub reason: Option<String>,
    /// Who; kept in the trail
    #[arg(long, env = "USER", default_value = "operator", value_parser = said)]
    pub by: String,
}

/// Reads a text that a person has to say.
///
/// # Errors
/// When it says nothing, or what no line of a terminal may hold.
pub fn said(text: &str) -> Result<String, String> {
    match is_said(text) {
        true => Ok(text.to_owned()),
        false => Err(SAID.to_owned()),
    }
}
