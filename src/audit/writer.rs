//! The task that writes denied calls.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{denials::Denials, log};
use crate::storage::{Error, Storage};

/// How long denied calls gather before they are written. The first ones soon show; while there are
/// more and more, each row stands for more of them.
const FIRST_INTERVAL: Duration = Duration::from_secs(1);
const LONGEST_INTERVAL: Duration = Duration::from_secs(30);

/// How long the database may take.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the last write may take, as a stop waits for it.
const LAST_WRITE_TIMEOUT: Duration = Duration::from_secs(2);

/// Writes denied calls, with one statement at a time: it never has more than one session of the pool.
pub(super) struct Writer {
    pub(super) storage: Arc<Storage>,
    pub(super) denials: Arc<Denials>,
}

impl Writer {
    /// Runs until `stopping`, and writes what is left then.
    pub(super) async fn run(self, stopping: CancellationToken) {
        let mut interval = FIRST_INTERVAL;
        // No write is broken off: what it has taken would be lost.
        while stopping.run_until_cancelled(self.gather(&mut interval)).await.is_some() {
            self.write(false, WRITE_TIMEOUT).await;
        }
        self.write(true, LAST_WRITE_TIMEOUT).await;
    }

    /// Waits until there is something to write, and has gathered for a while.
    async fn gather(&self, interval: &mut Duration) {
        let since = Instant::now();
        match self.denials.owe_rows() {
            // What is beyond a minute's limit is written in the next one, although nothing is added.
            true => drop(timeout(LONGEST_INTERVAL, self.denials.added()).await),
            false => self.denials.added().await,
        }
        if since.elapsed() >= *interval {
            *interval = FIRST_INTERVAL;
        }
        sleep(*interval).await;
        *interval = (*interval * 2).min(LONGEST_INTERVAL);
    }

    async fn write(&self, is_last: bool, limit: Duration) {
        let rows = self.denials.take(Instant::now(), is_last);
        let entries = &rows.entries;
        if entries.is_empty() {
            return;
        }
        let stored = timeout(limit, self.storage.record(entries)).await;
        let stored = stored
            .unwrap_or_else(|_| Err(Error::ConnectionLost(format!("no answer in {limit:?}"))));
        let Err(error) = stored else {
            entries.iter().for_each(log::stored);
            return;
        };
        // There are no more of these lines than there would be rows.
        entries.iter().for_each(|entry| log::not_stored(entry, &error));
        self.denials.give_back(&rows);
    }
}
