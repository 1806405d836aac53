//! C13: no message of a subscription is lost: each one before its floor was acknowledged, is
//! parked, is to be delivered again, or was removed from the log.

use crate::history::Verdict;

use super::{
    findings::Findings,
    index::Index,
    ranges::{missing, union},
    settlements::settlements,
};

pub fn no_message_is_lost(index: &Index<'_>, findings: &mut Findings) {
    for ((topic, name), consumer) in &index.consumers {
        let Some(stored) = &consumer.subscription else { continue };
        let log = index.topics.get(topic).and_then(|topic| topic.log.as_ref());
        // A topic without a table is reported by another check.
        let Some(log) = log else { continue };
        // A rejection of unknown outcome that was made has parked its messages.
        let acknowledged = settlements(consumer)
            .filter(|settled| settled.may_be(Verdict::Acknowledge))
            .flat_map(|settled| &settled.settlement.ranges);
        let accounted = acknowledged.chain(stored.parked).chain(stored.retried).copied().collect();
        let start = consumer.start.unwrap_or(0).max(log.first);
        for (first, end) in missing((start, stored.floor), &union(accounted)) {
            findings.report(|| {
                format!(
                    "subscription {name} on {topic} has passed offsets {first} to {}, which nobody \
                     acknowledged, and which are neither parked nor to be delivered again",
                    end - 1
                )
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{check::story::Story, history::Verdict};

    /// Ten messages that were handed out, and the first five of which were acknowledged.
    fn half_acknowledged() -> Story {
        let mut story = Story::new();
        story.publish_at("p", 0, 10, 0);
        story.registered("s", 0);
        let work = story.work("s");
        story.handed(work, 1, &[(0, "p", 0, 10)]);
        story.left(work);
        story.settle_all("s", 1, (0, 5), Verdict::Acknowledge);
        story
    }

    #[test]
    fn acknowledged_parked_retried_and_outstanding_messages_are_not_lost() {
        let mut story = half_acknowledged();
        story.settle_all("s", 1, (5, 6), Verdict::Reject);
        story.settle_all("s", 1, (6, 7), Verdict::Retry { after_ms: None });
        let unknown = story.settle("s", 1, (7, 8), Verdict::Acknowledge);
        story.unknown(unknown);
        story.subscription("s", 8, &[(5, 6)], &[(6, 7)]);
        story.table(0, 10, &[(0, "p", 0, 10)]);
        story.assert_clean();
    }

    #[test]
    fn removed_messages_and_those_before_the_start_are_not_lost() {
        let mut story = half_acknowledged();
        let trim = story.trim(10);
        story.trimmed(trim, 10);
        story.subscription("s", 10, &[], &[]);
        story.table(10, 10, &[]);
        story.assert_clean();
        let mut story = Story::new();
        story.publish_at("p", 0, 10, 0);
        story.registered("s", 10);
        story.subscription("s", 10, &[], &[]);
        story.table(0, 10, &[(0, "p", 0, 10)]);
        story.assert_clean();
    }

    #[test]
    fn a_floor_beyond_what_nobody_acknowledged_is_found() {
        let mut story = half_acknowledged();
        story.subscription("s", 10, &[], &[]);
        story.table(0, 10, &[(0, "p", 0, 10)]);
        story.assert_only("C13", "subscription s on t has passed offsets 5 to 9, which nobody");
    }

    #[test]
    fn a_settlement_that_applied_to_nothing_is_no_excuse() {
        let mut story = half_acknowledged();
        let late = story.settle("s", 1, (5, 10), Verdict::Acknowledge);
        story.settled(late, 0);
        let refused = story.settle("s", 1, (5, 10), Verdict::Acknowledge);
        story.refused(refused);
        story.subscription("s", 6, &[], &[]);
        story.table(0, 10, &[(0, "p", 0, 10)]);
        story.assert_only("C13", "has passed offsets 5 to 5");
    }

    #[test]
    fn a_retried_message_that_is_forgotten_is_found() {
        let mut story = half_acknowledged();
        story.settle_all("s", 1, (5, 6), Verdict::Retry { after_ms: Some(5) });
        let reject = story.settle("s", 1, (6, 7), Verdict::Reject);
        story.unknown(reject);
        story.subscription("s", 7, &[], &[]);
        story.table(0, 10, &[(0, "p", 0, 10)]);
        story.assert_only("C13", "has passed offsets 5 to 6");
    }
}
