//! Progress for whoever watches: a bar on a terminal, lines elsewhere. All of it on standard error.

use std::cell::Cell;
use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use fleet::Snapshot;
use indicatif::{ProgressBar, ProgressStyle};

/// Between two lines where there is no terminal.
const EVERY: Duration = Duration::from_secs(2);

/// Shows the run.
pub(crate) struct View {
    bar: ProgressBar,
    on_terminal: bool,
    shown: Cell<Option<Instant>>,
    jobs: u64,
}

impl View {
    pub(crate) fn new(jobs: u64) -> Self {
        let bar = ProgressBar::new(jobs);
        let template = "{elapsed_precise} [{bar:30}] {pos}/{len} jobs  {msg}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        Self {
            bar,
            on_terminal: std::io::stderr().is_terminal(),
            shown: Cell::new(None),
            jobs,
        }
    }

    /// Shows how far the run is.
    pub(crate) fn show(&self, now: &Snapshot, kills: usize) {
        let finished = u64::try_from(now.completed).unwrap_or_default();
        let text = format!(
            "paid: sync {}, ghostcut {}; unknown {}; kills {kills}",
            now.sync, now.ghostcut, now.unknown
        );
        if self.on_terminal {
            self.bar.set_position(finished);
            self.bar.set_message(text);
            return;
        }
        let over = finished == self.jobs;
        if over
            || self
                .shown
                .get()
                .is_none_or(|shown| shown.elapsed() >= EVERY)
        {
            self.shown.set(Some(Instant::now()));
            self.say(&format!("{finished}/{} jobs; {text}", self.jobs));
        }
    }

    /// Says something that stays.
    pub(crate) fn say(&self, text: &str) {
        if self.on_terminal && !self.bar.is_finished() {
            self.bar.println(text);
        } else {
            // Nobody may be there to read it any more.
            let _ = writeln!(std::io::stderr(), "{text}");
        }
    }

    /// Takes the bar away.
    pub(crate) fn close(&self) {
        self.bar.finish_and_clear();
    }
}
