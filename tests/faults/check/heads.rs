//! C4: a topic's head and log start only rise, and the log start no further than a trim requested
//! or the topic's limit allows.

use std::collections::{BTreeMap, HashMap};

use crate::history::What;

use super::{
    findings::Findings,
    index::{Index, Topic},
    known::Known,
    log::Log,
    operations::{Line, LogEnds, RowRead},
};

pub fn log_ends_only_rise(index: &Index<'_>, findings: &mut Findings) {
    let mut known = known_heads(index);
    for (topic, contents) in &index.topics {
        let known = known.remove(topic).unwrap_or_default();
        row_reads_only_rise(topic, contents, &known, findings);
        let Some(Log { first, head, .. }) = &contents.log else { continue };
        let kept = contents.keeps.map_or(0, |keeps| head - keeps);
        let rows = contents.row_reads.iter().map(|RowRead { line, row, .. }| (row.head, *line));
        let highest =
            known.highest().map(|(line, head)| (head, line)).into_iter().chain(rows).max();
        if let Some((seen, line)) = highest
            && seen > *head
        {
            findings.report(|| {
                format!("the head of {topic} is {head}, but was known to be {seen} in line {line}")
            });
        }
        check_log_start(topic, contents, *first, kept, findings);
    }
}

/// `kept` is the first offset that must be kept unless it was trimmed.
fn check_log_start(
    topic: &str,
    contents: &Topic<'_>,
    first: i64,
    kept: i64,
    findings: &mut Findings,
) {
    let allowed = contents.trims.iter().map(|trim| trim.before).max().unwrap_or(0).max(kept).max(0);
    if first > allowed {
        findings.report(|| {
            format!("the log of {topic} starts at {first}, but was trimmed only to {allowed}")
        });
    }
    let rows = contents
        .row_reads
        .iter()
        .map(|row_read| (row_read.row.first, "line", row_read.line as u64));
    let trimmed =
        contents.trims.iter().filter_map(|trim| Some((trim.first?, "operation", trim.op)));
    if let Some((seen, kind, number)) = rows.chain(trimmed).max()
        && seen > first
    {
        findings.report(|| {
            format!(
                "the log of {topic} starts at {first}, but started at {seen} in {kind} {number}"
            )
        });
    }
}

/// The rows that one client reads never go back, nor behind what any client knew before.
fn row_reads_only_rise(topic: &str, contents: &Topic<'_>, known: &Known, findings: &mut Findings) {
    let mut last: HashMap<&str, &RowRead<'_, LogEnds>> = HashMap::new();
    for row_read in &contents.row_reads {
        let RowRead { client, since, line, row } = row_read;
        if let Some(before) = last.insert(client, row_read)
            && (row.head < before.row.head || row.first < before.row.first)
        {
            findings.report(|| {
                let (was, is, earlier) = (before.row, row, before.line);
                format!(
                    "{client} found {topic} from {} to {} in line {line}, but from {} to {} \
                     before, in line {earlier}",
                    is.first, is.head, was.first, was.head
                )
            });
        }
        if let Some((earlier, head)) = known.by(*since)
            && row.head < head
        {
            findings.report(|| {
                format!(
                    "{client} found the head of {topic} at {} in line {line}, but it was known to \
                     be {head} in line {earlier}",
                    row.head
                )
            });
        }
    }
}

/// The heads that clients were told, by topic.
fn known_heads<'a>(index: &Index<'a>) -> BTreeMap<&'a str, Known> {
    let mut known: BTreeMap<&'a str, Vec<(Line, i64)>> = BTreeMap::new();
    for (publish, line, stored) in index.acknowledged() {
        known.entry(publish.topic).or_default().push((line, stored.end()));
    }
    for stream in index.consumers.values().flat_map(|consumer| &consumer.streams) {
        let heads = stream.frames.iter().filter_map(|(line, frame)| match frame {
            What::Attached { head, .. } | What::CaughtUp { head } => Some((*line, *head)),
            What::Delivered { runs } => Some((*line, runs.last()?.end())),
            _ => None,
        });
        known.entry(stream.topic).or_default().extend(heads);
    }
    for ((topic, _), consumer) in &index.consumers {
        let ends = consumer.handed.iter().filter_map(|handed| {
            let end = handed.runs.last()?.end();
            Some((handed.line, end))
        });
        known.entry(topic).or_default().extend(ends);
    }
    known.into_iter().map(|(topic, heads)| (topic, Known::of(heads))).collect()
}

