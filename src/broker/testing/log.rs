//! A topic's log, made up: batches that follow each other.

use std::{sync::Arc, time::SystemTime};

use bytes::Bytes;

use crate::{
    model::{Batch, LogEnds, Offset, ProducerId, ProducerRun},
    storage::LogSlice,
};

/// A batch whose messages have these sizes; each begins with its offset, as far as it has room.
pub(crate) fn batch(base: Offset, sizes: &[usize]) -> Batch {
    let payload = |(index, &size): (usize, &usize)| {
        let mut payload = base.after(index).0.to_be_bytes().to_vec();
        payload.resize(size, 0);
        Bytes::from(payload)
    };
    Batch {
        base,
        published_at: SystemTime::UNIX_EPOCH,
        payloads: sizes.iter().enumerate().map(payload).collect(),
        keys: None,
        headers: None,
        producers: vec![ProducerRun { producer: ProducerId::stored("shop"), count: sizes.len() }],
        encoded: Default::default(),
    }
}

/// A log as the database keeps it.
#[derive(Default)]
pub(crate) struct Stored {
    batches: Vec<Arc<Batch>>,
    pub first: Offset,
}

impl Stored {
    pub(crate) fn head(&self) -> Offset {
        self.batches.last().map(|batch| batch.end()).unwrap_or_default()
    }

    pub(crate) fn store(&mut self, sizes: &[usize]) -> Arc<Batch> {
        let batch = Arc::new(batch(self.head(), sizes));
        self.batches.push(batch.clone());
        batch
    }

    /// Retention: what lies before an offset is gone; it may lie within a batch.
    pub(crate) fn remove_before(&mut self, first: Offset) {
        self.first = self.first.max(first.min(self.head()));
    }

    pub(crate) fn batches(&self) -> &[Arc<Batch>] {
        &self.batches
    }

    /// Reads as the statement does: from the batch that holds the offset on, or the first one kept.
    pub(crate) fn read(&self, from: Offset, max_bytes: usize) -> LogSlice {
        let from = from.max(self.first);
        let mut bytes = 0;
        let wanted = self.batches.iter().filter(|batch| batch.end() > from);
        let batches = wanted.take_while(|batch| {
            let more = bytes < max_bytes;
            bytes += batch.bytes();
            more
        });
        let ends = LogEnds { start: self.first, head: self.head() };
        LogSlice { batches: batches.cloned().collect(), ends }
    }
}
