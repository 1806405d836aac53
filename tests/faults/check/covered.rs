//! C1, for streams whose clients commit: nothing was skipped. Each message between a consumer's
//! start and its committed position was delivered to one of its streams, or reported as removed.

use crate::history::What;

use super::{
    findings::Findings,
    index::{Consumer, Index},
    operations::Stream,
    ranges::{missing, union},
};

pub fn committed_messages_were_delivered(index: &Index<'_>, findings: &mut Findings) {
    for ((topic, name), consumer) in &index.consumers {
        // After a seek it is unknown which messages are due, and in auto mode which ones were in
        // flight to a client that disconnected.
        if consumer.is_sought() || !consumer.is_all(true) {
            continue;
        }
        for Skipped { range: (from, end), op } in skipped(consumer) {
            findings.report(|| {
                format!(
                    "offsets {from} to {} of {topic} were never delivered to consumer {name}, \
                     whose position was moved past them by operation {op}",
                    end - 1
                )
            });
        }
    }
}

/// Offsets that were committed and never delivered.
struct Skipped {
    range: (i64, i64),
    /// The operation that committed them.
    op: u64,
}

fn skipped(consumer: &Consumer<'_>) -> Vec<Skipped> {
    let start = consumer.attached().into_iter().min_by_key(|attached| attached.epoch);
    let highest = consumer.accepted().max_by_key(|(_, commit)| commit.position);
    let (Some(start), Some((_, highest))) = (start, highest) else { return Vec::new() };
    let accounted = union(consumer.streams.iter().flat_map(accounted_for).collect());
    let missing = missing((start.position, highest.position), &accounted);
    missing.into_iter().map(|range| Skipped { range, op: highest.op }).collect()
}

/// The offsets that a stream delivered, or reported as removed.
fn accounted_for(stream: &Stream<'_>) -> Vec<(i64, i64)> {
    let gaps = stream.frames.iter().filter_map(|(_, frame)| match frame {
        What::Gap { from, to } => Some((*from, *to)),
        _ => None,
    });
    let delivered = stream.delivered().map(|(_, piece)| (piece.offset, piece.end()));
    gaps.chain(delivered).collect()
}

#[cfg(test)]
mod tests {
    use crate::check::story::Story;

    /// 20 messages, the first 5 of which were delivered to an earlier stream.
    fn delivered() -> Story {
        let mut story = Story::new();
        story.publish_at("p", 0, 20, 0);
        let first = story.consume("c", true);
        story.attached(first, 0, 1);
        story.delivered(first, &[(0, "p", 0, 5)]);
        story.left(first);
        story.commit_accepted("c", 1, 3);
        story
    }

    #[test]
    fn deliveries_and_gaps_cover_the_committed_messages() {
        let mut story = delivered();
        let trim = story.trim(10);
        story.trimmed(trim, 10);
        let second = story.consume("c", true);
        story.attached(second, 3, 2);
        story.gap(second, 3, 10);
        story.delivered(second, &[(10, "p", 10, 10)]);
        story.commit_accepted("c", 2, 20);
        story.table(10, 20, &[(10, "p", 10, 10)]);
        story.assert_clean();
    }

    #[test]
    fn committed_messages_that_no_stream_delivered_are_found() {
        let mut story = delivered();
        let second = story.consume("c", true);
        story.attached(second, 8, 2);
        story.delivered(second, &[(8, "p", 8, 12)]);
        story.commit_accepted("c", 2, 20);
        story.table(0, 20, &[(0, "p", 0, 20)]);
        story.assert_only("C1", "offsets 5 to 7 of t were never delivered to consumer c");
    }

    #[test]
    fn after_a_seek_no_message_is_due() {
        let mut story = delivered();
        let seek = story.seek("c");
        story.sought(seek, 8);
        let second = story.consume("c", true);
        story.attached(second, 8, 3);
        story.delivered(second, &[(8, "p", 8, 12)]);
        story.commit_accepted("c", 3, 20);
        story.table(0, 20, &[(0, "p", 0, 20)]);
        story.assert_clean();
    }

    #[test]
    fn a_seek_that_certainly_failed_is_no_excuse() {
        let mut story = delivered();
        let seek = story.seek("c");
        story.refused(seek);
        story.commit_accepted("c", 1, 6);
        story.table(0, 20, &[(0, "p", 0, 20)]);
        story.assert_only("C1", "offsets 5 to 5 of t");
    }

    #[test]
    fn an_auto_stream_may_lose_messages_in_flight() {
        let mut story = Story::new();
        story.publish_at("p", 0, 20, 0);
        for (from, epoch, manual) in [(0, 1, false), (8, 2, true)] {
            let stream = story.consume("c", manual);
            story.attached(stream, from, epoch);
            story.delivered(stream, &[(from, "p", from, 5)]);
            story.left(stream);
        }
        story.commit_accepted("c", 2, 13);
        story.table(0, 20, &[(0, "p", 0, 20)]);
        story.assert_clean();
    }
}
