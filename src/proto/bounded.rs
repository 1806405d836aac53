//! Messages whose elements are counted while they are decoded.
//!
//! An element may take two bytes on the wire and a hundred in memory. Elements beyond the limit are
//! therefore skipped, and only counted, so that a decoded request is not much larger than the
//! encoded one, and its refusal can still name the number.

use bytes::{Buf, BufMut};
use prost::{
    DecodeError, Message,
    encoding::{DecodeContext, WireType, skip_field},
};

use super::{
    CreateTopicRequest, MAX_HEADERS, MAX_REQUEST_MESSAGES, UpdateTopicRequest, field_numbers,
    raw::{PublishRequest, UnboundedMessage},
};

/// A message with a repeated field or a map whose elements are limited.
pub trait Elements {
    /// The number of the field.
    const FIELD: u32;

    /// The most elements that are decoded.
    const MOST: usize;
}

impl Elements for PublishRequest {
    const FIELD: u32 = field_numbers::publish_request::MESSAGES;
    const MOST: usize = MAX_REQUEST_MESSAGES;
}

impl Elements for UnboundedMessage {
    const FIELD: u32 = field_numbers::new_message::HEADERS;
    const MOST: usize = MAX_HEADERS;
}

impl Elements for CreateTopicRequest {
    const FIELD: u32 = field_numbers::create_topic_request::LABELS;
    const MOST: usize = MAX_HEADERS;
}

impl Elements for UpdateTopicRequest {
    const FIELD: u32 = field_numbers::update_topic_request::LABELS;
    const MOST: usize = MAX_HEADERS;
}

/// A message of which no more than [`Elements::MOST`] elements are decoded. On the wire it is the
/// same message.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bounded<M> {
    message: M,
    count: usize,
}

impl<M: Elements> Bounded<M> {
    /// The message, or the number of its elements if there are too many.
    pub fn within_limit(self) -> Result<M, usize> {
        if self.count > M::MOST { Err(self.count) } else { Ok(self.message) }
    }
}

impl<M: Elements + Message> Message for Bounded<M> {
    fn encode_raw(&self, buffer: &mut impl BufMut) {
        self.message.encode_raw(buffer);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buffer: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        if tag == M::FIELD {
            self.count += 1;
            if self.count > M::MOST {
                return skip_field(wire_type, tag, buffer, context);
            }
        }
        self.message.merge_field(tag, wire_type, buffer, context)
    }

    fn encoded_len(&self) -> usize {
        self.message.encoded_len()
    }

    fn clear(&mut self) {
        self.message.clear();
        self.count = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Messages of two bytes on the wire: the field's key and a length of 0.
    fn empty_elements(field: u32, count: usize) -> Vec<u8> {
        [(field << 3 | 2) as u8, 0].repeat(count)
    }

    fn decode<M: Elements + Message + Default>(count: usize) -> Bounded<M> {
        Bounded::decode(empty_elements(M::FIELD, count).as_slice()).unwrap()
    }

    #[test]
    fn elements_up_to_the_limit_are_decoded_and_more_are_only_counted() {
        let fits = decode::<PublishRequest>(10_000).within_limit().unwrap();
        assert_eq!(fits.messages.len(), 10_000);
        let many = decode::<PublishRequest>(8_000_000);
        assert_eq!(many.message.messages.len(), 10_000);
        assert_eq!(many.within_limit(), Err(8_000_000));

        assert_eq!(decode::<UnboundedMessage>(64).within_limit().unwrap().headers.len(), 64);
        let many = decode::<UnboundedMessage>(65);
        assert_eq!(many.message.headers.len(), 64);
        assert_eq!(many.within_limit(), Err(65));
        assert_eq!(decode::<CreateTopicRequest>(65).within_limit(), Err(65));
        assert_eq!(decode::<UpdateTopicRequest>(65).within_limit(), Err(65));
    }

    #[test]
    fn an_element_of_another_kind_is_still_malformed() {
        let varint = [(PublishRequest::FIELD << 3) as u8, 1];
        assert!(Bounded::<PublishRequest>::decode(varint.as_slice()).is_err());
    }
}
