//! Part of a run: consecutive values at consecutive offsets.

use std::fmt;

use crate::history::Run;

/// The producer of messages that differ from what was sent.
pub const CORRUPT: &str = "corrupt";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    pub offset: i64,
    pub producer: &'a str,
    pub value: i64,
    pub count: i64,
}

impl<'a> Piece<'a> {
    /// The offset after the last one.
    pub fn end(&self) -> i64 {
        self.offset + self.count
    }

    /// The value after the last one.
    pub fn value_end(&self) -> i64 {
        self.value + self.count
    }

    /// The part from offset `from` to before `end`; empty if its count is not positive.
    pub fn between(self, from: i64, end: i64) -> Self {
        let offset = self.offset.max(from);
        let count = self.end().min(end) - offset;
        Self { offset, value: self.value + offset - self.offset, count, ..self }
    }

    /// The offset of one of its values.
    pub fn offset_of(&self, value: i64) -> i64 {
        self.offset + value - self.value
    }

    fn continues(&self, before: &Self) -> bool {
        self.offset == before.end()
            && self.producer == before.producer
            && self.value == before.value_end()
    }
}

impl<'a> From<&'a Run> for Piece<'a> {
    fn from(run: &'a Run) -> Self {
        let values = &run.values;
        Self {
            offset: run.offset,
            producer: &values.producer,
            value: values.first,
            count: values.count,
        }
    }
}

impl fmt::Display for Piece<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { offset, producer, value, count } = self;
        match count {
            1 => write!(out, "value {value} of {producer} at offset {offset}"),
            _ => {
                let (last_value, last_offset) = (self.value_end() - 1, self.end() - 1);
                write!(out, "values {value} to {last_value} of {producer} ")?;
                write!(out, "at offsets {offset} to {last_offset}")
            }
        }
    }
}

/// Joins pieces that continue each other, as batches and frames split runs anywhere.
pub fn join<'a>(pieces: impl IntoIterator<Item = Piece<'a>>) -> Vec<Piece<'a>> {
    let mut joined: Vec<Piece<'a>> = Vec::new();
    for piece in pieces.into_iter().filter(|piece| piece.count > 0) {
        match joined.last_mut() {
            Some(last) if piece.continues(last) => last.count += piece.count,
            _ => joined.push(piece),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIECE: Piece<'static> = Piece { offset: 10, producer: "p", value: 5, count: 4 };

    #[test]
    fn a_part_has_the_values_of_its_offsets() {
        let part = Piece { offset: 11, producer: "p", value: 6, count: 2 };
        assert_eq!(PIECE.between(11, 13), part);
        assert_eq!(PIECE.between(0, 99), PIECE);
        assert!(PIECE.between(0, 10).count <= 0 && PIECE.between(14, 99).count <= 0);
    }

    #[test]
    fn pieces_that_continue_each_other_are_joined() {
        let next = Piece { offset: 14, value: 9, ..PIECE };
        assert_eq!(join([PIECE, next]), [Piece { count: 8, ..PIECE }]);
        for other in [
            Piece { offset: 15, ..next },
            Piece { value: 8, ..next },
            Piece { producer: "q", ..next },
        ] {
            assert_eq!(join([PIECE, other]), [PIECE, other]);
        }
    }
}
