//! WaitQueue at a consumer within this broker: one at a time, in the order of asking, but for those who
//! take over: they go first.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard},
};

use tokio::sync::{Notify, oneshot};

#[derive(Default)]
pub(crate) struct WaitQueue {
    queue: Mutex<Inner>,
    /// Tells who has the turn, but not the lease yet, that somebody urgent waits.
    asked: Notify,
}

#[derive(Default)]
struct Inner {
    taken: bool,
    waiting: VecDeque<Waiting>,
}

struct Waiting {
    urgent: bool,
    grant: oneshot::Sender<Permit>,
}

/// The right, within this broker, to ask the database for the lease; goes to the next in line when
/// it is dropped.
pub(crate) struct Permit(Option<Arc<WaitQueue>>);

/// Where in line somebody waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Priority {
    /// Behind all others.
    Normal,
    /// Before all others: who gave the turn up for a moment.
    Returning,
    /// Before all others, and whoever has the turn but no lease is asked to give it up.
    TakeOver,
}

impl WaitQueue {
    /// The turn, if nobody has it.
    pub(crate) fn try_acquire(self: &Arc<Self>) -> Option<Permit> {
        let mut queue = self.queue();
        (!std::mem::replace(&mut queue.taken, true)).then(|| Permit(Some(self.clone())))
    }

    /// A place in line; the turn comes over it.
    pub(crate) fn enqueue(self: &Arc<Self>, place: Priority) -> oneshot::Receiver<Permit> {
        let (grant, granted) = oneshot::channel();
        let mut queue = self.queue();
        if !std::mem::replace(&mut queue.taken, true) {
            // Nobody has dropped the other end yet.
            let _ = grant.send(Permit(Some(self.clone())));
            return granted;
        }
        let waiter = Waiting { urgent: place == Priority::TakeOver, grant };
        match place {
            Priority::Normal => queue.waiting.push_back(waiter),
            Priority::Returning | Priority::TakeOver => queue.waiting.push_front(waiter),
        }
        if place == Priority::TakeOver {
            self.asked.notify_one();
        }
        granted
    }

    /// Waits until somebody urgent waits for the turn.
    pub(crate) async fn take_over_waits(&self) {
        while !self.queue().waiting.iter().any(|w| w.urgent && !w.grant.is_closed()) {
            self.asked.notified().await;
        }
    }

    fn queue(&self) -> MutexGuard<'_, Inner> {
        self.queue.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Some(turns) = self.0.take() else { return };
        loop {
            let waiter = {
                let mut queue = turns.queue();
                let waiter = queue.waiting.pop_front();
                queue.taken = waiter.is_some();
                waiter
            };
            let Some(Waiting { grant, .. }) = waiter else { return };
            match grant.send(Permit(Some(turns.clone()))) {
                Ok(()) => return,
                // Whoever waited there has gone.
                Err(mut refused) => refused.0 = None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_come_in_the_order_of_asking_and_those_who_take_over_go_first() {
        let turns = Arc::new(WaitQueue::default());
        let turn = turns.try_acquire().unwrap();
        assert!(turns.try_acquire().is_none());
        let mut first = turns.enqueue(Priority::Normal);
        let gone = turns.enqueue(Priority::Normal);
        let mut last = turns.enqueue(Priority::Normal);
        let mut urgent = turns.enqueue(Priority::TakeOver);
        drop(gone);

        drop(turn);
        let turn = urgent.try_recv().unwrap();
        assert!(first.try_recv().is_err());
        drop(turn);
        let turn = first.try_recv().unwrap();
        let mut again = turns.enqueue(Priority::Returning);
        drop(turn);
        let turn = again.try_recv().unwrap();
        drop(turn);
        drop(last.try_recv().unwrap());
        assert!(turns.try_acquire().is_some());
    }

    #[test]
    fn a_turn_that_nobody_fetches_goes_on() {
        let turns = Arc::new(WaitQueue::default());
        let turn = turns.try_acquire().unwrap();
        let granted = turns.enqueue(Priority::Normal);
        drop(turn);
        // It was granted, and then not waited for any more.
        drop(granted);
        assert!(turns.try_acquire().is_some());
    }

    #[tokio::test]
    async fn who_has_the_turn_hears_of_somebody_urgent_whenever_it_asks() {
        let turns = Arc::new(WaitQueue::default());
        let _turn = turns.try_acquire().unwrap();
        let urgent = turns.enqueue(Priority::TakeOver);
        turns.take_over_waits().await;
        turns.take_over_waits().await;
        drop(urgent);
        let not_asked = std::future::poll_fn(|context| {
            std::task::Poll::Ready(std::pin::pin!(turns.take_over_waits()).poll(context))
        });
        assert!(not_asked.await.is_pending());
    }
}
