//! What a person sees while it goes on, on standard error: bars on a terminal, plain lines elsewhere.
//!
//! Shows file names, ids and texts without query strings; never a URL's signature.

use std::io::Write as _;
use std::path::Path;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

const UPLOAD: &str = "{prefix:30!} {wide_bar} {binary_bytes}/{binary_total_bytes} {eta}";
const PERCENT: &str = "{prefix} {bar:30} {pos:>3} % {elapsed} {wide_msg}";
const TOTAL: &str = "{prefix} {bar:30} {pos}/{len} {elapsed} {wide_msg}";

/// The bars of one run.
pub(super) struct Display {
    bars: MultiProgress,
    total: ProgressBar,
}

impl Display {
    /// For the percents of one job, or for counting `jobs`.
    pub(super) fn new(jobs: Option<usize>) -> Self {
        let bars = MultiProgress::new();
        let (length, template, prefix) = match jobs {
            None => (100, PERCENT, "job"),
            Some(jobs) => (jobs as u64, TOTAL, "jobs"),
        };
        let total = bars.add(ProgressBar::new(length));
        total.set_style(style(template));
        total.set_prefix(prefix);
        Self { bars, total }
    }

    /// A bar for one upload.
    pub(super) fn upload(&self, path: &Path, bytes: u64) -> ProgressBar {
        let name = path
            .file_name()
            .map(|name| printable(&name.to_string_lossy()))
            .unwrap_or_default();
        if self.bars.is_hidden() {
            self.note(&format!("uploading {name} ({bytes} bytes)"));
        }
        let bar = self
            .bars
            .insert_before(&self.total, ProgressBar::new(bytes));
        bar.set_style(style(UPLOAD));
        bar.set_prefix(name);
        bar
    }

    /// The upload is over, well or not.
    pub(super) fn uploaded(&self, bar: &ProgressBar) {
        bar.finish_and_clear();
        self.bars.remove(bar);
    }

    /// How far the only job is.
    pub(super) fn percent(&self, percent: i32, message: &str) {
        self.total.set_position(percent.clamp(0, 100) as u64);
        self.say(message, &format!("{percent} % {message}"));
    }

    /// How many jobs have ended.
    pub(super) fn ended(&self, ended: usize, failed: usize) {
        self.total.set_position(ended as u64);
        let message = format!("{failed} not completed");
        let jobs = self.total.length().unwrap_or_default();
        self.say(
            &message,
            &format!("{ended} of {jobs} jobs ended, {message}"),
        );
    }

    /// The message of the bar, or a line where there is none.
    fn say(&self, message: &str, line: &str) {
        self.total.set_message(printable(message));
        if self.bars.is_hidden() {
            self.note(line);
        }
    }

    /// A line that stays.
    pub(super) fn note(&self, line: &str) {
        let line = printable(line);
        // A closed standard error is no reason to stop.
        let _ = if self.bars.is_hidden() {
            writeln!(std::io::stderr(), "{line}")
        } else {
            self.bars.println(line)
        };
    }

    pub(super) fn finish(&self) {
        self.total.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    // The templates are constants; a test reads them all.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// A text from outside without what moves the cursor of a terminal.
pub(super) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_can_be_read() {
        for template in [UPLOAD, PERCENT, TOTAL] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }

    #[test]
    fn texts_cannot_move_the_cursor() {
        assert_eq!(printable("a\u{1b}[2Jb\n测"), "a [2Jb 测");
    }
}
