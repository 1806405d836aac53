//! Values as messages, so that a reader can tell whether a message is intact.
//!
//! The key holds the value's producer and number, which determine the payload: its bytes, and its
//! size from 1 B to 1 MiB.

use bytes::Bytes;
use trunkline::proto;

use crate::history::{self, Run};

/// The sizes of a producer's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sizes {
    /// Up to a few hundred bytes.
    Small,
    /// From 1 B to 1 MiB; larger ones are rarer.
    All,
}

/// The largest payload that a broker accepts, less the key.
const LARGEST: u64 = 1024 * 1024 - 64;

/// The length after which a payload repeats itself, as every reader has to regenerate it.
const BLOCK: usize = 512;

/// The suffix of producers with messages of all sizes.
const ALL_SIZES: &str = "-all";

/// The name of a producer for the sizes of its messages.
pub fn producer_name(name: &str, sizes: Sizes) -> String {
    match sizes {
        Sizes::Small => name.to_owned(),
        Sizes::All => format!("{name}{ALL_SIZES}"),
    }
}

/// A value as a message.
pub fn message(producer: &str, number: i64) -> proto::NewMessage {
    let key = Bytes::from(format!("{producer}/{number}"));
    proto::NewMessage { payload: payload(producer, number), key: Some(key), ..Default::default() }
}

/// Adds the value of a message to runs; a damaged message as one of the producer `corrupt`.
pub fn add(runs: &mut Vec<Run>, message: &proto::Message) {
    let key = message.key.as_deref().unwrap_or_default();
    let (producer, number) =
        parse(key, &message.producer_id, &message.payload).unwrap_or(("corrupt", message.offset));
    history::add(runs, message.offset, producer, number);
}

/// The producer and number of a value, if its message is intact.
pub fn parse<'a>(key: &'a [u8], producer_id: &str, payload: &[u8]) -> Option<(&'a str, i64)> {
    let (producer, number) = std::str::from_utf8(key).ok()?.rsplit_once('/')?;
    let number = number.parse().ok()?;
    (producer == producer_id && payload == self::payload(producer, number))
        .then_some((producer, number))
}

fn payload(producer: &str, number: i64) -> Bytes {
    let seed = producer.bytes().fold(number as u64, |seed, byte| mix(seed ^ u64::from(byte)));
    let size = match producer.ends_with(ALL_SIZES) {
        false => 1 + seed % 300,
        // As many below 1 KiB as above: first the exponent is chosen, then the size.
        true => (1 + mix(seed) % (1 << (seed % 21))).min(LARGEST),
    };
    let size = size as usize;
    let mut block = Vec::with_capacity(BLOCK);
    let mut word = seed;
    while block.len() < size.min(BLOCK) {
        word = mix(word);
        block.extend(word.to_le_bytes());
    }
    let mut bytes = block.repeat(size.div_ceil(block.len()));
    bytes.truncate(size);
    bytes.into()
}

/// A pseudo-random number from another one (splitmix64).
fn mix(seed: u64) -> u64 {
    let mut word = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}
