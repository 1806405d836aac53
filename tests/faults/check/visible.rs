//! C11: no message is delivered before its publish began.

use super::{findings::Findings, index::Index};

pub fn nothing_is_delivered_before_its_publish(index: &Index<'_>, findings: &mut Findings) {
    for observed in index.observations() {
        for (part, attempted) in index.attempts.parts(observed.topic, observed.piece) {
            if let Some(tried) = attempted.filter(|tried| tried.invoked > observed.line) {
                findings.report(|| {
                    let (op, invoked) = (tried.op, tried.invoked);
                    format!(
                        "{observed}: {part} was first published by operation {op} in line {invoked}"
                    )
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::check::story::Story;

    #[test]
    fn a_message_may_be_delivered_before_its_publish_is_answered() {
        let mut story = Story::new();
        let publish = story.publish("p", 0, 2, None);
        let stream = story.consume("c", false);
        story.attached(stream, 0, 1);
        story.delivered(stream, &[(0, "p", 0, 2)]);
        story.stored(publish, 0);
        story.table(0, 2, &[(0, "p", 0, 2)]);
        story.assert_clean();
    }

    #[test]
    fn a_message_delivered_before_its_publish_is_found() {
        let mut story = Story::new();
        let stream = story.consume("c", false);
        story.attached(stream, 0, 1);
        story.publish("p", 0, 1, None);
        story.delivered(stream, &[(0, "p", 0, 2)]);
        story.publish("p", 1, 1, None);
        story.table(0, 2, &[(0, "p", 0, 2)]);
        story.assert_only(
            "C11",
            "value 1 of p at offset 1 was first published by operation 3 in line 5",
        );
        assert_eq!(story.found("C11").len(), 1);
    }

    #[test]
    fn a_fresh_read_of_a_message_before_its_publish_is_found() {
        let mut story = Story::new();
        story.fresh("a", &[(0, "p", 0, 1)]);
        story.publish_at("p", 0, 1, 0);
        story.table(0, 1, &[(0, "p", 0, 1)]);
        story.assert_only("C11", "a fresh read of t from broker a got value 0 of p at offset 0");
    }
}
