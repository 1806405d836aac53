//! Deliveries that were handed to a worker, and have not been sent to its client.
//!
//! What is never sent goes to another worker at once, and does not count as an attempt. Deliveries are known
//! by their numbers, so this costs nothing for each message.

use std::{collections::BTreeSet, fmt, sync::Arc};

use parking_lot::Mutex;

use crate::broker::subscription::deliveries::DeliveryId;

/// The deliveries of a call's answer. They are taken back when this is dropped, unless they were sent: the
/// client may have gone while the answer was on its way to it.
pub struct UnsentAnswer {
    deliveries: Vec<DeliveryId>,
    take_back: Option<TakeBack>,
}

type TakeBack = Box<dyn FnOnce(Vec<DeliveryId>) + Send + Sync>;

impl UnsentAnswer {
    /// Nothing yet. `take_back` must not wait.
    pub(crate) fn new(take_back: impl FnOnce(Vec<DeliveryId>) + Send + Sync + 'static) -> Self {
        Self { deliveries: Vec::new(), take_back: Some(Box::new(take_back)) }
    }

    /// The same, of these deliveries.
    pub(crate) fn of(mut self, deliveries: Vec<DeliveryId>) -> Self {
        self.deliveries = deliveries;
        self
    }

    /// Records that the client has got its answer.
    pub fn record_sent(mut self) {
        self.take_back = None;
    }
}

impl Drop for UnsentAnswer {
    fn drop(&mut self) {
        if let Some(take_back) = self.take_back.take()
            && !self.deliveries.is_empty()
        {
            take_back(std::mem::take(&mut self.deliveries));
        }
    }
}

impl fmt::Debug for UnsentAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("UnsentAnswer").field(&self.deliveries).finish()
    }
}

/// The deliveries that a stream has got, and its client has not been sent. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct UnsentEvents(Arc<Mutex<BTreeSet<DeliveryId>>>);

impl UnsentEvents {
    /// Adds deliveries that the stream has got.
    pub fn add(&self, deliveries: impl IntoIterator<Item = u64>) {
        self.0.lock().extend(deliveries.into_iter().map(DeliveryId));
    }

    /// Records that the client is sent deliveries.
    pub fn record_sent(&self, deliveries: impl IntoIterator<Item = u64>) {
        let mut unsent = self.0.lock();
        for delivery in deliveries {
            unsent.remove(&DeliveryId(delivery));
        }
    }

    /// Those that are left when the stream ends.
    pub fn take(&self) -> Vec<DeliveryId> {
        std::mem::take(&mut *self.0.lock()).into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_is_not_sent_is_taken_back_once() {
        let taken = Arc::new(Mutex::new(Vec::new()));
        let unsent = || {
            let taken = taken.clone();
            UnsentAnswer::new(move |deliveries| taken.lock().push(deliveries))
        };
        drop(unsent());
        unsent().of(vec![DeliveryId(1)]).record_sent();
        assert!(taken.lock().is_empty());
        drop(unsent().of(vec![DeliveryId(2), DeliveryId(3)]));
        assert_eq!(*taken.lock(), [[DeliveryId(2), DeliveryId(3)]]);
    }

    #[test]
    fn what_a_stream_has_not_sent_is_known_when_it_ends() {
        let unsent = UnsentEvents::default();
        unsent.add([1, 2, 3]);
        unsent.clone().record_sent([2, 7]);
        assert_eq!(unsent.take(), [DeliveryId(1), DeliveryId(3)]);
        assert!(unsent.take().is_empty());
    }
}
