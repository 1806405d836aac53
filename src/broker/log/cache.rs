//! Batches that were just stored or read, kept so that the streams of a topic share one read, or
//! need none if this broker stored the batches itself.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    broker::budget::Used,
    model::{Batch, Offset, TopicId},
};

/// How many bytes the cache holds, for all topics together: batches, and their encoded forms.
const CACHE_BYTES: usize = 128 * 1024 * 1024;

/// Estimates of what a message takes besides its own bytes, and a batch besides its messages.
const MESSAGE_OVERHEAD: usize = 64;
const BATCH_OVERHEAD: usize = 512;

/// How many batches [`BatchCache::from`] returns at most, however small they are.
const MAX_BATCHES: usize = 512;

/// Batches of all topics that are read here. The batch that was added first is evicted first;
/// readers that still need it read it from the database again.
#[derive(Default)]
pub(crate) struct BatchCache {
    batches: BTreeMap<Key, Cached>,
    /// The batches in the order in which they were added.
    order: BTreeMap<u64, Key>,
    /// How many batches have been added so far.
    added: u64,
    bytes: usize,
    /// How often a reader found the batches that it wanted.
    hits: u64,
    /// How often a reader had to read them from the database.
    misses: u64,
}

/// How much the cache holds, and how often it spared a read from the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheUse {
    /// The bytes that it holds, and the most that it may.
    pub bytes: Used,
    /// How often a reader found the batches that it wanted.
    pub hits: u64,
    /// How often a reader had to read them from the database.
    pub misses: u64,
}

type Key = (TopicId, Offset);

struct Cached {
    batch: Arc<Batch>,
    bytes: usize,
    /// How many batches had been added before this one.
    number: u64,
}

impl BatchCache {
    /// How much it holds, and how often it spared a read.
    pub(crate) fn current_use(&self) -> CacheUse {
        let bytes = Used { used: self.bytes, limit: CACHE_BYTES };
        CacheUse { bytes, hits: self.hits, misses: self.misses }
    }

    /// Counts a reader that found the batches that it wanted.
    pub(crate) fn count_hit(&mut self) {
        self.hits += 1;
    }

    /// Counts a read from the database.
    pub(crate) fn count_miss(&mut self) {
        self.misses += 1;
    }

    /// The batches from the one that holds `from` on, up to the next gap, or until `max_bytes` are
    /// exceeded; none if that one is not cached.
    pub(crate) fn from(&self, topic: TopicId, from: Offset, max_bytes: usize) -> Vec<Arc<Batch>> {
        let mut found = Vec::new();
        let Some((first, _)) = self.batches.range(..=(topic, from)).next_back() else {
            return found;
        };
        let (mut next, mut bytes) = (from, 0);
        for ((of, _), cached) in self.batches.range(first..).take(MAX_BATCHES) {
            let batch = &cached.batch;
            let follows = *of == topic && batch.base <= next && next < batch.end();
            if !follows || bytes >= max_bytes {
                break;
            }
            next = batch.end();
            bytes += cached.bytes / 2;
            found.push(batch.clone());
        }
        found
    }

    /// Adds a batch, in place of an earlier one with the same first offset. Returns what this
    /// evicts, so that the caller can free it after unlocking the cache.
    #[must_use]
    pub(crate) fn add(
        &mut self,
        topic: TopicId,
        batch: Arc<Batch>,
        bytes: usize,
    ) -> Vec<Arc<Batch>> {
        let key = (topic, batch.base);
        let mut evicted: Vec<_> = self.remove(key).into_iter().collect();
        let number = self.added;
        self.added += 1;
        self.bytes += bytes;
        self.order.insert(number, key);
        self.batches.insert(key, Cached { batch, bytes, number });
        while self.bytes > CACHE_BYTES
            && let Some((_, &oldest)) = self.order.first_key_value()
        {
            evicted.extend(self.remove(oldest));
        }
        evicted
    }

    /// Removes and returns the batches of a topic.
    pub(crate) fn remove_topic(&mut self, topic: TopicId) -> Vec<Arc<Batch>> {
        let all = (topic, Offset(i64::MIN))..=(topic, Offset(i64::MAX));
        let keys: Vec<Key> = self.batches.range(all).map(|(&key, _)| key).collect();
        keys.into_iter().filter_map(|key| self.remove(key)).collect()
    }

