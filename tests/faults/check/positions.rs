//! C7: only a seek moves a position back: it is never observed behind where it was known to be. It
//! is never beyond the head either. The position of a subscription is its floor.

use std::collections::HashMap;

use super::{
    findings::Findings,
    index::{Consumer, Index},
    known::Known,
    operations::{Line, Outcome, Position, RowRead},
};

pub fn only_seeks_move_positions_back(index: &Index<'_>, findings: &mut Findings) {
    for ((topic, name), consumer) in &index.consumers {
        let who = format!("consumer {name} on {topic}");
        check_rows(&who, consumer, findings);
        check_known_positions(&who, consumer, findings);
        if let Some(log) = index.topics.get(topic).and_then(|topic| topic.log.as_ref()) {
            check_head(&who, consumer, log.head, findings);
        }
    }
}

/// Heads only rise, so no position was beyond the last one.
fn check_head(who: &str, consumer: &Consumer<'_>, head: i64, findings: &mut Findings) {
    let rows = consumer.row_reads.iter().map(|row_read| row_read.row.position);
    let floor = consumer.subscription.iter().map(|subscription| subscription.floor);
    if let Some(highest) = rows.chain(floor).max().filter(|highest| *highest > head) {
        findings.report(|| format!("the position of {who} was {highest}, and the head is {head}"));
    }
}

fn check_rows(who: &str, consumer: &Consumer<'_>, findings: &mut Findings) {
    let mut last: HashMap<&str, &RowRead<'_, Position>> = HashMap::new();
    for row_read in &consumer.row_reads {
        let Some(before) = last.insert(row_read.client, row_read) else { continue };
        let (was, is, lines) = (before.row, row_read.row, (before.line, row_read.line));
        if is.position < was.position && !was_sought(consumer, before.since, row_read.line) {
            findings.report(|| {
                format!(
                    "the position of {who} was {} in line {} and {} in line {}, without a seek",
                    was.position, lines.0, is.position, lines.1
                )
            });
        }
        if is.epoch < was.epoch {
            findings.report(|| {
                format!(
                    "the epoch of {who} was {} in line {} and {} in line {}",
                    was.epoch, lines.0, is.epoch, lines.1
                )
            });
        }
    }
}

/// Whether a seek may have moved the position between the lines `since` and `until`. The earlier
/// row may have been read long before its line, so `since` is when that read may have begun.
fn was_sought(consumer: &Consumer<'_>, since: Line, until: Line) -> bool {
    consumer.seeks.iter().any(|seek| {
        seek.invoked < until
            && match seek.outcome {
                Outcome::Done(line) => line > since,
                Outcome::Unknown => true,
                Outcome::NotDone => false,
            }
    })
}

/// Until the first seek, a position observed after a line is not behind what was known there.
fn check_known_positions(who: &str, consumer: &Consumer<'_>, findings: &mut Findings) {
    let until = consumer.first_seek().unwrap_or(Line::MAX);
    let known = known_positions(consumer);
    let attached = consumer.attached().into_iter();
    let attached = attached.map(|attached| (attached.invoked, attached.line, attached.position));
    let row_reads = consumer
        .row_reads
        .iter()
        .map(|row_read| (row_read.since, row_read.line, row_read.row.position));
    for (since, line, position) in attached.chain(row_reads).filter(|(_, line, _)| *line < until) {
        if let Some((earlier, known)) = known.by(since)
            && position < known
        {
            findings.report(|| {
                format!(
                    "the position of {who} was {position} in line {line}, but known to be {known} \
                     in line {earlier}, without a seek"
                )
            });
        }
    }
}

/// The positions that clients knew.
fn known_positions(consumer: &Consumer<'_>) -> Known {
    let mut known: Vec<_> =
        consumer.accepted().map(|(line, commit)| (line, commit.position)).collect();
    known.extend(consumer.attached().iter().map(|attached| (attached.line, attached.position)));
    for stream in consumer.streams.iter().filter(|stream| !stream.manual) {
        known.extend(stream.delivered().map(|(line, piece)| (line, piece.end())));
    }
    Known::of(known)
}

#[cfg(test)]
mod tests {
    use crate::check::story::Story;

    /// A consumer whose committed position is 10.
    fn committed() -> Story {
        let mut story = Story::new();
        story.publish_at("p", 0, 20, 0);
        story.table(0, 20, &[(0, "p", 0, 20)]);
        let stream = story.consume("c", true);
        story.attached(stream, 0, 1);
        story.delivered(stream, &[(0, "p", 0, 20)]);
        story.position("c", 0, 1);
        story.commit_accepted("c", 1, 10);
        story
    }

