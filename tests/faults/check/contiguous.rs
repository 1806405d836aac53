//! C6: a stream is contiguous: messages come offset by offset from where it attached or a seek
//! moved it, and removed messages are reported as gaps.

use crate::history::{Run, What};

use super::{findings::Findings, index::Index, operations::Stream};

pub fn streams_are_contiguous(index: &Index<'_>, findings: &mut Findings) {
    for stream in index.consumers.values().flat_map(|consumer| &consumer.streams) {
        follow(stream, findings);
    }
}

fn follow(stream: &Stream<'_>, findings: &mut Findings) {
    let Stream { op, topic, consumer, .. } = stream;
    let who = || format!("the stream of operation {op}, of consumer {consumer} on {topic},");
    let mut next = None;
    for (line, frame) in &stream.frames {
        if let Some(ended) = stream.ended.filter(|ended| ended < line) {
            findings.report(|| {
                format!("{} ended in line {ended}, and continued in line {line}", who())
            });
        }
        let (first, end) = match frame {
            What::Attached { position, .. } | What::Repositioned { position, .. } => {
                let attaches = matches!(frame, What::Attached { .. });
                if attaches && next.is_some() {
                    findings.report(|| format!("{} attached again in line {line}", who()));
                }
                if !attaches && next.is_none() {
                    findings.report(|| {
                        format!("{} was moved without being attached in line {line}", who())
                    });
                }
                next = Some(*position);
                continue;
            }
            What::Delivered { runs } => {
                if let Some((end, next)) = break_in(runs) {
                    findings.report(|| {
                        format!("{} got offset {next} after {} in line {line}", who(), end - 1)
                    });
                }
                let (Some(first), Some(last)) = (runs.first(), runs.last()) else { continue };
                (first.offset, last.end())
            }
            What::Gap { from, to } => {
                if to < from {
                    findings.report(|| format!("{} has a backward gap in line {line}", who()));
                }
                (*from, *to)
            }
            _ => continue,
        };
        match next {
            None => findings.report(|| {
                format!("{} got offset {first} in line {line} without being attached", who())
            }),
            Some(next) if next != first => findings.report(|| {
                format!("{} was at offset {next} and continued at {first} in line {line}", who())
            }),
            Some(_) => {}
        }
        next = Some(end);
    }
}

/// Where the runs of a frame do not follow each other.
fn break_in(runs: &[Run]) -> Option<(i64, i64)> {
    let pairs = runs.windows(2).map(|pair| (pair[0].end(), pair[1].offset));
    pairs.into_iter().find(|(end, next)| end != next)
}

#[cfg(test)]
mod tests {
    use crate::check::story::Story;

    /// 20 messages, and a stream that attached at offset 5.
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
    fn contiguous_frames_pass() {
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
    fn a_stream_that_starts_elsewhere_than_it_attached_is_found() {
        let (mut story, stream) = attached();
        story.delivered(stream, &[(6, "p", 6, 1)]);
        assert_only(story, "operation 2, of consumer c on t, was at offset 5 and continued at 6");
    }

    #[test]
    fn a_missing_frame_is_found() {
        let (mut story, stream) = attached();
        story.delivered(stream, &[(5, "p", 5, 1)]);
        story.delivered(stream, &[(7, "p", 7, 1)]);
        assert_only(story, "was at offset 6 and continued at 7 in line 6");
    }

    #[test]
    fn a_hole_within_a_frame_is_found() {
        let (mut story, stream) = attached();
        story.delivered(stream, &[(5, "p", 5, 1), (7, "p", 7, 1)]);
        assert_only(story, "got offset 7 after 5 in line 5");
    }

    #[test]
    fn a_gap_that_starts_elsewhere_is_found() {
        let (mut story, stream) = attached();
        story.gap(stream, 6, 7);
        assert_only(story, "was at offset 5 and continued at 6");
    }

    #[test]
    fn a_backward_gap_is_found() {
        let (mut story, stream) = attached();
        story.gap(stream, 5, 4);
        assert_only(story, "has a backward gap in line 5");
    }

    #[test]
    fn a_stream_that_continues_elsewhere_than_a_seek_moved_it_is_found() {
        let (mut story, stream) = attached();
        let seek = story.seek("c");
        story.repositioned(stream, 15, 2);
        story.sought(seek, 15);
        story.delivered(stream, &[(5, "p", 5, 1)]);
        assert_only(story, "was at offset 15 and continued at 5");
    }

    #[test]
    fn a_delivery_without_the_lease_is_found() {
        let (mut story, _) = attached();
        let stream = story.consume("d", false);
        story.delivered(stream, &[(0, "p", 0, 1)]);
        assert_only(story, "operation 3, of consumer d on t, got offset 0 in line 6 without");
    }

    #[test]
    fn a_stream_must_attach_once_and_first() {
        let (mut story, stream) = attached();
        story.attached(stream, 5, 2);
        assert_only(story, "attached again in line 5");
        let (mut story, _) = attached();
        let stream = story.consume("d", false);
        story.repositioned(stream, 5, 2);
        assert_only(story, "was moved without being attached in line 6");
    }

    #[test]
    fn a_stream_that_continues_after_its_end_is_found() {
        let (mut story, stream) = attached();
        story.left(stream);
        story.delivered(stream, &[(5, "p", 5, 1)]);
        assert_only(story, "ended in line 5, and continued in line 6");
    }
}
