//! A model of a topic's log: consecutive batches.

use std::{sync::Arc, time::SystemTime};

use bytes::Bytes;

use crate::{
    model::{Batch, LogEnds, Offset, ProducerId, ProducerRun},
    storage::LogSlice,
};

/// A batch whose messages have these sizes. Each payload begins with its offset, truncated if the
/// message is shorter.
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

/// A log as the database stores it.
#[derive(Default)]
pub(crate) struct StoredLog {
    batches: Vec<Arc<Batch>>,
    /// The log start offset.
    pub start: Offset,
}

impl StoredLog {
    pub(crate) fn head(&self) -> Offset {
        self.batches.last().map(|batch| batch.end()).unwrap_or_default()
    }

    pub(crate) fn store(&mut self, sizes: &[usize]) -> Arc<Batch> {
        let batch = Arc::new(batch(self.head(), sizes));
        self.batches.push(batch.clone());
        batch
    }

    /// Removes the messages before an offset, which may lie within a batch, as retention does.
    pub(crate) fn remove_before(&mut self, start: Offset) {
        self.start = self.start.max(start.min(self.head()));
    }

    pub(crate) fn batches(&self) -> &[Arc<Batch>] {
        &self.batches
    }

    /// Reads as the statement does: from the batch that holds the offset on, or from the oldest one
    /// kept.
    pub(crate) fn read(&self, from: Offset, max_bytes: usize) -> LogSlice {
        let from = from.max(self.start);
        let mut bytes = 0;
        let wanted = self.batches.iter().filter(|batch| batch.end() > from);
        let batches = wanted.take_while(|batch| {
            let has_room = bytes < max_bytes;
            bytes += batch.bytes();
            has_room
        });
        let ends = LogEnds { start: self.start, head: self.head() };
        LogSlice { batches: batches.cloned().collect(), ends }
    }
}
