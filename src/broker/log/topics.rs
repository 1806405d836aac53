//! Topics that somebody reads here: where each ends, as far as this broker knows, and batches that
//! its streams can share.
//!
//! A head known here is a hint to read; the table is the truth. It only grows, unless the poll finds
//! that it was never so far, or that the database has lost messages.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicI64, AtomicUsize, Ordering},
    },
};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    broker::log::{
        cache::{self, BatchCache},
        seen::{Asked, Losses},
    },
    model::{Batch, Offset, TopicId},
    storage::LogSlice,
};

/// The topics that somebody reads here.
#[derive(Default)]
pub(crate) struct TopicLogs {
    topics: Mutex<HashMap<TopicId, Arc<TopicLog>>>,
    recent: Mutex<BatchCache>,
    losses: Losses,
}

pub(crate) struct TopicLog {
    head: watch::Sender<Offset>,
    /// The offset of the oldest message kept, as far as this broker knows.
    floor: AtomicI64,
    /// Where streams read from the database now: each is held by the one that does; others that
    /// come to the same place wait for what it finds.
    reading: Mutex<HashMap<Offset, Place>>,
    /// The topic was deleted.
    gone: CancellationToken,
    /// How many read here; changed under the lock of all logs only.
    readers: AtomicUsize,
}

/// Where somebody reads from the database.
#[derive(Default)]
struct Place {
    lock: Arc<tokio::sync::Mutex<()>>,
    /// How many read there, or wait; the last one takes the place along.
    readers: usize,
}

/// A reader's hold on a topic's log; the last one takes the log with it.
pub(crate) struct LogReader {
    topic: TopicId,
    log: Arc<TopicLog>,
    logs: Arc<TopicLogs>,
    /// The topic's head, as far as this broker knows.
    pub head: watch::Receiver<Offset>,
}

impl TopicLogs {
    /// Joins a topic whose ends were just read.
    pub(crate) fn subscribe(
        self: &Arc<Self>,
        topic: TopicId,
        ends: (Offset, Offset),
        asked: Asked,
    ) -> LogReader {
        let (first, head) = match self.losses.saw(topic, ends.1, asked) {
            true => ends,
            false => (Offset(0), self.losses.known_head(topic)),
        };
        let mut logs = self.lock();
        let log = logs
            .entry(topic)
            .or_insert_with(|| {
                Arc::new(TopicLog {
                    head: watch::Sender::new(head),
                    floor: AtomicI64::new(first.0),
                    reading: Mutex::default(),
                    gone: CancellationToken::new(),
                    readers: AtomicUsize::new(0),
                })
            })
            .clone();
        log.readers.fetch_add(1, Ordering::Relaxed);
        drop(logs);
        log.raise_floor(first);
        log.advance(head);
        let head = log.head.subscribe();
        LogReader { topic, log, logs: self.clone(), head }
    }

    /// A batch was stored by this broker: readers need not read it again.
    pub(crate) fn batch_stored(&self, topic: TopicId, batch: Batch) {
        self.losses.stored(topic, &batch);
        if !self.lock().contains_key(&topic) {
            return;
        }
        let head = batch.end();
        self.keep(topic, &[Arc::new(batch.detached())]);
        self.head_moved(topic, head);
    }

    /// Keeps batches of a topic, as long as somebody reads it here.
    fn keep(&self, topic: TopicId, batches: &[Arc<Batch>]) {
        let bytes: Vec<usize> = batches.iter().map(|batch| cache::bytes_of(batch)).collect();
        let mut gone = Vec::new();
        let topics = self.lock();
        // Whoever reads last takes what is kept along.
        if topics.contains_key(&topic) {
            let mut recent = self.recent();
            for (batch, bytes) in batches.iter().zip(bytes) {
                gone.push(recent.add(topic, batch.clone(), bytes));
            }
        }
        drop(topics);
        drop(gone);
    }

    /// Forgets all batches. They were stored, but a database that went away may come back without
    /// its last transactions: the table is the truth.
    pub(crate) fn clear_cache(&self) {
        let forgotten = std::mem::take(&mut *self.recent());
        drop(forgotten);
    }

    /// The ends of a log were read; false if they are not to be believed any more.
    pub(crate) fn saw(
        &self,
        topic: TopicId,
        (first, head): (Offset, Offset),
        asked: Asked,
    ) -> bool {
        let is_current = self.losses.saw(topic, head, asked);
        if is_current && let Some(log) = self.lock().get(&topic) {
            log.raise_floor(first);
            log.advance(head);
        }
        is_current
    }

