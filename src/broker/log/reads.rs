//! The reads of a log from the database that are under way. One reader reads an offset, and the others
//! that want it wait for what it finds.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use parking_lot::Mutex;

use crate::model::Offset;

/// The reads of a log that are under way, by their offset.
#[derive(Default)]
pub(crate) struct SharedReads(Mutex<HashMap<Offset, SharedRead>>);

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
    from: Offset,
    held: Option<tokio::sync::OwnedMutexGuard<()>>,
}

impl SharedReads {
    /// The right to read from the database from an offset on. If another reader has it, waits until
    /// that reader has finished, and returns `None`.
    pub(crate) async fn begin(&self, from: Offset) -> Option<ReadPermit<'_>> {
        let (lock, mut permit) = self.join(from);
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

    fn join(&self, from: Offset) -> (Arc<tokio::sync::Mutex<()>>, ReadPermit<'_>) {
        let mut reads = self.0.lock();
        let read = reads.entry(from).or_default();
        read.readers += 1;
        (read.lock.clone(), ReadPermit { reads: self, from, held: None })
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
        if let Entry::Occupied(mut read) = reads.entry(self.from) {
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
