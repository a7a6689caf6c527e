//! How long work shows that it goes on: on standard error, for people at a terminal alone.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// How often what has no end in sight shows that it lives.
const TICK: Duration = Duration::from_millis(200);

/// A bar for so many; the length may be set later.
pub(super) fn bar(length: u64) -> ProgressBar {
    let bar = ProgressBar::new(length);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} {wide_msg}") {
        bar.set_style(style);
    }
    bar
}

/// A count of what nobody has counted before.
pub(super) fn counter(what: &'static str) -> ProgressBar {
    let counter = ProgressBar::no_length().with_message(what);
    if let Ok(style) = ProgressStyle::with_template("{spinner} {pos} {wide_msg} {elapsed}") {
        counter.set_style(style);
    }
    counter.enable_steady_tick(TICK);
    counter
}

/// That something is under way.
pub(super) fn working(what: &'static str) -> ProgressBar {
    let working = ProgressBar::no_length().with_message(what);
    if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg} {elapsed}") {
        working.set_style(style);
    }
    working.enable_steady_tick(TICK);
    working
}
