//! What a value looks like as a message, so that whoever reads one can tell whether it is whole.
//!
//! The key holds the value's producer and number. The payload follows from them: its size and its
//! bytes, from 1 B to 1 MiB.

use bytes::Bytes;
use trunkline::proto;

use crate::history::{self, Run};

/// How large a producer's messages are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sizes {
    /// Up to some hundred bytes.
    Small,
    /// From 1 B to 1 MiB, the larger the rarer.
    All,
}

/// The largest payload that a broker takes, less the key.
const LARGEST: u64 = 1024 * 1024 - 64;

/// After so many bytes a payload repeats itself: it has to be made again by whoever reads it.
const BLOCK: usize = 512;

/// A producer whose name ends so has messages of all sizes.
const ALL_SIZES: &str = "-all";

/// The name of a producer with messages of some sizes.
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

/// Adds the value of a message to runs; a message that is not whole as one of `corrupt`.
pub fn add(runs: &mut Vec<Run>, message: &proto::Message) {
    let key = message.key.as_deref().unwrap_or_default();
    let (producer, number) =
        parse(key, &message.producer_id, &message.payload).unwrap_or(("corrupt", message.offset));
    history::add(runs, message.offset, producer, number);
}

/// The producer and the number of a value, if its message is whole.
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
        // As many below 1 KiB as above: the exponent is drawn, then the size.
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

/// A number that follows from another and looks like chance (splitmix64).
fn mix(seed: u64) -> u64 {
    let mut word = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}
