//! Messages as they are published, and column by column as they are stored and delivered.

use std::{sync::OnceLock, time::SystemTime};

use bytes::{Bytes, BytesMut};

use super::{invalid::InvalidValue, labels::Labels, name::ProducerId, position::Offset};

/// The most bytes of a message's payload, key and headers together.
///
/// It is well below the 4 MiB that a gRPC client decodes by default: a message that no client could
/// decode would stop its consumers for ever.
pub const MAX_MESSAGE_BYTES: usize = 1024 * 1024;

/// The most messages in one publish request.
pub const MAX_REQUEST_MESSAGES: usize = 10_000;

/// One message of a publish request.
#[derive(Clone, Debug, Default)]
pub struct Message {
    /// The content of the message.
    pub payload: Bytes,
    /// What the message is about, if the producer gives a key.
    pub key: Option<Bytes>,
    /// Names and values beside the payload.
    pub headers: Labels,
}

/// The messages of one or several publish requests: 1 to 10,000 in each, none over 1 MiB.
#[derive(Clone, Debug)]
pub struct NewMessages {
    messages: Vec<Message>,
    bytes: usize,
    /// The index of the first message of each request but the first; empty for a single request.
    further_requests: Vec<usize>,
}

impl NewMessages {
    /// Checks the messages of a request.
    pub fn parse(messages: Vec<Message>) -> Result<Self, InvalidValue> {
        if messages.is_empty() {
            return Err(InvalidValue::new("must not be empty"));
        }
        if messages.len() > MAX_REQUEST_MESSAGES {
            let (count, limit) = (messages.len(), MAX_REQUEST_MESSAGES);
            return Err(InvalidValue::over_limit(count, limit, "messages"));
        }
        let mut bytes = 0;
        for (index, message) in messages.iter().enumerate() {
            let size = message.bytes();
            if size > MAX_MESSAGE_BYTES {
                let too_large = InvalidValue::over_limit(size, MAX_MESSAGE_BYTES, "bytes");
                return Err(too_large.in_part(format!("[{index}]")));
            }
            bytes += size;
        }
        Ok(Self { messages, bytes, further_requests: Vec::new() })
    }

    /// The number of messages; never 0.
    pub fn count(&self) -> usize {
        self.messages.len()
    }

    /// Bytes of all payloads, keys and headers.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The messages, in order.
    pub fn as_slice(&self) -> &[Message] {
        &self.messages
    }

    /// How many requests they belong to.
    pub fn requests(&self) -> usize {
        self.further_requests.len() + 1
    }

    /// How many messages each request has.
    pub fn counts(&self) -> Vec<usize> {
        let further = || self.further_requests.iter().copied();
        let ends = further().chain([self.messages.len()]);
        [0].into_iter().chain(further()).zip(ends).map(|(start, end)| end - start).collect()
    }

    /// Adds the messages of further requests at the end.
    pub fn append(&mut self, mut others: Self) {
        let start = self.messages.len();
        self.further_requests.push(start);
        self.further_requests.extend(others.further_requests.iter().map(|index| start + index));
        self.messages.append(&mut others.messages);
        self.bytes += others.bytes;
    }

    /// The messages of each request.
    pub fn split(self) -> Vec<Self> {
        let counts = self.counts();
        let mut left = self.messages.into_iter();
        let mut take = |count| {
            let messages: Vec<_> = left.by_ref().take(count).collect();
            let bytes = messages.iter().map(Message::bytes).sum();
            Self { messages, bytes, further_requests: Vec::new() }
        };
        counts.into_iter().map(&mut take).collect()
    }
}

impl Message {
    /// Bytes of payload, key and headers.
    pub fn bytes(&self) -> usize {
        self.payload.len() + self.key.as_ref().map_or(0, Bytes::len) + self.headers.bytes()
    }
}

/// Messages of one topic that were stored together: one row of the table `batch`.
///
/// They are kept as columns, as they are stored. Keys and headers are absent if no message of the
/// batch has any, so that this common case costs nothing.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The offset of the first message.
    pub base: Offset,
    /// When the batch was stored, by the database's clock.
    pub published_at: SystemTime,
    /// The payload of each message.
    pub payloads: Vec<Bytes>,
    /// The key of each message, if it has one.
    pub keys: Option<Vec<Option<Bytes>>>,
    /// The headers of each message.
    pub headers: Option<Vec<Labels>>,
    /// The producers of the messages: the runs follow each other and cover the batch.
    pub producers: Vec<ProducerRun>,
    /// The messages encoded for consumers, which is done when one is first delivered.
    pub encoded: OnceLock<Encoded>,
}

/// A batch's messages, encoded one after the other.
#[derive(Clone, Debug, Default)]
pub struct Encoded {
    /// All messages.
    pub bytes: Bytes,
    /// Where each message ends in the bytes.
    pub ends: Vec<usize>,
}

impl Encoded {
    /// The messages from one index in the batch up to another.
    pub fn messages(&self, from: usize, to: usize) -> Bytes {
        let start = |index: usize| index.checked_sub(1).map_or(0, |before| self.ends[before]);
        self.bytes.slice(start(from)..start(to))
    }
}

/// Consecutive messages of one producer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerRun {
    /// Their producer.
    pub producer: ProducerId,
    /// Their number.
    pub count: usize,
}

