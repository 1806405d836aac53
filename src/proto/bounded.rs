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

/// A message with a repeated field or a map whose elements are limited.
pub trait Elements {
    /// The number of the field.
    const FIELD: u32;

    /// The most elements that are decoded.
    const MOST: usize;
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

    #[derive(Clone, PartialEq, Message)]
    struct Words {
        #[prost(string, repeated, tag = "3")]
        words: Vec<String>,
        #[prost(string, tag = "4")]
        language: String,
    }

    impl Elements for Words {
        const FIELD: u32 = 3;
        const MOST: usize = 100;
    }

    fn decode(count: usize) -> Bounded<Words> {
        let words = Words { words: vec![String::new(); count], language: "en".to_owned() };
        Bounded::decode(words.encode_to_vec().as_slice()).unwrap()
    }

    #[test]
    fn elements_up_to_the_limit_are_decoded_and_more_are_only_counted() {
        let fits = decode(100).within_limit().unwrap();
        assert_eq!((fits.words.len(), fits.language.as_str()), (100, "en"));
        let many = decode(1_000_000);
        assert_eq!((many.message.words.len(), many.message.language.as_str()), (100, "en"));
        assert_eq!(many.within_limit(), Err(1_000_000));
    }

    #[test]
    fn an_element_of_another_kind_is_still_malformed() {
        let varint = [(Words::FIELD << 3) as u8, 1];
        assert!(Bounded::<Words>::decode(varint.as_slice()).is_err());
    }
}
