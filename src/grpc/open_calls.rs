//! Limits how many calls each owner may have open, and all owners together.
//!
//! A call is open from its headers until its answer has been handed over or dropped, also one whose
//! request never ends. It costs a task, and for a small answer up to 16 KiB.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use crate::broker::Hold;

/// How many calls may be open.
#[derive(Clone, Copy, Debug)]
pub(super) struct CallLimits {
    /// Of one owner.
    pub(super) each: usize,
    /// Of all.
    pub(super) all: usize,
    /// How many of each owner do not count towards those of all, so that others cannot use them up.
    pub(super) first: usize,
}

impl CallLimits {
    /// Of strangers, whose calls ask for the health.
    pub(super) const OF_STRANGERS: Self = Self { each: 256, all: 2_048, first: 4 };

    /// Calls besides the streams that consume: publishes in flight and idle publish streams of a whole
    /// fleet, which may share one address or one principal.
    const OTHERS: usize = 8_192;

    /// At least so many of all: several for each connection.
    const ALL: usize = 65_536;

    /// Limits that leave an owner room for other calls beside all streams that a broker serves.
    pub(super) fn for_streams(streams: usize) -> Self {
        let each = streams.saturating_add(Self::OTHERS);
        Self { each, all: each.saturating_mul(4).max(Self::ALL), first: 0 }
    }
}

/// The open calls of all owners of one kind.
pub(super) struct AllCalls {
    limits: CallLimits,
    open: AtomicUsize,
}

/// The open calls of one owner. Cheap to clone.
#[derive(Clone)]
pub(super) struct OpenCalls(Arc<OwnCalls>);

struct OwnCalls {
    open: AtomicUsize,
    all: Arc<AllCalls>,
}

/// A call that is open until this is dropped.
pub(super) struct OpenCall {
    calls: OpenCalls,
    /// Whether it counts towards the calls of all.
    is_of_all: bool,
    /// What its answers are charged.
    _answers: Option<Hold>,
}

/// Why a call is one too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TooManyCalls {
    /// Its owner has so many already.
    OfOwner(usize),
    /// All owners together have.
    OfAll(usize),
}

impl AllCalls {
    pub(super) fn new(limits: CallLimits) -> Arc<Self> {
        Arc::new(Self { limits, open: AtomicUsize::new(0) })
    }

    /// How many are open, without those that do not count towards the calls of all.
    pub(super) fn count(&self) -> usize {
        self.open.load(Relaxed)
    }
}

impl OpenCalls {
    /// The calls of an owner that has none yet.
    pub(super) fn new(all: Arc<AllCalls>) -> Self {
        Self(Arc::new(OwnCalls { open: AtomicUsize::new(0), all }))
    }

    /// Whether nobody else uses it or could.
    pub(super) fn is_unused(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }

    /// Counts one more call, if there may be one.
    pub(super) fn open(&self) -> Result<OpenCall, TooManyCalls> {
        self.open_as(true)
    }

    /// As [`Self::open`], for a call that no calls of other owners may prevent.
    pub(super) fn open_beside_all(&self) -> Result<OpenCall, TooManyCalls> {
        self.open_as(false)
    }

    fn open_as(&self, counts: bool) -> Result<OpenCall, TooManyCalls> {
        let OwnCalls { open, all } = &*self.0;
        let CallLimits { each, all: of_all, first } = all.limits;
        // Those that are refused count for a moment, which may refuse another one needlessly.
        let own = open.fetch_add(1, Relaxed);
        let is_of_all = counts && own >= first;
        let call = OpenCall { calls: self.clone(), is_of_all, _answers: None };
        let is_one_too_many = is_of_all && all.open.fetch_add(1, Relaxed) >= of_all;
        match own < each {
            true if !is_one_too_many => Ok(call),
            true => Err(TooManyCalls::OfAll(of_all)),
            false => Err(TooManyCalls::OfOwner(each)),
        }
    }
}

impl OpenCall {
    /// Charges the answers of the call for as long as it is open.
    pub(super) fn charge(&mut self, answers: Hold) {
        self._answers = Some(answers);
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        let OwnCalls { open, all } = &*self.calls.0;
        open.fetch_sub(1, Relaxed);
        if self.is_of_all {
            all.open.fetch_sub(1, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: CallLimits = CallLimits { each: 2, all: 3, first: 0 };

    #[test]
    fn an_owner_has_no_more_calls_than_its_limit_and_all_no_more_than_theirs() {
        let all = AllCalls::new(LIMITS);
        let [greedy, other] = [(); 2].map(|()| OpenCalls::new(all.clone()));
        let held = [greedy.open(), greedy.open(), other.open()].map(Result::unwrap);
        assert_eq!(greedy.open().err(), Some(TooManyCalls::OfOwner(2)));
        assert_eq!(other.open().err(), Some(TooManyCalls::OfAll(3)));
        assert!(!greedy.is_unused());
        drop(held);
        assert!(greedy.open().is_ok() && other.open().is_ok());
        assert!(greedy.is_unused());
    }

    #[test]
    fn others_prevent_neither_the_first_calls_of_an_owner_nor_those_that_must_be_answered() {
        let all = AllCalls::new(CallLimits { each: 3, all: 1, first: 1 });
        let [greedy, other] = [(); 2].map(|()| OpenCalls::new(all.clone()));
        let held = [greedy.open(), greedy.open()].map(Result::unwrap);
        assert_eq!(greedy.open().err(), Some(TooManyCalls::OfAll(1)));
        let first = other.open().unwrap();
        assert_eq!(other.open().err(), Some(TooManyCalls::OfAll(1)));
        let answered = [other.open_beside_all(), other.open_beside_all()].map(Result::unwrap);
        assert_eq!(other.open_beside_all().err(), Some(TooManyCalls::OfOwner(3)));
        drop((held, first, answered));
        assert_eq!(all.open.load(Relaxed), 0);
    }

    #[test]
    fn one_owner_may_have_all_streams_and_other_calls_beside_them() {
        let CallLimits { each, all, .. } = CallLimits::for_streams(1_600);
        assert_eq!((each, all), (9_792, 65_536));
        assert_eq!(CallLimits::for_streams(100_000).all, 4 * 108_192);
    }
}
