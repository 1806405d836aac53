//! Readers that come to the same place of a log.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicUsize, Ordering},
    task::{Context, Poll, Waker},
};

use proptest::{collection::vec, prelude::*, sample::Index};

use crate::{
    broker::{
        log::topics::{LogReader, ReadPermit},
        testing::{at_once::try_at_once, by_hand::ByHand, check},
    },
    model::Offset,
};

#[derive(Clone, Debug)]
enum Act {
    /// A reader comes to a place.
    Come(i64),
    Run(Index),
    /// A reader goes, before it read, while it waits, or having read.
    Leave(Index),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => (0..3i64).prop_map(Act::Come),
        5 => any::<Index>().prop_map(Act::Run),
        3 => any::<Index>().prop_map(Act::Leave),
    ]
}

enum Reader<'a> {
    Comes(ByHand<'a, Option<ReadPermit<'a>>>),
    Reads {
        _alone: ReadPermit<'a>,
    },
    /// Somebody else has read.
    Waited,
}

impl Reader<'_> {
    /// Runs; false if that led nowhere.
    fn run(&mut self) -> bool {
        let Self::Comes(coming) = self else { return false };
        match coming.run() {
            Poll::Ready(Some(_alone)) => *self = Self::Reads { _alone },
            Poll::Ready(None) => *self = Self::Waited,
            Poll::Pending => return false,
        }
        true
    }
}

#[test]
fn one_reads_a_place_at_a_time_and_nobody_waits_for_ever_and_nothing_stays() {
    check(256, vec(act(), 1..60), |acts| {
        let log = LogReader::of_messages(10);
        let mut readers: Vec<(i64, Reader)> = Vec::new();
        for act in acts {
            match act {
                Act::Come(place) => {
                    let reader = ByHand::new(log.begin_read(Offset(place)));
                    readers.push((place, Reader::Comes(reader)));
                }
                Act::Run(index) if !readers.is_empty() => {
                    index.get_mut(&mut readers).1.run();
                }
                Act::Leave(index) if !readers.is_empty() => {
                    drop(readers.swap_remove(index.index(readers.len())));
                }
                Act::Run(_) | Act::Leave(_) => {}
            }
            let mut reading: HashMap<i64, usize> = HashMap::new();
            for (place, _) in readers.iter().filter(|(_, one)| matches!(one, Reader::Reads { .. }))
            {
                *reading.entry(*place).or_default() += 1;
            }
            assert!(reading.values().all(|&count| count == 1), "one at a time");
        }
        // Whoever reads comes to an end, and then all the others do.
        while !readers.is_empty() {
            let before = readers.len();
            readers.retain(|(_, reader)| matches!(reader, Reader::Comes(_)));
            let ran =
                readers.iter_mut().filter_map(|(_, reader)| reader.run().then_some(())).count();
            assert!(ran > 0 || readers.len() < before, "{} wait for ever", readers.len());
        }
        assert_eq!(log.reads_under_way(), 0);
    });
}

#[test]
fn a_read_that_two_readers_leave_at_once_is_forgotten() {
    let log = LogReader::of_messages(10);
    let left = AtomicUsize::new(0);
    let come = |number| {
        // One reads, and the other waits for it.
        let mut coming = Box::pin(log.begin_read(Offset(number as i64)));
        let read = coming.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        (read, coming)
    };
    try_at_once(come, drop, |_| left.store(log.reads_under_way(), Ordering::SeqCst));
    assert_eq!(left.into_inner(), 0, "entries that stayed");
}
