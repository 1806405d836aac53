//! C1, for all streams until the first seek: the first one begins where the consumer was
//! registered, and one that moves the position by itself passes over no more than was on its way to
//! a client that has gone.

use crate::history::What;

use super::{
    findings::Findings,
    index::{Consumer, Index},
    known::Known,
    operations::{Attached, Line, Stream},
};

/// What streams ask for at the most that move the position by themselves.
pub const MOST_IN_A_FRAME: i32 = 500;

pub fn no_stream_passes_over_more_than_was_under_way(index: &Index<'_>, findings: &mut Findings) {
    for ((topic, name), consumer) in &index.consumers {
        let until = consumer.first_seek().unwrap_or(Line::MAX);
        let (had, mut before) = (how_far_it_came(consumer), None);
        for attached in consumer.attached().into_iter().filter(|it| it.line < until) {
            let had = match had.by(attached.line - 1) {
                Some((_, had)) => Some(had),
                None => consumer.began,
            };
            let most = before.map_or(Some(0), |before| under_way(consumer, before, attached.line));
            if let (Some(had), Some(most)) = (had, most)
                && attached.position > had + most
            {
                findings.tell(|| {
                    format!(
                        "consumer {name} on {topic} goes on at {} in line {}, but had come to {had}, \
                         and {most} messages at the most were on their way",
                        attached.position, attached.line
                    )
                });
            }
            before = Some(attached);
        }
    }
}

/// How far the streams of a consumer had come by each line.
fn how_far_it_came(consumer: &Consumer<'_>) -> Known {
    let frames = consumer.streams.iter().flat_map(|stream| &stream.frames);
    let ends = frames.filter_map(|(line, frame)| match frame {
        What::Attached { position, .. } => Some((*line, *position)),
        What::Gap { to, .. } => Some((*line, *to)),
        What::Delivered { runs } => runs.last().map(|run| (*line, run.end())),
        _ => None,
    });
    Known::of(ends.collect())
}

/// How many messages may have been on their way to a stream that had ended before a line; `None` if
/// nobody can say, as its client left it, or lost it.
fn under_way(consumer: &Consumer<'_>, before: Attached, line: Line) -> Option<i64> {
    // They are in the order of their beginnings, as their numbers are.
    let place = consumer.streams.binary_search_by_key(&before.op, |stream| stream.op).ok()?;
    let stream = &consumer.streams[place];
    let Stream { ended, is_told_why, manual, .. } = stream;
    // Whose position is its client's to move passes over nothing at all.
    if *manual {
        return consumer.is_all(true).then_some(0);
    }
    // One frame, the position of which was being stored.
    (ended.is_some_and(|ended| ended < line) && *is_told_why).then_some(MOST_IN_A_FRAME.into())
}

#[cfg(test)]
mod tests {
    use crate::check::story::Story;

    /// 2,000 messages, 10 of which are handed out to a stream that moves the position by itself.
    fn handed_out() -> (Story, u64) {
        let mut story = Story::new();
        story.publish_at("p", 0, 2_000, 0);
        story.table(0, 2_000, &[(0, "p", 0, 2_000)]);
        let stream = story.consume("c", false);
        story.attached(stream, 0, 1);
        story.delivered(stream, &[(0, "p", 0, 10)]);
        (story, stream)
    }

    #[test]
    fn the_first_stream_begins_where_the_consumer_does() {
        for manual in [true, false] {
            let mut story = Story::new();
            story.publish_at("p", 0, 20, 0);
            story.table(0, 20, &[(0, "p", 0, 20)]);
            story.registered("c", 2);
            let stream = story.consume("c", manual);
            story.attached(stream, 3, 1);
            story.assert_only("C1", "goes on at 3 in line 6, but had come to 2, and 0 messages");
        }
    }

    #[test]
    fn a_stream_that_its_broker_ended_passes_over_a_frame() {
        for (position, clean) in [(510, true), (511, false)] {
            let (mut story, stream) = handed_out();
            story.ended(stream, "DRAINING");
            let stream = story.consume("c", false);
            story.attached(stream, position, 2);
            match clean {
                true => story.assert_clean(),
                false => story.assert_only("C1", "goes on at 511 in line 9, but had come to 10"),
            }
        }
    }

    #[test]
    fn a_client_that_leaves_loses_what_is_on_its_way() {
        let (mut story, stream) = handed_out();
        story.left(stream);
        let stream = story.consume("c", false);
        story.attached(stream, 1_500, 2);
        story.assert_clean();
    }

    #[test]
    fn after_a_seek_a_stream_begins_anywhere() {
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
