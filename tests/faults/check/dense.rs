//! C4: the table of each topic holds one message at each offset from its log start to its head.

use super::{findings::Findings, index::Index, log::Log};

pub fn tables_are_dense(index: &Index<'_>, findings: &mut Findings) {
    for (topic, contents) in &index.topics {
        let Some(Log { first, head, pieces }) = &contents.log else {
            findings.report(|| format!("the table of {topic} was not read at the end"));
            continue;
        };
        let mut expected = *first;
        for piece in pieces {
            if piece.offset > expected {
                let (from, to) = (expected, piece.offset - 1);
                findings.report(|| format!("the table of {topic} lacks offsets {from} to {to}"));
            }
            if piece.offset < expected {
                findings.report(|| {
                    let last = expected.min(piece.end()) - 1;
                    let from = piece.offset;
                    format!(
                        "the table of {topic} holds two messages at offsets {from} to {last}: \
                        also {piece}"
                    )
                });
            }
            expected = expected.max(piece.end());
        }
        if expected != *head {
            findings.report(|| {
                format!("the table of {topic} ends at offset {expected}, but its head is {head}")
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::check::story::Story;

    fn published() -> Story {
        let mut story = Story::new();
        story.publish("p", 0, 20, None);
        story
    }

    #[test]
    fn a_table_without_holes_passes() {
        let mut story = published();
        story.table(0, 20, &[(0, "p", 0, 7), (7, "p", 7, 13)]);
        story.assert_clean();
    }

    #[test]
    fn hidden_rows_may_still_exist() {
        let mut story = published();
        story.trim(10);
        story.table(10, 20, &[(5, "p", 5, 15)]);
        story.assert_clean();
    }

    #[test]
    fn a_topic_without_a_table_is_found() {
        published().assert_only("C4", "the table of t was not read at the end");
    }

    #[test]
    fn a_hole_is_found() {
        let mut story = published();
        story.table(0, 20, &[(0, "p", 0, 7), (9, "p", 9, 11)]);
        story.assert_only("C4", "the table of t lacks offsets 7 to 8");
    }

    #[test]
    fn a_missing_oldest_message_is_found() {
        let mut story = published();
        story.table(0, 20, &[(1, "p", 1, 19)]);
        story.assert_only("C4", "the table of t lacks offsets 0 to 0");
    }

    #[test]
    fn two_messages_at_an_offset_are_found() {
        let mut story = published();
        story.table(0, 18, &[(0, "p", 0, 10), (8, "p", 10, 10)]);
        story.assert_only("C4", "the table of t holds two messages at offsets 8 to 9");
    }

    #[test]
    fn a_head_that_is_not_after_the_last_message_is_found() {
        for head in [19, 21] {
            let mut story = published();
            story.table(0, head, &[(0, "p", 0, 20)]);
            story.assert_only("C4", &format!("ends at offset 20, but its head is {head}"));
        }
    }

    #[test]
    fn overlapping_messages_are_reported_once() {
        let mut story = published();
        story.table(0, 18, &[(0, "p", 0, 10), (2, "p", 18, 2), (10, "p", 10, 8)]);
        story.assert_finds("C4", "the table of t holds two messages at offsets 2 to 3");
        assert_eq!(story.found("C4").len(), 1);
    }
}
