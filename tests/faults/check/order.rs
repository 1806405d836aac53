//! C6: a client's publishes to a topic are stored in order, and every publish is stored after what
//! was acknowledged before it began.

use std::collections::HashMap;

use super::{
    findings::Findings,
    index::Index,
    operations::{Line, Publish, Stored},
};

pub fn publishes_are_stored_in_order(index: &Index<'_>, findings: &mut Findings) {
    check_order_of_each_client(index, findings);
    check_order_of_answers(index, findings);
}

/// Ignores duplicates, which are where an earlier attempt stored them.
fn check_order_of_each_client(index: &Index<'_>, findings: &mut Findings) {
    let mut ends: HashMap<(&str, &str), (i64, u64)> = HashMap::new();
    for (publish, _, stored) in index.acknowledged() {
        let Publish { op, client, topic, stored: Some(Stored { duplicate: false, .. }), .. } =
            publish
        else {
            continue;
        };
        let (end, earlier) = ends.entry((client, topic)).or_insert((stored.offset, *op));
        if stored.offset < *end {
            findings.report(|| {
                format!(
                    "{client} had {stored} stored on {topic} by operation {op}, although its operation \
                     {earlier}, which began before, was stored up to offset {}",
                    *end - 1
                )
            });
        }
        if stored.end() > *end {
            (*end, *earlier) = (stored.end(), *op);
        }
    }
}

fn check_order_of_answers(index: &Index<'_>, findings: &mut Findings) {
    let mut answers: Vec<(Line, &Publish<'_>, i64)> =
        index.acknowledged().map(|(publish, line, stored)| (line, publish, stored.end())).collect();
    answers.sort_by_key(|(line, ..)| *line);
    let mut answers = answers.into_iter().peekable();
    let mut highest: HashMap<&str, (i64, &Publish<'_>)> = HashMap::new();
    // The publishes are in the order of their invocations.
    for (publish, _, stored) in index.acknowledged() {
        while let Some((_, earlier, end)) = answers.next_if(|(line, ..)| *line < publish.invoked) {
            let known = highest.entry(earlier.topic).or_insert((end, earlier));
            if end > known.0 {
                *known = (end, earlier);
            }
        }
        let Publish { op, client, topic, stored: Some(Stored { duplicate: false, .. }), .. } =
            publish
        else {
            continue;
        };
        if let Some((end, earlier)) = highest.get(topic)
            && stored.offset < *end
            // Reported by the other check.
            && earlier.client != *client
        {
            findings.report(|| {
                format!(
                    "operation {op} had {stored} stored on {topic}, although operation {} was \
                     answered before it began, and was stored up to offset {}",
                    earlier.op,
                    end - 1
                )
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::check::story::Story;

    #[test]
    fn publishes_in_order_pass() {
        let mut story = Story::new();
        let (first, second) =
            (story.publish("p", 0, 2, Some(0)), story.publish("p", 2, 2, Some(2)));
        story.stored(second, 3);
        story.publish_at("q", 0, 1, 5);
        let again = story.publish("p", 0, 2, Some(0));
        story.stored(first, 1);
        story.stored_again(again, 1);
        story.publish("r", 0, 1, None);
        story.table(0, 6, &[(0, "r", 0, 1), (1, "p", 0, 4), (5, "q", 0, 1)]);
        story.assert_clean();
    }

    #[test]
    fn a_later_publish_stored_before_an_earlier_one_is_found() {
        let mut story = Story::new();
        let (first, second) = (story.publish("p", 0, 2, None), story.publish("p", 2, 2, None));
        story.stored(first, 2);
        story.stored(second, 0);
        story.table(0, 4, &[(0, "p", 2, 2), (2, "p", 0, 2)]);
        story.assert_only(
            "C6",
            "p had values 2 to 3 of p at offsets 0 to 1 stored on t by operation 2",
        );
    }

    #[test]
    fn topics_are_not_ordered_relative_to_each_other() {
        let mut story = Story::new();
        story.publish("q", 0, 5, None);
        story.publish_at("p", 0, 2, 5);
        story.table(0, 7, &[(0, "q", 0, 5), (5, "p", 0, 2)]);
        story.on("u");
        story.publish_at("p", 0, 2, 0);
        story.table(0, 2, &[(0, "p", 0, 2)]);
        story.assert_clean();
    }

    #[test]
    fn a_publish_stored_before_what_was_acknowledged_when_it_began_is_found() {
        let mut story = Story::new();
        story.publish_at("p", 0, 2, 1);
        story.publish_at("q", 0, 1, 0);
        story.table(0, 3, &[(0, "q", 0, 1), (1, "p", 0, 2)]);
        story.assert_only(
            "C6",
            "operation 2 had value 0 of q at offset 0 stored on t, although operation 1",
        );
    }

    #[test]
    fn a_publish_that_began_before_the_answer_may_be_stored_before_it() {
        let mut story = Story::new();
        let (first, second) = (story.publish("p", 0, 2, None), story.publish("q", 0, 1, None));
        story.stored(first, 1);
        story.stored(second, 0);
        story.table(0, 3, &[(0, "q", 0, 1), (1, "p", 0, 2)]);
        story.assert_clean();
    }

    #[test]
    fn every_earlier_publish_counts_not_only_the_last() {
        let mut story = Story::new();
        story.publish("q", 0, 2, None);
        let all: Vec<_> = (0..3).map(|value| story.publish("p", value, 1, None)).collect();
        for (publish, offset) in all.into_iter().zip([0, 4, 2]) {
            story.stored(publish, offset);
        }
        story.table(
            0,
            5,
            &[(0, "p", 0, 1), (1, "q", 0, 1), (2, "p", 2, 1), (3, "q", 1, 1), (4, "p", 1, 1)],
        );
        story.assert_only("C6", "p had value 2 of p at offset 2 stored on t by operation 4");
    }
}
