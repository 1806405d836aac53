//! The waiters for a consumer's lease within a broker: they share one permit, and leave nothing
//! behind.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
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
    model::{ConsumerId, ConsumerKey, TopicId, TopicName},
};

#[derive(Clone, Debug)]
enum Act {
    Join {
        consumer: usize,
    },
    Enqueue(Index),
    Receive(Index),
    /// A stream or a pull asks for the lease of this registration of its consumer.
    Ask {
        stream: Index,
        registration: i32,
    },
    /// A stream or a pull ends, at any stage.
    Leave(Index),
    /// Another broker notifies this one that it released a lease.
    Release {
        consumer: usize,
        registration: i32,
    },
}

const CONSUMERS: [&str; 2] = ["billing", "shipping"];

/// How often each may be registered anew.
const REGISTRATIONS: i32 = 2;

/// A stream or a pull. Its permit is dropped before its waiter.
struct Joined {
    consumer: usize,
    permit: Option<Permit>,
    granted: Option<oneshot::Receiver<Permit>>,
    waiter: Arc<Waiter>,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => (0..CONSUMERS.len()).prop_map(|consumer| Act::Join { consumer }),
        3 => any::<Index>().prop_map(Act::Enqueue),
        3 => any::<Index>().prop_map(Act::Receive),
        2 => any::<Index>().prop_map(Act::Leave),
        2 => (any::<Index>(), 0..REGISTRATIONS)
            .prop_map(|(stream, registration)| Act::Ask { stream, registration }),
        2 => (0..CONSUMERS.len(), 0..REGISTRATIONS)
            .prop_map(|(consumer, registration)| Act::Release { consumer, registration }),
    ]
}

fn leases() -> Arc<Leases> {
    Arc::new(Leases::new(watch::channel(None).1, Outbox::default()))
}

fn names(consumer: usize) -> (TopicName, ConsumerId) {
    (TopicName::stored("orders"), ConsumerId::stored(CONSUMERS[consumer]))
}

fn key(consumer: usize, registration: i32) -> ConsumerKey {
    let consumer = i32::try_from(consumer).unwrap() * REGISTRATIONS + registration;
    ConsumerKey { topic: TopicId(1), consumer }
}

#[test]
fn all_waiters_for_a_consumer_share_one_permit_and_the_last_one_removes_its_entry() {
    check(256, vec(act(), 1..60), |acts| {
        let leases = leases();
        let mut joined: Vec<Joined> = Vec::new();
        // The registration that the last of a consumer's waiters asked for.
        let mut asked: HashMap<usize, i32> = HashMap::new();
        for act in acts {
            match act {
                Act::Join { consumer } => {
                    let (topic, name) = names(consumer);
                    let waiter = leases.waiter(&topic, &name);
                    let is_first = joined.iter().all(|other| other.consumer != consumer);
                    if is_first {
                        // Earlier waiters left nothing behind, not even a notification.
                        assert!(ByHand::new(waiter.released_elsewhere()).run().is_pending());
                        assert!(waiter.try_acquire().is_some());
                    }
                    joined.push(Joined { consumer, permit: None, granted: None, waiter });
                }
                Act::Leave(index) if !joined.is_empty() => {
                    let Joined { consumer, .. } = joined.swap_remove(index.index(joined.len()));
                    if joined.iter().all(|other| other.consumer != consumer) {
                        asked.remove(&consumer);
                    }
                }
                Act::Enqueue(index) if !joined.is_empty() => {
                    let stream = index.get_mut(&mut joined);
                    if stream.permit.is_none() {
                        stream.granted = Some(stream.waiter.enqueue(Priority::Normal));
                    }
                }
                Act::Receive(index) if !joined.is_empty() => {
                    let stream = index.get_mut(&mut joined);
                    let granted = stream.granted.as_mut();
                    if let Some(permit) = granted.and_then(|granted| granted.try_recv().ok()) {
                        (stream.permit, stream.granted) = (Some(permit), None);
                    }
                }
                Act::Ask { stream, registration } if !joined.is_empty() => {
                    let Joined { consumer, waiter, .. } = stream.get(&joined);
                    waiter.listen_for(key(*consumer, registration));
                    asked.insert(*consumer, registration);
                }
                Act::Release { consumer, registration } => {
                    leases.released_elsewhere(key(consumer, registration));
                    let waiter = joined.iter().find(|stream| stream.consumer == consumer);
                    if let Some(Joined { waiter, .. }) = waiter {
                        let heard = ByHand::new(waiter.released_elsewhere()).run().is_ready();
                        assert_eq!(heard, asked.get(&consumer) == Some(&registration));
                    }
                }
                Act::Leave(_) | Act::Enqueue(_) | Act::Receive(_) | Act::Ask { .. } => {}
            }
            let mut permits: HashMap<usize, usize> = HashMap::new();
            for stream in joined.iter().filter(|stream| stream.permit.is_some()) {
                *permits.entry(stream.consumer).or_default() += 1;
            }
            assert!(permits.values().all(|&count| count == 1), "one permit at a time");
        }
        drop(joined);
        assert!(leases.is_empty());
    });
}

#[test]
fn an_entry_that_two_waiters_leave_at_once_is_removed() {
    let leases = leases();
    let (topic, consumer) = (TopicName::stored("orders"), ConsumerId::stored("billing"));
    let left_over = AtomicUsize::new(0);
    let join = |_| {
        let waiter = leases.waiter(&topic, &consumer);
        waiter.listen_for(key(0, 0));
        waiter
    };
    let check_entry = |_| {
        left_over.fetch_add(usize::from(!leases.is_empty()), Ordering::SeqCst);
    };
    try_at_once(join, drop, check_entry);
    assert_eq!(left_over.into_inner(), 0, "entries that stayed");
}
