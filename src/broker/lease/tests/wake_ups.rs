//! Every place where a waiter or a lease's holder could miss a wake-up, tried at each await.

use std::{cell::RefCell, sync::Arc, task::Poll};

use tokio::sync::watch;

use crate::{
    broker::{
        lease::{
            queue::{Priority, WaitQueue},
            registry::Leases,
            state::LeaseState,
        },
        notify::outbox::{LeaseScope, Outbox},
        testing::by_hand::{ByHand, pause},
    },
    model::{ConsumerId, ConsumerKey, Epoch, Offset, TopicId, TopicName},
    storage::LeaseChange,
};

const READY: Poll<()> = Poll::Ready(());

fn leases() -> Arc<Leases> {
    Arc::new(Leases::new(watch::channel(None).1, Outbox::default()))
}

#[test]
fn the_permit_holder_notices_a_take_over_whenever_it_comes() {
    for waits_before in [false, true] {
        for abandons in [false, true] {
            let queue = Arc::new(WaitQueue::default());
            let _permit = queue.try_acquire().unwrap();
            let mut watch = ByHand::new(queue.take_over_waits());
            if waits_before {
                assert!(watch.run().is_pending());
            }
            let _take_over = queue.enqueue(Priority::TakeOver);
            if abandons {
                // Woken, but dropped before it ran: the next wait must see it.
                watch = ByHand::new(queue.take_over_waits());
            }
            assert_eq!(watch.run(), READY);
        }
    }
}

#[test]
fn a_take_over_that_was_abandoned_hides_no_later_one() {
    let queue = Arc::new(WaitQueue::default());
    let _permit = queue.try_acquire().unwrap();
    drop(queue.enqueue(Priority::TakeOver));
    let mut watch = ByHand::new(queue.take_over_waits());
    assert!(watch.run().is_pending());
    let _take_over = queue.enqueue(Priority::TakeOver);
    assert_eq!(watch.run(), READY);
}

#[test]
fn a_permit_reaches_the_next_stream_if_the_one_before_leaves_as_it_is_granted() {
    for leaves_before in [false, true] {
        let queue = Arc::new(WaitQueue::default());
        let permit = queue.try_acquire().unwrap();
        let mut first = ByHand::new(queue.enqueue(Priority::Normal));
        let mut second = ByHand::new(queue.enqueue(Priority::Normal));
        assert!(first.run().is_pending() && second.run().is_pending());
        if leaves_before {
            drop(first);
            drop(permit);
        } else {
            drop(permit);
            assert!(second.run().is_pending());
            drop(first);
        }
        assert!(second.run().is_ready());
    }
}

#[test]
fn a_release_by_another_broker_is_noticed_whenever_the_notification_comes() {
    let (topic, consumer) = (TopicName::stored("orders"), ConsumerId::stored("billing"));
    for waits_before in [false, true] {
        for abandons in [false, true] {
            let leases = leases();
            let waiter = leases.waiter(&topic, &consumer);
            // The lock is refused after that.
            let key = ConsumerKey { topic: TopicId(1), consumer: 2 };
            waiter.listen_for(key);
            let mut waiting = ByHand::new(waiter.released_elsewhere());
            if waits_before {
                assert!(waiting.run().is_pending());
            }
            leases.released_elsewhere(key);
            if abandons {
                waiting = ByHand::new(waiter.released_elsewhere());
            }
            assert_eq!(waiting.run(), READY);
        }
    }
}

#[test]
fn a_lease_to_check_is_found_whatever_the_keeper_is_doing() {
    // The step of the keeper at which the second lease is to be checked.
    for step in 0..6 {
        let leases = leases();
        let scope = |consumer| LeaseScope::Consumer(ConsumerKey { topic: TopicId(1), consumer });
        let found = RefCell::new(Vec::new());
        let mut keeper = ByHand::new(async {
            loop {
                // The wait is abandoned, as for a tick that comes first, and begun again.
                if let Poll::Ready(all) = ByHand::new(leases.next_scopes()).run() {
                    found.borrow_mut().extend(all);
                }
                let all = leases.next_scopes().await;
                pause().await;
                found.borrow_mut().extend(all);
                pause().await;
            }
        });
        leases.check_soon(scope(1));
        for now in 0..6 {
            if now == step {
                leases.check_soon(scope(2));
            }
            assert!(keeper.run().is_pending());
        }
        (0..6).for_each(|_| assert!(keeper.run().is_pending()));
        for consumer in [1, 2] {
            assert!(found.borrow().contains(&scope(consumer)), "{consumer}, at step {step}");
        }
    }
}

#[test]
fn a_commit_makes_room_whenever_it_comes() {
    // Before the committed position is read, before the wait, and during it.
    for step in 0..3 {
        let state = LeaseState::new(Epoch(1), Offset(0));
        let status = state.watch();
        let mut stream = ByHand::new(async {
            let known = state.committed();
            pause().await;
            if known == Offset(0) {
                // As `committed_beyond` does, without its looks.
                let mut status = status.clone();
                let _ = status.wait_for(|status| status.committed > known).await;
            }
        });
        for now in 0..3 {
            if now == step {
                state.record_stored(Epoch(1), Offset(5));
            }
            let ran = stream.run();
            assert_eq!(ran.is_ready(), now == step.max(1), "step {step}, now {now}");
            if ran.is_ready() {
                break;
            }
        }
    }
}

#[test]
fn a_seek_and_an_end_are_noticed_whenever_they_come() {
    let seek =
        LeaseChange { epoch: Epoch(2), position: Offset(3), taken: false, taker: String::new() };
    for change in [Some(seek), None] {
        for step in 0..4 {
            let state = LeaseState::new(Epoch(1), Offset(0));
            let status = state.watch();
            // As `event` does: the stream waits for other things too, and begins each wait again.
            let event = async || {
                let mut status = status.clone();
                let changed = status.wait_for(|now| now.ended.is_some() || now.epoch != Epoch(1));
                changed.await.map(drop).unwrap();
            };
            let mut stream = ByHand::new(async {
                loop {
                    if ByHand::new(event()).run().is_ready() {
                        return;
                    }
                    pause().await;
                    tokio::select! {
                        biased;
                        () = event() => return,
                        () = pause() => {}
                    }
                }
            });
            let mut ended = false;
            for now in 0..7 {
                if now == step {
                    state.observe(change.clone());
                }
                ended = ended || stream.run().is_ready();
                assert!(now >= step || !ended);
            }
            assert!(ended, "step {step}");
        }
    }
}
