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
        cache::{self, Recent},
        seen::{Asked, Losses},
    },
    model::{Batch, Offset, TopicId},
    storage::Log,
};

/// The topics that somebody reads here.
#[derive(Default)]
pub(crate) struct Feeds {
    topics: Mutex<HashMap<TopicId, Arc<Feed>>>,
    recent: Mutex<Recent>,
    losses: Losses,
}

pub(crate) struct Feed {
    head: watch::Sender<Offset>,
    /// The offset of the oldest message kept, as far as this broker knows.
    floor: AtomicI64,
    /// Where streams read from the database now: each is held by the one that does; others that
    /// come to the same place wait for what it finds.
    reading: Mutex<HashMap<Offset, Place>>,
    /// The topic was deleted.
    gone: CancellationToken,
    /// How many read here; changed under the lock of all feeds only.
    readers: AtomicUsize,
}

/// Where somebody reads from the database.
#[derive(Default)]
struct Place {
    lock: Arc<tokio::sync::Mutex<()>>,
    /// How many read there, or wait; the last one takes the place along.
    readers: usize,
}

/// A reader's hold on a topic's feed; the last one takes the feed with it.
pub(crate) struct Subscription {
    topic: TopicId,
    feed: Arc<Feed>,
    feeds: Arc<Feeds>,
    /// The topic's head, as far as this broker knows.
    pub head: watch::Receiver<Offset>,
}

