//! Readers that read a log from the same offset.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicUsize, Ordering},
    task::{Context, Poll, Waker},
};

use proptest::{collection::vec, prelude::*, sample::Index};

use crate::{
    broker::{
        log::reads::{ReadPermit, SharedReads},
        testing::{at_once::try_at_once, by_hand::ByHand, check},
    },
    model::Offset,
};

#[derive(Clone, Debug)]
enum Act {
    /// A reader begins to read from an offset.
    Begin {
        offset: i64,
    },
    Run(Index),
    /// A reader goes: before it reads, while it waits, or after it has read.
    Leave(Index),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => (0..3i64).prop_map(|offset| Act::Begin { offset }),
        5 => any::<Index>().prop_map(Act::Run),
        3 => any::<Index>().prop_map(Act::Leave),
    ]
}

struct Reader<'a> {
    offset: i64,
    stage: Stage<'a>,
}

enum Stage<'a> {
    Beginning(ByHand<'a, Option<ReadPermit<'a>>>),
    Reading {
        _permit: ReadPermit<'a>,
    },
    /// Another reader has read.
    Waited,
}

impl Reader<'_> {
    fn is_beginning(&self) -> bool {
        matches!(self.stage, Stage::Beginning(_))
    }

    fn is_reading(&self) -> bool {
        matches!(self.stage, Stage::Reading { .. })
    }

    /// Runs; false if the reader is no further than before.
    fn run(&mut self) -> bool {
        let Stage::Beginning(beginning) = &mut self.stage else { return false };
        self.stage = match beginning.run() {
            Poll::Ready(Some(permit)) => Stage::Reading { _permit: permit },
            Poll::Ready(None) => Stage::Waited,
            Poll::Pending => return false,
        };
        true
    }
}

#[test]
fn one_reader_at_a_time_reads_from_an_offset_and_none_waits_for_ever() {
    check(256, vec(act(), 1..60), |acts| {
        let reads = SharedReads::default();
        let mut readers: Vec<Reader> = Vec::new();
        for act in acts {
            match act {
                Act::Begin { offset } => {
                    let beginning = ByHand::new(reads.begin(Offset(offset)));
                    readers.push(Reader { offset, stage: Stage::Beginning(beginning) });
                }
                Act::Run(index) if !readers.is_empty() => {
                    index.get_mut(&mut readers).run();
                }
                Act::Leave(index) if !readers.is_empty() => {
                    drop(readers.swap_remove(index.index(readers.len())));
                }
                Act::Run(_) | Act::Leave(_) => {}
            }
            let mut reading: HashMap<i64, usize> = HashMap::new();
            for reader in readers.iter().filter(|reader| reader.is_reading()) {
                *reading.entry(reader.offset).or_default() += 1;
            }
            assert!(reading.values().all(|&count| count == 1), "one at a time");
        }
        // As readers finish, all the others get on.
        while !readers.is_empty() {
            let before = readers.len();
            readers.retain(Reader::is_beginning);
            let ran = readers.iter_mut().filter_map(|reader| reader.run().then_some(())).count();
            assert!(ran > 0 || readers.len() < before, "{} wait for ever", readers.len());
        }
        assert_eq!(reads.under_way(), 0);
    });
}

#[test]
fn a_read_that_two_readers_leave_at_once_is_removed() {
    let reads = SharedReads::default();
    let left_over = AtomicUsize::new(0);
    let begin = |number| {
        // One thread's reader reads, and the other one waits for it.
        let mut beginning = Box::pin(reads.begin(Offset(number as i64)));
        let permit = beginning.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        (permit, beginning)
    };
    try_at_once(begin, drop, |_| left_over.store(reads.under_way(), Ordering::SeqCst));
    assert_eq!(left_over.into_inner(), 0, "entries that stayed");
}
