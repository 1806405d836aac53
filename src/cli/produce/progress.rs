//! Shows the progress of a run on a terminal.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::super::plural::count;
use super::input::Source;

/// A progress bar on standard error. It appears only if that is a terminal, and only if the run
/// takes longer than [`DELAY`].
pub(super) struct ShippingProgress {
    bar: ProgressBar,
    start: Instant,
    shown: bool,
}

const DELAY: Duration = Duration::from_millis(500);

impl ShippingProgress {
    pub(super) fn start(sources: &[Source]) -> Self {
        let total: Option<u64> = sources.iter().map(|source| source.bytes).sum();
        let (bar, style) = match total {
            Some(total) => {
                (ProgressBar::new(total), "{bar:30} {bytes} of {total_bytes}, {msg}, {eta} left")
            }
            None => (ProgressBar::no_length(), "{spinner} {bytes}, {msg}, {elapsed}"),
        };
        let style = ProgressStyle::with_template(style);
        let bar = bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_draw_target(ProgressDrawTarget::hidden());
        Self { bar, start: Instant::now(), shown: false }
    }

    /// Adds bytes that were read, and sets the number of messages that are acknowledged by now.
    pub(super) fn read(&mut self, bytes: usize, acknowledged: u64) {
        if !self.shown && self.start.elapsed() > DELAY {
            self.shown = true;
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        if self.shown {
            self.bar.set_message(format!("{} acknowledged", count(acknowledged, "message")));
        }
        self.bar.inc(bytes as u64);
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    pub(super) fn finish(&self) {
        if self.shown {
            self.bar.finish_and_clear();
        }
    }
}
