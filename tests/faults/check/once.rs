//! C5: a value is stored once if it was always published with a sequence, and otherwise no more
//! often than its attempts allow.

use super::{
    attempts::Attempted,
    findings::Findings,
    index::Index,
    piece::{CORRUPT, Piece},
};

pub fn values_are_stored_once(index: &Index<'_>, findings: &mut Findings) {
    for Copies { topic, piece, copies, elsewhere } in copies(index) {
        for (part, attempted) in index.attempts.parts(topic, piece) {
            // A value that must not be stored at all is reported by another check.
            let allowed = attempted.map_or(0, Attempted::copies).max(1) as usize;
            if copies > allowed {
                findings.report(|| {
                    let offset = elsewhere.offset_of(part.value);
                    let op = attempted.map_or(0, |tried| tried.op);
                    format!(
                        "the table of {topic} has {part}, and {} more, as at offset {offset}; first \
                         published by operation {op}",
                        copies - 1
                    )
                });
            }
        }
    }
}

/// The number of messages that are copies of others.
pub fn count_duplicates(index: &Index<'_>) -> u64 {
    copies(index).map(|more| more.piece.count as u64 * (more.copies as u64 - 1)).sum()
}

/// Values that are stored more than once.
struct Copies<'a> {
    topic: &'a str,
    piece: Piece<'a>,
    copies: usize,
    elsewhere: Piece<'a>,
}

fn copies<'a>(index: &Index<'a>) -> impl Iterator<Item = Copies<'a>> {
    let stored = index.stored.iter().filter(|((_, producer), _)| *producer != CORRUPT);
    stored.flat_map(|((topic, _), pieces)| copies_among(topic, pieces))
}

/// Sweeps over the values, keeping the pieces that contain the current ones.
fn copies_among<'a>(topic: &'a str, pieces: &[Piece<'a>]) -> Vec<Copies<'a>> {
    let mut edges: Vec<_> = pieces.iter().map(|piece| piece.value_end()).collect();
    edges.extend(pieces.iter().map(|piece| piece.value));
    edges.sort_unstable();
    let (mut found, mut current, mut next) = (Vec::new(), Vec::<Piece<'a>>::new(), 0);
    for edge in edges.windows(2).filter(|edge| edge[0] < edge[1]) {
        current.retain(|piece| piece.value_end() > edge[0]);
        while let Some(piece) = pieces.get(next).filter(|piece| piece.value <= edge[0]) {
            current.push(*piece);
            next += 1;
        }
        if let [one, other, ..] = current[..] {
            let piece = one.between(one.offset_of(edge[0]), one.offset_of(edge[1]));
            found.push(Copies { topic, piece, copies: current.len(), elsewhere: other });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use crate::check::story::Story;

    #[test]
    fn a_retry_without_a_sequence_may_be_stored_twice() {
        let mut story = Story::new();
        let (first, second) = (story.publish("p", 0, 5, None), story.publish("p", 0, 5, None));
        story.unknown(first);
        story.stored(second, 5);
        story.table(0, 10, &[(0, "p", 0, 5), (5, "p", 0, 5)]);
        story.assert_clean();
        assert_eq!(story.figures().duplicates, 5);
    }

    #[test]
    fn a_retry_with_a_sequence_is_stored_once() {
        let mut story = Story::new();
        let (first, second) =
            (story.publish("p", 0, 5, Some(0)), story.publish("p", 0, 5, Some(0)));
        story.unknown(first);
        story.stored_again(second, 0);
        story.table(0, 5, &[(0, "p", 0, 5)]);
        story.assert_clean();
    }

    #[test]
    fn a_retry_with_a_sequence_that_is_partly_stored_twice_is_found() {
        let mut story = Story::new();
        story.publish("p", 0, 5, Some(0));
        story.publish("p", 2, 3, Some(2));
        story.table(0, 8, &[(0, "p", 0, 5), (5, "p", 2, 3)]);
        story.assert_finds("C5", "the table of t has values 2 to 4 of p at offsets 2 to 4");
        story.assert_finds("C5", "and 1 more, as at offset 5; first published by operation 1");
        assert_eq!(story.figures().duplicates, 3);
    }

    #[test]
    fn a_value_published_once_and_stored_twice_is_found() {
        let mut story = Story::new();
        story.publish_at("p", 0, 5, 0);
        story.table(0, 10, &[(0, "p", 0, 5), (5, "p", 0, 5)]);
        story.assert_only("C5", "values 0 to 4 of p at offsets 0 to 4, and 1 more, as at offset 5");
    }

    #[test]
    fn a_certain_failure_does_not_allow_a_copy() {
        let mut story = Story::new();
        let (first, second) = (story.publish("p", 0, 1, None), story.publish("p", 0, 1, None));
        story.refused(first);
        story.stored(second, 0);
        story.table(0, 2, &[(0, "p", 0, 1), (1, "p", 0, 1)]);
        story.assert_only("C5", "value 0 of p at offset 0, and 1 more, as at offset 1");
    }

    #[test]
    fn copies_are_counted() {
        let mut story = Story::new();
        let (first, second) = (story.publish("p", 0, 1, None), story.publish("p", 0, 2, None));
        story.unknown(first);
        story.unknown(second);
        story.table(0, 4, &[(0, "p", 0, 2), (2, "p", 0, 1), (3, "p", 0, 1)]);
        story.assert_only("C5", "value 0 of p at offset 0, and 2 more");
        assert_eq!(story.figures().duplicates, 2);
    }
}