    /// A head was heard of.
    pub(crate) fn head_moved(&self, topic: TopicId, head: Offset) {
        if let Some(log) = self.lock().get(&topic) {
            log.advance(head);
        }
    }

    /// The head was never so far, or is not any more: whoever waits for more waits from here.
    pub(crate) fn head_went_back(&self, topic: TopicId, head: Offset) {
        let topics = self.lock();
        if let Some(log) = topics.get(&topic) {
            log.head.send_replace(head);
        }
        let forgotten = self.recent().forget(topic);
        drop(topics);
        drop(forgotten);
    }

    /// What this broker knows to have been stored, and what of it is gone.
    pub(crate) fn losses(&self) -> &Losses {
        &self.losses
    }

    /// A topic was deleted.
    pub(crate) fn topic_deleted(&self, topic: TopicId) {
        self.losses.forget(topic);
        if let Some(log) = self.lock().get(&topic) {
            log.gone.cancel();
        }
    }

    /// The topics that somebody reads here, and their heads as far as they are known.
    pub(crate) fn topics(&self) -> Vec<(TopicId, Offset)> {
        self.lock().iter().map(|(topic, log)| (*topic, *log.head.borrow())).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TopicId, Arc<TopicLog>>> {
        self.topics.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn recent(&self) -> MutexGuard<'_, BatchCache> {
        self.recent.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl TopicLog {
    fn advance(&self, head: Offset) {
        self.head.send_if_modified(|known| {
            let moved = head > *known;
            *known = head.max(*known);
            moved
        });
    }

    fn raise_floor(&self, first: Offset) {
        self.floor.fetch_max(first.0, Ordering::AcqRel);
    }

    fn reading(&self) -> MutexGuard<'_, HashMap<Offset, Place>> {
        self.reading.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// The right to read a place of a log from the database.
pub(crate) struct ReadPermit<'a> {
    log: &'a TopicLog,
    from: Offset,
    held: Option<tokio::sync::OwnedMutexGuard<()>>,
}

impl Drop for ReadPermit<'_> {
    fn drop(&mut self) {
        let mut reading = self.log.reading();
        if let Entry::Occupied(mut place) = reading.entry(self.from) {
            place.get_mut().readers -= 1;
            if place.get().readers == 0 {
                place.remove();
            }
        }
    }
}

impl LogReader {
    pub(crate) fn topic(&self) -> TopicId {
        self.topic
    }

    /// The offset of the oldest message kept, as far as this broker knows.
    pub(crate) fn floor(&self) -> Offset {
        Offset(self.log.floor.load(Ordering::Acquire))
    }

    /// Batches from an offset on that were just stored or read here; none if that one was not.
    pub(crate) fn recent(&self, from: Offset, max_bytes: usize) -> Vec<Arc<Batch>> {
        self.logs.recent().from(self.topic, from, max_bytes)
    }

    /// Whether others read the topic here, who may want the same.
    pub(crate) fn is_shared(&self) -> bool {
        self.log.readers.load(Ordering::Relaxed) > 1
    }

    /// The right to read from an offset on from the database. If another stream has it, waits
    /// until that one has read, and returns `None`.
    pub(crate) async fn begin_read(&self, from: Offset) -> Option<ReadPermit<'_>> {
        let (lock, mut alone) = self.join_read(from);
        match lock.clone().try_lock_owned() {
            Ok(held) => {
                alone.held = Some(held);
                Some(alone)
            }
            Err(_) => {
                alone.held = Some(lock.lock_owned().await);
                None
            }
        }
    }

    /// The lock of a place, and one more who holds the place.
    fn join_read(&self, from: Offset) -> (Arc<tokio::sync::Mutex<()>>, ReadPermit<'_>) {
        let mut reading = self.log.reading();
        let place = reading.entry(from).or_default();
        place.readers += 1;
        (place.lock.clone(), ReadPermit { log: &self.log, from, held: None })
    }

    /// A subscription to a log of messages that nobody has read.
    #[cfg(test)]
    pub(crate) fn to_a_log_of(messages: i64) -> Self {
        let logs = Arc::<TopicLogs>::default();
        logs.subscribe(TopicId(1), (Offset(0), Offset(messages)), logs.losses.asked())
    }

    /// How many places somebody reads, or waits for.
    #[cfg(test)]
    pub(crate) fn places(&self) -> usize {
        self.log.reading().len()
    }

    /// To be noted before the log is read.
    pub(crate) fn asked(&self) -> Asked {
        self.logs.losses.asked()
    }

    /// Keeps what was read for the others.
    pub(crate) fn share(&self, batches: &[Arc<Batch>]) {
        self.logs.keep(self.topic, batches);
    }

    /// Cancelled when the topic is deleted.
    pub(crate) fn gone(&self) -> CancellationToken {
        self.log.gone.clone()
    }

    /// Tells the other readers of the ends of the log that were read, and remembers how far it came;
    /// false if what was read is not to be believed any more.
    pub(crate) fn saw(&self, LogSlice { batches, first, head }: &LogSlice, asked: Asked) -> bool {
        let (first, head) = (*first, *head);
        let last = batches.last().map(|last| &**last);
        if !self.logs.losses.saw_read(self.topic, head, last, asked) {
            return false;
        }
        self.log.raise_floor(first);
        self.log.advance(head);
        true
    }
}

impl Drop for LogReader {
    fn drop(&mut self) {
        let mut logs = self.logs.lock();
        if self.log.readers.fetch_sub(1, Ordering::Relaxed) == 1 {
            logs.remove(&self.topic);
            let forgotten = self.logs.recent().forget(self.topic);
            drop(logs);
            drop(forgotten);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_reads_a_place_and_the_others_wait_for_it() {
        let log = LogReader::to_a_log_of(10);
        let alone = log.begin_read(Offset(5)).await.expect("nobody else reads");
        assert!(log.begin_read(Offset(6)).await.is_some(), "another place");
        let waiting = [log.begin_read(Offset(5)), log.begin_read(Offset(5))];
        let mut waiting = std::pin::pin!(futures::future::join_all(waiting));
        assert!(futures::poll!(&mut waiting).is_pending());
        drop(alone);
        assert!(waiting.await.iter().all(Option::is_none));
        assert!(log.log.reading().is_empty());
    }

    #[tokio::test]
    async fn a_wait_that_is_given_up_leaves_nothing() {
        let log = LogReader::to_a_log_of(10);
        let alone = log.begin_read(Offset(5)).await;
        {
            let mut waiting = std::pin::pin!(log.begin_read(Offset(5)));
            assert!(futures::poll!(&mut waiting).is_pending());
            drop(alone);
        }
        assert!(log.log.reading().is_empty());
    }

    #[test]
    fn what_was_read_before_a_loss_was_found_moves_no_head() {
        let log = LogReader::to_a_log_of(10);
        let (logs, topic, old) = (log.logs.clone(), log.topic, (Offset(0), Offset(10)));
        let asked = logs.losses.asked();
        let known = logs.losses.known_logs(&[topic])[&topic].clone();
        assert!(logs.losses.find(topic, (Offset(7), Offset(10)), Offset(7), &known));
        logs.head_went_back(topic, Offset(7));
        assert!(!logs.saw(topic, old, asked), "a poll");
        let read = LogSlice { batches: Vec::new(), first: old.0, head: old.1 };
        assert!(!log.saw(&read, asked), "a read");
        let joined = logs.subscribe(topic, old, asked);
        assert_eq!([*log.head.borrow(), *joined.head.borrow()], [Offset(7); 2]);
        assert!(logs.saw(topic, (Offset(0), Offset(8)), logs.losses.asked()));
        assert_eq!(*log.head.borrow(), Offset(8));
    }

    #[test]
    fn the_last_reader_takes_what_is_kept_along() {
        let log = LogReader::to_a_log_of(10);
        let logs = log.logs.clone();
        let batch = |base| Batch {
            base: Offset(base),
            published_at: std::time::SystemTime::UNIX_EPOCH,
            payloads: vec!["x".into()],
            keys: None,
            headers: None,
            producers: Vec::new(),
            encoded: Default::default(),
        };
        let other = logs.subscribe(TopicId(1), (Offset(0), Offset(10)), logs.losses().asked());
        logs.batch_stored(TopicId(1), batch(10));
        assert_eq!(log.recent(Offset(10), 1).len(), 1);
        drop(log);
        assert_eq!(other.recent(Offset(10), 1).len(), 1);
        logs.clear_cache();
        assert!(other.recent(Offset(10), 1).is_empty());
        logs.batch_stored(TopicId(1), batch(11));
        drop(other);
        logs.batch_stored(TopicId(1), batch(12));
        let anew = logs.subscribe(TopicId(1), (Offset(0), Offset(10)), logs.losses().asked());
        assert!(anew.recent(Offset(11), 1).is_empty() && anew.recent(Offset(12), 1).is_empty());
    }
}
