//! A topic's log as stored at the end of a run.

use super::piece::{Piece, join};

#[derive(Debug)]
pub struct Log<'a> {
    /// The log start offset; earlier messages were removed.
    pub first: i64,
    pub head: i64,
    /// By offset, from the log start on. Earlier rows are hidden, and may still exist.
    pub pieces: Vec<Piece<'a>>,
}

impl<'a> Log<'a> {
    pub fn new(first: i64, head: i64, pieces: impl Iterator<Item = Piece<'a>>) -> Self {
        let mut pieces: Vec<_> = pieces.map(|piece| piece.between(first, i64::MAX)).collect();
        pieces.sort_by_key(|piece| piece.offset);
        Self { first, head, pieces: join(pieces) }
    }

    /// The parts of a reported piece that are not stored like that, each with what is stored
    /// instead, if anything. Ignores removed offsets.
    pub fn contradict(&self, reported: Piece<'a>) -> Vec<(Piece<'a>, Option<Piece<'a>>)> {
        let mut contradicted = Vec::new();
        let (mut from, end) = (reported.offset.max(self.first), reported.end());
        let start = self.pieces.partition_point(|piece| piece.end() <= from);
        for piece in self.pieces[start..].iter().take_while(|piece| piece.offset < end) {
            let there = piece.between(from, end);
            if there.count <= 0 {
                continue;
            }
            if from < there.offset {
                contradicted.push((reported.between(from, there.offset), None));
            }
            let same = reported.between(there.offset, there.end());
            if same != there {
                contradicted.push((same, Some(there)));
            }
            from = there.end();
        }
        if from < end {
            contradicted.push((reported.between(from, end), None));
        }
        contradicted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(offset: i64, producer: &str, value: i64, count: i64) -> Piece<'_> {
        Piece { offset, producer, value, count }
    }

    #[test]
    fn stored_and_removed_messages_are_not_contradicted() {
        let runs = [piece(0, "p", 0, 10), piece(10, "q", 0, 5), piece(15, "p", 10, 5)];
        let log = Log::new(5, 20, runs.into_iter());
        assert_eq!(log.contradict(piece(0, "p", 0, 10)), []);
        assert_eq!(log.contradict(piece(12, "q", 2, 3)), []);
        assert_eq!(log.contradict(piece(0, "x", 0, 5)), []);
    }

    #[test]
    fn each_part_is_contradicted_by_what_is_stored() {
        let runs = [piece(0, "p", 0, 10), piece(12, "q", 0, 5)];
        let log = Log::new(0, 17, runs.into_iter());
        let contradicted = [
            (piece(8, "q", 6, 2), Some(piece(8, "p", 8, 2))),
            (piece(10, "q", 8, 2), None),
            (piece(12, "q", 10, 5), Some(piece(12, "q", 0, 5))),
            (piece(17, "q", 15, 1), None),
        ];
        assert_eq!(log.contradict(piece(8, "q", 6, 10)), contradicted);
    }
}
