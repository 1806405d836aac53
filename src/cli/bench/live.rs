//! Shows a run's progress on a terminal.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};

/// Counts acknowledged and delivered messages, and shows them.
#[derive(Debug, Default)]
pub(super) struct LiveDisplay {
    published: AtomicU64,
    consumed: AtomicU64,
}

impl LiveDisplay {
    pub(super) fn published(&self, count: u64) {
        self.published.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn consumed(&self, count: u64) {
        self.consumed.fetch_add(count, Ordering::Relaxed);
    }

    /// Shows the counts until a future completes; only if standard error is a terminal.
    pub(super) async fn show<T>(&self, run: impl Future<Output = T>) -> T {
        const TICK: Duration = Duration::from_millis(200);
        let style = ProgressStyle::with_template("{spinner} {elapsed} {msg}");
        let style = style.unwrap_or_else(|_| ProgressStyle::default_spinner());
        let bar = ProgressBar::new_spinner().with_style(style);
        let mut tick = tokio::time::interval(TICK);
        let (mut published_before, mut consumed_before) = (0, 0);
        let mut run = std::pin::pin!(run);
        loop {
            tokio::select! {
                outcome = &mut run => {
                    bar.finish_and_clear();
                    return outcome;
                }
                _ = tick.tick() => {}
            }
            let published = self.published.load(Ordering::Relaxed);
            let consumed = self.consumed.load(Ordering::Relaxed);
            let rate = |now: u64, before: u64| (now - before) as f64 / TICK.as_secs_f64();
            bar.set_message(format!(
                "published {published} ({:.0}/s), consumed {consumed} ({:.0}/s)",
                rate(published, published_before),
                rate(consumed, consumed_before),
            ));
            bar.tick();
            (published_before, consumed_before) = (published, consumed);
        }
    }
}
