//! What principals use in this broker: the streams that they have open, and how fast they publish.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::{sync::watch, time};

#[cfg(test)]
use crate::model::Allowance;
use crate::{
    access::{
        rate::{Rates, UsedUp},
        snapshot::Snapshot,
    },
    model::{Limit, Principal},
};

/// Principals that use nothing are forgotten once there are this many.
const FIRST_SWEEP: usize = 1_024;

/// The most principals that are remembered only because they have used a rate up. Of more, an
/// arbitrary one is forgotten.
const MAX_OWING: usize = 65_536;

/// What principals use.
#[derive(Default)]
pub(crate) struct Usages(Mutex<Known>);

#[derive(Default)]
struct Known {
    by_principal: HashMap<Principal, Arc<Usage>>,
    /// How many there may be until those that use nothing are forgotten.
    sweep_at: usize,
}

/// What a principal uses.
pub(crate) struct Usage {
    streams: AtomicUsize,
    /// Replaced when the principal's quotas change.
    rates: watch::Sender<Option<Arc<Rates>>>,
}

/// The rates of the principal that a publish stream belongs to. Cheap to clone.
#[derive(Clone)]
pub struct Pace(Arc<Usage>);

/// An open stream, which counts until this is dropped.
pub struct OpenStream(Arc<Usage>);

impl Usages {
    /// What a principal uses. `current` is asked under the lock, so that no quota that changes
    /// meanwhile is missed: [`Self::renew`] follows the change of the snapshot.
    pub(crate) fn find(
        &self,
        principal: &Principal,
        current: impl FnOnce() -> Arc<Snapshot>,
    ) -> Arc<Usage> {
        let mut known = self.0.lock();
        if let Some(usage) = known.by_principal.get(principal) {
            return usage.clone();
        }
        if known.by_principal.len() >= known.sweep_at.max(FIRST_SWEEP) {
            known.sweep();
        }
        let usage = Arc::new(Usage {
            streams: AtomicUsize::new(0),
            rates: watch::Sender::new(rates_of(principal, &current())),
        });
        known.by_principal.insert(principal.clone(), usage.clone());
        usage
    }

    /// Makes changed quotas hold, also for open streams. What was owed by a rate that has changed is
    /// forgotten.
    pub(crate) fn renew(&self, before: &Snapshot, after: &Snapshot) {
        for (principal, usage) in &self.0.lock().by_principal {
            let (old, new) = (before.allowance(principal), after.allowance(principal));
            let has_changed = |limit| old.get(limit) != new.get(limit);
            if has_changed(Limit::MessagesPerSecond) || has_changed(Limit::BytesPerSecond) {
                usage.rates.send_replace(rates_of(principal, after));
            }
        }
    }
}

fn rates_of(principal: &Principal, snapshot: &Snapshot) -> Option<Arc<Rates>> {
    Rates::new(&snapshot.allowance(principal)).map(Arc::new)
}

impl Known {
    fn sweep(&mut self) {
        let mut owing = 0;
        self.by_principal.retain(|_, usage| {
            // Those in use are also held by a call or a stream.
            if Arc::strong_count(usage) > 1 {
                return true;
            }
            owing += usize::from(usage.is_owing());
            usage.is_owing() && owing <= MAX_OWING
        });
        self.sweep_at = 2 * self.by_principal.len();
    }
}

impl Usage {
    /// Counts one more stream, if there are fewer than the limit.
    pub(crate) fn open_stream(self: Arc<Self>, limit: usize) -> Option<OpenStream> {
        let one_more = |open| (open < limit).then_some(open + 1);
        let (success, failure) = (Ordering::Relaxed, Ordering::Relaxed);
        self.streams.fetch_update(success, failure, one_more).ok()?;
        Some(OpenStream(self))
    }

    /// Takes what a request publishes, if the rates permit it.
    pub(crate) fn take(&self, messages: usize, bytes: usize) -> Result<(), UsedUp> {
        match &*self.rates.borrow() {
            Some(rates) => rates.take(messages, bytes),
            None => Ok(()),
        }
    }

    fn is_owing(&self) -> bool {
        self.rates.borrow().as_ref().is_some_and(|rates| rates.are_used())
    }
}

impl Pace {
    pub(crate) fn new(usage: Arc<Usage>) -> Self {
        Self(usage)
    }

