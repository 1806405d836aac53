//! C6: what a client publishes on a topic is stored in its order, and what anybody publishes lies
//! behind what was acknowledged before.

use std::collections::HashMap;

use super::{
    findings::Findings,
    index::Index,
    operations::{Line, Publish},
};

pub fn publishes_are_stored_in_their_order(index: &Index<'_>, findings: &mut Findings) {
    each_client_s_order(index, findings);
    order_of_answers(index, findings);
}

/// Not of what was stored before: it lies where an earlier attempt put it.
fn each_client_s_order(index: &Index<'_>, findings: &mut Findings) {
    let mut ends: HashMap<(&str, &str), (i64, u64)> = HashMap::new();
    for (publish, _, said) in index.acknowledged() {
        let Publish { op, client, topic, stored: Some((_, false)), .. } = publish else { continue };
        let (end, earlier) = ends.entry((client, topic)).or_insert((said.offset, *op));
        if said.offset < *end {
            findings.tell(|| {
                format!(
                    "{client} had {said} stored on {topic} by operation {op}, though its operation \
                     {earlier}, which began before, was stored up to offset {}",
                    *end - 1
                )
            });
        }
        if said.end() > *end {
            (*end, *earlier) = (said.end(), *op);
        }
    }
}

fn order_of_answers(index: &Index<'_>, findings: &mut Findings) {
    let mut answers: Vec<(Line, &Publish<'_>, i64)> =
        index.acknowledged().map(|(publish, line, said)| (line, publish, said.end())).collect();
    answers.sort_by_key(|(line, ..)| *line);
    let mut answers = answers.into_iter().peekable();
    let mut highest: HashMap<&str, (i64, &Publish<'_>)> = HashMap::new();
    // The publishes are in the order of their invokes.
    for (publish, _, said) in index.acknowledged() {
        while let Some((_, earlier, end)) = answers.next_if(|(line, ..)| *line < publish.invoked) {
            let known = highest.entry(earlier.topic).or_insert((end, earlier));
            if end > known.0 {
                *known = (end, earlier);
            }
        }
        let Publish { op, client, topic, stored: Some((_, false)), .. } = publish else { continue };
        if let Some((end, earlier)) = highest.get(topic)
            && said.offset < *end
            // A finding above.
            && earlier.client != *client
        {
            findings.tell(|| {
                format!(
                    "operation {op} had {said} stored on {topic}, though operation {} was \
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
    fn a_client_s_order_is_kept() {
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
    fn a_later_publish_lies_before_an_earlier_one() {
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
    fn topics_have_no_common_order() {
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
    fn a_publish_lies_before_what_was_acknowledged_when_it_began() {
        let mut story = Story::new();
        story.publish_at("p", 0, 2, 1);
        story.publish_at("q", 0, 1, 0);
        story.table(0, 3, &[(0, "q", 0, 1), (1, "p", 0, 2)]);
        story.assert_only(
            "C6",
            "operation 2 had value 0 of q at offset 0 stored on t, though operation 1",
        );
    }

    #[test]
    fn who_began_before_the_answer_may_lie_before_it() {
        let mut story = Story::new();
        let (first, second) = (story.publish("p", 0, 2, None), story.publish("q", 0, 1, None));
        story.stored(first, 1);
        story.stored(second, 0);
        story.table(0, 3, &[(0, "q", 0, 1), (1, "p", 0, 2)]);
        story.assert_clean();
    }

    #[test]
    fn the_one_before_the_last_counts_too() {
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
