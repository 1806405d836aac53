//! Which of a subscription's messages are settled: those that need not be kept in mind, as they were
//! acknowledged or have a row of their own.
//!
//! All before the floor are. Those beyond are bits, in chunks of 8,192: a chunk in which all or none are
//! settled takes no room of its own.

use std::collections::VecDeque;

use crate::{
    broker::subscription::bits::{Bits, CHUNK, chunk_of, pieces},
    model::{Offset, OffsetRange},
};

/// Which messages are settled.
#[derive(Clone, Debug)]
pub(crate) struct Settled {
    floor: Offset,
    /// The chunks from the one with the floor on. In the first one, the bits before the floor are not
    /// kept.
    chunks: VecDeque<Chunk>,
}

#[derive(Clone, Debug)]
enum Chunk {
    Open,
    Bits { bits: Box<Bits>, count: usize },
    Settled,
}

impl Settled {
    /// All messages before an offset.
    pub(crate) fn before(floor: Offset) -> Self {
        Self { floor, chunks: VecDeque::new() }
    }

    /// The first offset that is not settled.
    pub(crate) fn floor(&self) -> Offset {
        self.floor
    }

    /// Settles messages; returns how many of them were not settled before.
    pub(crate) fn settle(&mut self, range: OffsetRange) -> usize {
        if range.end <= self.floor {
            return 0;
        }
        let newly = match range.start <= self.floor {
            true => self.move_floor(range.end),
            false => pieces(range).map(|(chunk, bits)| self.settle_in(chunk, bits)).sum(),
        };
        self.raise_floor();
        newly
    }

    /// Moves the floor to a later offset; returns how many messages before it were not settled.
    fn move_floor(&mut self, to: Offset) -> usize {
        let mut newly = OffsetRange { start: self.floor, end: to }.count();
        while chunk_of(self.floor) < chunk_of(to) {
            let end = offset_of(chunk_of(self.floor) + 1, 0);
            newly -= match self.chunks.pop_front() {
                Some(Chunk::Settled) => OffsetRange { start: self.floor, end }.count(),
                Some(Chunk::Bits { count, .. }) => count,
                Some(Chunk::Open) => 0,
                None => break,
            };
            self.floor = end;
        }
        match self.chunks.front_mut() {
            Some(Chunk::Settled) => newly -= OffsetRange { start: self.floor, end: to }.count(),
            Some(Chunk::Bits { bits, count }) => {
                let settled = bits.count(bit_of(self.floor), bit_of(to));
                *count -= settled;
                newly -= settled;
            }
            Some(Chunk::Open) | None => {}
        }
        self.floor = to;
        newly
    }

    fn settle_in(&mut self, chunk: i64, (from, to): (usize, usize)) -> usize {
        let Some(index) = self.index_of(chunk) else { return 0 };
        if self.chunks.len() <= index {
            self.chunks.resize_with(index + 1, || Chunk::Open);
        }
        let first_open = if index == 0 { bit_of(self.floor) } else { 0 };
        let place = &mut self.chunks[index];
        let (newly, count) = match place {
            Chunk::Settled => return 0,
            Chunk::Open if (from, to) == (first_open, CHUNK) => (to - from, to - from),
            Chunk::Open => {
                let mut bits = Box::<Bits>::default();
                let newly = bits.set(from, to);
                *place = Chunk::Bits { bits, count: newly };
                (newly, newly)
            }
            Chunk::Bits { bits, count } => {
                let newly = bits.set(from, to);
                *count += newly;
                (newly, *count)
            }
        };
        if count == CHUNK - first_open {
            *place = Chunk::Settled;
        }
        newly
    }

    /// Raises the floor over what is settled.
    fn raise_floor(&mut self) {
        loop {
            match self.chunks.front_mut() {
                Some(Chunk::Settled) => {
                    self.chunks.pop_front();
                    self.floor = Offset((chunk_of(self.floor) + 1) * CHUNK as i64);
                }
                Some(Chunk::Bits { bits, count }) => {
                    let from = bit_of(self.floor);
                    let to = bits.next_unset(from);
                    // What lies before the floor does not count any more.
                    *count -= to - from;
                    self.floor = self.floor.after(to - from);
                    if to < CHUNK {
                        return;
                    }
                    self.chunks.pop_front();
                }
                Some(Chunk::Open) | None => return,
            }
        }
    }

    /// The messages from an offset up to another that are not settled, as ranges.
    pub(crate) fn open(&self, within: OffsetRange) -> impl Iterator<Item = OffsetRange> + '_ {
        let mut from = within.start;
        std::iter::from_fn(move || {
            let start = self.next_open(from).min(within.end);
            let end = self.next_settled(start, within.end);
            from = end;
            (start < end).then_some(OffsetRange { start, end })
        })
    }

    /// The messages beyond the floor that are settled, as ranges.
    pub(crate) fn beyond_floor(&self) -> impl Iterator<Item = OffsetRange> + '_ {
        let end = offset_of(chunk_of(self.floor) + self.chunks.len() as i64, 0);
        let mut from = self.floor;
        std::iter::from_fn(move || {
            let start = self.next_settled(from, end);
            from = self.next_open(start);
            (start < end).then_some(OffsetRange { start, end: from.min(end) })
        })
    }

    /// The first message from an offset on that is not settled.
    pub(crate) fn next_open(&self, from: Offset) -> Offset {
        let mut from = from.max(self.floor);
        loop {
            let index = self.index_of(chunk_of(from)).unwrap_or(0);
            match self.chunks.get(index) {
                None | Some(Chunk::Open) => return from,
                Some(Chunk::Settled) => {}
                Some(Chunk::Bits { bits, .. }) => {
                    let bit = bits.next_unset(bit_of(from));
                    if bit < CHUNK {
                        return offset_of(chunk_of(from), bit);
                    }
                }
            }
            from = offset_of(chunk_of(from) + 1, 0);
        }
    }

    /// The first message from an offset on that is settled, or `end` if there is none before it.
    fn next_settled(&self, from: Offset, end: Offset) -> Offset {
        let mut from = from;
        while from < end {
            let Some(index) = self.index_of(chunk_of(from)) else { return from };
            match self.chunks.get(index) {
                None => return end,
                Some(Chunk::Open) => {}
                Some(Chunk::Settled) => return from,
                Some(Chunk::Bits { bits, .. }) => {
                    let bit = bits.next_set(bit_of(from));
                    if bit < CHUNK {
                        return offset_of(chunk_of(from), bit).min(end);
                    }
                }
            }
            from = offset_of(chunk_of(from) + 1, 0);
        }
        end
    }

    /// The place of a chunk; `None` before the floor.
    fn index_of(&self, chunk: i64) -> Option<usize> {
        usize::try_from(chunk - chunk_of(self.floor)).ok()
    }
}

fn bit_of(offset: Offset) -> usize {
    usize::try_from(offset.0.rem_euclid(CHUNK as i64)).unwrap_or(0)
}

fn offset_of(chunk: i64, bit: usize) -> Offset {
    Offset(chunk * CHUNK as i64).after(bit)
}
