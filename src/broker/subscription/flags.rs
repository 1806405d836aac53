//! A bit for each message of a delivery.

/// Bits, of which many are looked at together.
pub(super) struct Flags(Vec<u64>);

impl Flags {
    /// So many bits, all of them set.
    pub(super) fn all(count: usize) -> Self {
        let mut words = vec![0; count.div_ceil(64)];
        masks(0, count).for_each(|(word, mask)| words[word] = mask);
        Self(words)
    }

    /// How many bits of a range are set.
    pub(super) fn count(&self, from: usize, to: usize) -> usize {
        masks(from, to).map(|(word, mask)| (self.0[word] & mask).count_ones() as usize).sum()
    }

    /// Clears the bits of a range; returns which of them were set.
    pub(super) fn take(&mut self, from: usize, to: usize) -> Vec<usize> {
        let mut taken = Vec::new();
        for (word, mask) in masks(from, to) {
            let mut bits = self.0[word] & mask;
            self.0[word] &= !mask;
            while bits != 0 {
                taken.push(64 * word + bits.trailing_zeros() as usize);
                bits &= bits - 1;
            }
        }
        taken
    }
}

/// The words of a range, and which of their bits belong to it.
fn masks(from: usize, to: usize) -> impl Iterator<Item = (usize, u64)> {
    (from / 64..to.div_ceil(64)).map(move |word| {
        let (first, end) = (from.saturating_sub(64 * word), (to - 64 * word).min(64));
        (word, u64::MAX << first & u64::MAX >> (64 - end))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bit_of_a_range_is_counted_and_taken_once() {
        for count in [0, 1, 63, 64, 65, 200] {
            for from in [0, 1, 63, 64, 70, 128] {
                for to in [from, from + 1, from + 63, from + 64, count].map(|to| to.min(count)) {
                    let mut flags = Flags::all(count);
                    let expected: Vec<usize> = (from..to).collect();
                    assert_eq!(flags.count(from, to), expected.len(), "{from}..{to} of {count}");
                    assert_eq!(flags.take(from, to), expected);
                    assert_eq!(flags.count(0, count), count - expected.len());
                    assert!(flags.take(from, to).is_empty());
                }
            }
        }
    }
}
