//! Batches that were just stored or read, kept so that streams of one topic share one read, or
//! need none where this broker published them itself.

use std::{collections::BTreeMap, sync::Arc};

use crate::model::{Batch, Offset, TopicId};

/// Bytes that are kept, of all topics together: of batches, and of what they are encoded to.
const RECENT_BYTES: usize = 128 * 1024 * 1024;

/// What a message takes besides its own bytes, and a batch besides its messages, at a guess.
const MESSAGE_OVERHEAD: usize = 64;
const BATCH_OVERHEAD: usize = 512;

/// The most batches that are had at once, however small they are.
const MAX_BATCHES: usize = 512;

/// Batches of all topics that somebody reads here. The one that was taken in first goes first: what
/// is still wanted then is read again.
#[derive(Default)]
pub(crate) struct BatchCache {
    batches: BTreeMap<Key, Kept>,
    /// The batches by when they were taken in.
    order: BTreeMap<u64, Key>,
    taken_in: u64,
    bytes: usize,
}

type Key = (TopicId, Offset);

struct Kept {
    batch: Arc<Batch>,
    bytes: usize,
    number: u64,
}

impl BatchCache {
    /// The batches from the one that holds `from` on, up to the next gap, or until `max_bytes` are
    /// passed; none if that one is not kept.
    pub(crate) fn from(&self, topic: TopicId, from: Offset, max_bytes: usize) -> Vec<Arc<Batch>> {
        let mut found = Vec::new();
        let Some((first, _)) = self.batches.range(..=(topic, from)).next_back() else {
            return found;
        };
        let (mut next, mut bytes) = (from, 0);
        for ((of, _), kept) in self.batches.range(first..).take(MAX_BATCHES) {
            let batch = &kept.batch;
            let follows = *of == topic && batch.base <= next && next < batch.end();
            if !follows || bytes >= max_bytes {
                break;
            }
            next = batch.end();
            bytes += kept.bytes / 2;
            found.push(batch.clone());
        }
        found
    }

    /// Keeps a batch, in place of an older one that began where it does. Returns what no longer has
    /// room, so that it need not be freed where others wait.
    #[must_use]
    pub(crate) fn add(
        &mut self,
        topic: TopicId,
        batch: Arc<Batch>,
        bytes: usize,
    ) -> Vec<Arc<Batch>> {
        let key = (topic, batch.base);
        let mut gone: Vec<_> = self.remove(key).into_iter().collect();
        let number = self.taken_in;
        self.taken_in += 1;
        self.bytes += bytes;
        self.order.insert(number, key);
        self.batches.insert(key, Kept { batch, bytes, number });
        while self.bytes > RECENT_BYTES
            && let Some((_, &oldest)) = self.order.first_key_value()
        {
            gone.extend(self.remove(oldest));
        }
        gone
    }

    /// Forgets the batches of a topic.
    pub(crate) fn remove_topic(&mut self, topic: TopicId) -> Vec<Arc<Batch>> {
        let all = (topic, Offset(i64::MIN))..=(topic, Offset(i64::MAX));
        let keys: Vec<Key> = self.batches.range(all).map(|(&key, _)| key).collect();
        keys.into_iter().filter_map(|key| self.remove(key)).collect()
    }

    fn remove(&mut self, key: Key) -> Option<Arc<Batch>> {
        let Kept { batch, bytes, number } = self.batches.remove(&key)?;
        self.order.remove(&number);
        self.bytes -= bytes;
        Some(batch)
    }
}

/// What a batch is counted as, what it may be encoded to included.
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

    fn bases(recent: &BatchCache, from: i64) -> Vec<i64> {
        let found = recent.from(TOPIC, Offset(from), usize::MAX);
        found.iter().map(|batch| batch.base.0).collect()
    }

    #[test]
    fn batches_are_had_from_any_offset_that_is_kept_up_to_the_next_gap() {
        let mut recent = BatchCache::default();
        for (base, count) in [(20, 1), (5, 2), (7, 3)] {
            assert!(recent.add(TOPIC, batch(base, count), 1).is_empty());
        }
        assert!(recent.add(TopicId(6), batch(4, 1), 1).is_empty());
        assert!(recent.add(TopicId(8), batch(21, 1), 1).is_empty());
        assert_eq!(bases(&recent, 5), [5, 7]);
        assert_eq!(bases(&recent, 6), [5, 7]);
        assert_eq!(bases(&recent, 9), [7]);
        assert_eq!(bases(&recent, 20), [20]);
        for from in [4, 10, 21] {
            assert!(bases(&recent, from).is_empty(), "{from}");
        }
        assert_eq!(recent.remove_topic(TOPIC).len(), 3);
        assert!(bases(&recent, 5).is_empty());
        assert_eq!((recent.batches.len(), recent.order.len(), recent.bytes), (2, 2, 2));
    }

    #[test]
    fn no_more_batches_are_had_than_were_asked_for() {
        let mut recent = BatchCache::default();
        (0..600).for_each(|base| drop(recent.add(TOPIC, batch(base, 1), 200)));
        assert_eq!(recent.from(TOPIC, Offset(0), 101).len(), 2);
        assert_eq!(recent.from(TOPIC, Offset(0), 1).len(), 1);
        assert_eq!(recent.from(TOPIC, Offset(0), usize::MAX).len(), MAX_BATCHES);
    }

    #[test]
    fn the_first_to_come_is_the_first_to_go() {
        let mut recent = BatchCache::default();
        for base in 0..3 {
            assert!(recent.add(TOPIC, batch(base, 1), RECENT_BYTES / 3).is_empty());
        }
        assert_eq!(recent.add(TOPIC, batch(3, 1), RECENT_BYTES / 3)[0].base, Offset(0));
        assert_eq!(bases(&recent, 1), [1, 2, 3]);
        // What comes anew is as young as if it had never been there.
        let anew = batch(1, 1);
        assert_eq!(recent.add(TOPIC, anew.clone(), RECENT_BYTES / 3).len(), 1);
        assert!(Arc::ptr_eq(&recent.from(TOPIC, Offset(1), 1)[0], &anew));
        assert_eq!(recent.add(TOPIC, batch(4, 1), RECENT_BYTES / 3)[0].base, Offset(2));
        assert_eq!(recent.add(TOPIC, batch(5, 1), 2 * RECENT_BYTES).len(), 4);
        assert!(recent.batches.is_empty() && recent.order.is_empty());
        assert_eq!(recent.bytes, 0);
    }

    #[test]
    fn all_that_a_batch_holds_is_counted() {
        let plain = Batch::clone(&batch(0, 2));
        let keyed = Batch { keys: Some(vec![Some("k".repeat(500).into()), None]), ..plain.clone() };
        assert!(bytes_of(&plain) >= 2 * 2 * MESSAGE_OVERHEAD);
        assert_eq!(bytes_of(&keyed), bytes_of(&plain) + 2 * 500);
    }
}
