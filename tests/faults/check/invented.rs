//! C2: nothing is stored or delivered that was never published, or whose publishes all certainly
//! failed.

use std::fmt::Display;

use super::{
    findings::Findings,
    index::Index,
    piece::{CORRUPT, Piece},
};

pub fn only_published_values_are_stored(index: &Index<'_>, findings: &mut Findings) {
    for (topic, contents) in &index.topics {
        for piece in contents.log.iter().flat_map(|log| &log.pieces) {
            check_piece(
                index,
                topic,
                *piece,
                &format_args!("the table of {topic} has {piece}"),
                findings,
            );
        }
    }
    for observed in index.observations() {
        check_piece(index, observed.topic, observed.piece, &observed, findings);
    }
}

fn check_piece<'a>(
    index: &Index<'a>,
    topic: &'a str,
    piece: Piece<'a>,
    source: &dyn Display,
    findings: &mut Findings,
) {
    // Their producer is unknown; another check reports them.
    if piece.producer == CORRUPT {
        return;
    }
    for (part, attempted) in index.attempts.parts(topic, piece) {
        match attempted {
            None => findings.report(|| format!("{source}: {part} was never published there")),
            Some(tried) if tried.all_failed() => findings.report(|| {
                let op = tried.op;
                format!("{source}: {part} failed to be published, first by operation {op}")
            }),
            Some(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::check::story::Story;

    #[test]
    fn values_of_unknown_outcome_may_be_stored() {
        let mut story = Story::new();
        let (first, second) = (story.publish("p", 0, 5, None), story.publish("p", 0, 5, None));
        let running = story.publish("p", 5, 5, None);
        story.unknown(first);
        story.refused(second);
        assert_eq!(running, 3);
        story.table(0, 10, &[(0, "p", 0, 10)]);
        story.fresh("a", &[(0, "p", 0, 10)]);
        story.assert_clean();
        assert_eq!((story.figures().unknown, story.figures().recovered), (10, 10));
    }

    #[test]
    fn a_stored_value_whose_publishes_failed_is_found() {
        let mut story = Story::new();
        story.publish_at("p", 0, 5, 0);
        for _ in 0..2 {
            let publish = story.publish("p", 5, 5, None);
            story.refused(publish);
        }
        story.table(0, 6, &[(0, "p", 0, 6)]);
        story.assert_only(
            "C2",
            "value 5 of p at offset 5 failed to be published, first by operation 2",
        );
        assert_eq!(story.figures().refused, 5);
    }

    #[test]
    fn a_delivered_value_whose_publish_failed_is_found() {
        let mut story = Story::new();
        let publish = story.publish("p", 0, 1, None);
        story.refused(publish);
        let stream = story.consume("c", false);
        story.attached(stream, 0, 1);
        story.delivered(stream, &[(0, "p", 0, 1)]);
        story.table(0, 0, &[]);
        story.assert_finds("C2", "the stream of operation 2, of consumer c on t, got value 0 of p");
    }

    #[test]
    fn a_value_that_was_never_published_is_found() {
        let mut story = Story::new();
        story.publish_at("p", 0, 5, 0);
        story.table(0, 5, &[(0, "p", 0, 5)]);
        story.fresh("a", &[(0, "p", 0, 6)]);
        story.assert_finds("C2", "from broker a got values 0 to 5 of p");
        story.assert_finds("C2", "value 5 of p at offset 5 was never published there");
    }

    #[test]
    fn a_value_in_another_topic_is_found() {
        let mut story = Story::new();
        story.on("u");
        story.publish_at("p", 0, 1, 0);
        story.table(0, 1, &[(0, "p", 0, 1)]);
        story.on("t");
        story.table(0, 1, &[(0, "p", 0, 1)]);
        story.assert_only("C2", "the table of t has value 0 of p at offset 0");
    }
}
