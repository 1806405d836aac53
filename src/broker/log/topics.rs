//! The topics that this broker's streams read: where each log ends, and cached batches that all of
//! a topic's streams share.
//!
//! A head known here only says that reading is worth while; the table is the truth. The head grows,
//! unless the poll finds that it was wrong, or that the log was truncated.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    broker::log::{
        cache::{self, BatchCache, CacheUse},
        reads::{ReadPermit, SharedReads},
        seen::{Moment, SeenLogs},
    },
    model::{Batch, LogEnds, Offset, TopicId},
    storage::LogSlice,
};

/// The topics that are read here, and what was seen of all logs.
#[derive(Default)]
pub(crate) struct TopicLogs {
    topics: Mutex<HashMap<TopicId, Arc<TopicLog>>>,
    cache: Mutex<BatchCache>,
    seen: SeenLogs,
}

/// A topic's log, as all its readers here share it.
struct TopicLog {
    head: watch::Sender<Offset>,
    /// The log start offset.
    start: AtomicI64,
    /// The reads from the database that are under way.
    reads: SharedReads,
    /// Cancelled when the topic is deleted.
    deleted: CancellationToken,
    /// How many readers there are. Changes only while the map of topics is locked.
    readers: AtomicUsize,
}

/// A reader of a topic's log. The last one to go removes the log from this broker's memory.
pub(crate) struct LogReader {
    topic: TopicId,
    log: Arc<TopicLog>,
    logs: Arc<TopicLogs>,
    /// The topic's head.
    pub head: watch::Receiver<Offset>,
}

/// A question to the database, begun before it is asked. Its answer is recorded only if no
/// truncation of the log was found meanwhile.
#[derive(Clone)]
pub(crate) struct Observation {
    logs: Arc<TopicLogs>,
    moment: Moment,
    /// The log start offset that its reader knew then; 0 for an observation of many logs.
    start: Offset,
}

impl Observation {
    /// Records the ends of a topic's log as answered. Returns false if the answer is stale.
    pub(crate) fn observe(&self, topic: TopicId, ends: LogEnds) -> bool {
        let is_current = self.observe_head(topic, ends.head);
        if is_current && let Some(log) = self.logs.topics.lock().get(&topic) {
            log.advance(ends);
        }
        is_current
    }

    /// Records the answer that a topic has messages up to `head`. Returns false if the answer is
    /// stale.
    pub(crate) fn observe_head(&self, topic: TopicId, head: Offset) -> bool {
        self.logs.seen.observe(topic, head, None, self.moment)
    }

    /// Joins a topic's readers, with the ends of its log as answered.
    pub(crate) fn join(&self, topic: TopicId, ends: LogEnds) -> LogReader {
        let ends = match self.observe_head(topic, ends.head) {
            true => ends,
            false => LogEnds { start: Offset(0), head: self.logs.seen.head(topic) },
        };
        let mut topics = self.logs.topics.lock();
        let log = topics.entry(topic).or_insert_with(|| Arc::new(TopicLog::of(ends))).clone();
        log.readers.fetch_add(1, Ordering::Relaxed);
        drop(topics);
        log.advance(ends);
        let head = log.head.subscribe();
        LogReader { topic, log, logs: self.logs.clone(), head }
    }
}

impl TopicLogs {
    /// How much the batch cache holds, and how often it spared a read.
    pub(crate) fn cache_use(&self) -> CacheUse {
        self.cache.lock().current_use()
    }

    /// Begins an observation. Call it before asking the database.
    pub(crate) fn begin(self: &Arc<Self>) -> Observation {
        Observation { logs: self.clone(), moment: self.seen.now(), start: Offset(0) }
    }

    /// What was seen of all logs.
    pub(crate) fn seen(&self) -> &SeenLogs {
        &self.seen
    }

    /// This broker stored a batch. Its readers then need not read it from the database.
    pub(crate) fn batch_stored(&self, topic: TopicId, batch: Batch) {
        self.seen.stored(topic, &batch);
        if !self.topics.lock().contains_key(&topic) {
            return;
        }
        let head = batch.end();
        self.cache(topic, &[Arc::new(batch.detached())]);
        self.head_moved(topic, head);
    }

