//! How a run is getting on, on a terminal.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};

/// What has been acknowledged and delivered so far.
#[derive(Debug, Default)]
pub(super) struct Live {
    published: AtomicU64,
    consumed: AtomicU64,
}

impl Live {
    pub(super) fn published(&self, count: u64) {
        self.published.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn consumed(&self, count: u64) {
        self.consumed.fetch_add(count, Ordering::Relaxed);
    }

    /// Shows it until something is over; only if standard error is a terminal.
    pub(super) async fn show<T>(&self, until: impl Future<Output = T>) -> T {
        const TICK: Duration = Duration::from_millis(200);
        let style = ProgressStyle::with_template("{spinner} {elapsed} {msg}");
        let style = style.unwrap_or_else(|_| ProgressStyle::default_spinner());
        let bar = ProgressBar::new_spinner().with_style(style);
        let mut tick = tokio::time::interval(TICK);
        let mut before = (0, 0);
        let mut until = std::pin::pin!(until);
        loop {
            tokio::select! {
                over = &mut until => {
                    bar.finish_and_clear();
                    return over;
                }
                _ = tick.tick() => {}
            }
            let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
            let now = (load(&self.published), load(&self.consumed));
            let rate = |now: u64, before: u64| (now - before) as f64 / TICK.as_secs_f64();
            bar.set_message(format!(
                "published {} ({:.0}/s), consumed {} ({:.0}/s)",
                now.0,
                rate(now.0, before.0),
                now.1,
                rate(now.1, before.1),
            ));
            bar.tick();
            before = now;
        }
    }
}