#[cfg(test)]
mod tests {
    use crate::{check::story::Story, history::What};

    fn published() -> Story {
        let mut story = Story::new();
        let publish = story.publish("p", 0, 20, None);
        story.log_ends(0, 0);
        story.log_ends(0, 20);
        story.stored(publish, 0);
        story
    }

    #[test]
    fn rising_log_ends_pass() {
        let mut story = published();
        let trim = story.trim(10);
        story.log_ends(10, 20);
        story.trimmed(trim, 10);
        story.log_ends(10, 20);
        story.table(10, 20, &[(10, "p", 10, 10)]);
        story.assert_clean();
    }

    #[test]
    fn a_head_that_goes_back_is_found() {
        let mut story = published();
        story.publish("p", 20, 10, None);
        story.log_ends(0, 30);
        story.log_ends(0, 20);
        story.table(0, 30, &[(0, "p", 0, 30)]);
        story.assert_only("C4", "observer found t from 0 to 20 in line 7, but from 0 to 30 before");
    }

    #[test]
    fn a_log_start_that_goes_back_is_found() {
        let mut story = published();
        story.trim(10);
        story.log_ends(10, 20);
        story.log_ends(5, 20);
        story.table(10, 20, &[(10, "p", 10, 10)]);
        story
            .assert_only("C4", "observer found t from 5 to 20 in line 7, but from 10 to 20 before");
    }

    #[test]
    fn a_row_behind_an_earlier_acknowledgement_is_found() {
        let mut story = Story::new();
        story.publish_at("p", 0, 20, 0);
        // This row may have been read before the answer.
        story.log_ends(0, 0);
        story.table(0, 20, &[(0, "p", 0, 20)]);
        story.assert_clean();
        story.log_ends(0, 0);
        story.assert_only("C4", "found the head of t at 0 in line 5, but it was known to be 20");
    }

    #[test]
    fn a_final_head_behind_an_earlier_one_is_found() {
        let attached = What::Attached { position: 0, head: 21, epoch: 1, seek_epoch: 0 };
        for frame in [attached, What::CaughtUp { head: 21 }] {
            let mut story = published();
            let stream = story.consume("c", false);
            story.frame(stream, frame);
            story.table(0, 20, &[(0, "p", 0, 20)]);
            story.assert_only("C4", "the head of t is 20, but was known to be 21 in line 6");
        }
    }

    #[test]
    fn a_head_before_delivered_messages_is_found() {
        let mut story = published();
        let stream = story.consume("c", false);
        story.attached(stream, 0, 1);
        story.delivered(stream, &[(0, "p", 0, 20)]);
        story.table(0, 18, &[(0, "p", 0, 18)]);
        story.assert_finds("C4", "the head of t is 18, but was known to be 20");
    }

    #[test]
    fn a_log_that_starts_after_every_trim_is_found() {
        let mut story = published();
        story.table(1, 20, &[(1, "p", 1, 19)]);
        story.assert_only("C4", "the log of t starts at 1, but was trimmed only to 0");
        let mut story = published();
        story.trim(4);
        story.table(5, 20, &[(5, "p", 5, 15)]);
        story.assert_only("C4", "the log of t starts at 5, but was trimmed only to 4");
    }

    #[test]
    fn trimmed_messages_that_reappear_are_found() {
        let mut story = published();
        let trim = story.trim(4);
        story.trimmed(trim, 4);
        story.table(3, 20, &[(3, "p", 3, 17)]);
        story.assert_only("C4", "the log of t starts at 3, but started at 4 in operation 2");
    }

    #[test]
    fn retention_may_remove_only_messages_over_the_limit() {
        for (first, clean) in [(12, true), (13, false)] {
            let mut story = Story::new();
            story.keeps(8);
            story.publish_at("p", 0, 20, 0);
            story.table(first, 20, &[(first, "p", first, 20 - first)]);
            match clean {
                true => story.assert_clean(),
                false => {
                    story
                        .assert_only("C4", "the log of t starts at 13, but was trimmed only to 12");
                }
            }
        }
    }
}
