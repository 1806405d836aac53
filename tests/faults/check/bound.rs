//! C3: an offset is bound to one value forever: answers, streams, fresh reads and the table agree,
//! and whatever was delivered is in the table or was removed.

use std::collections::BTreeMap;

use super::{
    findings::Findings,
    index::Index,
    piece::{CORRUPT, Piece},
};

pub fn each_offset_is_bound_to_one_value(index: &Index<'_>, findings: &mut Findings) {
    let mut removed = BTreeMap::new();
    for (publish, _, piece) in index.acknowledged() {
        let topic = publish.topic;
        let who = || format!("operation {} was answered that {topic} has {piece}", publish.op);
        compare_with_table(index, topic, piece, &who, false, findings);
        compare_with_others(index, topic, piece, &who, &mut removed, findings);
    }
    for observed in index.observations() {
        let (topic, piece, who) = (observed.topic, observed.piece, || observed.to_string());
        compare_with_table(index, topic, piece, &who, true, findings);
        compare_with_others(index, topic, piece, &who, &mut removed, findings);
    }
    for observed in index.observations().filter(|observed| observed.is_corrupt()) {
        findings.report(|| format!("{observed}: this is not what its producer sent"));
    }
    for (topic, contents) in &index.topics {
        let pieces = contents.log.iter().flat_map(|log| &log.pieces);
        for piece in pieces.filter(|piece| piece.producer == CORRUPT) {
            findings
                .report(|| format!("the table of {topic} has {piece}, not what its producer sent"));
        }
    }
}

fn compare_with_table<'a>(
    index: &Index<'a>,
    topic: &'a str,
    piece: Piece<'a>,
    who: &dyn Fn() -> String,
    observed: bool,
    findings: &mut Findings,
) {
    let Some(log) = &index.topics[topic].log else { return };
    for (part, there) in log.contradict(piece) {
        match there {
            Some(there) => {
                findings.report(|| format!("{}, but the table of {topic} has {there}", who()));
            }
            None if observed => findings
                .report(|| format!("{}, but the table of {topic} does not have {part}", who())),
            // A lost message is reported by another check.
            None => {}
        }
    }
}

/// Compares removed messages with the first report of them.
fn compare_with_others<'a>(
    index: &Index<'a>,
    topic: &'a str,
    piece: Piece<'a>,
    who: &dyn Fn() -> String,
    removed: &mut BTreeMap<&'a str, Reported<'a>>,
    findings: &mut Findings,
) {
    let log_start = index.topics[topic].log.as_ref().map_or(i64::MAX, |log| log.first);
    let reported = removed.entry(topic).or_default();
    for (part, before) in reported.add(piece.between(0, log_start)) {
        findings.report(|| format!("{}: {part} was reported as {before} before", who()));
    }
}

/// Pieces that do not overlap, by offset.
#[derive(Default)]
struct Reported<'a>(BTreeMap<i64, Piece<'a>>);

impl<'a> Reported<'a> {
    /// Keeps the new parts; returns the parts that contradict earlier ones, with those.
    fn add(&mut self, piece: Piece<'a>) -> Vec<(Piece<'a>, Piece<'a>)> {
        let (mut contradicted, mut new, mut from) = (Vec::new(), Vec::new(), piece.offset);
        if piece.count <= 0 {
            return contradicted;
        }
        let start = self.0.range(..=from).next_back().map_or(from, |(offset, _)| *offset);
        for known in self.0.range(start..piece.end()).map(|(_, known)| known) {
            let there = known.between(from, piece.end());
            if there.count <= 0 {
                continue;
            }
            new.push(piece.between(from, there.offset));
            let same = piece.between(there.offset, there.end());
            if same != there {
                contradicted.push((same, there));
            }
            from = there.end();
        }
        new.push(piece.between(from, piece.end()));
        self.0.extend(new.into_iter().filter(|new| new.count > 0).map(|new| (new.offset, new)));
        contradicted
    }
}

#[cfg(test)]
mod tests {
    use crate::check::story::Story;

