//! The queue for a consumer's lease within this broker: one stream at a time, first come, first
//! served, except that streams that take over go first.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

/// A queue of streams, which pass one permit along.
#[derive(Default)]
pub(crate) struct WaitQueue {
    state: Mutex<State>,
    /// Notified when a stream that takes over joins the queue; the holder of the permit waits for
    /// this while it has no lease yet.
    take_over: Notify,
}

#[derive(Default)]
struct State {
    is_taken: bool,
    waiting: VecDeque<Queued>,
}

/// A stream that waits for the permit.
struct Queued {
    takes_over: bool,
    grant: oneshot::Sender<Permit>,
}

/// The right, within this broker, to ask the database for the lease. When it is dropped, it passes
/// to the next stream in the queue.
pub(crate) struct Permit(Option<Arc<WaitQueue>>);

/// Where in the queue a stream joins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Priority {
    /// After all others.
    Normal,
    /// Before all others: the stream gave the permit up for a stream that takes over.
    Returning,
    /// Before all others; a permit holder that has no lease yet gives the permit up.
    TakeOver,
}

impl WaitQueue {
    /// How many streams have the permit, or wait for it.
    pub(crate) fn len(&self) -> usize {
        let state = self.state.lock();
        let waiting = state.waiting.iter().filter(|queued| !queued.grant.is_closed());
        usize::from(state.is_taken) + waiting.count()
    }

    /// The permit, if no stream has it.
    pub(crate) fn try_acquire(self: &Arc<Self>) -> Option<Permit> {
        let mut state = self.state.lock();
        (!std::mem::replace(&mut state.is_taken, true)).then(|| Permit(Some(self.clone())))
    }

    /// Joins the queue; the permit comes through the channel.
    pub(crate) fn enqueue(self: &Arc<Self>, priority: Priority) -> oneshot::Receiver<Permit> {
        let (grant, granted) = oneshot::channel();
        let mut state = self.state.lock();
        if !std::mem::replace(&mut state.is_taken, true) {
            // Cannot fail: the receiver is still here.
            let _ = grant.send(Permit(Some(self.clone())));
            return granted;
        }
        let queued = Queued { takes_over: priority == Priority::TakeOver, grant };
        match priority {
            Priority::Normal => state.waiting.push_back(queued),
            Priority::Returning | Priority::TakeOver => state.waiting.push_front(queued),
        }
        if priority == Priority::TakeOver {
            self.take_over.notify_one();
        }
        granted
    }

    /// Waits until a stream that takes over waits for the permit.
    pub(crate) async fn take_over_waits(&self) {
        let waits = |queued: &Queued| queued.takes_over && !queued.grant.is_closed();
        while !self.state.lock().waiting.iter().any(waits) {
            self.take_over.notified().await;
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Some(queue) = self.0.take() else { return };
        loop {
            let next = {
                let mut state = queue.state.lock();
                let next = state.waiting.pop_front();
                state.is_taken = next.is_some();
                next
            };
            let Some(Queued { grant, .. }) = next else { return };
            match grant.send(Permit(Some(queue.clone()))) {
                Ok(()) => return,
                // That stream has stopped waiting: the next one gets the permit.
                Err(mut refused) => refused.0 = None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_that_take_over_go_first_and_the_others_in_the_order_in_which_they_came() {
        let queue = Arc::new(WaitQueue::default());
        let permit = queue.try_acquire().unwrap();
        assert!(queue.try_acquire().is_none());
        let mut first = queue.enqueue(Priority::Normal);
        let gone = queue.enqueue(Priority::Normal);
        let mut last = queue.enqueue(Priority::Normal);
        let mut take_over = queue.enqueue(Priority::TakeOver);
        drop(gone);

        drop(permit);
        let permit = take_over.try_recv().unwrap();
        assert!(first.try_recv().is_err());
        drop(permit);
        let permit = first.try_recv().unwrap();
        let mut returning = queue.enqueue(Priority::Returning);
        drop(permit);
        let permit = returning.try_recv().unwrap();
        drop(permit);
        drop(last.try_recv().unwrap());
        assert!(queue.try_acquire().is_some());
    }

    #[test]
    fn a_granted_permit_that_is_never_received_passes_on() {
        let queue = Arc::new(WaitQueue::default());
        let permit = queue.try_acquire().unwrap();
        let granted = queue.enqueue(Priority::Normal);
        drop(permit);
        // Granted, but its stream no longer waits.
        drop(granted);
        assert!(queue.try_acquire().is_some());
    }

    #[tokio::test]
    async fn the_permit_holder_learns_of_a_take_over_each_time_it_asks() {
        let queue = Arc::new(WaitQueue::default());
        let _permit = queue.try_acquire().unwrap();
        let take_over = queue.enqueue(Priority::TakeOver);
        queue.take_over_waits().await;
        queue.take_over_waits().await;
        drop(take_over);
        let no_take_over = std::future::poll_fn(|context| {
            std::task::Poll::Ready(std::pin::pin!(queue.take_over_waits()).poll(context))
        });
        assert!(no_take_over.await.is_pending());
    }
}
