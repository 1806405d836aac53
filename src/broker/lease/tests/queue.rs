//! The queue for a lease, compared with a list of the streams that wait in it.

use std::{collections::VecDeque, sync::Arc, task::Poll};

use proptest::{collection::vec, prelude::*, sample::Index};
use tokio::sync::oneshot;

use crate::broker::{
    lease::queue::{Permit, Priority, WaitQueue},
    testing::{by_hand::ByHand, check},
};

#[derive(Clone, Debug)]
enum Act {
    TryAcquire,
    Enqueue(Priority),
    /// A stream stops waiting, whether or not it was granted the permit.
    Leave(Index),
    /// A stream polls for the permit.
    Receive(Index),
    /// The holder of the permit releases it.
    Release,
    /// The holder of the permit starts a new wait for a stream that takes over.
    WatchAgain,
    /// The holder of the permit polls that wait.
    Watch,
}

fn act() -> impl Strategy<Value = Act> {
    let priority = prop_oneof![
        3 => Just(Priority::Normal),
        1 => Just(Priority::Returning),
        2 => Just(Priority::TakeOver),
    ];
    prop_oneof![
        1 => Just(Act::TryAcquire),
        5 => priority.prop_map(Act::Enqueue),
        2 => any::<Index>().prop_map(Act::Leave),
        3 => any::<Index>().prop_map(Act::Receive),
        3 => Just(Act::Release),
        1 => Just(Act::WatchAgain),
        3 => Just(Act::Watch),
    ]
}

/// A stream in the queue, as the model sees it.
struct Queued {
    priority: Priority,
    permit: oneshot::Receiver<Permit>,
}

/// The queue, and what is expected of it.
#[derive(Default)]
struct Model {
    queue: Arc<WaitQueue>,
    permit: Option<Permit>,
    /// A stream that was granted the permit and has not received it.
    granted: Option<oneshot::Receiver<Permit>>,
    /// The streams that wait, in the order in which they must get the permit.
    waiting: VecDeque<Queued>,
    /// The permit holder's wait for a stream that takes over.
    watch: Option<ByHand<'static, ()>>,
}

impl Model {
    fn act(&mut self, act: Act) {
        match act {
            Act::TryAcquire => {
                let is_taken = self.is_taken();
                let permit = self.queue.try_acquire();
                assert_eq!(permit.is_none(), is_taken);
                self.permit = self.permit.take().or(permit);
            }
            Act::Enqueue(priority) => {
                let is_taken = self.is_taken();
                let permit = self.queue.enqueue(priority);
                match (is_taken, priority) {
                    (false, _) => self.granted = Some(permit),
                    (true, Priority::Normal) => self.waiting.push_back(Queued { priority, permit }),
                    (true, _) => self.waiting.push_front(Queued { priority, permit }),
                }
            }
            Act::Leave(index) => match self.pick(&index) {
                Some(index) => drop(self.waiting.remove(index)),
                None if self.granted.take().is_some() => self.grant_next(),
                None => {}
            },
            Act::Receive(index) => match self.pick(&index) {
                Some(index) => {
                    assert!(self.waiting[index].permit.try_recv().is_err(), "others come first");
                }
                None => self.receive(),
            },
            Act::Release => {
                if self.permit.take().is_some() {
                    self.grant_next();
                }
            }
            Act::WatchAgain => {
                let queue = self.queue.clone();
                self.watch = Some(ByHand::new(async move { queue.take_over_waits().await }));
                self.watch();
            }
            Act::Watch => self.watch(),
        }
    }

    fn is_taken(&self) -> bool {
        self.permit.is_some() || self.granted.is_some()
    }

    /// One of the waiting streams; `None` for the one that was granted the permit.
    fn pick(&self, index: &Index) -> Option<usize> {
        let index = index.index(self.waiting.len() + 1);
        (index < self.waiting.len()).then_some(index)
    }

    /// The permit was released: the next stream is granted it.
    fn grant_next(&mut self) {
        self.granted = self.waiting.pop_front().map(|queued| queued.permit);
    }

    fn receive(&mut self) {
        if let Some(mut granted) = self.granted.take() {
            assert!(self.permit.is_none(), "one permit at a time");
            self.permit = Some(granted.try_recv().expect("no permit gets lost"));
        }
    }

    fn watch(&mut self) {
        let Some(watch) = &mut self.watch else { return };
        let takes_over = self.waiting.iter().any(|queued| queued.priority == Priority::TakeOver);
        assert_eq!(watch.run() == Poll::Ready(()), takes_over, "woken only if one takes over");
        if takes_over {
            self.watch = None;
        }
    }
}

#[test]
fn the_permit_goes_to_the_next_stream_and_never_to_two_or_to_none() {
    check(256, vec(act(), 1..80), |acts| {
        let mut model = Model::default();
        acts.into_iter().for_each(|act| model.act(act));
        // No stream waits for ever: as each releases the permit, the next one gets it.
        let mut left = model.waiting.len() + 1;
        while model.is_taken() {
            model.receive();
            model.act(Act::Release);
            left = left.checked_sub(1).expect("each stream gets it once");
        }
        assert!(model.waiting.is_empty());
        assert!(model.queue.try_acquire().is_some(), "free again");
    });
}
