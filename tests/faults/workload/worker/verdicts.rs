//! What a worker makes of messages: drawn at random, but some values are rejected by every worker.

use fastrand::Rng;
use trunkline::proto;

use crate::history::{Offsets, Run, Settlement, Verdict};

/// Values with this remainder are rejected, so that the end of a run shows what must be parked.
const REJECTED: i64 = 13;

/// One of this many values is rejected.
const REJECTED_OF: i64 = 97;

/// How many messages may share a verdict.
const LENGTHS: [i64; 4] = [1, 5, 50, 200];

/// Acknowledges a delivery, but for the values that are rejected.
pub(super) fn settle_all(delivery: i64, runs: &[Run]) -> Vec<Settlement> {
    settle(delivery, runs, || (i64::MAX, Some(Verdict::Acknowledge)))
}

/// Draws what becomes of a delivery, in any order. Messages that no settlement names are forgotten.
pub(super) fn settle_some(delivery: i64, runs: &[Run], rng: &mut Rng) -> Vec<Settlement> {
    let mut settlements = settle(delivery, runs, || {
        let length = LENGTHS[rng.usize(..LENGTHS.len())];
        let verdict = match rng.u8(..100) {
            0..2 => None,
            2..6 => {
                let after_ms = rng.bool().then(|| rng.i32(0..10));
                Some(Verdict::Retry { after_ms })
            }
            _ => Some(Verdict::Acknowledge),
        };
        (length, verdict)
    });
    rng.shuffle(&mut settlements);
    settlements
}

/// Splits settlements among at most this many calls.
pub(super) fn in_calls(
    settlements: &[Settlement],
    most: usize,
    rng: &mut Rng,
) -> Vec<Vec<Settlement>> {
    let calls = rng.usize(1..=most);
    let size = settlements.len().div_ceil(calls).max(1);
    settlements.chunks(size).map(<[Settlement]>::to_vec).collect()
}

/// A settlement as a broker gets it.
pub(super) fn encode(settlement: &Settlement) -> proto::Settlement {
    let mut encoded =
        proto::Settlement { delivery: settlement.delivery, ..proto::Settlement::default() };
    for &(first_offset, end_offset) in &settlement.ranges {
        match end_offset - first_offset {
            1 => encoded.offsets.push(first_offset),
            _ => encoded.ranges.push(proto::OffsetRange { first_offset, end_offset }),
        }
    }
    encoded.verdict = Some(match settlement.verdict {
        Verdict::Acknowledge => proto::settlement::Verdict::Acknowledge(proto::Acknowledge {}),
        Verdict::Retry { after_ms } => {
            let duration = |after_ms: i32| {
                let nanos = after_ms * 1_000_000;
                prost_types::Duration { seconds: 0, nanos }
            };
            proto::settlement::Verdict::Retry(proto::Retry { delay: after_ms.map(duration) })
        }
        Verdict::Reject => {
            let reason = format!("the remainder of its value by {REJECTED_OF} is {REJECTED}");
            proto::settlement::Verdict::Reject(proto::Reject { reason })
        }
    });
    encoded
}

/// Draws the length and the verdict of one part after the other. Values that are rejected are in a
/// settlement of their own.
fn settle(
    delivery: i64,
    runs: &[Run],
    mut draw: impl FnMut() -> (i64, Option<Verdict>),
) -> Vec<Settlement> {
    let (Some(first), Some(last)) = (runs.first(), runs.last()) else { return Vec::new() };
    let settlement = |ranges, verdict| Settlement { delivery, ranges, verdict };
    let rejected: Vec<Offsets> = runs.iter().flat_map(rejected).collect();
    let (mut settlements, mut next) = (Vec::new(), first.offset);
    for &(stop, after) in rejected.iter().chain([&(last.end(), last.end())]) {
        while next < stop {
            let (length, verdict) = draw();
            let end = next.saturating_add(length).min(stop);
            settlements.extend(verdict.map(|verdict| settlement(vec![(next, end)], verdict)));
            next = end;
        }
        next = after;
    }
    if !rejected.is_empty() {
        settlements.push(settlement(rejected, Verdict::Reject));
    }
    settlements
}

/// The offsets of the values of a run that are rejected.
fn rejected(run: &Run) -> impl Iterator<Item = Offsets> {
    let offsets = run.offset..run.end();
    let values = run.values.first..;
    offsets
        .zip(values)
        .filter(|(_, value)| value % REJECTED_OF == REJECTED)
        .map(|(offset, _)| (offset, offset + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Values;

    /// Values 5 to 14 and 13 to 22, of which those at the offsets 108 and 110 are rejected.
    fn runs() -> Vec<Run> {
        let run = |offset, first, count| {
            let values = Values { producer: "p".into(), first, count };
            Run { offset, values }
        };
        vec![run(100, 5, 10), run(110, 13, 10)]
    }

    #[test]
    fn everything_is_settled_once() {
        let settled = settle_all(7, &runs());
        let ranges = |verdict| -> Vec<Offsets> {
            let of_verdict = settled.iter().filter(|settlement| settlement.verdict == verdict);
            of_verdict.flat_map(|settlement| settlement.ranges.clone()).collect()
        };
        assert_eq!(ranges(Verdict::Acknowledge), [(100, 108), (109, 110), (111, 120)]);
        assert_eq!(ranges(Verdict::Reject), [(108, 109), (110, 111)]);
        assert!(settled.iter().all(|settlement| settlement.delivery == 7));
    }

    #[test]
    fn no_message_is_settled_twice_and_all_workers_reject_the_same_ones() {
        for seed in 0..100 {
            let settled = settle_some(7, &runs(), &mut Rng::with_seed(seed));
            let mut offsets: Vec<i64> = Vec::new();
            for Settlement { ranges, verdict, .. } in &settled {
                if *verdict == Verdict::Reject {
                    assert_eq!(*ranges, [(108, 109), (110, 111)]);
                }
                offsets.extend(ranges.iter().flat_map(|(first, end)| *first..*end));
            }
            let count = offsets.len();
            offsets.sort_unstable();
            offsets.dedup();
            assert_eq!(offsets.len(), count);
        }
    }
}
