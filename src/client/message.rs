//! Messages, as a producer publishes them and as a consumer receives them.

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use bytes::Bytes;

use super::{deliver_at, error::Error};
use crate::proto::{
    self, MAX_HEADER_NAME_BYTES, MAX_HEADERS, MAX_HEADERS_BYTES, MAX_MESSAGE_BYTES, NewMessage,
};

/// A message as a consumer or a worker receives it.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// The message's number in its topic. Offsets are dense, start at 0, and never change.
    pub offset: i64,
    /// The content of the message.
    pub payload: Bytes,
    /// What the message is about, if its producer gave a key.
    pub key: Option<Bytes>,
    /// Names and values beside the payload.
    pub headers: BTreeMap<String, String>,
    /// When the message was stored, by the database's clock.
    pub publish_time: SystemTime,
    /// The id of its producer.
    pub producer_id: Arc<str>,
    /// The number of seeks before the message was read: a message from before a seek cannot be
    /// committed after it.
    pub(super) seeks: u32,
}

/// A message that was read through [`Client::topics`](super::Client::topics), without a consumer.
impl From<proto::Message> for Message {
    fn from(message: proto::Message) -> Self {
        let time = message.publish_time.and_then(|time| SystemTime::try_from(time).ok());
        Self {
            offset: message.offset,
            payload: message.payload,
            key: message.key,
            headers: message.headers,
            publish_time: time.unwrap_or(SystemTime::UNIX_EPOCH),
            producer_id: message.producer_id.into(),
            seeks: 0,
        }
    }
}

impl NewMessage {
    /// A message without a key and headers.
    ///
    /// ```
    /// use trunkline::proto::NewMessage;
    ///
    /// let message = NewMessage::new("42 pieces").with_key("order-7").with_header("unit", "piece");
    /// assert_eq!(message.headers["unit"], "piece");
    /// ```
    pub fn new(payload: impl Into<Bytes>) -> Self {
        Self { payload: payload.into(), ..Self::default() }
    }

    /// Sets the key: what the message is about.
    #[must_use]
    pub fn with_key(mut self, key: impl Into<Bytes>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Adds a header, or replaces the one of that name.
    #[must_use]
    pub fn with_header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.insert(name.into(), value.into());
        self
    }

    /// Checks that a broker would accept the message, as [`Producer::send`](super::Producer::send)
    /// does.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] names the limit that the message exceeds.
    pub fn check(&self) -> Result<(), Error> {
        checked_size(self).map(|_| ())
    }
}

macro_rules! from_payload {
    ($($payload:ty),*) => {$(
        impl From<$payload> for NewMessage {
            fn from(payload: $payload) -> Self {
                Self::new(payload)
            }
        }
    )*};
}

from_payload!(Bytes, String, Vec<u8>, &'static [u8]);

impl From<&str> for NewMessage {
    fn from(payload: &str) -> Self {
        Self::new(payload.to_owned())
    }
}

/// Checks a message against the broker's limits; returns the bytes of its payload, key and headers.
pub(super) fn checked_size(message: &NewMessage) -> Result<usize, Error> {
    let has_any = !message.headers.is_empty() || message.deliver_at.is_some();
    let headers = if has_any { checked_headers(message)? } else { 0 };
    let size = message.payload.len() + message.key.as_ref().map_or(0, Bytes::len) + headers;
    limit("the message", size, MAX_MESSAGE_BYTES, "bytes")?;
    Ok(size)
}

fn checked_headers(message: &NewMessage) -> Result<usize, Error> {
    let (more, mut bytes) = deliver_at::checked(message)?;
    limit("headers", message.headers.len() + more, MAX_HEADERS, "entries")?;
    for (name, value) in &message.headers {
        if name.is_empty() {
            return Err(invalid("headers", "hold an empty name"));
        }
        if name.contains('\0') || value.contains('\0') {
            return Err(invalid("headers", "hold a NUL character"));
        }
        limit("a header's name", name.len(), MAX_HEADER_NAME_BYTES, "bytes")?;
        bytes += name.len() + value.len();
    }
    limit("headers", bytes, MAX_HEADERS_BYTES, "bytes")?;
    Ok(bytes)
}

fn limit(field: &'static str, size: usize, limit: usize, unit: &str) -> Result<(), Error> {
    match size <= limit {
        true => Ok(()),
        false => Err(invalid(field, &format!("of {size} {unit} is over the limit of {limit}"))),
    }
}

fn invalid(field: &'static str, problem: &str) -> Error {
    Error::Invalid { field, problem: problem.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_exceeds_a_limit_is_refused_before_it_is_sent() {
        let fits = NewMessage::new("abc").with_key("de").with_header("f", "gh");
        assert_eq!(checked_size(&fits), Ok(8));
        let largest = NewMessage::new(vec![0; MAX_MESSAGE_BYTES]);
        assert_eq!(checked_size(&largest), Ok(MAX_MESSAGE_BYTES));
        let refusal = |message: NewMessage| checked_size(&message).unwrap_err().to_string();
        assert_eq!(
            refusal(largest.with_key("k")),
            "the message of 1048577 bytes is over the limit of 1048576"
        );
        let many = (0..65).fold(NewMessage::new(""), |m, n| m.with_header(n.to_string(), ""));
        assert_eq!(refusal(many), "headers of 65 entries is over the limit of 64");
        let header = |name: &str, value: &str| NewMessage::new("").with_header(name, value);
        assert_eq!(
            refusal(header(&"n".repeat(256), "")),
            "a header's name of 256 bytes is over the limit of 255"
        );
        assert_eq!(
            refusal(header("n", &"v".repeat(16 * 1024))),
            "headers of 16385 bytes is over the limit of 16384"
        );
        assert_eq!(refusal(header("", "v")), "headers hold an empty name");
        assert_eq!(refusal(header("n", "\0")), "headers hold a NUL character");
    }
}
