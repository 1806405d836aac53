//! C14: exactly those messages are parked that workers rejected.

use crate::history::Verdict;

use super::{
    findings::Findings,
    index::Index,
    ranges::{missing, union},
    settlements::{Applied, settlements},
};

pub fn rejected_messages_are_parked(index: &Index<'_>, findings: &mut Findings) {
    for ((topic, name), consumer) in &index.consumers {
        let Some(stored) = &consumer.subscription else { continue };
        let rejected = || settlements(consumer).filter(|it| it.may_be(Verdict::Reject));
        let ranges = rejected().flat_map(|settled| &settled.settlement.ranges);
        let may_be = union(ranges.copied().collect());
        for (first, end) in stored.parked.iter().flat_map(|parked| missing(*parked, &may_be)) {
            findings.report(|| {
                format!(
                    "subscription {name} on {topic} has parked offsets {first} to {}, which nobody \
                     rejected",
                    end - 1
                )
            });
        }
        let log = index.topics.get(topic).and_then(|topic| topic.log.as_ref());
        // What retention removes from the log is not parked any more.
        let Some(log) = log else { continue };
        let parked = union(stored.parked.to_vec());
        for settled in rejected().filter(|settled| settled.applied == Applied::ToAll) {
            let kept = settled.settlement.ranges.iter();
            let kept = kept.map(|(first, end)| ((*first).max(log.first), *end));
            for (first, end) in kept.flat_map(|range| missing(range, &parked)) {
                findings.report(|| {
                    format!(
                        "operation {} rejected offsets {first} to {} of {topic}, which \
                         subscription {name} has not parked",
                        settled.op,
                        end - 1
                    )
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{check::story::Story, history::Verdict};

    /// Ten messages that were handed out. Those at offsets 3 and 4 were rejected, and the others
    /// acknowledged.
    fn rejected() -> Story {
        let mut story = Story::new();
        story.publish_at("p", 0, 10, 0);
        let work = story.work("s");
        story.handed(work, 1, &[(0, "p", 0, 10)]);
        story.settle_all("s", 1, (0, 3), Verdict::Acknowledge);
        story.settle_all("s", 1, (3, 5), Verdict::Reject);
        story.settle_all("s", 1, (5, 10), Verdict::Acknowledge);
        story
    }

    #[test]
    fn rejected_messages_pass_if_they_are_parked_or_removed() {
        let mut story = rejected();
        story.subscription("s", 10, &[(3, 5)], &[]);
        story.table(0, 10, &[(0, "p", 0, 10)]);
        story.assert_clean();
        for parked in [&[(3, 5)][..], &[(4, 5)]] {
            let mut story = rejected();
            let trim = story.trim(4);
            story.trimmed(trim, 4);
            story.subscription("s", 10, parked, &[]);
            story.table(4, 10, &[(4, "p", 4, 6)]);
            story.assert_clean();
        }
    }

    #[test]
    fn a_rejection_of_unknown_outcome_may_have_parked_its_messages() {
        for parked in [&[(0, 2)][..], &[(1, 2)]] {
            let mut story = Story::new();
            story.publish_at("p", 0, 3, 0);
            let work = story.work("s");
            story.handed(work, 1, &[(0, "p", 0, 2)]);
            let (one, other) = (
                story.settle("s", 1, (0, 2), Verdict::Reject),
                story.settle("s", 1, (0, 2), Verdict::Reject),
            );
            story.unknown(one);
            story.settled(other, 1);
            story.subscription("s", 0, parked, &[]);
            story.table(0, 3, &[(0, "p", 0, 3)]);
            story.assert_clean();
        }
    }

    #[test]
    fn a_rejected_message_that_is_not_parked_is_found() {
        let mut story = rejected();
        story.subscription("s", 3, &[(3, 4)], &[]);
        story.table(0, 10, &[(0, "p", 0, 10)]);
        story.assert_only("C14", "operation 4 rejected offsets 4 to 4 of t, which subscription s");
    }

    #[test]
    fn a_parked_message_that_nobody_rejected_is_found() {
        let mut story = rejected();
        let refused = story.settle("s", 1, (6, 7), Verdict::Reject);
        story.refused(refused);
        story.subscription("s", 10, &[(3, 5), (6, 7)], &[]);
        story.table(0, 10, &[(0, "p", 0, 10)]);
        story.assert_only("C14", "subscription s on t has parked offsets 6 to 6, which nobody");
    }
}
