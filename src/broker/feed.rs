//! Topics that somebody reads here: where each ends, as far as this broker knows, and batches that
//! its streams can share.
//!
//! A head known here is a hint to read; the table is the truth. It only grows.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicI64, AtomicUsize, Ordering},
    },
};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::recent::Recent;
use crate::model::{Batch, Offset, TopicId};

/// The topics that somebody reads here.
#[derive(Default)]
pub(super) struct Feeds {
    topics: Mutex<HashMap<TopicId, Arc<Feed>>>,
    recent: Mutex<Recent>,
}

pub(super) struct Feed {
    head: watch::Sender<Offset>,
    /// The offset of the oldest message kept, as far as this broker knows.
    floor: AtomicI64,
    /// Where streams read from the database now: each is held by the one that does; others that
    /// come to the same place wait for what it finds.
    reading: Mutex<HashMap<Offset, Arc<tokio::sync::Mutex<()>>>>,
    /// The topic was deleted.
    gone: CancellationToken,
    /// How many read here; changed under the lock of all feeds only.
    readers: AtomicUsize,
}

/// A reader's hold on a topic's feed; the last one takes the feed with it.
pub(super) struct Subscription {
    topic: TopicId,
    feed: Arc<Feed>,
    feeds: Arc<Feeds>,
    /// The topic's head, as far as this broker knows.
    pub head: watch::Receiver<Offset>,
}

impl Feeds {
    /// Joins a topic whose first offset and head were just read.
    pub(super) fn subscribe(
        self: &Arc<Self>,
        topic: TopicId,
        first: Offset,
        head: Offset,
    ) -> Subscription {
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
    pub(super) fn batch_stored(&self, topic: TopicId, batch: Batch) {
        let Some(feed) = self.lock().get(&topic).cloned() else { return };
        let head = batch.end();
        self.recent().add(topic, Arc::new(batch));
        feed.advance(head);
    }

    /// The ends of a log were read.
    pub(super) fn saw(&self, topic: TopicId, first: Offset, head: Offset) {
        if let Some(feed) = self.lock().get(&topic) {
            feed.raise_floor(first);
            feed.advance(head);
        }
    }

    /// A head was heard of.
    pub(super) fn head_moved(&self, topic: TopicId, head: Offset) {
        if let Some(feed) = self.lock().get(&topic) {
            feed.advance(head);
        }
    }

    /// A topic was deleted.
    pub(super) fn topic_gone(&self, topic: TopicId) {
        if let Some(feed) = self.lock().get(&topic) {
            feed.gone.cancel();
        }
    }

    /// The topics that somebody reads here.
    pub(super) fn topics(&self) -> Vec<TopicId> {
        self.lock().keys().copied().collect()
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

    fn reading(&self) -> MutexGuard<'_, HashMap<Offset, Arc<tokio::sync::Mutex<()>>>> {
        self.reading.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// The right to read a place of a log from the database.
pub(super) struct Alone<'a> {
    feed: &'a Feed,
    from: Offset,
    _held: tokio::sync::OwnedMutexGuard<()>,
}

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        let mut reading = self.feed.reading();
        // Who waits holds it too, besides the map and this.
        if reading.get(&self.from).is_some_and(|place| Arc::strong_count(place) <= 2) {
            reading.remove(&self.from);
        }
    }
}

impl Subscription {
    pub(super) fn topic(&self) -> TopicId {
        self.topic
    }

    /// The offset of the oldest message kept, as far as this broker knows.
    pub(super) fn floor(&self) -> Offset {
        Offset(self.feed.floor.load(Ordering::Acquire))
    }

    /// Batches from an offset on that were just stored or read here; none if that one was not.
    pub(super) fn recent(&self, from: Offset, max_bytes: usize) -> Vec<Arc<Batch>> {
        self.feeds.recent().from(self.topic, from, max_bytes)
    }

    /// Whether others read the topic here, who may want the same.
    pub(super) fn is_shared(&self) -> bool {
        self.feed.readers.load(Ordering::Relaxed) > 1
    }

    /// Waits for the right to read from an offset on from the database.
    pub(super) async fn read_alone(&self, from: Offset) -> Alone<'_> {
        let place = self.feed.reading().entry(from).or_default().clone();
        Alone { feed: &self.feed, from, _held: place.lock_owned().await }
    }

    /// Keeps what was read for the others.
    pub(super) fn share(&self, batches: &[Arc<Batch>]) {
        let mut recent = self.feeds.recent();
        batches.iter().for_each(|batch| recent.add(self.topic, batch.clone()));
    }

    /// Cancelled when the topic is deleted.
    pub(super) fn gone(&self) -> CancellationToken {
        self.feed.gone.clone()
    }

    /// Tells the other readers of the ends of the log that were read.
    pub(super) fn saw(&self, first: Offset, head: Offset) {
        self.feed.raise_floor(first);
        self.feed.advance(head);
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut feeds = self.feeds.lock();
        if self.feed.readers.fetch_sub(1, Ordering::Relaxed) == 1 {
            feeds.remove(&self.topic);
        }
    }
}
