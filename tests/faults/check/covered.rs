//! C1, for streams whose clients commit: nothing was passed over. Each message from where a consumer
//! began up to its committed position was handed out to one of its streams, or told to be removed.

use crate::history::What;

use super::{
    findings::Findings,
    index::{Consumer, Index},
    operations::Stream,
    ranges::{missing, union},
};

pub fn what_was_committed_was_handed_out(index: &Index<'_>, findings: &mut Findings) {
    for ((topic, name), consumer) in &index.consumers {
        // After a seek nobody knows what is due, nor in auto mode what was on its way to a client
        // that died.
        if consumer.is_sought() || !consumer.is_all(true) {
            continue;
        }
        for (from, end, op) in passed_over(consumer) {
            findings.tell(|| {
                format!(
                    "offsets {from} to {} of {topic} were never handed out to consumer {name}, \
                     whose position was moved past them by operation {op}",
                    end - 1
                )
            });
        }
    }
}

fn passed_over(consumer: &Consumer<'_>) -> Vec<(i64, i64, u64)> {
    let began = consumer.attached().into_iter().min_by_key(|attached| attached.epoch);
    let highest = consumer.accepted().max_by_key(|(_, commit)| commit.position);
    let (Some(began), Some((_, highest))) = (began, highest) else { return Vec::new() };
    let handed_out = union(consumer.streams.iter().flat_map(told).collect());
    let missing = missing((began.position, highest.position), &handed_out);
    missing.into_iter().map(|(from, end)| (from, end, highest.op)).collect()
}

fn told(stream: &Stream<'_>) -> Vec<(i64, i64)> {
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

    /// 20 messages, the first 5 of which are delivered to an earlier stream.
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
    fn streams_and_gaps_cover_what_was_committed() {
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
    fn what_no_stream_had_was_passed_over() {
        let mut story = delivered();
        let second = story.consume("c", true);
        story.attached(second, 8, 2);
        story.delivered(second, &[(8, "p", 8, 12)]);
        story.commit_accepted("c", 2, 20);
        story.table(0, 20, &[(0, "p", 0, 20)]);
        story.assert_only("C1", "offsets 5 to 7 of t were never handed out to consumer c");
    }

    #[test]
    fn after_a_seek_nothing_is_due() {
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
    fn a_seek_that_was_certainly_not_done_is_no_excuse() {
        let mut story = delivered();
        let seek = story.seek("c");
        story.refused(seek);
        story.commit_accepted("c", 1, 6);
        story.table(0, 20, &[(0, "p", 0, 20)]);
        story.assert_only("C1", "offsets 5 to 5 of t");
    }

    #[test]
    fn an_auto_stream_may_lose_what_was_on_its_way() {
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
