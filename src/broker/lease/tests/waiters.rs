//! The waiters for a consumer's lease within a broker: they share one permit, and leave nothing
//! behind.

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
    Join {
        consumer: usize,
    },
    Enqueue(Index),
    Receive(Index),
    /// A stream or a pull ends, at any stage.
    Leave(Index),
    /// Another broker notifies this one that it released a lease.
    Release {
        consumer: usize,
    },
}

const CONSUMERS: [&str; 2] = ["billing", "shipping"];

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
        1 => (0..CONSUMERS.len()).prop_map(|consumer| Act::Release { consumer }),
    ]
}

fn leases() -> Arc<Leases> {
    Arc::new(Leases::new(watch::channel(None).1, Outbox::default()))
}

fn names(consumer: usize) -> (TopicName, ConsumerId) {
    (TopicName::stored("orders"), ConsumerId::stored(CONSUMERS[consumer]))
}

#[test]
fn all_waiters_for_a_consumer_share_one_permit_and_the_last_one_removes_its_entry() {
    check(256, vec(act(), 1..60), |acts| {
        let leases = leases();
        let mut joined: Vec<Joined> = Vec::new();
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
                    drop(joined.swap_remove(index.index(joined.len())));
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
                Act::Release { consumer } => {
                    let (topic, name) = names(consumer);
                    leases.released_elsewhere(topic.clone(), name.clone());
                    let waiter = joined.iter().find(|stream| stream.consumer == consumer);
                    if let Some(Joined { waiter, .. }) = waiter {
                        assert_eq!(ByHand::new(waiter.released_elsewhere()).run(), Poll::Ready(()));
                    }
                }
                Act::Leave(_) | Act::Enqueue(_) | Act::Receive(_) => {}
            }
            let mut permits: HashMap<usize, usize> = HashMap::new();
            for stream in joined.iter().filter(|stream| stream.permit.is_some()) {
                *permits.entry(stream.consumer).or_default() += 1;
            }
            assert!(permits.values().all(|&count| count == 1), "one permit at a time");
        }
    });
}

#[test]
fn an_entry_that_two_waiters_leave_at_once_is_removed() {
    let leases = leases();
    let (topic, consumer) = (TopicName::stored("orders"), ConsumerId::stored("billing"));
    let left_over = AtomicUsize::new(0);
    let check_entry = |_| {
        // An entry that stayed would keep the notification.
        leases.released_elsewhere(topic.clone(), consumer.clone());
        let waiter = leases.waiter(&topic, &consumer);
        let stayed = ByHand::new(waiter.released_elsewhere()).run().is_ready();
        left_over.fetch_add(usize::from(stayed), Ordering::SeqCst);
    };
    try_at_once(|_| leases.waiter(&topic, &consumer), drop, check_entry);
    assert_eq!(left_over.into_inner(), 0, "entries that stayed");
}
