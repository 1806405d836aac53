//! The batch cache, compared with a list of what it must hold.

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

/// How many messages the consecutive batches of each topic have.
const COUNTS: [usize; 12] = [1, 2, 1, 5, 1, 1, 3, 20, 1, 2, 1, 4];

#[derive(Clone, Debug)]
enum Act {
    /// A batch of a topic is added, which counts as so many bytes.
    Add {
        topic: i32,
        index: usize,
        bytes: usize,
    },
    From {
        topic: i32,
        from: i64,
        max_bytes: usize,
    },
    Remove {
        topic: i32,
    },
}

fn act() -> impl Strategy<Value = Act> {
    let topic = || 0..3i32;
    let bytes = || prop_oneof![8 => 1..1000usize, 2 => 0..LIMIT / 8, 1 => LIMIT / 3..2 * LIMIT];
    prop_oneof![
        6 => (topic(), 0..COUNTS.len(), bytes())
            .prop_map(|(topic, index, bytes)| Act::Add { topic, index, bytes }),
        6 => (topic(), -1..45i64, bytes())
            .prop_map(|(topic, from, max_bytes)| Act::From { topic, from, max_bytes }),
        1 => topic().prop_map(|topic| Act::Remove { topic }),
    ]
}

/// What must be cached, in the order in which it was added.
#[derive(Default)]
struct Model(VecDeque<Entry>);

struct Entry {
    topic: i32,
    batch: Arc<Batch>,
    bytes: usize,
}

impl Entry {
    fn is(&self, topic: i32, base: Offset) -> bool {
        self.topic == topic && self.batch.base == base
    }

    fn holds(&self, topic: i32, offset: Offset) -> bool {
        self.topic == topic && self.batch.base <= offset && offset < self.batch.end()
    }
}

impl Model {
    fn add(&mut self, topic: i32, batch: Arc<Batch>, bytes: usize) {
        self.0.retain(|entry| !entry.is(topic, batch.base));
        self.0.push_back(Entry { topic, batch, bytes });
        while self.0.iter().map(|entry| entry.bytes).sum::<usize>() > LIMIT {
            self.0.pop_front();
        }
    }

    fn from(&self, topic: i32, from: Offset, max_bytes: usize) -> Vec<Arc<Batch>> {
        let (mut found, mut next, mut bytes) = (Vec::new(), from, 0);
        while bytes < max_bytes
            && let Some(entry) = self.0.iter().find(|entry| entry.holds(topic, next))
        {
            next = entry.batch.end();
            bytes += entry.bytes / 2;
            found.push(entry.batch.clone());
        }
        found
    }
}

#[test]
fn batches_are_found_from_the_offset_asked_for_without_a_gap_and_within_the_memory_limit() {
    let mut base = Offset(0);
    let log = COUNTS.map(|count| {
        let next = Arc::new(batch(base, &vec![1; count]));
        base = next.end();
        next
    });
    check(256, vec(act(), 1..150), |acts| {
        let (mut cache, mut model) = (BatchCache::default(), Model::default());
        for act in acts {
            match act {
                Act::Add { topic, index, bytes } => {
                    let (before, batch) = (model.0.len(), &log[index]);
                    let was_cached = model.0.iter().any(|entry| entry.is(topic, batch.base));
                    let evicted = cache.add(TopicId(topic), batch.clone(), bytes).len();
                    model.add(topic, batch.clone(), bytes);
                    assert_eq!(evicted, before + 1 - model.0.len(), "cached before: {was_cached}");
                }
                Act::From { topic, from, max_bytes } => {
                    let found = cache.from(TopicId(topic), Offset(from), max_bytes);
                    let expected = model.from(topic, Offset(from), max_bytes);
                    let same = |(a, b): (&Arc<Batch>, &Arc<Batch>)| Arc::ptr_eq(a, b);
                    assert!(found.len() == expected.len() && found.iter().zip(&expected).all(same));
                }
                Act::Remove { topic } => {
                    let before = model.0.len();
                    model.0.retain(|entry| entry.topic != topic);
                    assert_eq!(cache.remove_topic(TopicId(topic)).len(), before - model.0.len());
                }
            }
        }
    });
}
