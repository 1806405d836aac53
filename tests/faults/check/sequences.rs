//! C6: values with sequences are stored in their order and without holes, as a sequence is refused
//! until the one before it is stored.

use std::collections::HashMap;

use super::{attempts::Attempted, findings::Findings, index::Index};

pub fn sequences_are_stored_without_holes(index: &Index<'_>, findings: &mut Findings) {
    for (topic, contents) in &index.topics {
        let Some(log) = &contents.log else { continue };
        // The sequence and value that each producer's next message must have.
        let mut next: HashMap<&str, (i64, i64)> = HashMap::new();
        if log.first == 0 {
            next.extend(first_of_each(index, topic));
        }
        for piece in &log.pieces {
            for (part, attempted) in index.attempts.parts(topic, *piece) {
                let Some(shift) = attempted.and_then(|tried| tried.sequenced) else { continue };
                let after = (part.value_end() + shift, part.value_end());
                let Some((sequence, value)) = next.insert(part.producer, after) else { continue };
                let is = part.value + shift;
                if part.value < value {
                    findings.report(|| {
                        let last = value - 1;
                        format!("the table of {topic} has {part} after its value {last}")
                    });
                } else if is != sequence {
                    findings.report(|| {
                        format!(
                            "the table of {topic} has {part} with sequence {is}, where sequence \
                            {sequence} must follow"
                        )
                    });
                }
            }
        }
    }
}

/// The first sequence of each producer, and the value with it.
fn first_of_each<'a>(index: &Index<'a>, topic: &str) -> Vec<(&'a str, (i64, i64))> {
    let of_topic = index.attempts.all.iter().filter(|((of, _), _)| *of == topic);
    let first = |tried: &[Attempted]| {
        let sequences =
            tried.iter().filter_map(|tried| Some((tried.first + tried.sequenced?, tried)));
        sequences.map(|(sequence, tried)| (sequence, tried.first)).min()
    };
    of_topic.filter_map(|((_, producer), tried)| Some((*producer, first(tried)?))).collect()
}

#[cfg(test)]
mod tests {
    use crate::check::story::Story;

    /// Three requests of five values each, of unknown outcome.
    fn published() -> Story {
        let mut story = Story::new();
        for first in [0, 5, 10] {
            let publish = story.publish("p", first, 5, Some(first));
            story.unknown(publish);
        }
        story.publish("q", 0, 5, None);
        story
    }

    #[test]
    fn the_last_requests_may_be_missing() {
        let mut story = published();
        story.table(0, 15, &[(0, "p", 0, 5), (5, "q", 0, 5), (10, "p", 5, 5)]);
        story.assert_clean();
    }

    #[test]
    fn the_first_values_may_be_trimmed() {
        let mut story = published();
        story.trim(7);
        story.table(7, 15, &[(7, "p", 7, 8)]);
        story.assert_clean();
    }

    #[test]
    fn a_missing_request_is_found() {
        let mut story = published();
        story.table(0, 10, &[(0, "p", 0, 5), (5, "p", 10, 5)]);
        story.assert_only("C6", "with sequence 10, where sequence 5 must follow");
    }

    #[test]
    fn a_missing_first_request_is_found() {
        let mut story = published();
        story.table(0, 5, &[(0, "p", 5, 5)]);
        story.assert_only("C6", "with sequence 5, where sequence 0 must follow");
    }

    #[test]
    fn requests_out_of_order_are_found() {
        let mut story = published();
        story.trim(1);
        story.table(1, 15, &[(1, "p", 1, 4), (5, "p", 10, 5), (10, "p", 5, 5)]);
        story.assert_only(
            "C6",
            "the table of t has values 5 to 9 of p at offsets 10 to 14 after its",
        );
    }

    #[test]
    fn the_sequence_of_a_refused_value_may_be_reused() {
        let mut story = Story::new();
        let (first, second) =
            (story.publish("p", 0, 5, Some(0)), story.publish("p", 5, 5, Some(0)));
        story.refused(first);
        story.stored(second, 0);
        story.table(0, 5, &[(0, "p", 5, 5)]);
        story.assert_clean();
    }

    #[test]
    fn without_sequences_holes_are_allowed() {
        let mut story = Story::new();
        let (first, second) = (story.publish("p", 0, 5, None), story.publish("p", 5, 5, None));
        story.unknown(first);
        story.stored(second, 0);
        story.table(0, 5, &[(0, "p", 5, 5)]);
        story.assert_clean();
    }
}
