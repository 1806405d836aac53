//! What an owner does for a subscription that delivers exactly once: it holds back what the owner before may
//! have handed out, and reserves what it hands out itself.
//!
//! Nothing here does anything for other subscriptions.

use std::collections::HashSet;

use tokio::time::Instant;

use crate::{
    broker::subscription::{
        reservation::{Held, Reservation, Reservations},
        state::State,
    },
    model::{DeliveryPolicy, Offset},
};

impl State {
    /// Takes over what the owner before has reserved. What is stored ends at `reserved.until` or later, and at
    /// `held_until` or earlier.
    pub(crate) fn take_over(mut self, reserved: Reservation, held_until: Instant) -> Self {
        self.reservations = Reservations::inherited(reserved, held_until);
        if self.policy.exactly_once {
            let next = self.settled.floor();
            let end = reserved.end.max(next);
            self.held = Some(Held { next, end, until: held_until, is_over: false });
            self.next = self.next.max(end);
            self.exceptions.delay(held_until);
        }
        self
    }

    /// Hands out what was held back, once its time is over. `head` is the offset of the topic's next message.
    pub(crate) fn end_hold(&mut self, now: Instant, head: Offset) {
        let Some(held) = self.held.as_mut().filter(|held| !held.is_over && held.until <= now)
        else {
            return;
        };
        held.is_over = true;
        // The owner before has not handed out what was not stored by then.
        if head < held.end && self.next == held.end {
            held.end = head.max(held.next);
            self.next = held.end;
        }
    }

    /// When the messages that are held back are handed out, if there are some.
    pub(crate) fn hold_ends(&self) -> Option<Instant> {
        self.held.as_ref().filter(|held| !held.is_over).map(|held| held.until)
    }

    /// Before which offset new messages may be handed out now. `None` if nothing may be before a larger
    /// reservation is stored, which is then among what is to be stored.
    pub(crate) fn reserved_end(&mut self, now: Instant) -> Option<Offset> {
        if !self.policy.exactly_once {
            return Some(Offset(i64::MAX));
        }
        self.reservations.end(self.next, self.policy.ack_deadline, now)
    }

    /// Until when a worker has what it gets now.
    pub(super) fn deadline(&self, now: Instant) -> Instant {
        let deadline = now + self.policy.ack_deadline;
        match self.policy.exactly_once {
            // Time has passed since the reservation was found to suffice.
            true => self.reservations.bound(deadline),
            false => deadline,
        }
    }

    /// Records that a message is handed out that this owner has not handed out before. Returns how often it
    /// was delivered, with this time: once, or twice if the owner before may have delivered it.
    pub(super) fn record_first(&mut self, offset: Offset) -> u32 {
        match self.held.as_mut().filter(|held| offset < held.end) {
            Some(held) => {
                held.next = held.next.max(offset.after(1));
                2
            }
            None => {
                self.next = self.next.max(offset.after(1));
                1
            }
        }
    }

    /// When parked messages are delivered again: workers of the owner before may have them.
    pub(super) fn replayed_at(&self, now: Instant) -> Instant {
        self.hold_ends().map_or(now, |held_until| held_until.max(now))
    }

    /// The messages that workers have. After a seek back, some of them may be parked as well.
    pub(super) fn with_workers(&self) -> HashSet<Offset> {
        match self.policy.exactly_once {
            true => self.deliveries.offsets().collect(),
            false => HashSet::new(),
        }
    }

    /// Hands out nothing before everything is stored that is to be stored by now: an owner that has lost its
    /// lease may be asked for messages that the next one has parked.
    pub(super) fn renew_reservation(&mut self, now: Instant) {
        if self.policy.exactly_once {
            self.reservations.renew(self.next, now);
        }
    }

    /// Changes how messages are delivered from now on.
    pub(crate) fn set_policy(&mut self, policy: DeliveryPolicy, now: Instant) {
        let was_exact = std::mem::replace(&mut self.policy, policy).exactly_once;
        if self.policy.exactly_once && !was_exact {
            // What workers have was not reserved.
            let last_deadline = self.deliveries.last_deadline();
            self.reservations.require(self.next, last_deadline.unwrap_or(now));
            self.reserved_end(now);
        }
        if let Some(held) = self.held.as_mut().filter(|_| !self.policy.exactly_once) {
            held.until = held.until.min(now);
        }
    }

    /// Has the next owner wait for no more than necessary. Nothing may be handed out afterwards.
    pub(crate) fn shrink_reservation(&mut self, now: Instant) {
        if self.policy.exactly_once {
            let last_deadline = self.deliveries.last_deadline().max(self.hold_ends());
            self.reservations.shrink(self.next, last_deadline, now);
        }
    }

    /// What was taken to be stored is stored.
    pub(crate) fn note_stored(&mut self) {
        self.reservations.note_stored();
    }
}
