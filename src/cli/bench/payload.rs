//! Payloads that are told apart, and that compress like those of real life.

use std::{
    sync::LazyLock,
    time::{Duration, Instant},
};

use bytes::Bytes;
use clap::ValueEnum;

/// What a payload is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Payload {
    /// Lines like those of a log.
    #[default]
    Log,
    /// Random text, which hardly compresses.
    Random,
    /// One and the same letter, which compresses to nothing.
    Constant,
}

/// Digits of the time at which a message was due, at its beginning.
const STAMP: usize = 16;

/// What the times count from: publishers and consumers are of one process.
static BEGINNING: LazyLock<Instant> = LazyLock::new(Instant::now);

impl Payload {
    /// The payload of message `number`, which is due at some time.
    pub(super) fn make(self, number: u64, size: usize, due: Instant) -> Bytes {
        let mut text = format!("{:0STAMP$x} ", (due - *BEGINNING).as_nanos());
        match self {
            Self::Log => {
                let mut state = number;
                while text.len() < size {
                    let mixed = mix(state);
                    let (order, took) = (mixed % 100_003, mixed >> 52);
                    text += &format!(
                        "INFO api request id={mixed:016x} path=/orders/{order} status=200 took={took}us; "
                    );
                    state = state.wrapping_add(1 << 32);
                }
            }
            Self::Random => {
                let mut state = number;
                while text.len() < size {
                    state = mix(state.wrapping_add(1));
                    text += &format!("{state:016x}");
                }
            }
            Self::Constant => {
                text.extend(std::iter::repeat_n('x', size.saturating_sub(text.len())))
            }
        }
        let mut bytes = text.into_bytes();
        bytes.truncate(size);
        bytes.into()
    }
}

/// How long ago a message was due.
pub(super) fn age(payload: &[u8]) -> Option<Duration> {
    let stamp = std::str::from_utf8(payload.get(..STAMP)?).ok()?;
    let due = Duration::from_nanos(u64::from_str_radix(stamp, 16).ok()?);
    Some(BEGINNING.elapsed().saturating_sub(due))
}

/// A number that looks like chance.
fn mix(number: u64) -> u64 {
    let mixed = number.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_has_its_size_and_tells_when_it_was_due() {
        LazyLock::force(&BEGINNING);
        for payload in [Payload::Log, Payload::Random, Payload::Constant] {
            for size in [32, 100, 1_000] {
                let made = payload.make(7, size, Instant::now());
                assert_eq!(made.len(), size);
                assert!(age(&made).unwrap() < Duration::from_secs(10));
            }
        }
        assert_eq!(age(b"short"), None);
        assert_eq!(age(b"not a number at all"), None);
    }
}
