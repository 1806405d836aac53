//! C1, for all streams until the first seek: the first one starts where the consumer was
//! registered, and a stream in auto mode skips no more than was in flight to a client that
//! disconnected.

use crate::history::What;

use super::{
    findings::Findings,
    index::{Consumer, Index},
    known::Known,
    operations::{Attached, Line, Stream},
};

/// The most messages in a frame that streams in auto mode request.
pub const MAX_IN_A_FRAME: i32 = 500;

pub fn no_stream_skips_more_than_was_in_flight(index: &Index<'_>, findings: &mut Findings) {
    for ((topic, name), consumer) in &index.consumers {
        let until = consumer.first_seek().unwrap_or(Line::MAX);
        let (reached, mut before) = (positions_reached(consumer), None);
        for attached in consumer.attached().into_iter().filter(|it| it.line < until) {
            let reached = match reached.by(attached.line - 1) {
                Some((_, reached)) => Some(reached),
                None => consumer.start,
            };
            let most = before.map_or(Some(0), |before| in_flight(consumer, before, attached.line));
            if let (Some(reached), Some(most)) = (reached, most)
                && attached.position > reached + most
            {
                findings.report(|| {
                    format!(
                        "consumer {name} on {topic} continues at {} in line {}, but had reached {reached}, \
                        and at most {most} messages were in flight",
                        attached.position, attached.line
                    )
                });
            }
            before = Some(attached);
        }
    }
}

/// How far the streams of a consumer had come by each line.
fn positions_reached(consumer: &Consumer<'_>) -> Known {
    let frames = consumer.streams.iter().flat_map(|stream| &stream.frames);
    let ends = frames.filter_map(|(line, frame)| match frame {
        What::Attached { position, .. } => Some((*line, *position)),
        What::Gap { to, .. } => Some((*line, *to)),
        What::Delivered { runs } => runs.last().map(|run| (*line, run.end())),
        _ => None,
    });
    Known::of(ends.collect())
}

/// How many messages may have been in flight to a stream that ended before a line; `None` if that
/// is unknown, as the client left the stream or lost it.
fn in_flight(consumer: &Consumer<'_>, before: Attached, line: Line) -> Option<i64> {
    // Streams and their operation numbers are in the order of their invocations.
    let index = consumer.streams.binary_search_by_key(&before.op, |stream| stream.op).ok()?;
    let stream = &consumer.streams[index];
    let Stream { ended, has_reason, manual, .. } = stream;
    // A stream in manual mode skips nothing.
    if *manual {
        return consumer.is_all(true).then_some(0);
    }
    // One frame, whose position was being stored.
    (ended.is_some_and(|ended| ended < line) && *has_reason).then_some(MAX_IN_A_FRAME.into())
}

#[cfg(test)]
mod tests {
    use crate::check::story::Story;

    /// 2,000 messages, 10 of which were delivered to a stream in auto mode.
    fn delivered() -> (Story, u64) {
        let mut story = Story::new();
        story.publish_at("p", 0, 2_000, 0);
        story.table(0, 2_000, &[(0, "p", 0, 2_000)]);
        let stream = story.consume("c", false);
        story.attached(stream, 0, 1);
        story.delivered(stream, &[(0, "p", 0, 10)]);
        (story, stream)
    }

    #[test]
    fn a_first_stream_that_starts_elsewhere_than_its_consumer_is_found() {
        for manual in [true, false] {
            let mut story = Story::new();
            story.publish_at("p", 0, 20, 0);
            story.table(0, 20, &[(0, "p", 0, 20)]);
            story.registered("c", 2);
            let stream = story.consume("c", manual);
            story.attached(stream, 3, 1);
            story.assert_only("C1", "continues at 3 in line 6, but had reached 2, and at most 0");
        }
    }

    #[test]
    fn a_stream_that_its_broker_ended_may_skip_one_frame() {
        for (position, clean) in [(510, true), (511, false)] {
            let (mut story, stream) = delivered();
            story.ended(stream, "DRAINING");
            let stream = story.consume("c", false);
            story.attached(stream, position, 2);
            match clean {
                true => story.assert_clean(),
                false => story.assert_only("C1", "continues at 511 in line 9, but had reached 10"),
            }
        }
    }

    #[test]
    fn a_client_that_leaves_may_lose_messages_in_flight() {
        let (mut story, stream) = delivered();
        story.left(stream);
        let stream = story.consume("c", false);
        story.attached(stream, 1_500, 2);
        story.assert_clean();
    }

    #[test]
    fn after_a_seek_a_stream_may_start_anywhere() {
        let mut story = Story::new();
        story.publish_at("p", 0, 20, 0);
        story.table(0, 20, &[(0, "p", 0, 20)]);
        let seek = story.seek("c");
        story.sought(seek, 5);
        let stream = story.consume("c", true);
        story.attached(stream, 5, 2);
        story.assert_clean();
    }
}