    fn published() -> Story {
        let mut story = Story::new();
        story.publish_at("p", 0, 10, 0);
        story.publish_at("q", 0, 10, 10);
        story
    }

    const TABLE: [(i64, &str, i64, i64); 2] = [(0, "p", 0, 10), (10, "q", 0, 10)];

    fn deliver(story: &mut Story, consumer: &str, runs: &[(i64, &str, i64, i64)]) {
        let stream = story.consume(consumer, true);
        story.attached(stream, runs[0].0, 1);
        story.delivered(stream, runs);
        story.left(stream);
    }

    #[test]
    fn answers_streams_fresh_reads_and_the_table_agree() {
        let mut story = published();
        deliver(&mut story, "c", &[(5, "p", 5, 5), (10, "q", 0, 10)]);
        story.table(0, 20, &TABLE);
        story.fresh("a", &TABLE);
        story.assert_clean();
    }

    #[test]
    fn streams_agree_on_removed_messages() {
        let mut story = published();
        deliver(&mut story, "c", &[(5, "p", 5, 5), (10, "q", 0, 10)]);
        deliver(&mut story, "d", &TABLE);
        story.trim(20);
        story.table(20, 20, &[]);
        story.assert_clean();
    }

    #[test]
    fn a_stream_that_contradicts_the_table_is_found() {
        let mut story = published();
        deliver(&mut story, "c", &[(9, "q", 0, 2)]);
        story.table(0, 20, &TABLE);
        story.assert_only(
            "C3",
            "got values 0 to 1 of q at offsets 9 to 10 in line 7, but the table",
        );
        assert_eq!(story.found("C3").len(), 2);
    }

    #[test]
    fn a_stream_with_more_messages_than_the_table_is_found() {
        let mut story = published();
        deliver(&mut story, "c", &TABLE);
        story.table(0, 19, &[(0, "p", 0, 10), (10, "q", 0, 9)]);
        story.assert_finds("C3", "the stream of operation 3");
        story.assert_finds("C3", "but the table of t does not have value 9 of q at offset 19");
    }

    #[test]
    fn streams_that_contradict_each_other_on_removed_messages_are_found() {
        let mut story = published();
        deliver(&mut story, "c", &[(8, "p", 8, 2), (10, "q", 0, 3)]);
        deliver(&mut story, "d", &[(9, "p", 8, 1)]);
        story.trim(20);
        story.table(20, 20, &[]);
        story
            .assert_only("C3", "value 8 of p at offset 9 was reported as value 9 of p at offset 9");
    }

    #[test]
    fn an_answer_that_contradicts_another_one_is_found() {
        let mut story = published();
        story.publish_at("r", 0, 1, 3);
        story.trim(20);
        story.table(20, 20, &[]);
        story.assert_finds("C3", "operation 3 was answered that t has value 0 of r at offset 3");
    }

    #[test]
    fn an_answer_that_contradicts_the_table_is_found() {
        let mut story = published();
        story.table(0, 20, &[(0, "p", 0, 9), (9, "q", 0, 10), (19, "p", 9, 1)]);
        story.assert_finds("C3", "operation 2 was answered");
    }

    #[test]
    fn a_fresh_read_that_contradicts_the_table_is_found() {
        let mut story = published();
        story.table(0, 20, &TABLE);
        story.fresh("a", &[(0, "p", 0, 9), (9, "q", 0, 1), (10, "q", 0, 10)]);
        story.assert_finds("C3", "a fresh read of t from broker a got value 0 of q at offset 9");
    }

    #[test]
    fn a_message_that_its_producer_did_not_send_is_found() {
        let mut story = published();
        story.table(0, 21, &[TABLE[0], TABLE[1], (20, "corrupt", 0, 1)]);
        story.assert_only("C3", "the table of t has value 0 of corrupt at offset 20");
        story.fresh("a", &[TABLE[0], TABLE[1], (20, "corrupt", 0, 1)]);
        story.assert_only(
            "C3",
            "a fresh read of t from broker a got value 0 of corrupt at offset 20",
        );
    }
}
