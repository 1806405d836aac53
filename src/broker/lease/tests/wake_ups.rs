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
fn somebody_urgent_is_heard_of_whenever_they_come() {
    for waits_before in [false, true] {
        for gives_up in [false, true] {
            let turns = Arc::new(WaitQueue::default());
            let _turn = turns.try_acquire().unwrap();
            let mut asking = ByHand::new(turns.take_over_waits());
            if waits_before {
                assert!(asking.run().is_pending());
            }
            let _urgent = turns.enqueue(Priority::TakeOver);
            if gives_up {
                // Woken, and dropped before it ran: the next one is told.
                asking = ByHand::new(turns.take_over_waits());
            }
            assert_eq!(asking.run(), READY);
        }
    }
}

#[test]
fn a_permit_left_by_somebody_who_went_hides_nobody_who_comes_later() {
    let turns = Arc::new(WaitQueue::default());
    let _turn = turns.try_acquire().unwrap();
    drop(turns.enqueue(Priority::TakeOver));
    let mut asking = ByHand::new(turns.take_over_waits());
    assert!(asking.run().is_pending());
    let _urgent = turns.enqueue(Priority::TakeOver);
    assert_eq!(asking.run(), READY);
}

#[test]
fn a_turn_reaches_the_next_in_line_though_the_one_before_goes_when_it_is_granted() {
    for goes_before in [false, true] {
        let turns = Arc::new(WaitQueue::default());
        let turn = turns.try_acquire().unwrap();
        let mut first = ByHand::new(turns.enqueue(Priority::Normal));
        let mut second = ByHand::new(turns.enqueue(Priority::Normal));
        assert!(first.run().is_pending() && second.run().is_pending());
        if goes_before {
            drop(first);
            drop(turn);
        } else {
            drop(turn);
            assert!(second.run().is_pending());
            drop(first);
        }
        assert!(second.run().is_ready());
    }
}

#[test]
fn a_lease_that_another_broker_gave_back_is_heard_of_whenever_the_word_comes() {
    let names = (TopicName::stored("orders"), ConsumerId::stored("billing"));
    for waits_before in [false, true] {
        for gives_up in [false, true] {
            let leases = leases();
            // The lock was refused by now.
            let waiter = leases.waiter(&names.0, &names.1);
            let mut waiting = ByHand::new(waiter.released_elsewhere());
            if waits_before {
                assert!(waiting.run().is_pending());
            }
            leases.released_elsewhere(names.0.clone(), names.1.clone());
            if gives_up {
                waiting = ByHand::new(waiter.released_elsewhere());
            }
            assert_eq!(waiting.run(), READY);
        }
    }
}

#[test]
fn whoever_is_next_scopes_is_found_whatever_the_keeper_does_then() {
    // At which of the keeper's steps the second one is looked for.
    for step in 0..6 {
        let leases = leases();
        let whose = |consumer| LeaseScope::Consumer(ConsumerKey { topic: TopicId(1), consumer });
        let found = RefCell::new(Vec::new());
        let mut keeper = ByHand::new(async {
            loop {
                // Given up for a tick that comes first, and waited for anew.
                if let Poll::Ready(all) = ByHand::new(leases.next_scopes()).run() {
                    found.borrow_mut().extend(all);
                }
                let all = leases.next_scopes().await;
                pause().await;
                found.borrow_mut().extend(all);
                pause().await;
            }
        });
        leases.check_soon(whose(1));
        for now in 0..6 {
            if now == step {
                leases.check_soon(whose(2));
            }
            assert!(keeper.run().is_pending());
        }
        (0..6).for_each(|_| assert!(keeper.run().is_pending()));
        for consumer in [1, 2] {
            assert!(found.borrow().contains(&whose(consumer)), "{consumer}, at step {step}");
        }
    }
}

#[test]
fn a_commit_makes_room_whenever_it_comes() {
    // Before the look at what is committed, before the wait, and during it.
    for step in 0..3 {
        let progress = LeaseState::new(Epoch(1), Offset(0));
        let standing = progress.watch();
        let mut stream = ByHand::new(async {
            let known = progress.committed();
            pause().await;
            if known == Offset(0) {
                // As `committed_beyond` does.
                let mut standing = standing.clone();
                let _ = standing.wait_for(|standing| standing.committed > known).await;
            }
        });
        for now in 0..3 {
            if now == step {
                progress.position_stored(Epoch(1), Offset(5));
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
fn a_seek_and_an_end_are_heard_of_whenever_they_come() {
    let seek =
        LeaseChange { epoch: Epoch(2), position: Offset(3), taken: false, taker: String::new() };
    for seen in [Some(seek), None] {
        for step in 0..4 {
            let progress = LeaseState::new(Epoch(1), Offset(0));
            let standing = progress.watch();
            // As `news` does: waited for beside other things, and each time anew.
            let news = async || {
                let mut standing = standing.clone();
                let changed = standing.wait_for(|now| now.ended.is_some() || now.epoch != Epoch(1));
                changed.await.map(drop).unwrap();
            };
            let mut stream = ByHand::new(async {
                loop {
                    if ByHand::new(news()).run().is_ready() {
                        return;
                    }
                    pause().await;
                    tokio::select! {
                        biased;
                        () = news() => return,
                        () = pause() => {}
                    }
                }
            });
            let mut ended = false;
            for now in 0..7 {
                if now == step {
                    progress.observe(seen.clone());
                }
                ended = ended || stream.run().is_ready();
                assert!(now >= step || !ended);
            }
            assert!(ended, "at step {step}");
        }
    }
}