impl Feeds {
    /// Joins a topic whose ends were just read.
    pub(crate) fn subscribe(
        self: &Arc<Self>,
        topic: TopicId,
        ends: (Offset, Offset),
        asked: Asked,
    ) -> Subscription {
        let (first, head) = match self.losses.saw(topic, ends.1, asked) {
            true => ends,
            false => (Offset(0), self.losses.known_head(topic)),
        };
        let mut feeds = self.lock();
        let feed = feeds
            .entry(topic)
            .or_insert_with(|| {
                Arc::new(Feed {
                    head: watch::Sender::new(head),
                    floor: AtomicI64::new(first.0),
                    reading: Mutex::default(),
                    gone: CancellationToken::new(),
                    readers: AtomicUsize::new(0),
                })
            })
            .clone();
        feed.readers.fetch_add(1, Ordering::Relaxed);
        drop(feeds);
        feed.raise_floor(first);
        feed.advance(head);
        let head = feed.head.subscribe();
        Subscription { topic, feed, feeds: self.clone(), head }
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
    pub(crate) fn forget_batches(&self) {
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
        if is_current && let Some(feed) = self.lock().get(&topic) {
            feed.raise_floor(first);
            feed.advance(head);
        }
        is_current
    }

    /// A head was heard of.
    pub(crate) fn head_moved(&self, topic: TopicId, head: Offset) {
        if let Some(feed) = self.lock().get(&topic) {
            feed.advance(head);
        }
    }

    /// The head was never so far, or is not any more: whoever waits for more waits from here.
    pub(crate) fn head_went_back(&self, topic: TopicId, head: Offset) {
        let topics = self.lock();
        if let Some(feed) = topics.get(&topic) {
            feed.head.send_replace(head);
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
    pub(crate) fn topic_gone(&self, topic: TopicId) {
        self.losses.forget(topic);
        if let Some(feed) = self.lock().get(&topic) {
            feed.gone.cancel();
        }
    }

    /// The topics that somebody reads here, and their heads as far as they are known.
    pub(crate) fn topics(&self) -> Vec<(TopicId, Offset)> {
        self.lock().iter().map(|(topic, feed)| (*topic, *feed.head.borrow())).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TopicId, Arc<Feed>>> {
        self.topics.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Feed {
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
pub(crate) struct Alone<'a> {
    feed: &'a Feed,
    from: Offset,
    held: Option<tokio::sync::OwnedMutexGuard<()>>,
}

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        let mut reading = self.feed.reading();
        if let Entry::Occupied(mut place) = reading.entry(self.from) {
            place.get_mut().readers -= 1;
            if place.get().readers == 0 {
                place.remove();
            }
        }
    }
}

impl Subscription {
    pub(crate) fn topic(&self) -> TopicId {
        self.topic
    }

    /// The offset of the oldest message kept, as far as this broker knows.
    pub(crate) fn floor(&self) -> Offset {
        Offset(self.feed.floor.load(Ordering::Acquire))
    }

    /// Batches from an offset on that were just stored or read here; none if that one was not.
    pub(crate) fn recent(&self, from: Offset, max_bytes: usize) -> Vec<Arc<Batch>> {
        self.feeds.recent().from(self.topic, from, max_bytes)
    }

    /// Whether others read the topic here, who may want the same.
    pub(crate) fn is_shared(&self) -> bool {
        self.feed.readers.load(Ordering::Relaxed) > 1
    }

    /// The right to read from an offset on from the database. If another stream has it, waits
    /// until that one has read, and returns `None`.
    pub(crate) async fn read_alone(&self, from: Offset) -> Option<Alone<'_>> {
        let (lock, mut alone) = self.come_to(from);
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
    fn come_to(&self, from: Offset) -> (Arc<tokio::sync::Mutex<()>>, Alone<'_>) {
        let mut reading = self.feed.reading();
        let place = reading.entry(from).or_default();
        place.readers += 1;
        (place.lock.clone(), Alone { feed: &self.feed, from, held: None })
    }

    /// A subscription to a log of messages that nobody has read.
    #[cfg(test)]
    pub(crate) fn to_a_log_of(messages: i64) -> Self {
        let feeds = Arc::<Feeds>::default();
        feeds.subscribe(TopicId(1), (Offset(0), Offset(messages)), feeds.losses.asked())
    }

    /// How many places somebody reads, or waits for.
    #[cfg(test)]
    pub(crate) fn places(&self) -> usize {
        self.feed.reading().len()
    }

    /// To be noted before the log is read.
    pub(crate) fn asked(&self) -> Asked {
        self.feeds.losses.asked()
    }

    /// Keeps what was read for the others.
    pub(crate) fn share(&self, batches: &[Arc<Batch>]) {
        self.feeds.keep(self.topic, batches);
    }

    /// Cancelled when the topic is deleted.
    pub(crate) fn gone(&self) -> CancellationToken {
        self.feed.gone.clone()
    }

    /// Tells the other readers of the ends of the log that were read, and remembers how far it came;
    /// false if what was read is not to be believed any more.
    pub(crate) fn saw(&self, Log { batches, first, head }: &Log, asked: Asked) -> bool {
        let (first, head) = (*first, *head);
        let last = batches.last().map(|last| &**last);
        if !self.feeds.losses.saw_read(self.topic, head, last, asked) {
            return false;
        }
        self.feed.raise_floor(first);
        self.feed.advance(head);
        true
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut feeds = self.feeds.lock();
        if self.feed.readers.fetch_sub(1, Ordering::Relaxed) == 1 {
            feeds.remove(&self.topic);
            let forgotten = self.feeds.recent().forget(self.topic);
            drop(feeds);
            drop(forgotten);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_reads_a_place_and_the_others_wait_for_it() {
        let log = Subscription::to_a_log_of(10);
        let alone = log.read_alone(Offset(5)).await.expect("nobody else reads");
        assert!(log.read_alone(Offset(6)).await.is_some(), "another place");
        let waiting = [log.read_alone(Offset(5)), log.read_alone(Offset(5))];
        let mut waiting = std::pin::pin!(futures::future::join_all(waiting));
        assert!(futures::poll!(&mut waiting).is_pending());
        drop(alone);
        assert!(waiting.await.iter().all(Option::is_none));
        assert!(log.feed.reading().is_empty());
    }

    #[tokio::test]
    async fn a_wait_that_is_given_up_leaves_nothing() {
        let log = Subscription::to_a_log_of(10);
        let alone = log.read_alone(Offset(5)).await;
        {
            let mut waiting = std::pin::pin!(log.read_alone(Offset(5)));
            assert!(futures::poll!(&mut waiting).is_pending());
            drop(alone);
        }
        assert!(log.feed.reading().is_empty());
    }

    #[test]
    fn what_was_read_before_a_loss_was_found_moves_no_head() {
        let log = Subscription::to_a_log_of(10);
        let (feeds, topic, old) = (log.feeds.clone(), log.topic, (Offset(0), Offset(10)));
        let asked = feeds.losses.asked();
        let known = feeds.losses.known_logs(&[topic])[&topic].clone();
        assert!(feeds.losses.find(topic, (Offset(7), Offset(10)), Offset(7), &known));
        feeds.head_went_back(topic, Offset(7));
        assert!(!feeds.saw(topic, old, asked), "a poll");
        let read = Log { batches: Vec::new(), first: old.0, head: old.1 };
        assert!(!log.saw(&read, asked), "a read");
        let joined = feeds.subscribe(topic, old, asked);
        assert_eq!([*log.head.borrow(), *joined.head.borrow()], [Offset(7); 2]);
        assert!(feeds.saw(topic, (Offset(0), Offset(8)), feeds.losses.asked()));
        assert_eq!(*log.head.borrow(), Offset(8));
    }

    #[test]
    fn the_last_reader_takes_what_is_kept_along() {
        let log = Subscription::to_a_log_of(10);
        let feeds = log.feeds.clone();
        let batch = |base| Batch {
            base: Offset(base),
            published_at: std::time::SystemTime::UNIX_EPOCH,
            payloads: vec!["x".into()],
            keys: None,
            headers: None,
            producers: Vec::new(),
            encoded: Default::default(),
        };
        let other = feeds.subscribe(TopicId(1), (Offset(0), Offset(10)), feeds.losses().asked());
        feeds.batch_stored(TopicId(1), batch(10));
        assert_eq!(log.recent(Offset(10), 1).len(), 1);
        drop(log);
        assert_eq!(other.recent(Offset(10), 1).len(), 1);
        feeds.forget_batches();
        assert!(other.recent(Offset(10), 1).is_empty());
        feeds.batch_stored(TopicId(1), batch(11));
        drop(other);
        feeds.batch_stored(TopicId(1), batch(12));
        let anew = feeds.subscribe(TopicId(1), (Offset(0), Offset(10)), feeds.losses().asked());
        assert!(anew.recent(Offset(11), 1).is_empty() && anew.recent(Offset(12), 1).is_empty());
    }
}
