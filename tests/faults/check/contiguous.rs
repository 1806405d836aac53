//! C6: a stream goes on where it stands: messages come offset by offset, from where it attached or a
//! seek put it, and what was removed is told.

use crate::history::{Run, What};

use super::{findings::Findings, index::Index, operations::Stream};

pub fn streams_go_on_where_they_stand(index: &Index<'_>, findings: &mut Findings) {
    for stream in index.consumers.values().flat_map(|consumer| &consumer.streams) {
        follow(stream, findings);
    }
}

fn follow(stream: &Stream<'_>, findings: &mut Findings) {
    let Stream { op, topic, consumer, .. } = stream;
    let who = || format!("the stream of operation {op}, of consumer {consumer} on {topic},");
    let mut stands = None;
    for (line, frame) in &stream.frames {
        if let Some(ended) = stream.ended.filter(|ended| ended < line) {
            findings
                .tell(|| format!("{} ended in line {ended}, and went on in line {line}", who()));
        }
        let (comes, goes_on) = match frame {
            What::Attached { position, .. } | What::Repositioned { position, .. } => {
                let attaches = matches!(frame, What::Attached { .. });
                if attaches && stands.is_some() {
                    findings.tell(|| format!("{} attached once more in line {line}", who()));
                }
                if !attaches && stands.is_none() {
                    findings.tell(|| format!("{} was moved unattached in line {line}", who()));
                }
                stands = Some(*position);
                continue;
            }
            What::Delivered { runs } => {
                if let Some((end, next)) = break_in(runs) {
                    findings.tell(|| {
                        format!("{} got offset {next} behind {} in line {line}", who(), end - 1)
                    });
                }
                let (Some(first), Some(last)) = (runs.first(), runs.last()) else { continue };
                (first.offset, last.end())
            }
            What::Gap { from, to } => {
                if to < from {
                    findings.tell(|| format!("{} has a gap that goes back in line {line}", who()));
                }
                (*from, *to)
            }
            _ => continue,
        };
        match stands {
            None => {
                findings.tell(|| format!("{} got offset {comes} in line {line}, unattached", who()))
            }
            Some(stands) if stands != comes => findings.tell(|| {
                format!("{} stood at offset {stands} and went on at {comes} in line {line}", who())
            }),
            Some(_) => {}
        }
        stands = Some(goes_on);
    }
}

/// Where runs that came together do not follow each other.
fn break_in(runs: &[Run]) -> Option<(i64, i64)> {
    let pairs = runs.windows(2).map(|pair| (pair[0].end(), pair[1].offset));
    pairs.into_iter().find(|(end, next)| end != next)
}

#[cfg(test)]
mod tests {
    use crate::check::story::Story;

    /// 20 messages, and a stream at offset 5.
    fn attached() -> (Story, u64) {
        let mut story = Story::new();
        story.publish_at("p", 0, 20, 0);
        let stream = story.consume("c", false);
        story.attached(stream, 5, 1);
        (story, stream)
    }

    fn assert_only(mut story: Story, words: &str) {
        story.table(0, 20, &[(0, "p", 0, 20)]);
        story.assert_only("C6", words);
    }

    #[test]
    fn frames_follow_each_other() {
        let (mut story, stream) = attached();
        story.delivered(stream, &[(5, "p", 5, 2), (7, "p", 7, 1)]);
        let trim = story.trim(10);
        story.delivered(stream, &[(8, "p", 8, 1)]);
        story.gap(stream, 9, 10);
        story.delivered(stream, &[(10, "p", 10, 1)]);
        story.trimmed(trim, 10);
        let seek = story.seek("c");
        story.repositioned(stream, 15, 2);
        story.sought(seek, 15);
        story.delivered(stream, &[(15, "p", 15, 1)]);
        story.left(stream);
        story.table(10, 20, &[(10, "p", 10, 10)]);
        story.assert_clean();
    }

    #[test]
    fn it_begins_elsewhere_than_it_attached() {
        let (mut story, stream) = attached();
        story.delivered(stream, &[(6, "p", 6, 1)]);
        assert_only(story, "operation 2, of consumer c on t, stood at offset 5 and went on at 6");
    }

    #[test]
    fn a_frame_is_missing() {
        let (mut story, stream) = attached();
        story.delivered(stream, &[(5, "p", 5, 1)]);
        story.delivered(stream, &[(7, "p", 7, 1)]);
        assert_only(story, "stood at offset 6 and went on at 7 in line 6");
    }

    #[test]
    fn a_frame_has_a_hole() {
        let (mut story, stream) = attached();
        story.delivered(stream, &[(5, "p", 5, 1), (7, "p", 7, 1)]);
        assert_only(story, "got offset 7 behind 5 in line 5");
    }

    #[test]
    fn a_gap_begins_elsewhere() {
        let (mut story, stream) = attached();
        story.gap(stream, 6, 7);
        assert_only(story, "stood at offset 5 and went on at 6");
    }

    #[test]
    fn a_gap_goes_back() {
        let (mut story, stream) = attached();
        story.gap(stream, 5, 4);
        assert_only(story, "has a gap that goes back in line 5");
    }

    #[test]
    fn it_goes_on_elsewhere_than_a_seek_put_it() {
        let (mut story, stream) = attached();
        let seek = story.seek("c");
        story.repositioned(stream, 15, 2);
        story.sought(seek, 15);
        story.delivered(stream, &[(5, "p", 5, 1)]);
        assert_only(story, "stood at offset 15 and went on at 5");
    }

    #[test]
    fn it_delivers_without_the_lease() {
        let (mut story, _) = attached();
        let stream = story.consume("d", false);
        story.delivered(stream, &[(0, "p", 0, 1)]);
        assert_only(story, "operation 3, of consumer d on t, got offset 0 in line 6, unattached");
    }

    #[test]
    fn it_attaches_once_and_first() {
        let (mut story, stream) = attached();
        story.attached(stream, 5, 2);
        assert_only(story, "attached once more in line 5");
        let (mut story, _) = attached();
        let stream = story.consume("d", false);
        story.repositioned(stream, 5, 2);
        assert_only(story, "was moved unattached in line 6");
    }

    #[test]
    fn it_goes_on_after_its_end() {
        let (mut story, stream) = attached();
        story.left(stream);
        story.delivered(stream, &[(5, "p", 5, 1)]);
        assert_only(story, "ended in line 5, and went on in line 6");
    }
}
