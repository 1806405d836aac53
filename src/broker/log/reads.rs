//! The reads of a log from the database that are under way. One reader reads an offset, and the others
//! that want it wait for what it finds: all for a moment, and those of the same owner until it is there.
//! A read waits for a session in the line of its owner, which must not hold up other owners for long.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time;

use crate::{model::Offset, storage::SessionShare};

/// How long a reader waits for the read of another owner.
const WAIT: Duration = Duration::from_millis(100);

/// Who waits for a read from an offset on: everybody, or an owner that has waited with everybody for
/// long enough.
type Key = (Option<usize>, Offset);

/// The reads of a log that are under way.
#[derive(Default)]
pub(crate) struct SharedReads(Mutex<HashMap<Key, SharedRead>>);

/// A read from the database, and the readers that wait for its result.
#[derive(Default)]
struct SharedRead {
    lock: Arc<tokio::sync::Mutex<()>>,
    /// How many readers read or wait. The last one to go removes the entry.
    readers: usize,
}

/// The right to read from the database from an offset on, for all readers that wait for that read.
pub(crate) struct ReadPermit<'a> {
    reads: &'a SharedReads,
    key: Key,
    held: Option<tokio::sync::OwnedMutexGuard<()>>,
}

impl SharedReads {
    /// As [`Self::begin`]. But if that takes longer than a moment, waits only for readers of the same
    /// owner.
    pub(crate) async fn begin_soon(&self, from: Offset) -> Option<ReadPermit<'_>> {
        match time::timeout(WAIT, self.begin(from)).await {
            Ok(begun) => begun,
            Err(_) => self.begin_among((Some(SessionShare::current_id()), from)).await,
        }
    }

    /// The right to read from the database from an offset on. If another reader has it, waits until
    /// that reader has finished, and returns `None`.
    pub(crate) async fn begin(&self, from: Offset) -> Option<ReadPermit<'_>> {
        self.begin_among((None, from)).await
    }

    async fn begin_among(&self, key: Key) -> Option<ReadPermit<'_>> {
        let (lock, mut permit) = self.join(key);
        match lock.clone().try_lock_owned() {
            Ok(held) => {
                permit.held = Some(held);
                Some(permit)
            }
            Err(_) => {
                permit.held = Some(lock.lock_owned().await);
                None
            }
        }
    }

    fn join(&self, key: Key) -> (Arc<tokio::sync::Mutex<()>>, ReadPermit<'_>) {
        let mut reads = self.0.lock();
        let read = reads.entry(key).or_default();
        read.readers += 1;
        (read.lock.clone(), ReadPermit { reads: self, key, held: None })
    }

    /// How many reads are under way.
    #[cfg(test)]
    pub(crate) fn under_way(&self) -> usize {
        self.0.lock().len()
    }
}

impl Drop for ReadPermit<'_> {
    fn drop(&mut self) {
        let mut reads = self.reads.0.lock();
        if let Entry::Occupied(mut read) = reads.entry(self.key) {
            read.get_mut().readers -= 1;
            if read.get().readers == 0 {
                read.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_reader_reads_an_offset_and_the_others_wait_for_it() {
        let reads = SharedReads::default();
        let permit = reads.begin(Offset(5)).await.expect("nobody else reads");
        assert!(reads.begin(Offset(6)).await.is_some(), "another offset");
        let waiting = [reads.begin(Offset(5)), reads.begin(Offset(5))];
        let mut waiting = std::pin::pin!(futures::future::join_all(waiting));
        assert!(futures::poll!(&mut waiting).is_pending());
        drop(permit);
        assert!(waiting.await.iter().all(Option::is_none));
        assert_eq!(reads.under_way(), 0);
    }

    #[tokio::test]
    async fn a_reader_waits_only_a_moment_for_another_owner() {
        let reads = SharedReads::default();
        let slow = reads.begin_soon(Offset(5)).await.expect("nobody else reads");
        let (one, other) = (SessionShare::default(), SessionShare::default());
        let own = one
            .clone()
            .scope(reads.begin_soon(Offset(5)))
            .await
            .expect("nobody of this owner reads");
        let mut waiting = std::pin::pin!(one.scope(reads.begin_soon(Offset(5))));
        assert!(futures::poll!(&mut waiting).is_pending());
        assert!(other.scope(reads.begin_soon(Offset(5))).await.is_some(), "another owner");
        // It has waited for longer than that one.
        assert!(futures::poll!(&mut waiting).is_pending(), "the same owner");
        drop(own);
        assert!(waiting.await.is_none());
        drop(slow);
        assert_eq!(reads.under_way(), 0);
    }

    #[tokio::test]
    async fn an_abandoned_wait_leaves_nothing_behind() {
        let reads = SharedReads::default();
        let permit = reads.begin(Offset(5)).await;
        {
            let mut waiting = std::pin::pin!(reads.begin(Offset(5)));
            assert!(futures::poll!(&mut waiting).is_pending());
            drop(permit);
        }
        assert_eq!(reads.under_way(), 0);
    }
}
