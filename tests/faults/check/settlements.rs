//! What is known of the settlements of workers.

use std::collections::BTreeMap;

use crate::history::{Offsets, Settlement, Verdict};

use super::{
    index::Consumer,
    operations::{Outcome, Settle},
    ranges::missing,
};

/// A settlement, and what came of it.
#[derive(Clone, Copy, Debug)]
pub struct Settled<'a> {
    pub op: u64,
    pub settlement: &'a Settlement,
    pub applied: Applied,
}

/// To which of its messages a settlement applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    ToAll,
    ToNone,
    /// To any of them.
    Unknown,
}

impl Settled<'_> {
    /// Whether it may have had a verdict on its messages.
    pub fn may_be(&self, verdict: Verdict) -> bool {
        self.settlement.verdict == verdict && self.applied != Applied::ToNone
    }

    /// Whether its messages are certainly not to be delivered any more.
    pub fn is_final(&self) -> bool {
        let is_final = matches!(self.settlement.verdict, Verdict::Acknowledge | Verdict::Reject);
        is_final && self.applied == Applied::ToAll
    }
}

/// All settlements of a subscription.
pub fn settlements<'a>(consumer: &Consumer<'a>) -> impl Iterator<Item = Settled<'a>> {
    consumer.settles.iter().flat_map(|settle| {
        let each = settle.settlements.iter().enumerate();
        each.map(move |(number, settlement)| {
            let applied = applied(settle, number, count(&settlement.ranges));
            Settled { op: settle.op, settlement, applied }
        })
    })
}

fn applied(settle: &Settle<'_>, number: usize, named: i64) -> Applied {
    match (settle.outcome, settle.applied.get(number)) {
        (Outcome::NotDone, _) | (Outcome::Done(_), Some(0)) => Applied::ToNone,
        (Outcome::Done(_), Some(count)) if i64::from(*count) == named => Applied::ToAll,
        _ => Applied::Unknown,
    }
}

/// How many offsets there are in ranges that do not overlap.
pub fn count(ranges: &[Offsets]) -> i64 {
    ranges.iter().map(|(first, end)| end - first).sum()
}

/// Which messages are settled for good, and by which settlement.
#[derive(Default)]
pub struct Done<'a>(BTreeMap<i64, (i64, Settled<'a>)>);

impl<'a> Done<'a> {
    /// Adds a settlement. Messages that are settled already stay as they are.
    pub fn add(&mut self, settled: Settled<'a>) {
        for range in &settled.settlement.ranges {
            let known: Vec<_> = self.within(*range).into_iter().map(|(known, _)| known).collect();
            for (first, end) in missing(*range, &known) {
                self.0.insert(first, (end, settled));
            }
        }
    }

    /// The parts of a range that are settled, in order.
    pub fn within(&self, (first, end): Offsets) -> Vec<(Offsets, Settled<'a>)> {
        let before = self.0.range(..end).rev();
        let parts = before.take_while(|(_, (until, _))| first < *until);
        let mut parts: Vec<_> = parts
            .map(|(from, (until, settled))| ((first.max(*from), end.min(*until)), *settled))
            .collect();
        parts.reverse();
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{index::Index, story::Story};

    #[test]
    fn the_answer_says_to_which_messages_a_settlement_applied() {
        let mut story = Story::new();
        for applied in [Some(3), Some(2), Some(0), None] {
            let settle = story.settle("s", 1, (0, 3), Verdict::Acknowledge);
            if let Some(applied) = applied {
                story.settled(settle, applied);
            }
        }
        let settle = story.settle("s", 1, (0, 3), Verdict::Acknowledge);
        story.refused(settle);
        let index = Index::of(story.events());
        let applied = settlements(&index.consumers[&("t", "s")]).map(|settled| settled.applied);
        let expected =
            [Applied::ToAll, Applied::Unknown, Applied::ToNone, Applied::Unknown, Applied::ToNone];
        assert_eq!(applied.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn what_is_settled_first_stays() {
        let settlement = |first, end| Settlement {
            delivery: first,
            ranges: vec![(first, end)],
            verdict: Verdict::Acknowledge,
        };
        let (one, two, three) = (settlement(5, 10), settlement(20, 30), settlement(0, 25));
        let mut done = Done::default();
        for settlement in [&one, &two, &three] {
            done.add(Settled { op: 1, settlement, applied: Applied::ToAll });
        }
        let within: Vec<_> = done
            .within((7, 22))
            .into_iter()
            .map(|(range, settled)| (range, settled.settlement.delivery))
            .collect();
        assert_eq!(within, [((7, 10), 5), ((10, 20), 0), ((20, 22), 20)]);
        assert!(done.within((30, 40)).is_empty());
    }
}
