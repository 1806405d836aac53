//! C15: what is settled stays settled: a message that was acknowledged or rejected is in no later
//! delivery, and a delivery's messages are settled once.
//!
//! Later deliveries have greater numbers, whichever broker hands them out. So it does not matter
//! which messages were on their way when a settlement was answered.

use std::{collections::BTreeMap, iter::zip};

use crate::history::Offsets;

use super::{
    findings::Findings,
    index::{Consumer, Index},
    operations::{Outcome, Settle},
    ranges::union,
    settlements::{Done, Settled, count, settlements},
};

pub fn settled_messages_stay_settled(index: &Index<'_>, findings: &mut Findings) {
    for ((topic, name), consumer) in &index.consumers {
        let who = format!("subscription {name} on {topic}");
        check_answers(&who, consumer, findings);
        check_each_delivery(&who, consumer, findings);
        check_later_deliveries(&who, consumer, findings);
    }
}

/// An answer has a number for each settlement, which applied to no more messages than it names.
fn check_answers(who: &str, consumer: &Consumer<'_>, findings: &mut Findings) {
    for Settle { op, settlements, applied, .. } in answered(consumer) {
        let (asked, answered) = (settlements.len(), applied.len());
        if asked != answered {
            findings.report(|| {
                format!("operation {op} on {who} has {answered} answers to {asked} settlements")
            });
        }
        for (settlement, applied) in zip(*settlements, *applied) {
            let named = count(&settlement.ranges);
            if !(0..=named).contains(&i64::from(*applied)) {
                findings.report(|| {
                    format!(
                        "operation {op} on {who} named {named} messages of delivery {}, and \
                         applied to {applied}",
                        settlement.delivery
                    )
                });
            }
        }
    }
}

/// All settlements of a delivery apply to no more messages than they name together.
fn check_each_delivery(who: &str, consumer: &Consumer<'_>, findings: &mut Findings) {
    let mut deliveries: BTreeMap<i64, (i64, Vec<Offsets>)> = BTreeMap::new();
    for settle in answered(consumer) {
        for (settlement, applied) in zip(settle.settlements, settle.applied) {
            let (sum, named) = deliveries.entry(settlement.delivery).or_default();
            *sum += i64::from(*applied);
            named.extend(&settlement.ranges);
        }
    }
    for (delivery, (sum, named)) in deliveries {
        let named = count(&union(named));
        if sum > named {
            findings.report(|| {
                format!(
                    "{sum} messages of delivery {delivery} of {who} were settled, of which only \
                     {named} were named: some were settled twice"
                )
            });
        }
    }
}

/// The requests that were answered.
fn answered<'c, 'a>(consumer: &'c Consumer<'a>) -> impl Iterator<Item = &'c Settle<'a>> {
    consumer.settles.iter().filter(|settle| matches!(settle.outcome, Outcome::Done(_)))
}

