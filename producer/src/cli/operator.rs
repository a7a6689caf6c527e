//! Who acts and why: every command that changes something says it, and the trail keeps it.

/// Arguments of every command that changes something.
#[derive(Clone, Debug, clap::Args)]
pub struct OperatorArgs {
    /// Why, for the others; kept in the trail
    #[arg(long, value_parser = not_blank)]
    pub reason: String,
    /// Who; kept in the trail
    #[arg(long, env = "USER", default_value = "operator", value_parser = not_blank)]
    pub by: String,
}

/// The same of commands that can also only say what they would do.
#[derive(Clone, Debug, clap::Args)]
pub struct PreviewOperatorArgs {
    /// Why, for the others; kept in the trail; required without --preview
    #[arg(long, required_unless_present = "preview", value_parser = not_blank)]
    pub reason: Option<String>,
    /// Who; kept in the trail
    #[arg(long, env = "USER", default_value = "operator", value_parser = not_blank)]
    pub by: String,
}

/// Reads a text that a person has to say.
///
/// # Errors
/// When it says nothing.
pub fn not_blank(text: &str) -> Result<String, String> {
    match text.trim() {
        "" => Err("must say something".to_owned()),
        _ => Ok(text.to_owned()),
    }
}
