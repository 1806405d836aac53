//! Payloads that differ from each other, compress like real ones, and contain a time.

use std::{
    ops::Range,
    sync::LazyLock,
    time::{Duration, Instant},
};

use bytes::Bytes;
use clap::ValueEnum;

/// What a payload consists of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Payload {
    /// Lines like a log's.
    #[default]
    Log,
    /// Random text, which hardly compresses.
    Random,
    /// One repeated letter, which compresses to almost nothing.
    Constant,
}

/// The number of digits at a payload's beginning that say when its message was due.
const STAMP: usize = 16;

/// The origin of the times in payloads: publishers and consumers are in the same process.
static BEGINNING: LazyLock<Instant> = LazyLock::new(Instant::now);

impl Payload {
    /// The payloads of the messages with the given numbers, all due at the same time. They share
    /// one buffer and are formatted without `std::fmt`, so that they take little of the CPU that is
    /// measured.
    pub(super) fn make(
        self,
        numbers: Range<u64>,
        size: usize,
        due: Instant,
    ) -> impl Iterator<Item = Bytes> {
        let due = (due - *BEGINNING).as_nanos() as u64;
        let count = (numbers.end - numbers.start) as usize;
        let mut text = Vec::with_capacity(count * size + 128);
        for number in numbers {
            let end = text.len() + size;
            put_hex(due, &mut text);
            text.push(b' ');
            self.fill(number, end, &mut text);
            text.truncate(end);
        }
        let mut text = Bytes::from(text);
        (0..count).map(move |_| text.split_to(size))
    }

    /// Appends text until the buffer has at least `end` bytes.
    fn fill(self, number: u64, end: usize, text: &mut Vec<u8>) {
        let mut random = fastrand::Rng::with_seed(number);
        match self {
            Self::Log => {
                let mut digits = itoa::Buffer::new();
                while text.len() < end {
                    let id = random.u64(..);
                    text.extend_from_slice(b"INFO api request id=");
                    put_hex(id, text);
                    text.extend_from_slice(b" path=/orders/");
                    text.extend_from_slice(digits.format(id % 100_003).as_bytes());
                    text.extend_from_slice(b" status=200 took=");
                    text.extend_from_slice(digits.format(id >> 52).as_bytes());
                    text.extend_from_slice(b"us; ");
                }
            }
            Self::Random => {
                while text.len() < end {
                    put_hex(random.u64(..), text);
                }
            }
            Self::Constant => text.resize(end.max(text.len()), b'x'),
        }
    }
}

/// Appends a number's sixteen hexadecimal digits.
fn put_hex(number: u64, text: &mut Vec<u8>) {
    let digit = |place: u32| b"0123456789abcdef"[(number >> (60 - 4 * place) & 0xf) as usize];
    text.extend((0..STAMP as u32).map(digit));
}

/// How long ago a message was due.
pub(super) fn age(payload: &[u8]) -> Option<Duration> {
    let stamp = std::str::from_utf8(payload.get(..STAMP)?).ok()?;
    let due = Duration::from_nanos(u64::from_str_radix(stamp, 16).ok()?);
    Some(BEGINNING.elapsed().saturating_sub(due))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_has_the_given_size_and_due_time() {
        LazyLock::force(&BEGINNING);
        for payload in [Payload::Log, Payload::Random, Payload::Constant] {
            for size in [32, 100, 1_000] {
                let made: Vec<Bytes> = payload.make(7..10, size, Instant::now()).collect();
                assert_eq!(made.len(), 3);
                for made in &made {
                    assert_eq!(made.len(), size);
                    assert!(age(made).unwrap() < Duration::from_secs(10));
                }
                assert!(size < 100 || payload == Payload::Constant || made[0] != made[1]);
            }
        }
        let line = Payload::Log.make(0..1, 100, *BEGINNING).next().unwrap();
        let line = std::str::from_utf8(&line).unwrap();
        let begins = "0000000000000000 INFO api request id=";
        assert!(line.starts_with(begins) && line[53..].starts_with(" path=/orders/"), "{line}");
        assert_eq!(age(b"short"), None);
        assert_eq!(age(b"not a number at all"), None);
    }
}