/// Goes through the deliveries in the order of their numbers.
fn check_later_deliveries(who: &str, consumer: &Consumer<'_>, findings: &mut Findings) {
    let mut handed: Vec<_> = consumer.handed.iter().collect();
    handed.sort_by_key(|handed| handed.delivery);
    let mut settled: Vec<_> = settlements(consumer).filter(Settled::is_final).collect();
    settled.sort_by_key(|settled| settled.settlement.delivery);
    let mut settled = settled.into_iter().peekable();
    let mut done = Done::default();
    for handed in handed {
        while let Some(earlier) = settled.next_if(|it| it.settlement.delivery < handed.delivery) {
            done.add(earlier);
        }
        let again = handed.pieces().flat_map(|piece| done.within((piece.offset, piece.end())));
        for ((first, end), earlier) in again {
            findings.report(|| {
                format!(
                    "{who} handed offsets {first} to {} out in delivery {} of line {}, although \
                     operation {} had settled them in delivery {}",
                    end - 1,
                    handed.delivery,
                    handed.line,
                    earlier.op,
                    earlier.settlement.delivery
                )
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{check::story::Story, history::Verdict};

    /// Ten messages that were handed out as delivery 5, and their table.
    fn handed() -> (Story, u64) {
        let mut story = Story::new();
        story.publish_at("p", 0, 10, 0);
        story.table(0, 10, &[(0, "p", 0, 10)]);
        let work = story.work("s");
        story.handed(work, 5, &[(0, "p", 0, 10)]);
        (story, work)
    }

    #[test]
    fn messages_that_are_not_settled_for_good_may_be_handed_out_again() {
        let (mut story, work) = handed();
        story.settle_all("s", 5, (0, 4), Verdict::Acknowledge);
        story.settle_all("s", 5, (4, 5), Verdict::Retry { after_ms: None });
        let unknown = story.settle("s", 5, (5, 7), Verdict::Acknowledge);
        story.unknown(unknown);
        let some = story.settle("s", 5, (7, 10), Verdict::Acknowledge);
        story.settled(some, 2);
        story.handed(work, 6, &[(4, "p", 4, 6)]);
        story.settle_all("s", 6, (4, 10), Verdict::Acknowledge);
        let late = story.settle("s", 5, (0, 10), Verdict::Acknowledge);
        story.settled(late, 0);
        story.assert_clean();
    }

    #[test]
    fn an_earlier_delivery_may_arrive_late() {
        let (mut story, work) = handed();
        story.settle_all("s", 5, (0, 10), Verdict::Acknowledge);
        story.handed(work, 4, &[(0, "p", 0, 10)]);
        story.assert_clean();
    }

    #[test]
    fn an_acknowledged_message_that_is_handed_out_again_is_found() {
        let (mut story, work) = handed();
        story.settle_all("s", 5, (0, 4), Verdict::Acknowledge);
        story.handed(work, 6, &[(3, "p", 3, 7)]);
        story.assert_only(
            "C15",
            "subscription s on t handed offsets 3 to 3 out in delivery 6 of line 8, although \
             operation 3 had settled them in delivery 5",
        );
    }

    #[test]
    fn a_rejected_message_that_is_handed_out_again_is_found() {
        let (mut story, work) = handed();
        story.settle_all("s", 5, (8, 9), Verdict::Reject);
        story.handed(work, 1 << 40, &[(0, "p", 0, 10)]);
        story.assert_only("C15", "handed offsets 8 to 8 out");
    }

    #[test]
    fn a_message_that_was_on_its_way_before_the_answer_is_found_too() {
        let (mut story, work) = handed();
        let settle = story.settle("s", 5, (0, 10), Verdict::Acknowledge);
        story.handed(work, 6, &[(0, "p", 0, 1)]);
        story.settled(settle, 10);
        story.assert_only("C15", "handed offsets 0 to 0 out");
    }

    #[test]
    fn two_acknowledgements_of_a_message_in_one_delivery_are_found() {
        let (mut story, _) = handed();
        story.settle_all("s", 5, (0, 6), Verdict::Acknowledge);
        let some = story.settle("s", 5, (5, 10), Verdict::Acknowledge);
        story.settled(some, 4);
        story.assert_clean();
        story.settle_all("s", 5, (9, 10), Verdict::Acknowledge);
        story.assert_only("C15", "11 messages of delivery 5 of subscription s on t were settled");
    }

    #[test]
    fn two_acknowledgements_of_a_message_in_two_deliveries_are_found() {
        let (mut story, work) = handed();
        story.handed(work, 6, &[(0, "p", 0, 10)]);
        story.settle_all("s", 5, (0, 1), Verdict::Acknowledge);
        story.settle_all("s", 6, (0, 1), Verdict::Acknowledge);
        story.assert_only("C15", "handed offsets 0 to 0 out in delivery 6");
    }

    #[test]
    fn an_answer_that_does_not_fit_its_settlements_is_found() {
        let (mut story, _) = handed();
        let settle = story.settle("s", 5, (0, 2), Verdict::Acknowledge);
        story.settled(settle, 3);
        story.assert_only("C15", "operation 3 on subscription s on t named 2 messages of");
        let (mut story, _) = handed();
        let settle = story.settle("s", 5, (0, 2), Verdict::Acknowledge);
        story.settled_each(settle, &[1, 1]);
        story.assert_only("C15", "has 2 answers to 1 settlements");
    }
}