    fn remove(&mut self, key: Key) -> Option<Arc<Batch>> {
        let Cached { batch, bytes, number } = self.batches.remove(&key)?;
        self.order.remove(&number);
        self.bytes -= bytes;
        Some(batch)
    }
}

/// How many bytes a batch counts as, with what it may be encoded to: twice its size, as the encoded
/// form is about as large.
pub(crate) fn bytes_of(batch: &Batch) -> usize {
    2 * (batch.bytes() + batch.payloads.len() * MESSAGE_OVERHEAD) + BATCH_OVERHEAD
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    const TOPIC: TopicId = TopicId(7);

    fn batch(base: i64, count: usize) -> Arc<Batch> {
        Arc::new(Batch {
            base: Offset(base),
            published_at: SystemTime::UNIX_EPOCH,
            payloads: vec!["x".into(); count],
            keys: None,
            headers: None,
            producers: Vec::new(),
            encoded: Default::default(),
        })
    }

    fn bases(cache: &BatchCache, from: i64) -> Vec<i64> {
        let found = cache.from(TOPIC, Offset(from), usize::MAX);
        found.iter().map(|batch| batch.base.0).collect()
    }

    #[test]
    fn batches_are_found_from_any_cached_offset_up_to_the_next_gap() {
        let mut cache = BatchCache::default();
        for (base, count) in [(20, 1), (5, 2), (7, 3)] {
            assert!(cache.add(TOPIC, batch(base, count), 1).is_empty());
        }
        assert!(cache.add(TopicId(6), batch(4, 1), 1).is_empty());
        assert!(cache.add(TopicId(8), batch(21, 1), 1).is_empty());
        assert_eq!(bases(&cache, 5), [5, 7]);
        assert_eq!(bases(&cache, 6), [5, 7]);
        assert_eq!(bases(&cache, 9), [7]);
        assert_eq!(bases(&cache, 20), [20]);
        for from in [4, 10, 21] {
            assert!(bases(&cache, from).is_empty(), "{from}");
        }
        assert_eq!(cache.remove_topic(TOPIC).len(), 3);
        assert!(bases(&cache, 5).is_empty());
        assert_eq!((cache.batches.len(), cache.order.len(), cache.bytes), (2, 2, 2));
    }

    #[test]
    fn no_more_batches_are_returned_than_asked_for() {
        let mut cache = BatchCache::default();
        (0..600).for_each(|base| drop(cache.add(TOPIC, batch(base, 1), 200)));
        assert_eq!(cache.from(TOPIC, Offset(0), 101).len(), 2);
        assert_eq!(cache.from(TOPIC, Offset(0), 1).len(), 1);
        assert_eq!(cache.from(TOPIC, Offset(0), usize::MAX).len(), MAX_BATCHES);
    }

    #[test]
    fn the_batch_added_first_is_evicted_first() {
        let mut cache = BatchCache::default();
        for base in 0..3 {
            assert!(cache.add(TOPIC, batch(base, 1), CACHE_BYTES / 3).is_empty());
        }
        assert_eq!(cache.add(TOPIC, batch(3, 1), CACHE_BYTES / 3)[0].base, Offset(0));
        assert_eq!(bases(&cache, 1), [1, 2, 3]);
        // A batch that is added again counts as new.
        let again = batch(1, 1);
        assert_eq!(cache.add(TOPIC, again.clone(), CACHE_BYTES / 3).len(), 1);
        assert!(Arc::ptr_eq(&cache.from(TOPIC, Offset(1), 1)[0], &again));
        assert_eq!(cache.add(TOPIC, batch(4, 1), CACHE_BYTES / 3)[0].base, Offset(2));
        assert_eq!(cache.add(TOPIC, batch(5, 1), 2 * CACHE_BYTES).len(), 4);
        assert!(cache.batches.is_empty() && cache.order.is_empty());
        assert_eq!(cache.bytes, 0);
    }

    #[test]
    fn everything_that_a_batch_holds_is_counted() {
        let plain = Batch::clone(&batch(0, 2));
        let keyed = Batch { keys: Some(vec![Some("k".repeat(500).into()), None]), ..plain.clone() };
        assert!(bytes_of(&plain) >= 2 * 2 * MESSAGE_OVERHEAD);
        assert_eq!(bytes_of(&keyed), bytes_of(&plain) + 2 * 500);
    }
}