    #[test]
    fn rising_positions_pass() {
        let mut story = committed();
        story.position("c", 10, 1);
        story.commit("c", 1, 12);
        story.position("c", 12, 2);
        let stream = story.consume("c", true);
        story.attached(stream, 12, 3);
        story.assert_clean();
    }

    #[test]
    fn a_row_may_have_been_read_before_the_answer() {
        let mut story = committed();
        story.position("c", 0, 1);
        story.assert_clean();
        story.position("c", 0, 1);
        story.assert_only(
            "C7",
            "the position of consumer c on t was 0 in line 11, but known to be 10",
        );
    }

    #[test]
    fn a_position_beyond_the_head_is_found() {
        let mut story = committed();
        story.position("c", 21, 1);
        story.assert_only("C7", "the position of consumer c on t was 21, and the head is 20");
    }

    #[test]
    fn a_floor_that_goes_back_is_found() {
        let mut story = committed();
        story.position("s", 15, 1);
        story.position("s", 15, 2);
        story.position("s", 14, 3);
        story.assert_only("C7", "the position of consumer s on t was 15 in line 11 and 14 in line");
    }

    #[test]
    fn a_row_that_goes_back_is_found() {
        let mut story = committed();
        story.position("c", 15, 1);
        story.position("c", 12, 1);
        story.assert_only("C7", "was 15 in line 10 and 12 in line 11, without a seek");
    }

    #[test]
    fn a_seek_may_move_a_row_back() {
        let mut story = committed();
        story.position("c", 15, 1);
        let seek = story.seek("c");
        story.position("c", 3, 2);
        story.sought(seek, 3);
        story.assert_clean();
        // By now the seek is over.
        story.position("c", 3, 2);
        story.position("c", 3, 2);
        story.position("c", 2, 2);
        story.assert_only("C7", "was 3 in line 15 and 2 in line 16, without a seek");
    }

    #[test]
    fn a_seek_of_unknown_outcome_excuses_forever_and_a_refused_one_never() {
        for (refused, clean) in [(false, true), (true, false)] {
            let mut story = committed();
            let seek = story.seek("c");
            match refused {
                true => story.refused(seek),
                false => story.unknown(seek),
            }
            story.position("c", 15, 1);
            story.position("c", 3, 2);
            match clean {
                true => story.assert_clean(),
                false => story.assert_finds("C7", "was 15 in line 12 and 3 in line 13"),
            }
        }
    }

    #[test]
    fn a_seek_of_another_consumer_is_no_excuse() {
        let mut story = committed();
        story.position("c", 15, 1);
        story.seek("d");
        story.position("c", 12, 1);
        story.assert_only("C7", "without a seek");
    }

    #[test]
    fn an_epoch_that_goes_back_is_found() {
        let mut story = committed();
        story.seek("c");
        story.position("c", 10, 3);
        story.position("c", 10, 2);
        story.assert_only("C7", "the epoch of consumer c on t was 3 in line 11 and 2 in line 12");
    }

    #[test]
    fn a_stream_that_attaches_behind_a_commit_is_found() {
        let mut story = committed();
        let stream = story.consume("c", true);
        story.attached(stream, 9, 2);
        story.assert_finds("C7", "was 9 in line 11, but known to be 10 in line 9, without a seek");
    }

    #[test]
    fn a_stream_that_attaches_behind_delivered_messages_is_found() {
        let mut story = committed();
        let stream = story.consume("auto", false);
        story.attached(stream, 0, 1);
        story.delivered(stream, &[(0, "p", 0, 20)]);
        let stream = story.consume("auto", false);
        story.attached(stream, 19, 2);
        story.assert_only("C7", "the position of consumer auto on t was 19 in line 14, but known");
    }

    #[test]
    fn after_a_seek_a_stream_may_attach_anywhere() {
        let mut story = committed();
        let seek = story.seek("c");
        story.sought(seek, 5);
        let stream = story.consume("c", true);
        story.attached(stream, 5, 3);
        story.assert_clean();
    }

    #[test]
    fn a_row_from_before_a_seek_may_be_noted_after_it() {
        let mut story = committed();
        let seek = story.seek("c");
        story.sought(seek, 3);
        story.position("c", 15, 1);
        story.position("c", 3, 2);
        story.assert_clean();
    }

    #[test]
    fn a_later_seek_is_no_excuse() {
        let mut story = committed();
        story.position("c", 15, 1);
        story.position("c", 12, 1);
        story.seek("c");
        story.assert_only("C7", "without a seek");
    }
}
