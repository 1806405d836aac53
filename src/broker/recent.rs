//! Batches that were just stored or read, kept so that streams of one topic share one read, or
//! need none where this broker published them itself.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use crate::model::{Batch, Offset, TopicId};

/// Bytes of payload that are kept, of all topics together. What the batches are encoded to takes
/// as much again.
const RECENT_BYTES: usize = 64 * 1024 * 1024;

/// What a message takes besides its payload, at a guess.
const MESSAGE_OVERHEAD: usize = 64;

/// Batches of all topics that somebody reads here. The one that was taken in first goes first: what
/// is still wanted then is read again.
#[derive(Default)]
pub(super) struct Recent {
    batches: BTreeMap<(TopicId, Offset), (Arc<Batch>, usize)>,
    order: VecDeque<(TopicId, Offset)>,
    bytes: usize,
}

impl Recent {
    /// The batches from the one that holds `from` on, up to the next gap, or until `max_bytes` are
    /// passed; none if that one is not kept.
    pub(super) fn from(&self, topic: TopicId, from: Offset, max_bytes: usize) -> Vec<Arc<Batch>> {
        let mut found = Vec::new();
        let Some((first, _)) = self.batches.range(..=(topic, from)).next_back() else {
            return found;
        };
        let (mut next, mut bytes) = (from, 0);
        for ((of, _), (batch, size)) in self.batches.range(first..) {
            let follows = *of == topic && batch.base <= next && next < batch.end();
            if !follows || bytes >= max_bytes {
                break;
            }
            next = batch.end();
            bytes += size;
            found.push(batch.clone());
        }
        found
    }

    /// Keeps a batch.
    pub(super) fn add(&mut self, topic: TopicId, batch: Arc<Batch>) {
        let size = batch.payloads.iter().map(|payload| payload.len() + MESSAGE_OVERHEAD).sum();
        let key = (topic, batch.base);
        if self.batches.contains_key(&key) {
            return;
        }
        self.batches.insert(key, (batch, size));
        self.order.push_back(key);
        self.bytes += size;
        while self.bytes > RECENT_BYTES
            && let Some(oldest) = self.order.pop_front()
        {
            let size = self.batches.remove(&oldest).map_or(0, |(_, size)| size);
            self.bytes -= size;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use bytes::Bytes;

    use super::*;

    const TOPIC: TopicId = TopicId(7);

    fn batch(base: i64, count: usize, bytes: usize) -> Arc<Batch> {
        Arc::new(Batch {
            base: Offset(base),
            published_at: SystemTime::UNIX_EPOCH,
            payloads: vec![Bytes::from(vec![0; bytes]); count],
            keys: None,
            headers: None,
            producers: Vec::new(),
            encoded: Default::default(),
        })
    }

    fn bases(recent: &Recent, from: i64) -> Vec<i64> {
        let found = recent.from(TOPIC, Offset(from), usize::MAX);
        found.iter().map(|batch| batch.base.0).collect()
    }

    #[test]
    fn batches_are_had_from_any_offset_that_is_kept_up_to_the_next_gap() {
        let mut recent = Recent::default();
        for (base, count) in [(20, 1), (5, 2), (7, 3)] {
            recent.add(TOPIC, batch(base, count, 1));
        }
        recent.add(TopicId(6), batch(4, 1, 1));
        recent.add(TopicId(8), batch(21, 1, 1));
        assert_eq!(bases(&recent, 5), [5, 7]);
        assert_eq!(bases(&recent, 6), [5, 7]);
        assert_eq!(bases(&recent, 9), [7]);
        assert_eq!(bases(&recent, 20), [20]);
        for from in [4, 10, 21] {
            assert!(bases(&recent, from).is_empty(), "{from}");
        }
    }

    #[test]
    fn no_more_batches_are_had_than_were_asked_for() {
        let mut recent = Recent::default();
        (0..4).for_each(|base| recent.add(TOPIC, batch(base, 1, 36)));
        assert_eq!(recent.from(TOPIC, Offset(0), 101).len(), 2);
        assert_eq!(recent.from(TOPIC, Offset(0), 1).len(), 1);
    }

    #[test]
    fn the_first_to_come_is_the_first_to_go() {
        let mut recent = Recent::default();
        for base in 0..4 {
            recent.add(TOPIC, batch(base, 1, RECENT_BYTES / 3));
        }
        // What is there is not kept twice.
        recent.add(TOPIC, batch(3, 1, RECENT_BYTES / 3));
        assert!(bases(&recent, 1).is_empty());
        assert_eq!(bases(&recent, 2), [2, 3]);
        recent.add(TOPIC, batch(4, 1, 2 * RECENT_BYTES));
        assert!(recent.batches.is_empty() && recent.order.is_empty());
        assert_eq!(recent.bytes, 0);
    }
}
