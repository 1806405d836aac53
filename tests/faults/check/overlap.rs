//! C9: overlapping streams never both move the position: no stream commits beyond the start of a
//! later one, and in auto mode no message is delivered twice.
//!
//! Only for consumers that were never sought, as a seek may repeat messages.

use super::{
    findings::Findings,
    index::{Consumer, Index},
};

pub fn one_stream_at_a_time_moves_a_position(index: &Index<'_>, findings: &mut Findings) {
    for ((topic, name), consumer) in &index.consumers {
        if consumer.is_sought() {
            continue;
        }
        let who = format!("consumer {name} on {topic}");
        check_commits_precede_later_streams(&who, consumer, findings);
        if consumer.is_all(false) {
            check_nothing_is_delivered_twice(&who, consumer, findings);
        }
    }
}

fn check_commits_precede_later_streams(
    who: &str,
    consumer: &Consumer<'_>,
    findings: &mut Findings,
) {
    let mut attached = consumer.attached();
    attached.sort_by_key(|attached| attached.epoch);
    // For each epoch, the lowest position at which it or a later one began.
    let mut lowest = attached.clone();
    for number in (1..lowest.len()).rev() {
        if lowest[number].position < lowest[number - 1].position {
            lowest[number - 1] = lowest[number];
        }
    }
    for (_, commit) in consumer.accepted() {
        let next = attached.partition_point(|attached| attached.epoch <= commit.epoch);
        if let Some(later) = lowest.get(next).filter(|later| later.position < commit.position) {
            findings.report(|| {
                format!(
                    "operation {} moved the position of {who} to {} in epoch {}, but operation \
                    {} began at {} in the later epoch {}",
                    commit.op, commit.position, commit.epoch, later.op, later.position, later.epoch
                )
            });
        }
    }
}

fn check_nothing_is_delivered_twice(who: &str, consumer: &Consumer<'_>, findings: &mut Findings) {
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
            findings.report(|| {
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
    fn streams_that_follow_each_other_pass() {
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
    fn a_late_commit_beyond_the_start_of_the_next_stream_is_found() {
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
            "operation 4 moved the position of consumer c on t to 10 in epoch 1",
        );
        story.assert_only("C9", "but operation 3 began at 5 in the later epoch 2");
    }

    #[test]
    fn a_message_delivered_twice_is_found() {
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
    fn after_a_seek_or_in_manual_mode_messages_may_be_repeated() {
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
    fn a_commit_beyond_the_start_of_any_later_stream_is_found() {
        let mut story = published();
        let first = story.consume("c", true);
        story.attached(first, 0, 1);
        story.delivered(first, &[(0, "p", 0, 20)]);
        story.commit_accepted("c", 1, 10);
        for (position, epoch) in [(10, 2), (5, 3)] {
            let stream = story.consume("c", true);
            story.attached(stream, position, epoch);
        }
        story.assert_finds("C9", "but operation 5 began at 5 in the later epoch 3");
    }

    #[test]
    fn deliveries_are_compared_with_the_furthest_earlier_one() {
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
