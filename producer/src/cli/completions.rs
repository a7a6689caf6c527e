//! `producer completions`: what a shell reads to complete the commands. Connects to nothing.

use std::io::Write as _;
use std::process::ExitCode;

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::Cli;
use super::exit::Exit;

const EXAMPLES: &str = "Examples:
  producer completions bash > /etc/bash_completion.d/producer
  producer completions zsh > ~/.zfunc/_producer
  producer completions fish > ~/.config/fish/completions/producer.fish";

/// Print what makes a shell complete these commands
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct CompletionsArgs {
    /// The shell
    pub shell: Shell,
}

/// Prints it.
///
/// # Errors
/// When standard output is closed.
pub fn run(args: &CompletionsArgs) -> anyhow::Result<ExitCode> {
    // Gathered first: the generator panics where it cannot write.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "producer", &mut script);
    std::io::stdout().lock().write_all(&script)?;
    Ok(Exit::Done.into())
}
