//! How much the owner of an exactly-once subscription may hand out: no more than it has reserved.
//!
//! Who has which message is known to the owner alone. What the next owner must know is stored beforehand, as
//! a *reservation*: no worker has a message at or after its end that was new, and no worker has any message
//! at or after its time. The next owner holds back until then all that lies before the end, and all that is
//! delivered again.
//!
//! The owner stores a larger reservation before it hands out more. It reserves ahead, so that this is one small
//! write for thousands of messages. Each is stored under the owner's epoch: an owner that has lost its lease
//! without noticing hands out no more than the next one knows of.

use std::time::Duration;

use tokio::time::Instant;

use crate::model::Offset;

/// How many messages are reserved ahead. A larger reservation is stored when half of them are left.
const MESSAGES_AHEAD: usize = if cfg!(test) { 10 } else { 10_000 };

/// For how long it is reserved ahead at most; otherwise, for as long as a worker has for a message. After a
/// crash, the next owner waits for so much longer than necessary.
const MAX_TIME_AHEAD: Duration = Duration::from_secs(30);

/// So long before the end of a reservation, the last deadline passes. The clocks of the broker and the database
/// may run at different speeds.
const MARGIN: Duration = Duration::from_millis(500);

/// What may be with workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reservation {
    /// The offset after the last message that may have been handed out for the first time.
    pub end: Offset,
    /// When everything has been settled, or its deadline has passed.
    pub until: Instant,
}

/// What the owner before may have handed out for the first time.
pub(crate) struct Held {
    /// The first of these messages that this owner has not handed out.
    pub next: Offset,
    /// The offset after the last one.
    pub end: Offset,
    /// Until then, workers of the owner before may have any of them, or anything that is delivered again.
    pub until: Instant,
    /// Whether that is over.
    pub is_over: bool,
}

/// What an owner has reserved, and is reserving.
#[derive(Default)]
pub(crate) struct Reservations {
    stored: Option<Reservation>,
    writing: Option<Reservation>,
    /// What is to be stored next.
    wanted: Option<Reservation>,
    /// Nothing is handed out before that much is stored.
    required: Option<Reservation>,
    /// What the owner before has reserved.
    inherited: Option<Reservation>,
}

impl Reservation {
    pub(crate) fn covers(self, other: Self) -> bool {
        self.end >= other.end && self.until >= other.until
    }

    fn with(self, other: Self) -> Self {
        Self { end: self.end.max(other.end), until: self.until.max(other.until) }
    }
}

impl Reservations {
    /// What the owner before has stored: it lasts until `stored.until` at least, and until `until` at most.
    pub(crate) fn inherited(stored: Reservation, until: Instant) -> Self {
        let inherited = Some(Reservation { until, ..stored });
        Self { stored: Some(stored), inherited, ..Self::default() }
    }

    /// Before which offset new messages may be handed out now, each for `deadline`; `None` if nothing may be.
    /// All before `next` have been handed out. Asks for more in good time.
    pub(crate) fn end(&mut self, next: Offset, deadline: Duration, now: Instant) -> Option<Offset> {
        let needed = Reservation { end: next, until: now + deadline + MARGIN };
        let ahead = deadline.min(MAX_TIME_AHEAD);
        let soon =
            Reservation { end: next.after(MESSAGES_AHEAD / 2), until: needed.until + ahead / 2 };
        if !self.known().is_some_and(|known| known.covers(soon)) {
            let (end, until) = (next.after(MESSAGES_AHEAD), needed.until + ahead);
            self.want(Reservation { end, until });
        }
        let stored = self.stored?;
        let is_enough = self.required.is_none_or(|required| stored.covers(required));
        (is_enough && stored.covers(needed)).then_some(stored.end)
    }

    /// The latest deadline that is reserved, if it is earlier than `deadline`.
    pub(crate) fn bound(&self, deadline: Instant) -> Instant {
        let reserved = self.stored.and_then(|stored| stored.until.checked_sub(MARGIN));
        reserved.map_or(deadline, |reserved| reserved.min(deadline))
    }

    /// Hands out nothing until so much is stored: messages before `end` are with workers until `deadline`.
    pub(crate) fn require(&mut self, end: Offset, deadline: Instant) {
        self.require_all_of(Reservation { end, until: deadline + MARGIN });
    }

    /// Hands out nothing until something is stored once more, and thereby all that is to be stored by now.
    /// An owner that has lost its lease then hands out nothing any more.
    pub(crate) fn renew(&mut self, next: Offset, now: Instant) {
        let known = self.known().unwrap_or(Reservation { end: next, until: now });
        self.require_all_of(Reservation { end: known.end.after(1), ..known });
    }

