//! Messages for consumers, encoded as a `MessageBatch`.
//!
//! A batch is encoded whole and keeps its encoded form, which all streams that hand it out share.

use bytes::{BufMut as _, Bytes, BytesMut};
use prost::encoding::{
    WireType::{LengthDelimited, Varint},
    encode_key, encode_varint, encoded_len_varint,
};
use prost_types::Timestamp;

use crate::{
    broker::{BatchPart, Messages},
    model::{Batch, Encoded, MessageRef, ProducerId},
    proto::{
        self,
        field_numbers::{
            message::{KEY, OFFSET, PAYLOAD, PRODUCER_ID, PUBLISH_TIME},
            message_batch::MESSAGES,
        },
    },
};

/// How many bytes a field's tag takes if the field's number is below 16.
const TAG: usize = 1;

/// How much room to reserve for a message besides its payload; the buffer grows if that is too
/// little.
const OVERHEAD: usize = 64;

/// Messages as a `MessageBatch`. Copies nothing if all of them are from one batch.
pub(crate) fn encode(messages: &Messages) -> Bytes {
    let mut parts = messages.parts().map(|BatchPart { batch, indexes }| {
        let encoded = batch.encoded.get_or_init(|| encode_batch(batch));
        encoded.messages(indexes.start, indexes.end)
    });
    let first = parts.next().unwrap_or_default();
    let Some(second) = parts.next() else { return first };
    let mut all = BytesMut::from(first);
    all.extend_from_slice(&second);
    parts.for_each(|part| all.extend_from_slice(&part));
    all.freeze()
}

/// A batch's messages, each as a field of a `MessageBatch`.
pub fn encode_batch(batch: &Batch) -> Encoded {
    let room = batch.payloads.iter().map(|payload| payload.len() + OVERHEAD).sum();
    let mut buffer = BytesMut::with_capacity(room);
    let mut ends = Vec::with_capacity(batch.payloads.len());
    let mut shared: Option<Shared<'_>> = None;
    for message in batch.messages_from(batch.base) {
        let shared = match &mut shared {
            Some(shared) if std::ptr::eq(shared.producer, message.producer) => shared,
            other => other.insert(Shared::of(&message)),
        };
        match message.headers.is_none_or(|headers| headers.is_empty()) {
            true => put_message(&message, shared, &mut buffer),
            false => {
                prost::encoding::message::encode(MESSAGES, &self::message(message), &mut buffer)
            }
        }
        ends.push(buffer.len());
    }
    Encoded { bytes: buffer.freeze(), ends }
}

/// A message as prost encodes it.
pub(crate) fn message(message: MessageRef<'_>) -> proto::Message {
    proto::Message {
        offset: message.offset.0,
        payload: message.payload.clone(),
        key: message.key.cloned(),
        headers: message.headers.map(|headers| headers.entries().clone()).unwrap_or_default(),
        publish_time: Some(message.published_at.into()),
        producer_id: message.producer.as_str().to_owned(),
    }
}

/// The last fields of a message, encoded once for consecutive messages of one producer, as all of
/// them have the same.
struct Shared<'a> {
    producer: &'a ProducerId,
    fields: Vec<u8>,
}

impl<'a> Shared<'a> {
    fn of(message: &MessageRef<'a>) -> Self {
        let mut fields = Vec::new();
        prost::encoding::message::encode(
            PUBLISH_TIME,
            &Timestamp::from(message.published_at),
            &mut fields,
        );
        put_bytes(PRODUCER_ID, message.producer.as_str().as_bytes(), &mut fields);
        Self { producer: message.producer, fields }
    }
}

/// Appends a message without headers. Leaves out fields with default values, as proto3 does.
fn put_message(message: &MessageRef<'_>, shared: &Shared<'_>, buffer: &mut BytesMut) {
    let MessageRef { offset, payload, key, .. } = message;
    let offset = offset.0 as u64;
    let offset_len = if offset == 0 { 0 } else { TAG + encoded_len_varint(offset) };
    let payload_len = if payload.is_empty() { 0 } else { bytes_len(payload) };
    let key_len = key.map_or(0, |key| bytes_len(key));
    let len = offset_len + payload_len + key_len + shared.fields.len();

    encode_key(MESSAGES, LengthDelimited, buffer);
    encode_varint(len as u64, buffer);
    if offset > 0 {
        encode_key(OFFSET, Varint, buffer);
        encode_varint(offset, buffer);
    }
    if !payload.is_empty() {
        put_bytes(PAYLOAD, payload, buffer);
    }
    if let Some(key) = key {
        put_bytes(KEY, key, buffer);
    }
    buffer.put_slice(&shared.fields);
}

fn bytes_len(bytes: &[u8]) -> usize {
    TAG + encoded_len_varint(bytes.len() as u64) + bytes.len()
}

fn put_bytes(field: u32, bytes: &[u8], buffer: &mut impl bytes::BufMut) {
    encode_key(field, LengthDelimited, buffer);
    encode_varint(bytes.len() as u64, buffer);
    buffer.put_slice(bytes);
}

#[cfg(test)]
mod tests {
    use std::{
        sync::Arc,
        time::{Duration, SystemTime},
    };

    use prost::Message as _;

    use super::*;
    use crate::{
        model::{Labels, Offset, OffsetRange, ProducerRun},
        proto::MessageBatch,
    };

    /// Messages with and without a payload, a key and headers.
    fn batch(base: i64) -> Arc<Batch> {
        let run = |id: &str, count| ProducerRun { producer: ProducerId::stored(id), count };
        let headers = Labels::stored([("unit".to_owned(), "piece".to_owned())].into());
        Arc::new(Batch {
            base: Offset(base),
            published_at: SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_000),
            payloads: vec!["".into(), "short".into(), "x".repeat(300).into(), "".into()],
            keys: Some(vec![None, Some("k".into()), Some("".into()), None]),
            headers: Some(vec![
                Labels::default(),
                Labels::default(),
                headers.clone(),
                Labels::default(),
            ]),
            producers: vec![run("a", 1), run("b", 3)],
            encoded: Default::default(),
        })
    }

    #[test]
    fn messages_are_encoded_as_the_protos_say() {
        let batches = vec![batch(0), batch(4), batch(8)];
        for (from, to) in [(0, 12), (0, 4), (1, 3), (3, 4), (2, 6), (5, 11)] {
            let range = OffsetRange { start: Offset(from), end: Offset(to) };
            let chosen = Messages::measured(batches.clone(), range);
            let messages: Vec<_> = chosen.iter().map(super::message).collect();
            assert_eq!(messages.len(), chosen.count());
            assert_eq!(encode(&chosen), MessageBatch { messages }.encode_to_vec());
        }
    }
}
