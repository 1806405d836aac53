//! How much a history tried, and with which outcomes.

use crate::history::Verdict;

use super::{
    attempts::Attempted,
    index::{Consumer, Index},
    kept, once,
    piece::Piece,
    settlements::{count, settlements},
};

/// Counts of operations, messages and faults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Operations that were started.
    pub operations: u64,
    /// Values with an acknowledged attempt.
    pub acknowledged: u64,
    /// Values without an acknowledged attempt, but with one of unknown outcome.
    pub unknown: u64,
    /// Values whose attempts all certainly failed.
    pub refused: u64,
    /// Unknown values that are in the tables.
    pub recovered: u64,
    /// Deliveries of messages to streams.
    pub delivered: u64,
    /// Acknowledged values that are not at the offset of the answer.
    pub lost: u64,
    /// Additional messages in the tables with the same value as another.
    pub duplicates: u64,
    /// Accepted commits.
    pub commits: u64,
    /// Deliveries of messages to workers of subscriptions.
    pub handed: u64,
    /// Messages that workers acknowledged, for certain.
    pub settled: u64,
    /// Leases that followed another one of the same consumer.
    pub take_overs: u64,
    /// Faults that were started.
    pub faults: u64,
}

impl Figures {
    pub(super) fn of(index: &Index<'_>) -> Self {
        let consumers = || index.consumers.values();
        let attempted = |which: fn(&Attempted) -> bool| -> u64 {
            let all = index.attempts.all.values().flatten();
            all.filter(|tried| which(tried)).map(Attempted::count).sum()
        };
        let streams = consumers().flat_map(|consumer| &consumer.streams);
        let delivered = streams.flat_map(|stream| stream.delivered());
        Self {
            operations: index.operations,
            acknowledged: attempted(|tried| tried.acknowledged > 0),
            unknown: attempted(Attempted::is_unknown),
            refused: attempted(Attempted::all_failed),
            recovered: count_recovered(index),
            delivered: delivered.map(|(_, piece)| piece.count as u64).sum(),
            lost: kept::count_lost(index),
            duplicates: once::count_duplicates(index),
            commits: consumers().map(|consumer| consumer.accepted().count() as u64).sum(),
            handed: consumers().map(count_handed).sum(),
            settled: consumers().map(count_settled).sum(),
            take_overs: consumers().map(|consumer| count_rises(consumer.attached())).sum(),
            faults: index.faults,
        }
    }
}

fn count_recovered(index: &Index<'_>) -> u64 {
    let mut recovered = 0;
    for ((topic, _), pieces) in &index.stored {
        let mut counted = i64::MIN;
        for piece in pieces {
            let from = piece.value.max(counted);
            counted = counted.max(piece.value_end());
            let new: Piece<'_> = piece.between(piece.offset_of(from), piece.end());
            let parts = index.attempts.parts(topic, new);
            let unknown = parts.filter(|(_, tried)| tried.is_some_and(Attempted::is_unknown));
            recovered += unknown.map(|(part, _)| part.count as u64).sum::<u64>();
        }
    }
    recovered
}

fn count_handed(consumer: &Consumer<'_>) -> u64 {
    let pieces = consumer.handed.iter().flat_map(|handed| handed.pieces());
    pieces.map(|piece| piece.count as u64).sum()
}

fn count_settled(consumer: &Consumer<'_>) -> u64 {
    let acknowledged = settlements(consumer)
        .filter(|settled| settled.is_final() && settled.settlement.verdict == Verdict::Acknowledge);
    acknowledged.map(|settled| count(&settled.settlement.ranges) as u64).sum()
}

fn count_rises(attached: Vec<super::operations::Attached>) -> u64 {
    let (mut highest, mut rises) = (None, 0);
    for attached in attached {
        rises += u64::from(highest.is_some_and(|highest| attached.epoch > highest));
        highest = highest.max(Some(attached.epoch));
    }
    rises
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::story::Story;

    #[test]
    fn everything_is_counted() {
        let mut story = Story::new();
        story.fault(true);
        let known = story.publish("p", 0, 10, None);
        let (unknown, again) = (story.publish("p", 10, 4, None), story.publish("p", 10, 4, None));
        let refused = story.publish("p", 14, 3, None);
        story.stored(known, 0);
        story.unknown(unknown);
        story.refused(refused);
        story.unknown(again);
        story.fault(false);
        for epoch in [1, 2, 3] {
            let stream = story.consume("c", true);
            story.attached(stream, 0, epoch);
            story.delivered(stream, &[(0, "p", 0, 10)]);
            story.left(stream);
        }
        story.commit_accepted("c", 3, 10);
        let work = story.work("s");
        story.handed(work, 1, &[(0, "p", 0, 6)]);
        story.left(work);
        story.settle_all("s", 1, (0, 3), Verdict::Acknowledge);
        story.settle_all("s", 1, (3, 4), Verdict::Reject);
        let lost = story.settle("s", 1, (4, 6), Verdict::Acknowledge);
        story.unknown(lost);
        story.table(0, 15, &[(0, "p", 0, 12), (12, "p", 10, 3)]);
        story.assert_clean();
        let figures = Figures {
            operations: 12,
            acknowledged: 10,
            unknown: 4,
            refused: 3,
            recovered: 3,
            delivered: 30,
            lost: 0,
            duplicates: 2,
            commits: 1,
            handed: 6,
            settled: 3,
            take_overs: 2,
            faults: 1,
        };
        assert_eq!(story.figures(), figures);
    }
}