    /// Asks for a reservation up to a later deadline.
    pub(crate) fn extend(&mut self, next: Offset, by: Duration, now: Instant) {
        let until = now + by + MARGIN;
        let end = self.known().map_or(next, |known| known.end);
        if !self.known().is_some_and(|known| known.covers(Reservation { end, until })) {
            self.want(Reservation { end, until: until + by.min(MAX_TIME_AHEAD) });
        }
    }

    /// Reserves no more than what workers have: nothing is handed out any more.
    pub(crate) fn shrink(&mut self, end: Offset, deadline: Option<Instant>, now: Instant) {
        let exact = Reservation { end, until: deadline.map_or(now, |deadline| deadline + MARGIN) };
        let is_needed = match deadline {
            Some(_) => self.known() != Some(exact),
            // One that is over holds nothing back.
            None => self.known().is_some_and(|known| known.until > now),
        };
        self.wanted = is_needed.then_some(exact);
    }

    /// Takes what is to be stored.
    pub(crate) fn take_wanted(&mut self) -> Option<Reservation> {
        self.writing = self.wanted.take();
        self.writing
    }

    /// What was taken is stored.
    pub(crate) fn note_stored(&mut self) {
        if let Some(written) = self.writing.take() {
            self.stored = Some(written);
        }
    }

    fn require_all_of(&mut self, more: Reservation) {
        self.required = Some(self.required.map_or(more, |required| required.with(more)));
        self.want(more);
    }

    fn want(&mut self, more: Reservation) {
        if self.known().is_some_and(|known| known.covers(more)) {
            return;
        }
        // If this owner ends as well, the next one is to wait for the owner before, too.
        let others = [self.wanted.or(self.known()), self.inherited];
        self.wanted = Some(others.into_iter().flatten().fold(more, Reservation::with));
    }

    /// What is stored, or will be.
    fn known(&self) -> Option<Reservation> {
        self.writing.or(self.stored)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn store(reservations: &mut Reservations) -> Option<Reservation> {
        let taken = reservations.take_wanted();
        reservations.note_stored();
        taken
    }

    #[test]
    fn one_write_reserves_many_messages_and_some_time() {
        let (now, mut reservations) = (Instant::now(), Reservations::default());
        assert_eq!(reservations.end(Offset(3), MINUTE, now), None, "nothing is stored");
        let stored = store(&mut reservations).unwrap();
        assert_eq!(stored.end, Offset(13));
        assert!(stored.until >= now + MINUTE + MARGIN);
        for next in [3, 5, 8] {
            assert_eq!(reservations.end(Offset(next), MINUTE, now), Some(Offset(13)));
            assert!(reservations.wanted.is_none());
        }
        // Less than half of them are left: more are reserved before that is urgent.
        assert_eq!(reservations.end(Offset(9), MINUTE, now), Some(Offset(13)));
        assert_eq!(reservations.take_wanted().unwrap().end, Offset(19));
        assert_eq!(reservations.end(Offset(13), MINUTE, now), Some(Offset(13)));
        assert!(reservations.wanted.is_none());
        reservations.note_stored();
        assert_eq!(reservations.end(Offset(13), MINUTE, now), Some(Offset(19)));
        // And so it is with the time.
        let later = now + Duration::from_secs(16);
        assert_eq!(reservations.end(Offset(13), MINUTE, later), Some(Offset(19)));
        assert!(reservations.wanted.is_some());
        let late = now + Duration::from_secs(31);
        assert_eq!(reservations.end(Offset(13), MINUTE, late), None);
    }

    #[test]
    fn a_write_that_is_under_way_is_waited_for_and_not_repeated() {
        let (now, mut reservations) = (Instant::now(), Reservations::default());
        assert_eq!(reservations.end(Offset(0), MINUTE, now), None);
        assert!(reservations.take_wanted().is_some());
        assert_eq!(reservations.end(Offset(0), MINUTE, now), None);
        assert!(reservations.wanted.is_none());
        // What comes meanwhile needs a write of its own.
        reservations.renew(Offset(0), now);
        reservations.note_stored();
        assert_eq!(reservations.end(Offset(0), MINUTE, now), None);
        assert!(store(&mut reservations).is_some());
        assert_eq!(reservations.end(Offset(0), MINUTE, now), Some(Offset(11)));
    }

    #[test]
    fn an_owner_that_ends_leaves_no_more_reserved_than_workers_have() {
        let (now, mut reservations) = (Instant::now(), Reservations::default());
        reservations.shrink(Offset(5), None, now);
        assert!(reservations.wanted.is_none(), "nothing was reserved");
        reservations.end(Offset(0), MINUTE, now);
        store(&mut reservations);
        reservations.shrink(Offset(5), None, now);
        assert_eq!(store(&mut reservations), Some(Reservation { end: Offset(5), until: now }));
        reservations.shrink(Offset(5), None, now);
        assert!(reservations.wanted.is_none(), "it is stored already");
    }
}
