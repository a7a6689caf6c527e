//! Who acts and why: every command that changes something says it, and the trail keeps it.

use clap::builder::NonEmptyStringValueParser;

/// Arguments of every command that changes something.
#[derive(Clone, Debug, clap::Args)]
pub struct OperatorArgs {
    /// Why, for the others; kept in the trail
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    pub reason: String,
    /// Who; kept in the trail
    #[arg(long, env = "USER", default_value = "operator", value_parser = NonEmptyStringValueParser::new())]
    pub by: String,
}
