//! Batches that are kept for a while.

use std::{collections::VecDeque, sync::Arc};

use proptest::{collection::vec, prelude::*};

use crate::{
    broker::{
        log::cache::BatchCache,
        testing::{check, log::batch},
    },
    model::{Batch, Offset, TopicId},
};

const LIMIT: usize = 128 * 1024 * 1024;

/// Batches of each topic that follow each other, by how many messages each has.
const COUNTS: [usize; 12] = [1, 2, 1, 5, 1, 1, 3, 20, 1, 2, 1, 4];

#[derive(Clone, Debug)]
enum Act {
    /// A batch of a topic comes in, which counts as so many bytes.
    Add(i32, usize, usize),
    From(i32, i64, usize),
    Forget(i32),
}

fn act() -> impl Strategy<Value = Act> {
    let topic = || 0..3i32;
    let bytes = || prop_oneof![8 => 1..1000usize, 2 => 0..LIMIT / 8, 1 => LIMIT / 3..2 * LIMIT];
    prop_oneof![
        6 => (topic(), 0..COUNTS.len(), bytes()).prop_map(|(t, index, bytes)| Act::Add(t, index, bytes)),
        6 => (topic(), -1..45i64, bytes()).prop_map(|(t, from, bytes)| Act::From(t, from, bytes)),
        1 => topic().prop_map(Act::Forget),
    ]
}

/// What is kept, the oldest first.
#[derive(Default)]
struct Kept(VecDeque<(i32, Arc<Batch>, usize)>);

impl Kept {
    fn add(&mut self, topic: i32, batch: Arc<Batch>, bytes: usize) {
        self.0.retain(|(of, kept, _)| (*of, kept.base) != (topic, batch.base));
        self.0.push_back((topic, batch, bytes));
        while self.0.iter().map(|(.., bytes)| bytes).sum::<usize>() > LIMIT {
            self.0.pop_front();
        }
    }

    fn from(&self, topic: i32, from: Offset, max_bytes: usize) -> Vec<Arc<Batch>> {
        let (mut found, mut next, mut bytes) = (Vec::new(), from, 0);
        let holds = |next| {
            move |(of, batch, _): &&(i32, Arc<Batch>, usize)| {
                *of == topic && batch.base <= next && next < batch.end()
            }
        };
        while bytes < max_bytes
            && let Some((_, batch, size)) = self.0.iter().find(holds(next))
        {
            next = batch.end();
            bytes += size / 2;
            found.push(batch.clone());
        }
        found
    }
}

#[test]
fn what_is_had_holds_the_asked_offset_and_follows_without_a_gap_within_the_memory_allowed() {
    let mut base = Offset(0);
    let log = COUNTS.map(|count| {
        let next = Arc::new(batch(base, &vec![1; count]));
        base = next.end();
        next
    });
    check(256, vec(act(), 1..150), |acts| {
        let (mut recent, mut kept) = (BatchCache::default(), Kept::default());
        for act in acts {
            match act {
                Act::Add(topic, index, bytes) => {
                    let before = kept.0.len();
                    let known = kept
                        .0
                        .iter()
                        .any(|(of, batch, _)| (*of, batch.base) == (topic, log[index].base));
                    let gone = recent.add(TopicId(topic), log[index].clone(), bytes).len();
                    kept.add(topic, log[index].clone(), bytes);
                    assert_eq!(gone, before + 1 - kept.0.len(), "known before: {known}");
                }
                Act::From(topic, from, max_bytes) => {
                    let found = recent.from(TopicId(topic), Offset(from), max_bytes);
                    // An asker for nothing gets nothing.
                    let expected = kept.from(topic, Offset(from), max_bytes);
                    let same = |(a, b): (&Arc<Batch>, &Arc<Batch>)| Arc::ptr_eq(a, b);
                    assert!(found.len() == expected.len() && found.iter().zip(&expected).all(same));
                }
                Act::Forget(topic) => {
                    let before = kept.0.len();
                    kept.0.retain(|(of, ..)| *of != topic);
                    assert_eq!(recent.remove_topic(TopicId(topic)).len(), before - kept.0.len());
                }
            }
        }
    });
}
