//! Turns at a consumer within this broker: one at a time, in the order of asking, but for those who
//! take over: they go first.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard},
};

use tokio::sync::{Notify, oneshot};

#[derive(Default)]
pub(crate) struct Turns {
    queue: Mutex<Queue>,
    /// Tells who has the turn, but not the lease yet, that somebody urgent waits.
    asked: Notify,
}

#[derive(Default)]
struct Queue {
    taken: bool,
    waiting: VecDeque<Waiter>,
}

struct Waiter {
    urgent: bool,
    grant: oneshot::Sender<Turn>,
}

/// The right, within this broker, to ask the database for the lease; goes to the next in line when
/// it is dropped.
pub(crate) struct Turn(Option<Arc<Turns>>);

/// Where in line somebody waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Behind all others.
    Last,
    /// Before all others: who gave the turn up for a moment.
    First,
    /// Before all others, and whoever has the turn but no lease is asked to give it up.
    Urgent,
}

impl Turns {
    /// The turn, if nobody has it.
    pub(crate) fn try_turn(self: &Arc<Self>) -> Option<Turn> {
        let mut queue = self.queue();
        (!std::mem::replace(&mut queue.taken, true)).then(|| Turn(Some(self.clone())))
    }

    /// A place in line; the turn comes over it.
    pub(crate) fn line_up(self: &Arc<Self>, place: Place) -> oneshot::Receiver<Turn> {
        let (grant, granted) = oneshot::channel();
        let mut queue = self.queue();
        if !std::mem::replace(&mut queue.taken, true) {
            // Nobody has dropped the other end yet.
            let _ = grant.send(Turn(Some(self.clone())));
            return granted;
        }
        let waiter = Waiter { urgent: place == Place::Urgent, grant };
        match place {
            Place::Last => queue.waiting.push_back(waiter),
            Place::First | Place::Urgent => queue.waiting.push_front(waiter),
        }
        if place == Place::Urgent {
            self.asked.notify_one();
        }
        granted
    }

    /// Waits until somebody urgent waits for the turn.
    pub(crate) async fn urgently_asked(&self) {
        while !self.queue().waiting.iter().any(|w| w.urgent && !w.grant.is_closed()) {
            self.asked.notified().await;
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(turns) = self.0.take() else { return };
        loop {
            let waiter = {
                let mut queue = turns.queue();
                let waiter = queue.waiting.pop_front();
                queue.taken = waiter.is_some();
                waiter
            };
            let Some(Waiter { grant, .. }) = waiter else { return };
            match grant.send(Turn(Some(turns.clone()))) {
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
        let turns = Arc::new(Turns::default());
        let turn = turns.try_turn().unwrap();
        assert!(turns.try_turn().is_none());
        let mut first = turns.line_up(Place::Last);
        let gone = turns.line_up(Place::Last);
        let mut last = turns.line_up(Place::Last);
        let mut urgent = turns.line_up(Place::Urgent);
        drop(gone);

        drop(turn);
        let turn = urgent.try_recv().unwrap();
        assert!(first.try_recv().is_err());
        drop(turn);
        let turn = first.try_recv().unwrap();
        let mut again = turns.line_up(Place::First);
        drop(turn);
        let turn = again.try_recv().unwrap();
        drop(turn);
        drop(last.try_recv().unwrap());
        assert!(turns.try_turn().is_some());
    }

    #[test]
    fn a_turn_that_nobody_fetches_goes_on() {
        let turns = Arc::new(Turns::default());
        let turn = turns.try_turn().unwrap();
        let granted = turns.line_up(Place::Last);
        drop(turn);
        // It was granted, and then not waited for any more.
        drop(granted);
        assert!(turns.try_turn().is_some());
    }

    #[tokio::test]
    async fn who_has_the_turn_hears_of_somebody_urgent_whenever_it_asks() {
        let turns = Arc::new(Turns::default());
        let _turn = turns.try_turn().unwrap();
        let urgent = turns.line_up(Place::Urgent);
        turns.urgently_asked().await;
        turns.urgently_asked().await;
        drop(urgent);
        let not_asked = std::future::poll_fn(|context| {
            std::task::Poll::Ready(std::pin::pin!(turns.urgently_asked()).poll(context))
        });
        assert!(not_asked.await.is_pending());
    }
}