    /// The rates of an allowance, for tests of what is held to them.
    #[cfg(test)]
    pub(crate) fn of(allowance: &Allowance) -> Self {
        let rates = watch::Sender::new(Rates::new(allowance).map(Arc::new));
        Self(Arc::new(Usage { streams: AtomicUsize::new(0), rates }))
    }

    /// Lifts the rates, as a changed quota does.
    #[cfg(test)]
    pub(crate) fn lift(&self) {
        self.0.rates.send_replace(None);
    }

    /// Whether the rates are limited and used up, so that the next request must wait.
    pub fn is_used_up(&self) -> bool {
        self.0.is_owing()
    }

    /// Whether the rates are limited.
    pub fn is_limited(&self) -> bool {
        self.0.rates.borrow().is_some()
    }

    /// Takes what a request publishes, whatever is left of the rates.
    pub fn charge(&self, messages: usize, bytes: usize) {
        if let Some(rates) = &*self.0.rates.borrow() {
            rates.charge(messages, bytes);
        }
    }

    /// Waits until the rates permit the next request.
    pub async fn permits(self) {
        let mut rates = self.0.rates.subscribe();
        loop {
            let checked = match &*rates.borrow_and_update() {
                Some(rates) => rates.check(),
                None => Ok(()),
            };
            let Err(UsedUp { wait, .. }) = checked else { return };
            tokio::select! {
                () = time::sleep(wait) => {}
                // Cannot fail: the sender is in the usage.
                _ = rates.changed() => {}
            }
        }
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;
    use crate::{
        access::snapshot::Loaded,
        model::{QuotaHolder, QuotaKey},
        storage::AccessVersion,
    };

    fn principal(name: &str) -> Principal {
        Principal::parse(name).unwrap()
    }

    fn snapshot(messages_per_second: Option<u64>) -> Snapshot {
        let key = QuotaKey { holder: QuotaHolder::Everyone, limit: Limit::MessagesPerSecond };
        let quotas = messages_per_second.map(|value| (key, value)).into_iter().collect();
        let version = AccessVersion::default();
        let loaded = Loaded { version, tokens: Vec::new(), grants: Vec::new(), quotas };
        Snapshot::new(loaded, Allowance::default(), &Snapshot::default())
    }

    #[test]
    fn a_stream_counts_until_it_is_dropped() {
        let usages = Usages::default();
        let find = |name| usages.find(&principal(name), || Arc::new(snapshot(None)));
        let open = |name| find(name).open_stream(2);
        let first = open("shop").unwrap();
        let _second = open("shop").unwrap();
        assert!(open("shop").is_none());
        assert!(open("bank").is_some(), "another principal's");
        drop(first);
        assert!(open("shop").is_some());
    }

    #[tokio::test]
    async fn a_changed_rate_holds_for_those_who_wait() {
        let (usages, slow, fast) = (Usages::default(), snapshot(Some(1)), snapshot(Some(1_000)));
        let pace = Pace::new(usages.find(&principal("shop"), || Arc::new(snapshot(Some(1)))));
        pace.charge(1_000_000, 0);
        assert!(pace.is_limited() && pace.is_used_up());
        let mut permitted = Box::pin(pace.clone().permits());
        assert!((&mut permitted).now_or_never().is_none());
        usages.renew(&slow, &slow);
        assert!((&mut permitted).now_or_never().is_none(), "nothing has changed");
        usages.renew(&slow, &fast);
        assert!(permitted.now_or_never().is_some() && pace.is_limited());
        usages.renew(&fast, &snapshot(None));
        assert!(!pace.is_limited() && !pace.is_used_up());
    }

    #[test]
    fn principals_that_use_nothing_are_forgotten_and_those_that_owe_are_not() {
        let usages = Usages::default();
        let find = |name: &str| usages.find(&principal(name), || Arc::new(snapshot(Some(1))));
        find("debtor").take(100, 0).unwrap();
        let _open = find("reader").open_stream(1).unwrap();
        for number in 0..10 * FIRST_SWEEP {
            find(&number.to_string());
        }
        assert!(usages.0.lock().by_principal.len() <= FIRST_SWEEP);
        assert!(find("debtor").take(1, 0).is_err());
        assert!(find("reader").open_stream(1).is_none());
    }
}