    /// Caches batches of a topic if it has readers.
    fn cache(&self, topic: TopicId, batches: &[Arc<Batch>]) {
        let bytes: Vec<usize> = batches.iter().map(|batch| cache::bytes_of(batch)).collect();
        let mut evicted = Vec::new();
        let topics = self.topics.lock();
        // If the last reader has gone, nothing would evict them.
        if topics.contains_key(&topic) {
            let mut cache = self.cache.lock();
            for (batch, bytes) in batches.iter().zip(bytes) {
                evicted.push(cache.add(topic, batch.clone(), bytes));
            }
        }
        drop(topics);
        drop(evicted);
    }

    /// Clears the cache. Its batches were stored, but a database that was away may have come back
    /// without its last transactions.
    pub(crate) fn clear_cache(&self) {
        let cleared = std::mem::take(&mut *self.cache.lock());
        drop(cleared);
    }

    /// This broker or another one moved a head.
    pub(crate) fn head_moved(&self, topic: TopicId, head: Offset) {
        if let Some(log) = self.topics.lock().get(&topic) {
            log.advance_head(head);
        }
    }

    /// Sets a head back: it was wrong, or the log was truncated. Readers then wait for it to move
    /// from there.
    pub(crate) fn reset_head(&self, topic: TopicId, head: Offset) {
        let topics = self.topics.lock();
        if let Some(log) = topics.get(&topic) {
            log.head.send_replace(head);
        }
        let removed = self.cache.lock().remove_topic(topic);
        drop(topics);
        drop(removed);
    }

    /// Forgets a deleted topic, and ends its readers' waits.
    pub(crate) fn topic_deleted(&self, topic: TopicId) {
        self.seen.forget(topic);
        if let Some(log) = self.topics.lock().get(&topic) {
            log.deleted.cancel();
        }
    }

    /// The topics that are read here, and their heads.
    pub(crate) fn heads(&self) -> Vec<(TopicId, Offset)> {
        self.topics.lock().iter().map(|(topic, log)| (*topic, *log.head.borrow())).collect()
    }
}

impl TopicLog {
    fn of(LogEnds { start, head }: LogEnds) -> Self {
        Self {
            head: watch::Sender::new(head),
            start: AtomicI64::new(start.0),
            reads: SharedReads::default(),
            deleted: CancellationToken::new(),
            readers: AtomicUsize::new(0),
        }
    }

    /// Records ends that were asked for when a start was known already. A lower one means that the database has
    /// lost the raise in a failover, and has the messages before it again.
    fn advance_since(&self, known: Offset, ends: LogEnds) {
        if ends.start < known {
            // If it was raised meanwhile, the next answer tells.
            let (known, start) = (known.0, ends.start.0);
            let _ = self.start.compare_exchange(known, start, Ordering::AcqRel, Ordering::Acquire);
        }
        self.advance(ends);
    }

    fn advance(&self, LogEnds { start, head }: LogEnds) {
        self.start.fetch_max(start.0, Ordering::AcqRel);
        self.advance_head(head);
    }

    fn advance_head(&self, head: Offset) {
        self.head.send_if_modified(|known| {
            let moved = head > *known;
            *known = head.max(*known);
            moved
        });
    }
}

impl LogReader {
    pub(crate) fn topic(&self) -> TopicId {
        self.topic
    }

    /// The log start offset.
    pub(crate) fn start(&self) -> Offset {
        Offset(self.log.start.load(Ordering::Acquire))
    }

    /// Cached batches from an offset on; none if the batch with that offset is not cached.
    pub(crate) fn cached(&self, from: Offset, max_bytes: usize) -> Vec<Arc<Batch>> {
        let mut cache = self.logs.cache.lock();
        let cached = cache.from(self.topic, from, max_bytes);
        if !cached.is_empty() {
            cache.count_hit();
        }
        cached
    }

    /// Counts a read from the database, because the cache did not have what the reader wanted.
    pub(crate) fn count_miss(&self) {
        self.logs.cache.lock().count_miss();
    }

    /// Whether the topic has other readers here.
    pub(crate) fn is_shared(&self) -> bool {
        self.log.readers.load(Ordering::Relaxed) > 1
    }

