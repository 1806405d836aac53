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
    /// The payloads of so many messages from `first` on, all due at one time. They share one
    /// buffer, and nothing is formatted the general way: what is measured is the broker.
    pub(super) fn make(
        self,
        first: u64,
        count: u64,
        size: usize,
        due: Instant,
    ) -> impl Iterator<Item = Bytes> {
        let due = (due - *BEGINNING).as_nanos() as u64;
        let mut text = Vec::with_capacity(count as usize * size + 128);
        for number in first..first + count {
            let end = text.len() + size;
            put_hex(due, &mut text);
            text.push(b' ');
            self.fill(number, end, &mut text);
            text.truncate(end);
        }
        let mut text = Bytes::from(text);
        (0..count).map(move |_| text.split_to(size))
    }

    /// Appends until at least `end`.
    fn fill(self, number: u64, end: usize, text: &mut Vec<u8>) {
        let mut state = number;
        match self {
            Self::Log => {
                while text.len() < end {
                    let mixed = mix(state);
                    text.extend_from_slice(b"INFO api request id=");
                    put_hex(mixed, text);
                    text.extend_from_slice(b" path=/orders/");
                    put_decimal(mixed % 100_003, text);
                    text.extend_from_slice(b" status=200 took=");
                    put_decimal(mixed >> 52, text);
                    text.extend_from_slice(b"us; ");
                    state = state.wrapping_add(1 << 32);
                }
            }
            Self::Random => {
                while text.len() < end {
                    state = mix(state.wrapping_add(1));
                    put_hex(state, text);
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

/// Appends a number's digits.
fn put_decimal(mut number: u64, text: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    text.extend_from_slice(&digits[start..]);
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
                let made: Vec<Bytes> = payload.make(7, 3, size, Instant::now()).collect();
                assert_eq!(made.len(), 3);
                for made in &made {
                    assert_eq!(made.len(), size);
                    assert!(age(made).unwrap() < Duration::from_secs(10));
                }
                assert!(size < 100 || payload == Payload::Constant || made[0] != made[1]);
            }
        }
        let line = Payload::Log.make(0, 1, 100, *BEGINNING).next().unwrap();
        let line = std::str::from_utf8(&line).unwrap();
        let begins = "0000000000000000 INFO api request id=";
        assert!(line.starts_with(begins) && line[53..].starts_with(" path=/orders/"), "{line}");
        assert_eq!(age(b"short"), None);
        assert_eq!(age(b"not a number at all"), None);
    }
}
