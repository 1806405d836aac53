//! Limits how many calls each owner may have open, and all owners together.
//!
//! A call is open from its headers until its answer has been handed over or dropped, also one whose
//! request never ends. It costs a task, and for a small answer up to 16 KiB.

use std::{
    cell::RefCell,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use tokio::task::futures::TaskLocalFuture;

use crate::broker::Hold;

/// How many calls may be open.
#[derive(Clone, Copy, Debug)]
pub(super) struct CallLimits {
    /// Of one owner.
    pub(super) each: usize,
    /// Of all.
    pub(super) all: usize,
}

impl CallLimits {
    /// Of strangers, whose calls ask for the health.
    pub(super) const OF_STRANGERS: Self = Self { each: 256, all: 2_048 };

    /// Calls besides the streams that consume.
    const OTHERS: usize = 1_024;

    /// At least so many of all: more than one for each connection.
    const ALL: usize = 16_384;

    /// Limits that leave an owner room for other calls beside all streams that a broker serves.
    pub(super) fn for_streams(streams: usize) -> Self {
        let each = streams.saturating_add(Self::OTHERS);
        Self { each, all: each.saturating_mul(4).max(Self::ALL) }
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

tokio::task_local! {
    /// Holds the call that a task serves.
    static SERVED: RefCell<Option<OpenCall>>;
}

/// Serves a call, in a task of its own, which ends when the whole answer is handed over. What is
/// [kept](OpenCall::keep) meanwhile counts until then.
pub fn serve_call<F: Future>(call: F) -> TaskLocalFuture<impl Send + 'static, F> {
    SERVED.scope(RefCell::new(None), call)
}

impl AllCalls {
    pub(super) fn new(limits: CallLimits) -> Arc<Self> {
        Arc::new(Self { limits, open: AtomicUsize::new(0) })
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
        let OwnCalls { open, all } = &*self.0;
        let CallLimits { each, all: of_all } = all.limits;
        // Those that are refused count for a moment, which may refuse another one needlessly.
        let (own, total) = (open.fetch_add(1, Relaxed), all.open.fetch_add(1, Relaxed));
        let call = OpenCall { calls: self.clone(), _answers: None };
        match own < each {
            true if total < of_all => Ok(call),
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

    /// Counts the call until the task that serves it ends.
    pub(super) fn keep(self) {
        // Only tests call services elsewhere.
        let _ = SERVED.try_with(|served| served.replace(Some(self)));
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        let OwnCalls { open, all } = &*self.calls.0;
        open.fetch_sub(1, Relaxed);
        all.open.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: CallLimits = CallLimits { each: 2, all: 3 };

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

    #[tokio::test]
    async fn a_call_counts_until_its_task_ends() {
        let calls = OpenCalls::new(AllCalls::new(LIMITS));
        let served = serve_call(async {
            calls.open().unwrap().keep();
            assert!(!calls.is_unused());
        });
        served.await;
        assert!(calls.is_unused());
    }

    #[test]
    fn one_owner_may_have_all_streams_and_other_calls_beside_them() {
        let CallLimits { each, all } = CallLimits::for_streams(1_600);
        assert_eq!((each, all), (2_624, 16_384));
        assert_eq!(CallLimits::for_streams(100_000).all, 4 * 101_024);
    }
}
