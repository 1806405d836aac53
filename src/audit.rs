//! Records what was done and what was refused: in the table `trunkline.audit`, and in the log under the
//! target `audit`.
//!
//! An act is recorded before its call is answered. If the database does not take the record, the act
//! stands, and the log has the whole record at `error`. An act that has begun is recorded even if its
//! client does not wait for it.
//!
//! Denied calls can be many, and anybody can cause them. They delay no call: equal ones are counted, and
//! written together by one task. How many rows that makes in a minute is limited; what is beyond the
//! limit is counted in a row of its own.

mod denials;
mod finish;
mod log;
mod writer;

use std::{sync::Arc, time::Duration};

use tokio::time::{sleep, timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    model::AuditEntry,
    storage::{Error, Storage},
};

pub use denials::Denial;
pub use log::TARGET;

use denials::Denials;
use finish::Acts;
use writer::Writer;

/// How long an answer waits for the record of its act.
const RECORD_TIMEOUT: Duration = Duration::from_secs(5);

/// The pause before a record is tried once more, over another session.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Records what was done and what was refused.
pub struct Audit {
    storage: Arc<Storage>,
    denials: Arc<Denials>,
    acts: Acts,
}

impl Audit {
    /// Starts to record. Denied calls are written by a task that ends with `stopping`, when all of them
    /// are.
    pub fn start(
        storage: Arc<Storage>,
        tasks: &TaskTracker,
        stopping: CancellationToken,
    ) -> Arc<Self> {
        let denials = Arc::new(Denials::default());
        let writer = Writer { storage: storage.clone(), denials: denials.clone() };
        tasks.spawn(writer.run(stopping));
        Arc::new(Self { storage, denials, acts: Acts::default() })
    }

    /// Records an act.
    pub async fn record(&self, entry: AuditEntry) {
        record(&self.storage, entry).await;
    }

    /// Records an act of which nobody waits for the record: the database that did not confirm it is
    /// probably away. Call this from within the act, which counts until then.
    pub fn record_later(&self, entry: AuditEntry) {
        let storage = self.storage.clone();
        self.acts.follow_up(async move { record(&storage, entry).await });
    }

    /// Counts a call that was refused because of who made it. It waits for nothing.
    pub fn deny(&self, denial: Denial) {
        self.denials.count(denial);
    }

    /// Carries out an act with its record. If the caller stops waiting, it goes on in a task of its own:
    /// otherwise whoever hangs up at the right moment would leave no trace. Waits before it begins
    /// while too many are under way.
    pub fn finish<T: Send + 'static>(
        &self,
        act: impl Future<Output = T> + Send + 'static,
    ) -> impl Future<Output = T> + Send {
        self.acts.finish(act)
    }

    /// Waits for the end of acts that their clients have given up. Call this once there are no more
    /// calls, before the storage is closed.
    pub async fn finished(&self) {
        self.acts.ended().await;
    }
}

/// Records an act, for those who have only the storage.
pub async fn record(storage: &Storage, entry: AuditEntry) {
    let entries = [entry];
    let recording = async {
        match storage.record(&entries).await {
            // Another session may store it. Two records of an act are better than none.
            Err(Error::ConnectionLost(_) | Error::Unavailable(_)) => {
                sleep(RETRY_PAUSE).await;
                storage.record(&entries).await
            }
            stored => stored,
        }
    };
    let stored = timeout(RECORD_TIMEOUT, recording)
        .await
        .unwrap_or_else(|_| Err(Error::ConnectionLost(format!("no answer in {RECORD_TIMEOUT:?}"))));
    let [entry] = &entries;
    match stored {
        Ok(()) => log::stored(entry),
        Err(error) => log::not_stored(entry, &error),
    }
}
