//! Which messages are settled, and how that is stored, compared with a set of offsets.

use std::collections::BTreeSet;

use proptest::{collection::vec, prelude::*};

use crate::{
    broker::{
        subscription::{changes::Changes, settled::Settled},
        testing::check,
    },
    model::{Offset, OffsetRange},
};

/// A few chunks: all offsets of the tests lie before it.
const END: i64 = 26_000;

fn range(start: i64, end: i64) -> OffsetRange {
    OffsetRange { start: Offset(start), end: Offset(end) }
}

/// Ranges of all sizes; many begin or end at the edge of a word or a chunk.
fn ranges() -> impl Strategy<Value = Vec<OffsetRange>> {
    let edge = |unit: i64| (0..END / unit).prop_map(move |number| number * unit);
    let place = prop_oneof![0..END, edge(64), edge(8_192)];
    let length = prop_oneof![6 => 0..3i64, 2 => 0..200i64, 1 => 0..12_000i64];
    let range = (place, length).prop_map(|(start, length)| range(start, (start + length).min(END)));
    vec(range, 0..60)
}

fn offsets(range: OffsetRange) -> impl Iterator<Item = i64> {
    range.start.0..range.end.0
}

/// The ranges of the offsets in a range that a condition holds for.
fn runs(within: OffsetRange, holds: impl Fn(i64) -> bool) -> Vec<OffsetRange> {
    let mut runs: Vec<OffsetRange> = Vec::new();
    for offset in offsets(within).filter(|offset| holds(*offset)) {
        match runs.last_mut() {
            Some(run) if run.end.0 == offset => run.end = Offset(offset + 1),
            _ => runs.push(range(offset, offset + 1)),
        }
    }
    runs
}

#[test]
fn settled_messages_are_those_before_the_floor_and_those_that_were_settled() {
    let start = prop_oneof![Just(0), 0..END, Just(8_192)];
    check(100, (start, ranges(), ranges()), |(start, ranges, probes)| {
        let mut settled = Settled::before(Offset(start));
        let mut model: BTreeSet<i64> = (0..start).collect();
        for range in ranges {
            let newly = offsets(range).filter(|offset| model.insert(*offset)).count();
            assert_eq!(settled.settle(range), newly, "settle {range}");
            let floor = (start..).find(|offset| !model.contains(offset)).unwrap();
            assert_eq!(settled.floor(), Offset(floor));
        }
        for probe in probes {
            let open: Vec<_> = settled.open(probe).collect();
            assert_eq!(open, runs(probe, |offset| !model.contains(&offset)), "open in {probe}");
            let next = (probe.start.0..).find(|offset| !model.contains(offset)).unwrap();
            assert_eq!(settled.next_open(probe.start), Offset(next));
        }
        let floor = settled.floor().0;
        let beyond: Vec<_> = settled.beyond_floor().collect();
        let end = model.last().map_or(floor, |last| (last + 1).max(floor));
        assert_eq!(beyond, runs(range(floor, end), |offset| model.contains(&offset)));
    });
}

#[test]
fn what_is_stored_is_read_back() {
    check(256, ranges(), |ranges| {
        let mut changes = Changes::default();
        ranges.iter().for_each(|range| changes.note(*range));
        let model: BTreeSet<i64> = ranges.iter().copied().flat_map(offsets).collect();
        let decoded = Changes::decode(&changes.encode()).expect("it is well-formed");
        assert_eq!(decoded, changes);
        // A run that spans chunks comes in a range for each.
        let noted: Vec<i64> = decoded.ranges().flat_map(offsets).collect();
        assert_eq!(noted, model.into_iter().collect::<Vec<_>>());
    });
}

#[test]
fn damaged_bytes_are_refused_or_read_as_something_else_and_nothing_worse() {
    check(
        512,
        (ranges(), vec((any::<prop::sample::Index>(), any::<u8>()), 0..4)),
        |(ranges, edits)| {
            let mut changes = Changes::default();
            ranges.iter().for_each(|range| changes.note(*range));
            let mut encoded = changes.encode();
            for (index, byte) in edits {
                let index = index.index(encoded.len());
                encoded[index] = byte;
            }
            if let Some(decoded) = Changes::decode(&encoded) {
                assert!(decoded.ranges().all(|range| range.start < range.end));
            }
            assert!(
                Changes::decode(&encoded[..encoded.len() / 2])
                    .is_none_or(|it| it.ranges().count() < 50_000)
            );
        },
    );
    for bad in [&[][..], &[2], &[1, 0], &[1, 0, 0], &[1, 0, 2, 0], &[1, 0, 3, 0, 9], &[1, 0xff]] {
        assert_eq!(Changes::decode(bad), None, "{bad:?}");
    }
}

#[test]
fn acknowledgements_in_order_take_next_to_nothing_and_scattered_ones_two_bytes_each() {
    let bytes_of = |acknowledged: &mut dyn Iterator<Item = i64>| {
        let mut changes = Changes::default();
        acknowledged.for_each(|offset| changes.note(range(offset, offset + 1)));
        changes.encode().len()
    };
    assert!(bytes_of(&mut (0..1_000)) < 20);
    // Every tenth message, in no pattern that a run could use.
    let scattered = bytes_of(&mut (0..1_000).map(|index| index * 10 + index * index % 7));
    assert!((1_000..=2_200).contains(&scattered), "{scattered}");
    assert!(bytes_of(&mut (0..1_000).map(|index| index * 2)) < 400);
}
