//! A chunk of 8,192 bits, each for a message.

use crate::model::{Offset, OffsetRange};

/// How many messages a chunk has.
pub(crate) const CHUNK: usize = 8_192;

/// How many words.
pub(crate) const WORDS: usize = CHUNK / 64;

/// The bits of a chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bits([u64; WORDS]);

impl Default for Bits {
    fn default() -> Self {
        Self([0; WORDS])
    }
}

impl Bits {
    /// Sets a range of bits, and returns how many of them were not set.
    pub(crate) fn set(&mut self, from: usize, to: usize) -> usize {
        let mut newly = 0;
        for index in from / 64..to.div_ceil(64) {
            let mask = mask(index, from, to);
            newly += (mask & !self.0[index]).count_ones() as usize;
            self.0[index] |= mask;
        }
        newly
    }

    /// Clears a bit, and returns whether it was set.
    pub(crate) fn clear(&mut self, bit: usize) -> bool {
        let (word, mask) = (&mut self.0[bit / 64], 1 << (bit % 64));
        let was_set = *word & mask != 0;
        *word &= !mask;
        was_set
    }

    /// Clears the bits that others have.
    pub(crate) fn clear_those_of(&mut self, others: &Self) {
        self.0.iter_mut().zip(&others.0).for_each(|(word, other)| *word &= !other);
    }

    /// How many bits of a range are set.
    pub(crate) fn count(&self, from: usize, to: usize) -> usize {
        (from / 64..to.div_ceil(64))
            .map(|index| (mask(index, from, to) & self.0[index]).count_ones() as usize)
            .sum()
    }

    /// The first bit from one on that is set, or [`CHUNK`].
    pub(crate) fn next_set(&self, from: usize) -> usize {
        self.find(from, |word| word)
    }

    /// The first bit from one on that is not set, or [`CHUNK`].
    pub(crate) fn next_unset(&self, from: usize) -> usize {
        self.find(from, |word| !word)
    }

    fn find(&self, from: usize, wanted: impl Fn(u64) -> u64) -> usize {
        for index in from / 64..WORDS {
            let found = wanted(self.0[index]) & mask(index, from, CHUNK);
            if found != 0 {
                return index * 64 + found.trailing_zeros() as usize;
            }
        }
        CHUNK
    }

    /// The bit after the last one that is set; 0 if none is.
    pub(crate) fn end(&self) -> usize {
        let last = self.0.iter().rposition(|word| *word != 0);
        last.map_or(0, |index| (index + 1) * 64 - self.0[index].leading_zeros() as usize)
    }

    /// The ranges of bits that are set.
    pub(crate) fn runs(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let mut from = 0;
        std::iter::from_fn(move || {
            let start = self.next_set(from);
            from = self.next_unset(start);
            (start < CHUNK).then_some((start, from))
        })
    }

    pub(crate) fn words(&self) -> &[u64; WORDS] {
        &self.0
    }

    pub(crate) fn words_mut(&mut self) -> &mut [u64; WORDS] {
        &mut self.0
    }
}

/// The bits of a word that lie in a range.
fn mask(index: usize, from: usize, to: usize) -> u64 {
    let from = from.saturating_sub(index * 64).min(64);
    let to = to.saturating_sub(index * 64).min(64);
    let below = |bit: usize| if bit == 64 { u64::MAX } else { (1 << bit) - 1 };
    below(to) & !below(from)
}

/// The number of an offset's chunk.
pub(crate) fn chunk_of(offset: Offset) -> i64 {
    offset.0.div_euclid(CHUNK as i64)
}

/// A range, chunk by chunk: the number of each and its bits.
pub(crate) fn pieces(range: OffsetRange) -> impl Iterator<Item = (i64, (usize, usize))> {
    let mut from = range.start;
    std::iter::from_fn(move || {
        if from >= range.end {
            return None;
        }
        let chunk = chunk_of(from);
        let base = Offset(chunk * CHUNK as i64);
        let end = range.end.min(base.after(CHUNK));
        let bit = |offset: Offset| usize::try_from(offset.since(base)).unwrap_or(0);
        let piece = (bit(from), bit(end));
        from = end;
        Some((chunk, piece))
    })
}
