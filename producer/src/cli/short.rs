//! What `-h` shows: the command, its own options and examples. Settings, which most people have in the environment, are under
//! headings of their own that only `--help` shows.

use clap::{Command, CommandFactory as _};

use super::Cli;

/// The command line, with settings kept out of the short help and out of usage lines.
#[must_use]
pub fn command() -> Command {
    let mut command = shortened(Cli::command());
    // Names reach the subcommands, whose usage has them.
    command.build();
    told(command)
}

fn shortened(command: Command) -> Command {
    let command = command.mut_args(|arg| {
        if arg.get_env().is_none() || arg.get_id().as_str() == "by" {
            return arg;
        }
        let arg = arg.hide_short_help(true);
        match arg.get_help_heading() {
            Some(_) => arg,
            None => arg.help_heading("Settings"),
        }
    });
    command.mut_subcommands(shortened)
}

/// Without it, usage lines name every setting that has to be there, and those of errors all that are.
fn told(command: Command) -> Command {
    let command = command.mut_subcommands(told);
    if command.has_subcommands() {
        return command;
    }
    let mut own = command.clone().mut_args(|arg| match arg.get_env() {
        Some(_) => arg.required(false),
        None => arg,
    });
    let usage = own.render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ").to_owned();
    command.override_usage(usage)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn help(args: &[&str]) -> String {
        let parsed = command().try_get_matches_from([&["producer"], args].concat());
        parsed.unwrap_err().to_string()
    }

    #[test]
    fn the_short_help_has_examples_and_no_settings() {
        command().debug_assert();
        for path in [
            &["unknowns", "adopt"][..],
            &["unknowns", "confirm-not-accepted"],
            &["resume-paid"],
        ] {
            let short = help(&[path, &["-h"]].concat());
            assert!(short.lines().count() < 40, "{short}");
            assert!(
                short.contains("Example:") && short.contains("--reason"),
                "{short}"
            );
            assert!(!short.contains("DATABASE_URL"), "{short}");
            let long = help(&[path, &["--help"]].concat());
            assert!(long.contains("DATABASE_URL"), "{long}");
        }
    }

    #[test]
    fn a_missing_option_is_told_in_few_words() {
        let token = "7b0c6c7e-0f8b-4a1e-9d0a-0f8b00000001";
        let url = ["--database-url", "postgres://x", "--aws-s3-bucket", "b"];
        let args = [&["unknowns", "adopt", token, "--task-id", "7"], &url[..]].concat();
        let said = help(&args);
        assert!(said.contains("--reason <REASON>"), "{said}");
        let usage = said.lines().find(|line| line.starts_with("Usage:"));
        let expected = "Usage: producer unknowns adopt [OPTIONS] --task-id <TASK_ID> --reason <REASON> <TOKEN>";
        assert_eq!(usage, Some(expected), "{said}");
    }
}
