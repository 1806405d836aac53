//! The newest batches of a topic that somebody reads here, kept so that streams at the end of a
//! log share one read, or none where this broker published them itself.

use std::{collections::VecDeque, sync::Arc};

use crate::model::{Batch, Offset};

/// Bytes of payload that a tail keeps, at least one batch aside.
const TAIL_BYTES: usize = 2 * 1024 * 1024;

/// Batches without a gap, the newest last.
#[derive(Default)]
pub(super) struct Tail {
    batches: VecDeque<(Arc<Batch>, usize)>,
    bytes: usize,
}

impl Tail {
    /// The batches from the one that holds `from` on; none if that one is not kept.
    pub(super) fn from(&self, from: Offset) -> Vec<Arc<Batch>> {
        let first = self.batches.partition_point(|(batch, _)| batch.end() <= from);
        match self.batches.get(first) {
            Some((batch, _)) if batch.base <= from => {
                self.batches.range(first..).map(|(batch, _)| batch.clone()).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Adds a stored batch. One that does not follow the newest starts the tail anew, unless it
    /// is older.
    pub(super) fn add(&mut self, batch: Arc<Batch>) {
        if let Some((newest, _)) = self.batches.back() {
            if batch.base < newest.end() {
                return;
            }
            if batch.base > newest.end() {
                *self = Self::default();
            }
        }
        let bytes = batch.payloads.iter().map(|payload| payload.len() + 64).sum();
        self.bytes += bytes;
        self.batches.push_back((batch, bytes));
        while self.bytes > TAIL_BYTES && self.batches.len() > 1 {
            if let Some((_, bytes)) = self.batches.pop_front() {
                self.bytes -= bytes;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use bytes::Bytes;

    use super::*;

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

    fn bases(tail: &Tail, from: i64) -> Vec<i64> {
        tail.from(Offset(from)).iter().map(|batch| batch.base.0).collect()
    }

    #[test]
    fn a_tail_is_read_from_any_offset_it_holds() {
        let mut tail = Tail::default();
        tail.add(batch(5, 2, 1));
        tail.add(batch(7, 3, 1));
        assert_eq!(bases(&tail, 5), [5, 7]);
        assert_eq!(bases(&tail, 6), [5, 7]);
        assert_eq!(bases(&tail, 9), [7]);
        assert!(bases(&tail, 4).is_empty() && bases(&tail, 10).is_empty());
    }

    #[test]
    fn a_gap_starts_the_tail_anew_and_an_old_batch_changes_nothing() {
        let mut tail = Tail::default();
        tail.add(batch(0, 2, 1));
        tail.add(batch(4, 2, 1));
        assert!(bases(&tail, 0).is_empty());
        assert_eq!(bases(&tail, 4), [4]);
        tail.add(batch(2, 2, 1));
        assert_eq!(bases(&tail, 4), [4]);
    }

    #[test]
    fn a_tail_forgets_its_oldest_when_it_is_full() {
        let mut tail = Tail::default();
        for base in 0..4 {
            tail.add(batch(base, 1, TAIL_BYTES / 2));
        }
        assert!(bases(&tail, 2).is_empty());
        assert_eq!(bases(&tail, 3), [3]);
    }
}
