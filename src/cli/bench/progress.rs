//! How many messages the tasks of a run have done with, and the wait for all of them.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::{sync::Notify, task::JoinSet};

use super::super::failure::Failure;

/// How long to wait for the next of the last messages.
const PATIENCE: Duration = Duration::from_secs(30);

/// How many messages all tasks have done with.
#[derive(Default)]
pub(super) struct Progress {
    messages: AtomicU64,
    /// Wakes the waiter when there are more.
    more: Notify,
}

impl Progress {
    pub(super) fn add(&self, messages: u64) {
        self.messages.fetch_add(messages, Ordering::AcqRel);
        self.more.notify_one();
    }

    /// Waits until there are so many. `done` and `what` name what is done with them, for the error if there are
    /// no more for a while.
    pub(super) async fn until<T: 'static>(
        &self,
        messages: u64,
        tasks: &mut JoinSet<Result<T, Failure>>,
        (done, what): (&str, &str),
    ) -> Result<(), Failure> {
        let mut before = 0;
        while before < messages {
            let more = self.more.notified();
            let now = self.messages.load(Ordering::Acquire);
            if now > before {
                before = now;
                continue;
            }
            tokio::select! {
                waited = tokio::time::timeout(PATIENCE, more) => waited.map_err(|_| {
                    Failure::refused(format!(
                        "{done} {now} of {messages} {what}, and then none for {PATIENCE:?}"
                    ))
                })?,
                // A task ends by itself only with an error.
                Some(ended) = tasks.join_next() => {
                    ended.map_err(|error| Failure::refused(error.to_string()))??;
                }
            }
        }
        Ok(())
    }
}
