//! Consecutive messages of a log, as many as fit in a frame or an answer.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;

use crate::model::{Batch, MessageRef, Offset, OffsetRange};

/// What a frame may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameLimits {
    /// How many messages.
    pub messages: usize,
    /// How many bytes on the wire; a single message may take more.
    pub bytes: usize,
    /// The offset after the last message.
    pub end: Offset,
}

impl FrameLimits {
    /// The most that a frame may hold: far below the 4 MiB that a client decodes by default, and
    /// enough to make the cost of a frame itself negligible.
    pub const MAX: Self = Self { messages: 10_000, bytes: 1024 * 1024, end: Offset(i64::MAX) };

    /// What a unary answer may hold: with one message of the largest size on top it stays below the
    /// 4 MiB that a client decodes by default.
    pub(crate) fn of_answer(messages: usize) -> Self {
        Self { messages, bytes: 2 * 1024 * 1024, ..Self::MAX }
    }
}

/// A batch, and which of its messages belong to a frame or an answer.
#[derive(Debug)]
pub struct BatchPart<'a> {
    /// The batch.
    pub batch: &'a Batch,
    /// The indexes of those messages in the batch.
    pub indexes: Range<usize>,
}

/// Consecutive messages.
#[derive(Clone, Debug)]
pub struct Messages {
    batches: Vec<Arc<Batch>>,
    /// Their offsets.
    pub range: OffsetRange,
    /// An upper bound on their bytes, encoded.
    bytes: usize,
}

impl Messages {
    /// Those messages of consecutive batches that lie in a range, and their bytes, as [`fit`] finds them.
    pub(crate) fn new(batches: Vec<Arc<Batch>>, range: OffsetRange, bytes: usize) -> Self {
        Self { batches, range, bytes }
    }

    /// As [`Self::new`], of messages whose bytes are not known.
    #[cfg(test)]
    pub(crate) fn measured(batches: Vec<Arc<Batch>>, range: OffsetRange) -> Self {
        let mut messages = Self { batches, range, bytes: 0 };
        messages.bytes = messages.iter().map(|message| encoded_bytes(&message)).sum();
        messages
    }

    /// The first messages from `start` on, as many as fit.
    pub(crate) fn that_fit(batches: Vec<Arc<Batch>>, start: Offset, limits: FrameLimits) -> Self {
        let (end, bytes) = fit(batches.iter(), start, limits);
        Self { batches, range: OffsetRange { start, end }, bytes }
    }

    /// The messages, in order.
    pub fn iter(&self) -> impl Iterator<Item = MessageRef<'_>> {
        self.batches
            .iter()
            .flat_map(|batch| batch.messages_from(self.range.start))
            .take_while(|message| message.offset < self.range.end)
    }

    /// The batches that the messages belong to.
    pub fn parts(&self) -> impl Iterator<Item = BatchPart<'_>> {
        self.batches.iter().map(|batch| {
            let index = |offset: Offset| {
                let index = usize::try_from(offset.since(batch.base)).unwrap_or(0);
                index.min(batch.payloads.len())
            };
            BatchPart { batch, indexes: index(self.range.start)..index(self.range.end) }
        })
    }

    /// An upper bound on their bytes, encoded.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many messages there are.
    pub fn count(&self) -> usize {
        self.range.count()
    }
}

/// An upper bound on the bytes of the encoded message.
pub(crate) fn encoded_bytes(message: &MessageRef<'_>) -> usize {
    /// Offset, time, field tags and lengths.
    const FRAMING: usize = 64;
    /// Tags and lengths of one header.
    const HEADER_FRAMING: usize = 12;
    let headers = message
        .headers
        .map_or(0, |headers| headers.bytes() + headers.entries().len() * HEADER_FRAMING);
    let key = message.key.map_or(0, Bytes::len);
    message.payload.len() + key + headers + message.producer.as_str().len() + FRAMING
}

/// The offset after the last message that fits, from `start` on, and an upper bound on the bytes of
/// the messages that fit, encoded. One message always fits, unless none is allowed.
pub(crate) fn fit<'a>(
    batches: impl Iterator<Item = &'a Arc<Batch>>,
    start: Offset,
    limits: FrameLimits,
) -> (Offset, usize) {
    let mut bytes = 0;
    let mut end = start;
    let messages = batches.flat_map(|batch| batch.messages_from(start)).take(limits.messages);
    for message in messages {
        let with_message = bytes + encoded_bytes(&message);
        if (with_message > limits.bytes && end > start) || message.offset >= limits.end {
            break;
        }
        bytes = with_message;
        end = message.offset.after(1);
    }
    (end, bytes)
}
