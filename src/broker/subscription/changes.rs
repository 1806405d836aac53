//! Which messages were settled since that was last stored, and how it is stored.
//!
//! # Format
//!
//! A byte with the version, 1. Then, for each chunk of 8,192 messages that has any: how many chunks come
//! between it and the one before, and twice the number of its parts, plus 1 if they are words. A part is
//! either a run: the number of messages between it and the one before, and how many it has, less 1. Or it is
//! a word of 64 bits, in eight bytes, and the first word is preceded by its index in the chunk. All other
//! numbers are LEB128. Whichever is shorter is stored.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut};

use crate::{
    broker::subscription::bits::{Bits, CHUNK, WORDS, chunk_of, pieces},
    model::{Offset, OffsetRange},
};

const VERSION: u8 = 1;

/// What was settled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes(BTreeMap<i64, Box<Bits>>);

impl Changes {
    /// Notes that messages were settled.
    pub(crate) fn note(&mut self, range: OffsetRange) {
        for (chunk, (from, to)) in pieces(range) {
            self.0.entry(chunk).or_default().set(from, to);
        }
    }

    /// Forgets that a message was settled; returns whether it was.
    pub(crate) fn forget(&mut self, offset: Offset) -> bool {
        let chunk = chunk_of(offset);
        let Some(bits) = self.0.get_mut(&chunk) else { return false };
        let bit = usize::try_from(offset.since(Offset(chunk * CHUNK as i64))).unwrap_or(0);
        let was_settled = bits.clear(bit);
        if bits.end() == 0 {
            self.0.remove(&chunk);
        }
        was_settled
    }

    /// Forgets all that others say.
    pub(crate) fn forget_those_of(&mut self, others: &Self) {
        for (chunk, others) in &others.0 {
            if let Some(bits) = self.0.get_mut(chunk) {
                bits.clear_those_of(others);
                if bits.end() == 0 {
                    self.0.remove(chunk);
                }
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Forgets what lies before an offset, but for the rest of its chunk.
    pub(crate) fn forget_before(&mut self, floor: Offset) {
        let first = chunk_of(floor);
        self.0 = self.0.split_off(&first);
        // Within that chunk, only what lies before the floor may be left: then it is nothing.
        if self.end().is_some_and(|end| end <= floor) {
            self.0.clear();
        }
    }

    /// The first message that was settled; `None` if nothing was.
    pub(crate) fn first(&self) -> Option<Offset> {
        let (chunk, bits) = self.0.first_key_value()?;
        Some(Offset(chunk * CHUNK as i64).after(bits.next_set(0)))
    }

    /// The offset after the last one that was settled; `None` if nothing was.
    pub(crate) fn end(&self) -> Option<Offset> {
        let (chunk, bits) = self.0.last_key_value()?;
        Some(Offset(chunk * CHUNK as i64).after(bits.end()))
    }

    /// What was settled, as ranges in order.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = OffsetRange> + '_ {
        self.0.iter().flat_map(|(chunk, bits)| {
            let base = Offset(chunk * CHUNK as i64);
            bits.runs()
                .map(move |(from, to)| OffsetRange { start: base.after(from), end: base.after(to) })
        })
    }

    /// What was settled, as it is stored.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut encoded = vec![VERSION];
        let mut next = 0;
        for (chunk, bits) in &self.0 {
            put_number(&mut encoded, chunk.abs_diff(next));
            next = chunk + 1;
            let (runs, words) = (encode_runs(bits), encode_words(bits));
            let shorter = if words.len() < runs.len() { words } else { runs };
            encoded.extend(shorter);
        }
        encoded
    }

    /// Reads what was stored; `None` if it is damaged.
    pub(crate) fn decode(mut encoded: &[u8]) -> Option<Self> {
        let mut changes = Self::default();
        if encoded.try_get_u8().ok()? != VERSION {
            return None;
        }
        let mut next = 0_i64;
        while encoded.has_remaining() {
            let chunk = next.checked_add_unsigned(take_number(&mut encoded)?)?;
            next = chunk.checked_add(1)?;
            // Beyond it, an offset does not fit in 63 bits.
            next.checked_mul(CHUNK as i64)?;
            let bits = changes.0.entry(chunk).or_default();
            let parts = take_number(&mut encoded)?;
            let count = usize::try_from(parts / 2).ok().filter(|count| *count > 0)?;
            match parts % 2 {
                0 => decode_runs(&mut encoded, bits, count)?,
                _ => decode_words(&mut encoded, bits, count)?,
            }
        }
        Some(changes)
    }
}

fn encode_runs(bits: &Bits) -> Vec<u8> {
    let (mut encoded, mut count, mut end) = (Vec::new(), 0, 0);
    for (from, to) in bits.runs() {
        put_number(&mut encoded, (from - end) as u64);
        put_number(&mut encoded, (to - from - 1) as u64);
        (count, end) = (count + 1, to);
    }
    let mut head = Vec::new();
    put_number(&mut head, 2 * count);
    [head, encoded].concat()
}

fn decode_runs(encoded: &mut &[u8], bits: &mut Bits, count: usize) -> Option<()> {
    let mut end = 0_usize;
    for _ in 0..count {
        let from = end.checked_add(usize::try_from(take_number(encoded)?).ok()?)?;
        end = from.checked_add(usize::try_from(take_number(encoded)?).ok()?)?.checked_add(1)?;
        if end > CHUNK {
            return None;
        }
        bits.set(from, end);
    }
    Some(())
}

fn encode_words(bits: &Bits) -> Vec<u8> {
    let is_used = |word: &u64| *word != 0;
    let first = bits.words().iter().position(is_used).unwrap_or(0);
    let end = bits.words().iter().rposition(is_used).map_or(first, |last| last + 1);
    let mut encoded = Vec::new();
    put_number(&mut encoded, 2 * (end - first) as u64 + 1);
    put_number(&mut encoded, first as u64);
    bits.words()[first..end].iter().for_each(|word| encoded.put_u64_le(*word));
    encoded
}

fn decode_words(encoded: &mut &[u8], bits: &mut Bits, count: usize) -> Option<()> {
    let first = usize::try_from(take_number(encoded)?).ok()?;
    if first.checked_add(count)? > WORDS {
        return None;
    }
    for word in &mut bits.words_mut()[first..first + count] {
        *word = encoded.try_get_u64_le().ok()?;
    }
    Some(())
}

fn put_number(encoded: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        encoded.push(number as u8 | 0x80);
        number >>= 7;
    }
    encoded.push(number as u8);
}

fn take_number(encoded: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let byte = encoded.try_get_u8().ok()?;
        let part = u64::from(byte & 0x7f);
        // The tenth byte has one bit left.
        if part << shift >> shift != part {
            return None;
        }
        number |= part << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}
