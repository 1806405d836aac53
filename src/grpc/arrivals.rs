//! What a call holds of its owner's byte budget, from the arrival of its requests on.
//!
//! A request is charged when its length arrives, for as much memory as it may take once it is
//! decoded. What it turns out not to need is returned when it has been decoded, or with the rest if it
//! is little.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::Mutex;

use crate::{broker::Hold, model::MAX_REQUEST_MESSAGES, proto};

/// How much memory a message takes besides its bytes on the wire, of which it has at least two.
const MESSAGE_OVERHEAD: usize = 96;
const MIN_MESSAGE_BYTES: usize = 2;

/// What a request did not need stays held with it if it is no more than this: returning it on its own
/// costs as much as returning all. An owner's share has room for it in each call that it may have open
/// besides its streams.
const SMALL: usize = 7 * 1024;

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
    /// What decoded requests did not need. It is returned when the next ones are taken, or stays held
    /// with them.
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
        let mut taken = state.held.take()?;
        if taken.bytes() > kept + surplus {
            let rest = taken.bytes() - kept - surplus;
            state.held = Some(taken.split(rest));
        }
        if surplus > SMALL {
            drop(taken.split(surplus));
        }
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::Budget;

    #[test]
    fn much_that_a_request_does_not_need_is_returned_once_it_is_decoded() {
        let budget = Budget::new(100 * SMALL, 100 * SMALL);
        let share = budget.new_share();
        let arrivals = Arrivals::default();
        arrivals.add(share.try_hold(70 * SMALL).unwrap(), [30 * SMALL, 40 * SMALL]);
        assert_eq!(budget.held(), 70 * SMALL);
        let kept = arrivals.decoded(10 * SMALL);
        let hold = arrivals.take(kept).unwrap();
        assert_eq!(hold.bytes(), 10 * SMALL);
        assert_eq!(budget.held(), 50 * SMALL);
        drop(hold);
        assert_eq!(budget.held(), 40 * SMALL);
        arrivals.refused();
        assert_eq!(budget.held(), 0);
        assert_eq!(arrivals.decoded(5), 0, "nothing is held for what was not charged");
    }

    #[test]
    fn a_little_that_a_request_does_not_need_is_returned_with_the_rest() {
        let budget = Budget::new(100, 100);
        let share = budget.new_share();
        let arrivals = Arrivals::default();
        arrivals.add(share.try_hold(70).unwrap(), [30, 40]);
        let hold = arrivals.take(arrivals.decoded(10)).unwrap();
        assert_eq!((hold.bytes(), budget.held()), (30, 70));
        drop(hold);
        assert_eq!(budget.held(), 40);
        arrivals.refused();
        assert_eq!(budget.held(), 0);
    }

    #[test]
    fn a_charge_covers_as_many_messages_as_a_request_may_have() {
        assert_eq!(charge(100), 100 + 50 * 96);
        assert_eq!(charge(16 << 20), (16 << 20) + 10_000 * 96);
    }
}
