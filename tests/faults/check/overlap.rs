//! C9: streams that overlap never both move the position: what one committed is where the next one
//! begins or before, and in auto mode no message is handed out twice.
//!
//! Of consumers that were never sought: after a seek all may come again.

use super::{
    findings::Findings,
    index::{Consumer, Index},
};

pub fn one_stream_moves_a_position(index: &Index<'_>, findings: &mut Findings) {
    for ((topic, name), consumer) in &index.consumers {
        if consumer.is_sought() {
            continue;
        }
        let who = format!("consumer {name} on {topic}");
        commits_lie_before_the_next_stream(&who, consumer, findings);
        if consumer.is_all(false) {
            nothing_is_handed_out_twice(&who, consumer, findings);
        }
    }
}

fn commits_lie_before_the_next_stream(who: &str, consumer: &Consumer<'_>, findings: &mut Findings) {
    let mut attached = consumer.attached();
    attached.sort_by_key(|attached| attached.epoch);
    // For each epoch the lowest position that it or a later one began at.
    let mut lowest = attached.clone();
    for number in (1..lowest.len()).rev() {
        if lowest[number].position < lowest[number - 1].position {
            lowest[number - 1] = lowest[number];
        }
    }
    for (_, commit) in consumer.accepted() {
        let next = attached.partition_point(|attached| attached.epoch <= commit.epoch);
        if let Some(later) = lowest.get(next).filter(|later| later.position < commit.position) {
            findings.tell(|| {
                format!(
                    "operation {} moved the position of {who} to {} under epoch {}, but operation \
                     {} began at {} under the later epoch {}",
                    commit.op, commit.position, commit.epoch, later.op, later.position, later.epoch
                )
            });
        }
    }
}

fn nothing_is_handed_out_twice(who: &str, consumer: &Consumer<'_>, findings: &mut Findings) {
    let delivered = consumer.streams.iter().flat_map(|stream| {
        stream.delivered().map(|(line, piece)| (piece.offset, piece.end(), stream.op, line))
    });
    let mut delivered: Vec<_> = delivered.collect();
    delivered.sort_unstable();
    let Some(mut furthest) = delivered.first().copied() else { return };
    for again in &delivered[1..] {
        let (from, end, op, line) = *again;
        let (_, before, other, earlier) = furthest;
        if from < before {
            findings.tell(|| {
                let last = end.min(before) - 1;
                format!(
                    "{who} got offsets {from} to {last} twice: in line {earlier}, by operation \
                     {other}, and in line {line}, by operation {op}"
                )
            });
        }
        if end > before {
            furthest = *again;
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::check::story::Story;

    fn published() -> Story {
        let mut story = Story::new();
        story.publish_at("p", 0, 20, 0);
        story.table(0, 20, &[(0, "p", 0, 20)]);
        story
    }

    #[test]
    fn streams_take_turns() {
        let mut story = published();
        for (epoch, from) in [(1, 0), (2, 10)] {
            for (consumer, manual) in [("manual", true), ("auto", false)] {
                let stream = story.consume(consumer, manual);
                story.attached(stream, from, epoch);
                story.delivered(stream, &[(from, "p", from, 10)]);
            }
            story.commit_accepted("manual", epoch, from + 10);
        }
        story.assert_clean();
    }

    #[test]
    fn a_late_commit_moves_the_position_behind_the_next_stream_s_back() {
        let mut story = published();
        let (first, second) = (story.consume("c", true), story.consume("c", true));
        story.attached(first, 0, 1);
        story.delivered(first, &[(0, "p", 0, 20)]);
        let commit = story.commit("c", 1, 10);
        story.attached(second, 5, 2);
        story.committed(commit);
        let third = story.consume("c", true);
        story.attached(third, 10, 3);
        story.assert_only(
            "C9",
            "operation 4 moved the position of consumer c on t to 10 under epoch 1",
        );
        story.assert_only("C9", "but operation 3 began at 5 under the later epoch 2");
    }

    #[test]
    fn a_message_is_handed_out_twice() {
        let mut story = published();
        let (first, second) = (story.consume("c", false), story.consume("c", false));
        story.attached(first, 0, 1);
        story.attached(second, 5, 2);
        story.delivered(first, &[(0, "p", 0, 8)]);
        story.delivered(second, &[(5, "p", 5, 5)]);
        story.assert_only(
            "C9",
            "consumer c on t got offsets 5 to 7 twice: in line 8, by operation 2",
        );
    }

    #[test]
    fn after_a_seek_or_in_manual_mode_messages_come_again() {
        for manual in [true, false] {
            let mut story = published();
            let (first, second) = (story.consume("c", manual), story.consume("c", manual));
            story.attached(first, 0, 1);
            story.delivered(first, &[(0, "p", 0, 8)]);
            if !manual {
                let seek = story.seek("c");
                story.repositioned(first, 0, 2);
                story.sought(seek, 0);
                story.delivered(first, &[(0, "p", 0, 8)]);
            }
            story.attached(second, 0, 3);
            story.delivered(second, &[(0, "p", 0, 8)]);
            story.assert_clean();
        }
    }

    #[test]
    fn a_stream_but_one_begins_behind_a_commit() {
        let mut story = published();
        let first = story.consume("c", true);
        story.attached(first, 0, 1);
        story.delivered(first, &[(0, "p", 0, 20)]);
        story.commit_accepted("c", 1, 10);
        for (position, epoch) in [(10, 2), (5, 3)] {
            let stream = story.consume("c", true);
            story.attached(stream, position, epoch);
        }
        story.assert_finds("C9", "but operation 5 began at 5 under the later epoch 3");
    }

    #[test]
    fn the_furthest_delivery_counts() {
        let mut story = published();
        for (epoch, from, count) in [(1, 0, 10), (2, 2, 2), (3, 5, 1)] {
            let stream = story.consume("c", false);
            story.attached(stream, from, epoch);
            story.delivered(stream, &[(from, "p", from, count)]);
        }
        story.assert_finds("C9", "got offsets 2 to 3 twice");
        story.assert_finds("C9", "got offsets 5 to 5 twice");
    }
}
