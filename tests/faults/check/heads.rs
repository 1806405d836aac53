//! C4: a topic's head and its floor only rise, and the floor no further than somebody asked, or than
//! the topic's limit allows.

use std::collections::{BTreeMap, HashMap};

use crate::history::What;

use super::{
    findings::Findings,
    index::{Index, Topic},
    known::Known,
    log::Log,
    operations::{Ends, Line, Look},
};

pub fn heads_and_floors_only_rise(index: &Index<'_>, findings: &mut Findings) {
    let mut known = known_heads(index);
    for (topic, contents) in &index.topics {
        let known = known.remove(topic).unwrap_or_default();
        looks_only_rise(topic, contents, &known, findings);
        let Some(Log { first, head, .. }) = &contents.log else { continue };
        let kept = contents.keeps.map_or(0, |keeps| head - keeps);
        let looked = contents.looks.iter().map(|Look { line, row, .. }| (row.head, *line));
        let highest =
            known.at_last().map(|(line, head)| (head, line)).into_iter().chain(looked).max();
        if let Some((seen, line)) = highest
            && seen > *head
        {
            findings.tell(|| {
                format!("the head of {topic} is {head}, but was known to be {seen} in line {line}")
            });
        }
        judge_floor(topic, contents, (*first, kept), findings);
    }
}

/// `kept` is from where on messages must be kept that nobody asked to remove.
fn judge_floor(
    topic: &str,
    contents: &Topic<'_>,
    (first, kept): (i64, i64),
    findings: &mut Findings,
) {
    let asked = contents.trims.iter().map(|trim| trim.before).max().unwrap_or(0).max(kept).max(0);
    if first > asked {
        findings.tell(|| {
            format!("the floor of {topic} is {first}, but nobody trimmed it beyond {asked}")
        });
    }
    let looked = contents.looks.iter().map(|look| (look.row.first, "line", look.line as u64));
    let trimmed =
        contents.trims.iter().filter_map(|trim| Some((trim.first?, "operation", trim.op)));
    if let Some((seen, kind, number)) = looked.chain(trimmed).max()
        && seen > first
    {
        findings
            .tell(|| format!("the floor of {topic} is {first}, but was {seen} in {kind} {number}"));
    }
}

/// What one client reads of the tables never goes back, nor behind what anybody knew before.
fn looks_only_rise(topic: &str, contents: &Topic<'_>, known: &Known, findings: &mut Findings) {
    let mut last: HashMap<&str, &Look<'_, Ends>> = HashMap::new();
    for look in &contents.looks {
        let Look { client, since, line, row } = look;
        if let Some(before) = last.insert(client, look)
            && (row.head < before.row.head || row.first < before.row.first)
        {
            findings.tell(|| {
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
            findings.tell(|| {
                format!(
                    "{client} found the head of {topic} at {} in line {line}, but it was known to \
                     be {head} in line {earlier}",
                    row.head
                )
            });
        }
    }
}

/// What clients were told of the topics' heads.
fn known_heads<'a>(index: &Index<'a>) -> BTreeMap<&'a str, Known> {
    let mut known: BTreeMap<&'a str, Vec<(Line, i64)>> = BTreeMap::new();
    for (publish, line, said) in index.acknowledged() {
        known.entry(publish.topic).or_default().push((line, said.end()));
    }
    for stream in index.consumers.values().flat_map(|consumer| &consumer.streams) {
        let told = stream.frames.iter().filter_map(|(line, frame)| match frame {
            What::Attached { head, .. } | What::CaughtUp { head } => Some((*line, *head)),
            What::Delivered { runs } => Some((*line, runs.last()?.end())),
            _ => None,
        });
        known.entry(stream.topic).or_default().extend(told);
    }
    known.into_iter().map(|(topic, told)| (topic, Known::of(told))).collect()
}

#[cfg(test)]
mod tests {
    use crate::{check::story::Story, history::What};

    fn published() -> Story {
        let mut story = Story::new();
        let publish = story.publish("p", 0, 20, None);
        story.ends(0, 0);
        story.ends(0, 20);
        story.stored(publish, 0);
        story
    }

    #[test]
    fn heads_and_floors_rise() {
        let mut story = published();
        let trim = story.trim(10);
        story.ends(10, 20);
        story.trimmed(trim, 10);
        story.ends(10, 20);
        story.table(10, 20, &[(10, "p", 10, 10)]);
        story.assert_clean();
    }

    #[test]
    fn a_head_goes_back() {
        let mut story = published();
        story.publish("p", 20, 10, None);
        story.ends(0, 30);
        story.ends(0, 20);
        story.table(0, 30, &[(0, "p", 0, 30)]);
        story.assert_only("C4", "looker found t from 0 to 20 in line 7, but from 0 to 30 before");
    }

    #[test]
    fn a_floor_goes_back() {
        let mut story = published();
        story.trim(10);
        story.ends(10, 20);
        story.ends(5, 20);
        story.table(10, 20, &[(10, "p", 10, 10)]);
        story.assert_only("C4", "looker found t from 5 to 20 in line 7, but from 10 to 20 before");
    }

    #[test]
    fn a_look_misses_what_was_acknowledged_before_it() {
        let mut story = Story::new();
        story.publish_at("p", 0, 20, 0);
        // May have been read before the answer.
        story.ends(0, 0);
        story.table(0, 20, &[(0, "p", 0, 20)]);
        story.assert_clean();
        story.ends(0, 0);
        story.assert_only("C4", "found the head of t at 0 in line 5, but it was known to be 20");
    }

    #[test]
    fn the_last_head_is_the_highest() {
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
    fn what_was_stored_and_handed_out_lies_before_the_head() {
        let mut story = published();
        let stream = story.consume("c", false);
        story.attached(stream, 0, 1);
        story.delivered(stream, &[(0, "p", 0, 20)]);
        story.table(0, 18, &[(0, "p", 0, 18)]);
        story.assert_finds("C4", "the head of t is 18, but was known to be 20");
    }

    #[test]
    fn nobody_trimmed_so_far() {
        let mut story = published();
        story.table(1, 20, &[(1, "p", 1, 19)]);
        story.assert_only("C4", "the floor of t is 1, but nobody trimmed it beyond 0");
        let mut story = published();
        story.trim(4);
        story.table(5, 20, &[(5, "p", 5, 15)]);
        story.assert_only("C4", "the floor of t is 5, but nobody trimmed it beyond 4");
    }

    #[test]
    fn what_was_trimmed_is_there_again() {
        let mut story = published();
        let trim = story.trim(4);
        story.trimmed(trim, 4);
        story.table(3, 20, &[(3, "p", 3, 17)]);
        story.assert_only("C4", "the floor of t is 3, but was 4 in operation 2");
    }

    #[test]
    fn a_limit_removes_what_is_beyond_it() {
        for (first, clean) in [(12, true), (13, false)] {
            let mut story = Story::new();
            story.keeps(8);
            story.publish_at("p", 0, 20, 0);
            story.table(first, 20, &[(first, "p", first, 20 - first)]);
            match clean {
                true => story.assert_clean(),
                false => {
                    story
                        .assert_only("C4", "the floor of t is 13, but nobody trimmed it beyond 12");
                }
            }
        }
    }
}
