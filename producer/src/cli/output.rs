//! How the operator's commands print: a table for people, with `--json` one document for programs. Results go to standard
//! output; logs and progress go to standard error and never here.
//!
//! The document is one object; what a command reads has the names and values of the HTTP API. A list is under the name of what it lists
//! (`{"jobs": […]}`), so that more can be said beside it later. `submit`, which may print for hours, prints an object a line.

use std::io::Write as _;

use comfy_table::{ContentArrangement, Table, presets};
use console::Term;
use serde::Serialize;

/// The choice between the two, for every command that prints something.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct OutputArgs {
    /// Print JSON instead of a table
    #[arg(long, global = true)]
    pub json: bool,
}

impl OutputArgs {
    /// Prints `document` as JSON, or the lines that `human` makes of it.
    ///
    /// # Errors
    /// When standard output is closed.
    pub fn print<T: Serialize>(
        self,
        document: &T,
        human: impl FnOnce(&T) -> String,
    ) -> anyhow::Result<()> {
        let text = if self.json {
            serde_json::to_string_pretty(document)?
        } else {
            human(document)
        };
        let mut out = std::io::stdout().lock();
        writeln!(out, "{}", text.trim_end())?;
        Ok(())
    }
}

/// `1 job`, `2 jobs`.
#[must_use]
pub fn counted(number: i64, thing: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {thing}{plural}")
}

/// A table of these columns; a cell for each column in each row.
#[must_use]
pub fn table<const N: usize>(
    header: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(header);
    // Cells are broken where a person reads; whatever reads a pipe gets a line for each row.
    if let Some((_, columns)) = Term::stdout().size_checked() {
        table
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_width(columns);
    }
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.to_string()
}
