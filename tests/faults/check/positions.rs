//! C7: a position never goes back but by a seek: nothing finds it behind where it was known to
//! stand before.

use std::collections::HashMap;

use super::{
    findings::Findings,
    index::{Consumer, Index},
    known::Known,
    operations::{Line, Look, Outcome, Position},
};

pub fn positions_go_back_by_seek_only(index: &Index<'_>, findings: &mut Findings) {
    for ((topic, name), consumer) in &index.consumers {
        let who = format!("consumer {name} on {topic}");
        looks_go_back_by_seek_only(&who, consumer, findings);
        nothing_finds_it_behind_what_is_known(&who, consumer, findings);
    }
}

fn looks_go_back_by_seek_only(who: &str, consumer: &Consumer<'_>, findings: &mut Findings) {
    let mut last: HashMap<&str, &Look<'_, Position>> = HashMap::new();
    for look in &consumer.looks {
        let Some(before) = last.insert(look.client, look) else { continue };
        let (was, is, lines) = (before.row, look.row, (before.line, look.line));
        if is.position < was.position && !was_sought(consumer, before.since, look.line) {
            findings.tell(|| {
                format!(
                    "the position of {who} was {} in line {} and {} in line {}, without a seek",
                    was.position, lines.0, is.position, lines.1
                )
            });
        }
        if is.epoch < was.epoch {
            findings.tell(|| {
                format!(
                    "the epoch of {who} was {} in line {} and {} in line {}",
                    was.epoch, lines.0, is.epoch, lines.1
                )
            });
        }
    }
}

/// Whether a seek may have moved the position after the line `since` and before `until`. The row
/// before may have been read long before its line: hence from where that read may have begun.
fn was_sought(consumer: &Consumer<'_>, since: Line, until: Line) -> bool {
    consumer.seeks.iter().any(|seek| {
        seek.invoked < until
            && match seek.outcome {
                Outcome::Done(line) => line > since,
                Outcome::Unknown => true,
                Outcome::Undone => false,
            }
    })
}

/// Until the first seek: a position that is found after a line is not behind what was known there.
fn nothing_finds_it_behind_what_is_known(
    who: &str,
    consumer: &Consumer<'_>,
    findings: &mut Findings,
) {
    let until = consumer.first_seek().unwrap_or(Line::MAX);
    let known = known_positions(consumer);
    let attached = consumer.attached().into_iter();
    let attached = attached.map(|attached| (attached.invoked, attached.line, attached.position));
    let looks = consumer.looks.iter().map(|look| (look.since, look.line, look.row.position));
    for (since, line, position) in attached.chain(looks).filter(|(_, line, _)| *line < until) {
        if let Some((earlier, known)) = known.by(since)
            && position < known
        {
            findings.tell(|| {
                format!(
                    "the position of {who} was {position} in line {line}, but known to be {known} \
                     in line {earlier}, without a seek"
                )
            });
        }
    }
}

/// What clients knew of a position.
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

    /// A consumer whose position is at 10 by commit.
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
    fn positions_go_on() {
        let mut story = committed();
        story.position("c", 10, 1);
        story.commit("c", 1, 12);
        story.position("c", 12, 2);
        let stream = story.consume("c", true);
        story.attached(stream, 12, 3);
        story.assert_clean();
    }

    #[test]
    fn the_row_may_have_been_read_before_the_answer() {
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
    fn a_row_goes_back() {
        let mut story = committed();
        story.position("c", 15, 1);
        story.position("c", 12, 1);
        story.assert_only("C7", "was 15 in line 10 and 12 in line 11, without a seek");
    }

    #[test]
    fn a_seek_moves_a_row_back() {
        let mut story = committed();
        story.position("c", 15, 1);
        let seek = story.seek("c");
        story.position("c", 3, 2);
        story.sought(seek, 3);
        story.assert_clean();
        // It is over by now.
        story.position("c", 3, 2);
        story.position("c", 3, 2);
        story.position("c", 2, 2);
        story.assert_only("C7", "was 3 in line 15 and 2 in line 16, without a seek");
    }

    #[test]
    fn a_seek_that_nobody_knows_of_excuses_for_ever_and_a_refused_one_never() {
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
    fn an_epoch_goes_back() {
        let mut story = committed();
        story.seek("c");
        story.position("c", 10, 3);
        story.position("c", 10, 2);
        story.assert_only("C7", "the epoch of consumer c on t was 3 in line 11 and 2 in line 12");
    }

    #[test]
    fn a_stream_attaches_behind_a_commit() {
        let mut story = committed();
        let stream = story.consume("c", true);
        story.attached(stream, 9, 2);
        story.assert_finds("C7", "was 9 in line 11, but known to be 10 in line 9, without a seek");
    }

    #[test]
    fn a_stream_attaches_behind_what_was_handed_out() {
        let mut story = committed();
        let stream = story.consume("auto", false);
        story.attached(stream, 0, 1);
        story.delivered(stream, &[(0, "p", 0, 20)]);
        let stream = story.consume("auto", false);
        story.attached(stream, 19, 2);
        story.assert_only("C7", "the position of consumer auto on t was 19 in line 14, but known");
    }

    #[test]
    fn after_a_seek_a_stream_attaches_anywhere() {
        let mut story = committed();
        let seek = story.seek("c");
        story.sought(seek, 5);
        let stream = story.consume("c", true);
        story.attached(stream, 5, 3);
        story.assert_clean();
    }

    #[test]
    fn a_row_from_before_a_seek_may_be_told_after_it() {
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
