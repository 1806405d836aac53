//! Topics that somebody reads here: where each ends, as far as this broker knows, and its newest
//! batches.
//!
//! A head known here is a hint to read; the table is the truth. It only grows.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
};

use tokio::sync::watch;

use super::tail::Tail;
use crate::model::{Batch, Offset, TopicId};

/// The topics that somebody reads here.
#[derive(Default)]
pub(super) struct Feeds(Mutex<HashMap<TopicId, Arc<Feed>>>);

pub(super) struct Feed {
    head: watch::Sender<Offset>,
    tail: Mutex<Tail>,
    /// Held by the one stream that reads the tail from the database; the others wait for what it
    /// finds.
    reading: tokio::sync::Mutex<()>,
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
    /// Joins a topic whose head was just read.
    pub(super) fn subscribe(self: &Arc<Self>, topic: TopicId, head: Offset) -> Subscription {
        let feed = self
            .lock()
            .entry(topic)
            .or_insert_with(|| {
                Arc::new(Feed {
                    head: watch::Sender::new(head),
                    tail: Mutex::default(),
                    reading: tokio::sync::Mutex::default(),
                })
            })
            .clone();
        feed.advance(head);
        let head = feed.head.subscribe();
        Subscription { topic, feed, feeds: self.clone(), head }
    }

    /// A batch was stored by this broker: readers at the tail need not read it again.
    pub(super) fn batch_stored(&self, topic: TopicId, batch: Batch) {
        let Some(feed) = self.lock().get(&topic).cloned() else { return };
        let head = batch.end();
        feed.tail().add(Arc::new(batch));
        feed.advance(head);
    }

    /// A head was seen or heard of.
    pub(super) fn head_moved(&self, topic: TopicId, head: Offset) {
        if let Some(feed) = self.lock().get(&topic) {
            feed.advance(head);
        }
    }

    /// The topics that somebody reads here.
    pub(super) fn topics(&self) -> Vec<TopicId> {
        self.lock().keys().copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TopicId, Arc<Feed>>> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
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

    /// The newest batches.
    pub(super) fn tail(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The right to read the tail from the database.
    pub(super) async fn read_alone(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.reading.lock().await
    }
}

impl Subscription {
    pub(super) fn topic(&self) -> TopicId {
        self.topic
    }

    pub(super) fn feed(&self) -> &Feed {
        &self.feed
    }

    /// Tells the other readers of a head that was read.
    pub(super) fn saw_head(&self, head: Offset) {
        self.feed.advance(head);
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut feeds = self.feeds.lock();
        // This one's own receiver is still there: nobody else reads.
        if self.feed.head.receiver_count() <= 1 {
            feeds.remove(&self.topic);
        }
    }
}