    /// The right to read from the database from an offset on. If another reader has it, waits until
    /// that reader has finished, and returns `None`. Waits for readers of other owners for a moment.
    pub(crate) async fn begin_read(&self, from: Offset) -> Option<ReadPermit<'_>> {
        self.log.reads.begin_soon(from).await
    }

    /// Begins an observation. Call it before reading the log.
    pub(crate) fn begin(&self) -> Observation {
        Observation { start: self.start(), ..self.logs.begin() }
    }

    /// Records the ends of the log and its last batch as read, for all readers. Returns false if
    /// what was read is stale.
    pub(crate) fn observe(&self, read: &LogSlice, observation: &Observation) -> bool {
        let last = read.batches.last().map(|last| &**last);
        let seen = &self.logs.seen;
        let is_current = seen.observe(self.topic, read.ends.head, last, observation.moment);
        if is_current {
            self.log.advance_since(observation.start, read.ends);
        }
        is_current
    }

    /// As [`Self::observe`], of a read that does not show where the log ends.
    pub(crate) fn observe_ends(&self, ends: LogEnds, observation: &Observation) {
        if observation.observe_head(self.topic, ends.head) {
            self.log.advance_since(observation.start, ends);
        }
    }

    /// Caches what was read, for other readers.
    pub(crate) fn share(&self, batches: &[Arc<Batch>]) {
        self.logs.cache(self.topic, batches);
    }

    /// Cancelled when the topic is deleted.
    pub(crate) fn deleted(&self) -> CancellationToken {
        self.log.deleted.clone()
    }

    /// A reader of a log with this many messages.
    #[cfg(test)]
    pub(crate) fn of_messages(messages: i64) -> Self {
        let ends = LogEnds { start: Offset(0), head: Offset(messages) };
        Arc::<TopicLogs>::default().begin().join(TopicId(1), ends)
    }
}

impl Drop for LogReader {
    fn drop(&mut self) {
        let mut topics = self.logs.topics.lock();
        if self.log.readers.fetch_sub(1, Ordering::Relaxed) == 1 {
            topics.remove(&self.topic);
            let removed = self.logs.cache.lock().remove_topic(self.topic);
            drop(topics);
            drop(removed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(start: i64, head: i64) -> LogEnds {
        LogEnds { start: Offset(start), head: Offset(head) }
    }

    #[test]
    fn a_stale_answer_moves_no_head() {
        let log = LogReader::of_messages(10);
        let (logs, topic, before) = (log.logs.clone(), log.topic, ends(0, 10));
        let stale = logs.begin();
        let seen = logs.seen().logs(&[topic])[&topic].clone();
        assert!(logs.seen().truncate(topic, Offset(7), &seen));
        logs.reset_head(topic, Offset(7));
        assert!(!stale.observe(topic, before), "a poll's answer");
        let read = LogSlice { batches: Vec::new(), ends: before };
        assert!(!log.observe(&read, &stale), "a read's answer");
        let joined = stale.join(topic, before);
        assert_eq!([*log.head.borrow(), *joined.head.borrow()], [Offset(7); 2]);
        assert!(logs.begin().observe(topic, ends(0, 8)));
        assert_eq!(*log.head.borrow(), Offset(8));
    }

    #[test]
    fn the_start_goes_back_if_the_database_has_lost_its_raise_and_not_for_a_late_answer() {
        let log = LogReader::of_messages(10);
        let (late, read) =
            (log.begin(), |start| LogSlice { batches: Vec::new(), ends: ends(start, 10) });
        assert!(log.observe(&read(7), &log.begin()));
        assert!(log.observe(&read(0), &late));
        assert_eq!(log.start(), Offset(7), "it was asked before");
        let after = log.begin();
        log.observe_ends(ends(8, 10), &log.begin());
        log.observe_ends(ends(2, 10), &after);
        assert_eq!(log.start(), Offset(8), "it was raised meanwhile");
        log.observe_ends(ends(2, 10), &log.begin());
        assert_eq!(log.start(), Offset(2));
    }

    #[test]
    fn the_last_reader_to_go_clears_the_topic_from_the_cache() {
        let log = LogReader::of_messages(10);
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
        let join = || logs.begin().join(TopicId(1), ends(0, 10));
        let other = join();
        logs.batch_stored(TopicId(1), batch(10));
        assert_eq!(log.cached(Offset(10), 1).len(), 1);
        drop(log);
        assert_eq!(other.cached(Offset(10), 1).len(), 1);
        logs.clear_cache();
        assert!(other.cached(Offset(10), 1).is_empty());
        logs.batch_stored(TopicId(1), batch(11));
        drop(other);
        logs.batch_stored(TopicId(1), batch(12));
        let later = join();
        assert!(later.cached(Offset(11), 1).is_empty() && later.cached(Offset(12), 1).is_empty());
    }
}
