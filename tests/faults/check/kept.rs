//! C1: no acknowledged message is lost: each is at the offset of its answer, or was trimmed.

use std::collections::BTreeMap;

use super::{findings::Findings, index::Index, operations::Publish, piece::Piece, ranges::union};

pub fn acknowledged_values_are_kept(index: &Index<'_>, findings: &mut Findings) {
    for Loss { publish, lost, there } in losses(index) {
        findings.report(|| {
            let Publish { op, topic, .. } = publish;
            let there = there.map_or("nothing".to_owned(), |there| there.to_string());
            let again = index.stored.get(&(*topic, lost.producer)).into_iter().flatten();
            let elsewhere = again
                .filter(|stored| stored.value < lost.value_end() && lost.value < stored.value_end())
                .map(|stored| format!("; {topic} has {stored}"))
                .next();
            let elsewhere = elsewhere.unwrap_or_default();
            format!(
                "operation {op} was answered that {lost} is stored on {topic}, whose table has \
                 {there} there{elsewhere}"
            )
        });
    }
}

/// The number of acknowledged values that are not at the offset of an answer.
pub fn count_lost(index: &Index<'_>) -> u64 {
    let mut lost: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for Loss { publish, lost: piece, .. } in losses(index) {
        let values = (piece.value, piece.value_end());
        lost.entry((publish.topic, piece.producer)).or_default().push(values);
    }
    lost.into_values().flat_map(union).map(|(first, end)| (end - first) as u64).sum()
}

/// The offsets of acknowledged messages that are not stored.
pub fn lost_offsets(index: &Index<'_>) -> Vec<LostOffsets> {
    let offsets = |loss: Loss<'_, '_>| LostOffsets {
        topic: loss.publish.topic.to_owned(),
        first: loss.lost.offset,
        end: loss.lost.end(),
    };
    losses(index).map(offsets).collect()
}

/// Offsets whose messages were acknowledged and are not stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostOffsets {
    pub topic: String,
    pub first: i64,
    /// The offset after the last one.
    pub end: i64,
}

/// Acknowledged messages that are not stored.
struct Loss<'i, 'a> {
    publish: &'i Publish<'a>,
    lost: Piece<'a>,
    /// What the table has at their offsets.
    there: Option<Piece<'a>>,
}

/// A topic without a table is reported by another check.
fn losses<'i, 'a>(index: &'i Index<'a>) -> impl Iterator<Item = Loss<'i, 'a>> {
    index.acknowledged().flat_map(|(publish, _, stored)| {
        let log = index.topics.get(publish.topic).and_then(|topic| topic.log.as_ref());
        let contradicted = log.map(|log| log.contradict(stored)).unwrap_or_default();
        contradicted.into_iter().map(move |(lost, there)| Loss { publish, lost, there })
    })
}

#[cfg(test)]
mod tests {
    use super::LostOffsets;
    use crate::check::story::Story;

    /// Values 0 to 9 at offsets 0 to 9, and 10 to 19 after them.
    fn acknowledged() -> Story {
        let mut story = Story::new();
        story.publish_at("p", 0, 10, 0);
        story.publish_at("p", 10, 10, 10);
        story
    }

    #[test]
    fn stored_messages_pass() {
        let mut story = acknowledged();
        story.table(0, 20, &[(0, "p", 0, 20)]);
        story.assert_clean();
        assert_eq!((story.figures().acknowledged, story.figures().lost), (20, 0));
    }

    #[test]
    fn trimmed_messages_are_not_lost() {
        let mut story = acknowledged();
        let trim = story.trim(12);
        story.unknown(trim);
        story.table(12, 20, &[(12, "p", 12, 8)]);
        story.assert_clean();
    }

    #[test]
    fn a_lost_end_of_the_log_is_found() {
        let mut story = acknowledged();
        story.table(0, 17, &[(0, "p", 0, 17)]);
        story
            .assert_finds("C1", "operation 2 was answered that values 17 to 19 of p at offsets 17");
        assert_eq!(story.figures().lost, 3);
        let LostOffsets { first, end, .. } = story.lost()[0];
        assert_eq!((first, end), (17, 20));
    }

    #[test]
    fn another_value_at_the_offset_is_found() {
        let mut story = acknowledged();
        story.publish_at("q", 0, 1, 20);
        story.table(0, 21, &[(0, "p", 0, 4), (4, "q", 0, 1), (5, "p", 5, 15), (20, "p", 4, 1)]);
        story
            .assert_finds("C1", "value 4 of p at offset 4 is stored on t, whose table has value 0");
        story.assert_finds("C1", "t has value 4 of p at offset 20");
        assert_eq!(story.figures().lost, 2);
    }

    #[test]
    fn the_answer_to_a_duplicate_is_a_promise_too() {
        let mut story = Story::new();
        let publish = story.publish("p", 0, 2, Some(0));
        story.stored_again(publish, 0);
        story.table(0, 1, &[(0, "p", 0, 1)]);
        story
            .assert_finds("C1", "value 1 of p at offset 1 is stored on t, whose table has nothing");
    }

    #[test]
    fn values_lost_twice_are_counted_once() {
        let mut story = Story::new();
        let (first, again) = (story.publish("p", 0, 2, Some(0)), story.publish("p", 0, 2, Some(0)));
        story.stored(first, 0);
        story.stored_again(again, 0);
        story.table(0, 0, &[]);
        assert_eq!((story.found("C1").len(), story.figures().lost), (2, 2));
    }
}