/// A message in a batch.
#[derive(Clone, Copy, Debug)]
pub struct MessageRef<'a> {
    /// Its offset.
    pub offset: Offset,
    /// Its content.
    pub payload: &'a Bytes,
    /// What it is about, if its producer gave a key.
    pub key: Option<&'a Bytes>,
    /// Names and values beside the payload.
    pub headers: Option<&'a Labels>,
    /// Its producer.
    pub producer: &'a ProducerId,
    /// When it was stored, by the database's clock.
    pub published_at: SystemTime,
}

impl Batch {
    /// The offset that follows the batch.
    pub fn end(&self) -> Offset {
        self.base.after(self.payloads.len())
    }

    /// Bytes of all payloads, keys, headers and producer ids.
    pub fn bytes(&self) -> usize {
        let sum = |values: &[Bytes]| values.iter().map(Bytes::len).sum::<usize>();
        let keys = self.keys.iter().flatten().flatten().map(Bytes::len).sum::<usize>();
        let headers = self.headers.iter().flatten().map(Labels::bytes).sum::<usize>();
        let producers = self.producers.iter().map(|run| run.producer.as_str().len() * run.count);
        sum(&self.payloads) + keys + headers + producers.sum::<usize>()
    }

    /// Copies payloads and keys into a buffer of their own, as those that came in are slices of larger
    /// buffers and would keep them in memory.
    #[must_use]
    pub fn detached(mut self) -> Self {
        fn values(batch: &mut Batch) -> impl Iterator<Item = &mut Bytes> {
            batch.payloads.iter_mut().chain(batch.keys.iter_mut().flatten().flatten())
        }
        let mut buffer = BytesMut::with_capacity(values(&mut self).map(|value| value.len()).sum());
        values(&mut self).for_each(|value| buffer.extend_from_slice(value));
        let mut buffer = buffer.freeze();
        values(&mut self).for_each(|value| *value = buffer.split_to(value.len()));
        self
    }

    /// The messages from an offset on, in order; all of them if the offset is before the batch.
    pub fn messages_from(&self, from: Offset) -> impl Iterator<Item = MessageRef<'_>> {
        let skipped = usize::try_from(from.since(self.base)).unwrap_or(0);
        let producers = self
            .producers
            .iter()
            .flat_map(|run| std::iter::repeat_n(&run.producer, run.count))
            .skip(skipped);
        (skipped..self.payloads.len()).zip(producers).map(move |(index, producer)| MessageRef {
            offset: self.base.after(index),
            payload: &self.payloads[index],
            key: self.keys.as_ref().and_then(|keys| keys[index].as_ref()),
            headers: self.headers.as_ref().map(|headers| &headers[index]),
            producer,
            published_at: self.published_at,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(payload: usize) -> Message {
        Message { payload: vec![b'x'; payload].into(), ..Message::default() }
    }

    #[test]
    fn a_request_holds_1_to_10_000_messages_of_at_most_1_mib() {
        assert!(NewMessages::parse(vec![]).is_err());
        assert_eq!(NewMessages::parse(vec![message(0); 10_000]).unwrap().count(), 10_000);
        assert_eq!(NewMessages::parse(vec![message(0); 10_001]).unwrap_err().limit, Some(10_000));
        assert!(NewMessages::parse(vec![message(MAX_MESSAGE_BYTES)]).is_ok());
        let refusal =
            NewMessages::parse(vec![message(1), message(MAX_MESSAGE_BYTES + 1)]).unwrap_err();
        assert_eq!((refusal.part.as_str(), refusal.limit), ("[1]", Some(1_048_576)));
    }

    #[test]
    fn a_batch_can_be_detached_from_the_buffer_that_it_came_in() {
        let received = Bytes::from_static(b"..one..key..");
        let batch = Batch {
            base: Offset(0),
            published_at: SystemTime::UNIX_EPOCH,
            payloads: vec![received.slice(2..5), Bytes::new()],
            keys: Some(vec![None, Some(received.slice(7..10))]),
            headers: Some(vec![
                Labels::default(),
                Labels::stored([("n".to_owned(), "v".to_owned())].into()),
            ]),
            producers: vec![ProducerRun { producer: ProducerId::stored("shop"), count: 2 }],
            encoded: OnceLock::new(),
        };
        assert_eq!(batch.bytes(), 3 + 3 + 2 + 2 * 4);
        let detached = batch.clone().detached();
        assert_eq!((&detached.payloads, &detached.keys), (&batch.payloads, &batch.keys));
        assert!(!received.as_ptr_range().contains(&detached.payloads[0].as_ptr()));
    }

    #[test]
    fn a_batch_is_read_from_any_offset_with_the_right_producer() {
        let run = |id: &str, count| ProducerRun { producer: ProducerId::stored(id), count };
        let batch = Batch {
            base: Offset(10),
            published_at: SystemTime::UNIX_EPOCH,
            payloads: (0..5u8).map(|i| Bytes::from(vec![i])).collect(),
            keys: None,
            headers: None,
            producers: vec![run("a", 2), run("b", 3)],
            encoded: OnceLock::new(),
        };
        let read = |from| {
            batch
                .messages_from(Offset(from))
                .map(|m| (m.offset.0, m.payload[0], m.producer.as_str().to_owned()))
                .collect::<Vec<_>>()
        };
        assert_eq!(read(0).len(), 5);
        assert_eq!(
            read(11),
            [(11, 1, "a".into()), (12, 2, "b".into()), (13, 3, "b".into()), (14, 4, "b".into())]
        );
        assert!(read(15).is_empty());
    }
}
