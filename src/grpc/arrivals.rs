//! What a call holds of its owner's byte budget, from the arrival of its requests on.
//!
//! A request is charged when its length arrives, for as much memory as it may take once it is
//! decoded. What it turns out not to need is returned when it has been decoded.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::Mutex;

use crate::{broker::Hold, model::MAX_REQUEST_MESSAGES, proto};

/// How much memory a message takes besides its bytes on the wire, of which it has at least two.
const MESSAGE_OVERHEAD: usize = 96;
const MIN_MESSAGE_BYTES: usize = 2;

const _: () = assert!(proto::MAX_REQUEST_MESSAGES == MAX_REQUEST_MESSAGES);

/// The most memory that the messages of a request of some bytes take.
pub(super) fn charge(bytes: usize) -> usize {
    bytes + (bytes / MIN_MESSAGE_BYTES).min(MAX_REQUEST_MESSAGES) * MESSAGE_OVERHEAD
}

/// The requests of a call that have begun to arrive, and what is held for them. Shared by the body
/// that they arrive in and the service that decodes them.
#[derive(Clone, Default)]
pub(super) struct Arrivals(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    held: Option<Hold>,
    /// What each request was charged that is not decoded yet: the first apart, as a unary call has
    /// no other.
    charge: Option<usize>,
    more_charges: VecDeque<usize>,
    /// What decoded requests did not need. It is returned with the next ones, all at once.
    surplus: usize,
}

impl Arrivals {
    /// Adds requests that have begun to arrive.
    pub(super) fn add(&self, hold: Hold, charges: impl IntoIterator<Item = usize>) {
        let mut state = self.0.lock();
        let mut charges = charges.into_iter();
        if state.charge.is_none() {
            state.charge = charges.next();
        }
        state.more_charges.extend(charges);
        match &mut state.held {
            Some(held) => held.merge(hold),
            held => *held = Some(hold),
        }
    }

    /// The next request was decoded, and needs this many bytes. Returns how many stay held for it.
    pub(super) fn decoded(&self, needs: usize) -> usize {
        let mut state = self.0.lock();
        let next = state.more_charges.pop_front();
        let charge = std::mem::replace(&mut state.charge, next).unwrap_or(0);
        let kept = needs.min(charge);
        state.surplus += charge - kept;
        kept
    }

    /// The next request was refused, and needs nothing.
    pub(super) fn refused(&self) {
        self.decoded(0);
        drop(self.take(0));
    }

    /// Hands over what stays held for decoded requests.
    pub(super) fn take(&self, kept: usize) -> Option<Hold> {
        let mut state = self.0.lock();
        let surplus = std::mem::take(&mut state.surplus);
        let held = state.held.as_mut()?;
        drop(held.split(surplus));
        held.split(kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::Budget;

    #[test]
    fn what_a_request_does_not_need_is_returned_once_it_is_decoded() {
        let share = Budget::new(100, 100).new_share();
        let free = |bytes| share.try_hold(bytes).is_some();
        let arrivals = Arrivals::default();
        arrivals.add(share.try_hold(70).unwrap(), [30, 40]);
        assert!(free(30) && !free(31));
        let kept = arrivals.decoded(10);
        let hold = arrivals.take(kept).unwrap();
        assert_eq!(hold.bytes(), 10);
        assert!(free(50) && !free(51));
        drop(hold);
        assert!(free(60));
        arrivals.refused();
        assert!(free(100));
        assert_eq!(arrivals.decoded(5), 0, "nothing is held for what was not charged");
    }

    #[test]
    fn a_charge_covers_as_many_messages_as_a_request_may_have() {
        assert_eq!(charge(100), 100 + 50 * 96);
        assert_eq!(charge(16 << 20), (16 << 20) + 10_000 * 96);
    }
}
