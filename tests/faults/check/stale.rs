//! C8: an epoch moves nothing once a newer one has begun; each epoch belongs to one stream, and is
//! higher than all earlier ones.

use std::collections::HashMap;

use crate::history::What;

use super::{
    findings::Findings,
    index::{Consumer, Index},
    known::Known,
};

pub fn old_epochs_move_nothing(index: &Index<'_>, findings: &mut Findings) {
    for ((topic, name), consumer) in &index.consumers {
        let who = format!("consumer {name} on {topic}");
        let begun = known_epochs(consumer);
        let newer = |line, than| begun.by(line).filter(|(_, epoch)| *epoch > than);
        for (_, commit) in consumer.accepted() {
            if let Some((line, newer)) = newer(commit.invoked, commit.epoch) {
                findings.report(|| {
                    format!(
                        "operation {} moved the position of {who} with epoch {}, although {newer} \
                        had begun in line {line}",
                        commit.op, commit.epoch
                    )
                });
            }
        }
        let mut holders = HashMap::new();
        for attached in consumer.attached() {
            let (op, epoch) = (attached.op, attached.epoch);
            if let Some(other) = holders.insert(epoch, op) {
                findings.report(|| {
                    format!("epoch {epoch} of {who} was given to operations {other} and {op}")
                });
            } else if let Some((line, newer)) = newer(attached.invoked, epoch) {
                findings.report(|| {
                    format!(
                        "operation {op} of {who} got epoch {epoch} after {newer} of line {line}"
                    )
                });
            }
        }
    }
}

/// The epochs that streams were given.
fn known_epochs(consumer: &Consumer<'_>) -> Known {
    let frames = consumer.streams.iter().flat_map(|stream| &stream.frames);
    let epochs = frames.filter_map(|(line, frame)| match frame {
        What::Attached { epoch, .. } | What::Repositioned { epoch, .. } => Some((*line, *epoch)),
        _ => None,
    });
    Known::of(epochs.collect())
}

#[cfg(test)]
mod tests {
    use crate::check::story::Story;

    /// 20 messages, delivered to a stream in epoch 1, and a second stream that waits.
    fn delivered() -> (Story, u64) {
        let mut story = Story::new();
        story.publish_at("p", 0, 20, 0);
        story.table(0, 20, &[(0, "p", 0, 20)]);
        let first = story.consume("c", true);
        story.attached(first, 0, 1);
        story.delivered(first, &[(0, "p", 0, 20)]);
        let second = story.consume("c", true);
        (story, second)
    }

    #[test]
    fn a_commit_in_flight_may_precede_the_next_epoch() {
        let (mut story, second) = delivered();
        let commit = story.commit("c", 1, 10);
        story.attached(second, 10, 2);
        story.committed(commit);
        story.commit_accepted("c", 2, 20);
        let late = story.commit("c", 1, 20);
        story.refused(late);
        let lost = story.commit("c", 1, 20);
        story.unknown(lost);
        story.assert_clean();
        assert_eq!((story.figures().commits, story.figures().take_overs), (2, 1));
    }

    #[test]
    fn an_old_epoch_that_moves_the_position_is_found() {
        let (mut story, second) = delivered();
        story.attached(second, 10, 2);
        story.commit_accepted("c", 1, 10);
        story.assert_only("C8", "operation 4 moved the position of consumer c on t with epoch 1");
    }

    #[test]
    fn an_epoch_from_before_a_seek_that_moves_the_position_is_found() {
        let (mut story, second) = delivered();
        story.attached(second, 0, 2);
        let seek = story.seek("c");
        story.repositioned(second, 5, 3);
        story.sought(seek, 5);
        story.commit_accepted("c", 2, 10);
        story.assert_only("C8", "with epoch 2, although 3 had begun in line 10");
    }

    #[test]
    fn two_streams_with_the_same_epoch_are_found() {
        let (mut story, second) = delivered();
        story.attached(second, 0, 1);
        story.assert_only("C8", "epoch 1 of consumer c on t was given to operations 2 and 3");
    }

    #[test]
    fn a_later_stream_with_an_earlier_epoch_is_found() {
        let (mut story, second) = delivered();
        story.attached(second, 0, 5);
        let third = story.consume("c", true);
        story.attached(third, 0, 4);
        story.assert_only("C8", "operation 4 of consumer c on t got epoch 4 after 5 of line 8");
    }
}
