//! Decodes a `MessageBatch` from its encoded form. Consecutive messages of one producer repeat its id
//! and their time, which are decoded once.

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use bytes::Bytes;
use prost::{
    DecodeError, Message as _,
    encoding::{WireType, decode_key, decode_varint},
};

use crate::{
    client::message::Message,
    proto::{
        self,
        field_numbers::{
            message::{KEY, OFFSET, PAYLOAD, PRODUCER_ID, PUBLISH_TIME},
            message_batch::MESSAGES,
        },
    },
};

/// Decodes the messages for a consumer that has seen this number of seeks.
pub fn decode_batch(batch: &Bytes, seeks: u32) -> Result<Vec<Message>, DecodeError> {
    if let Some(messages) = decode_plain(batch, seeks) {
        return Ok(messages);
    }
    // A field that is unknown here is accepted; if the bytes are malformed, the error says how.
    let decoded = proto::MessageBatch::decode(batch.clone())?;
    Ok(decoded.messages.into_iter().map(|message| received(message, seeks)).collect())
}

fn received(message: proto::Message, seeks: u32) -> Message {
    Message { seeks, ..message.into() }
}

fn decode_plain(batch: &Bytes, seeks: u32) -> Option<Vec<Message>> {
    let mut count = 0;
    let mut rest = &batch[..];
    while !rest.is_empty() {
        take_message(&mut rest)?;
        count += 1;
    }
    let mut messages = Vec::with_capacity(count);
    let mut repeated = Repeated::default();
    let mut rest = &batch[..];
    while !rest.is_empty() {
        let one = take_message(&mut rest)?;
        messages.push(match repeated.decode(batch, one, seeks) {
            Some(message) => message,
            None => received(proto::Message::decode(batch.slice_ref(one)).ok()?, seeks),
        });
    }
    Some(messages)
}

/// Takes the next message, still encoded.
fn take_message<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    match decode_key(rest).ok()? {
        (MESSAGES, WireType::LengthDelimited) => take_bytes(rest),
        _ => None,
    }
}

fn take_bytes<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::try_from(decode_varint(rest).ok()?).ok()?;
    let (bytes, after) = rest.split_at_checked(len)?;
    *rest = after;
    Some(bytes)
}

/// The fields of the previous message that the next one usually repeats, encoded and decoded.
#[derive(Default)]
struct Repeated<'a> {
    time: Option<(&'a [u8], SystemTime)>,
    producer: Option<(&'a [u8], Arc<str>)>,
}

impl<'a> Repeated<'a> {
    /// Decodes the message that is encoded as `one`, a part of `batch`; `None` if it has headers, a
    /// field that is unknown here, or is malformed.
    fn decode(&mut self, batch: &Bytes, one: &'a [u8], seeks: u32) -> Option<Message> {
        let (mut offset, mut payload, mut key) = (0, Bytes::new(), None);
        let (mut publish_time, mut producer) = (None, &one[..0]);
        let mut rest = one;
        while !rest.is_empty() {
            match decode_key(&mut rest).ok()? {
                (OFFSET, WireType::Varint) => {
                    offset = decode_varint(&mut rest).ok()? as i64;
                }
                (PAYLOAD, WireType::LengthDelimited) => {
                    payload = batch.slice_ref(take_bytes(&mut rest)?);
                }
                (KEY, WireType::LengthDelimited) => {
                    key = Some(batch.slice_ref(take_bytes(&mut rest)?));
                }
                // A second time would have to be merged into the first.
                (PUBLISH_TIME, WireType::LengthDelimited) if publish_time.is_none() => {
                    publish_time = Some(self.time(take_bytes(&mut rest)?)?);
                }
                (PRODUCER_ID, WireType::LengthDelimited) => {
                    producer = take_bytes(&mut rest)?;
                }
                _ => return None,
            }
        }
        let publish_time = publish_time.unwrap_or(SystemTime::UNIX_EPOCH);
        let (headers, producer_id) = (BTreeMap::new(), self.producer(producer)?);
        Some(Message { offset, payload, key, headers, publish_time, producer_id, seeks })
    }

    fn time(&mut self, bytes: &'a [u8]) -> Option<SystemTime> {
        if let Some((known, time)) = self.time
            && known == bytes
        {
            return Some(time);
        }
        let time = prost_types::Timestamp::decode(bytes).ok()?.try_into().ok()?;
        self.time = Some((bytes, time));
        Some(time)
    }

    fn producer(&mut self, bytes: &'a [u8]) -> Option<Arc<str>> {
        if let Some((known, producer)) = &self.producer
            && *known == bytes
        {
            return Some(producer.clone());
        }
        let producer: Arc<str> = str::from_utf8(bytes).ok()?.into();
        self.producer = Some((bytes, producer.clone()));
        Some(producer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(offset: i64, producer: &str) -> proto::Message {
        proto::Message {
            offset,
            payload: format!("message {offset}").into(),
            publish_time: Some(prost_types::Timestamp {
                seconds: 1_700_000_000 + offset,
                nanos: 5,
            }),
            producer_id: producer.to_owned(),
            ..Default::default()
        }
    }

    fn encoded(messages: Vec<proto::Message>) -> Bytes {
        proto::MessageBatch { messages }.encode_to_vec().into()
    }

    #[test]
    fn messages_are_decoded_as_prost_decodes_them() {
        let messages = vec![
            message(0, "a"),
            proto::Message { key: Some(Bytes::new()), ..message(1, "a") },
            proto::Message { headers: [("h".into(), "v".into())].into(), ..message(2, "b") },
            proto::Message::default(),
            proto::Message { key: Some("k".into()), payload: Bytes::new(), ..message(3, "b") },
        ];
        let plain: Vec<Message> = messages.iter().cloned().map(Message::from).collect();
        let bytes = encoded(messages);
        assert_eq!(decode_batch(&bytes, 0).unwrap(), plain);
        assert!(decode_batch(&bytes, 7).unwrap().iter().all(|message| message.seeks == 7));
        assert_eq!(decode_batch(&Bytes::new(), 0).unwrap(), []);
    }

    #[test]
    fn fields_of_later_versions_are_ignored() {
        // Field 15, a varint, in the message and in the batch.
        let mut one = message(4, "a").encode_to_vec();
        one.extend([0x78, 0x01]);
        let mut batch = vec![0x0a, one.len() as u8];
        batch.extend(&one);
        let expected = [Message::from(message(4, "a"))];
        assert_eq!(decode_batch(&batch.clone().into(), 0).unwrap(), expected);
        batch.extend([0x78, 0x01]);
        assert_eq!(decode_batch(&batch.into(), 0).unwrap(), expected);
    }

    #[test]
    fn truncated_bytes_are_an_error() {
        let bytes = encoded(vec![message(4, "a")]);
        for len in 1..bytes.len() {
            assert!(decode_batch(&bytes.slice(..len), 0).is_err(), "{len} bytes");
        }
        let not_utf8 = [&[0x0a, 0x03, 0x32, 0x01, 0xff][..]].concat();
        assert!(decode_batch(&not_utf8.into(), 0).is_err());
    }
}
