//! Seats: who waits for a consumer within a broker, and that nothing is left of those who went.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
};

use proptest::{collection::vec, prelude::*, sample::Index};
use tokio::sync::{oneshot, watch};

use crate::{
    broker::{
        lease::{
            queue::{Permit, Priority},
            registry::{Leases, Waiter},
        },
        notify::outbox::Outbox,
        testing::{at_once::try_at_once, by_hand::ByHand, check},
    },
    model::{ConsumerId, TopicName},
};

#[derive(Clone, Debug)]
enum Act {
    Sit(usize),
    LineUp(Index),
    Fetch(Index),
    /// A stream or a pull ends, wherever it was.
    Leave(Index),
    /// Another broker says that a lease is free.
    Freed(usize),
}

const CONSUMERS: [&str; 2] = ["billing", "shipping"];

/// A stream or a pull: what it has of a turn goes before its waiter.
struct Sitting {
    consumer: usize,
    turn: Option<Permit>,
    line: Option<oneshot::Receiver<Permit>>,
    waiter: Arc<Waiter>,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => (0..CONSUMERS.len()).prop_map(Act::Sit),
        3 => any::<Index>().prop_map(Act::LineUp),
        3 => any::<Index>().prop_map(Act::Fetch),
        2 => any::<Index>().prop_map(Act::Leave),
        1 => (0..CONSUMERS.len()).prop_map(Act::Freed),
    ]
}

pub(crate) fn leases() -> Arc<Leases> {
    Arc::new(Leases::new(watch::channel(None).1, Outbox::default()))
}

fn names(consumer: usize) -> (TopicName, ConsumerId) {
    (TopicName::stored("orders"), ConsumerId::stored(CONSUMERS[consumer]))
}

#[test]
fn all_who_sit_at_a_consumer_share_one_turn_and_the_last_one_takes_its_place_along() {
    check(256, vec(act(), 1..60), |acts| {
        let leases = leases();
        let mut sitting: Vec<Sitting> = Vec::new();
        for act in acts {
            match act {
                Act::Sit(consumer) => {
                    let (topic, name) = names(consumer);
                    let waiter = leases.waiter(&topic, &name);
                    let alone = sitting.iter().all(|other| other.consumer != consumer);
                    if alone {
                        // Nothing is left of who sat here before, not even a hint.
                        assert!(ByHand::new(waiter.released_elsewhere()).run().is_pending());
                        assert!(waiter.try_acquire().is_some());
                    }
                    sitting.push(Sitting { consumer, turn: None, line: None, waiter });
                }
                Act::Leave(index) if !sitting.is_empty() => {
                    drop(sitting.swap_remove(index.index(sitting.len())));
                }
                Act::LineUp(index) if !sitting.is_empty() => {
                    let one = index.get_mut(&mut sitting);
                    if one.turn.is_none() {
                        one.line = Some(one.waiter.enqueue(Priority::Normal));
                    }
                }
                Act::Fetch(index) if !sitting.is_empty() => {
                    let one = index.get_mut(&mut sitting);
                    if let Some(turn) = one.line.as_mut().and_then(|line| line.try_recv().ok()) {
                        (one.turn, one.line) = (Some(turn), None);
                    }
                }
                Act::Freed(consumer) => {
                    let (topic, name) = names(consumer);
                    leases.released_elsewhere(topic.clone(), name.clone());
                    let waiter = sitting.iter().find(|one| one.consumer == consumer);
                    if let Some(Sitting { waiter, .. }) = waiter {
                        assert_eq!(ByHand::new(waiter.released_elsewhere()).run(), Poll::Ready(()));
                    }
                }
                Act::Leave(_) | Act::LineUp(_) | Act::Fetch(_) => {}
            }
            let mut turns: HashMap<usize, usize> = HashMap::new();
            for one in sitting.iter().filter(|one| one.turn.is_some()) {
                *turns.entry(one.consumer).or_default() += 1;
            }
            assert!(turns.values().all(|&count| count == 1), "one turn at a time");
        }
    });
}

#[test]
fn an_entry_that_two_waiters_leave_at_once_is_forgotten() {
    let leases = Arc::new(Leases::new(watch::channel(None).1, Outbox::default()));
    let (topic, consumer) = (TopicName::stored("orders"), ConsumerId::stored("billing"));
    let left = AtomicUsize::new(0);
    let look = |_| {
        // A hint for nobody is kept by a slot that stayed.
        leases.released_elsewhere(topic.clone(), consumer.clone());
        let waiter = leases.waiter(&topic, &consumer);
        let stayed = ByHand::new(waiter.released_elsewhere()).run().is_ready();
        left.fetch_add(usize::from(stayed), Ordering::SeqCst);
    };
    try_at_once(|_| leases.waiter(&topic, &consumer), drop, look);
    assert_eq!(left.into_inner(), 0, "entries that stayed");
}
