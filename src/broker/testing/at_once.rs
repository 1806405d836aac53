//! What two threads do at the same moment, tried so often that they meet where it matters.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Waker},
    thread,
    time::{Duration, Instant},
};

use tokio::sync::watch;

use crate::{
    broker::{
        lease::registry::Leases, log::topics::LogReader, notify::outbox::Outbox,
        testing::by_hand::ByHand,
    },
    model::{ConsumerId, Offset, TopicName},
};

const TRIES: usize = 20_000;

/// How long they try; that is enough for some of these to meet.
const ENOUGH: Duration = Duration::from_secs(1);

/// Where two threads wait for each other; a barrier of the system's would wake one too late.
#[derive(Default)]
struct Meeting(AtomicUsize);

impl Meeting {
    fn meet(&self) {
        let round = self.0.fetch_add(1, Ordering::SeqCst) / 2;
        let mut looks = 0u32;
        while self.0.load(Ordering::SeqCst) < 2 * (round + 1) {
            looks += 1;
            match looks % 1_000 {
                0 => thread::yield_now(),
                _ => std::hint::spin_loop(),
            }
        }
    }
}

/// Has two threads do something at the same moment, so many times; then one of them looks.
fn try_at_once<T>(
    begin: impl Fn(usize) -> T + Sync,
    end: impl Fn(T) + Sync,
    look: impl Fn(usize) + Sync,
) {
    let (meeting, stop, start) = (Meeting::default(), AtomicBool::new(false), Instant::now());
    let run = |looks: bool| {
        for number in 0..TRIES {
            let begun = begin(number);
            meeting.meet();
            // One of them comes now a little earlier, now a little later.
            let late = if looks { number % 64 } else { 32 };
            (0..late).for_each(|_| std::hint::spin_loop());
            end(begun);
            meeting.meet();
            if looks {
                look(number);
                stop.store(start.elapsed() > ENOUGH, Ordering::SeqCst);
            }
            meeting.meet();
            if stop.load(Ordering::SeqCst) {
                return;
            }
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| run(false));
        run(true);
    });
}

#[test]
fn a_place_in_a_log_that_two_give_up_at_once_is_forgotten() {
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

#[test]
fn a_consumer_that_two_leave_at_once_is_forgotten() {
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
