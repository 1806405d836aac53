//! The leases of this broker, and the streams that wait for one.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot, watch};
use tokio_util::task::TaskTracker;

use crate::{
    broker::{
        error::Error,
        lease::{
            queue::{Permit, Priority, WaitQueue},
            state::ActiveLease,
        },
        notify::outbox::{LeaseScope, Outbox},
    },
    model::{ConsumerId, ConsumerKey, TopicName},
    storage::LeaseSession,
};

/// The leases of this broker.
pub(crate) struct Leases {
    /// The session that holds the locks; `None` while the database is away.
    pub(super) session: watch::Receiver<Option<Arc<LeaseSession>>>,
    entries: Mutex<Entries>,
    /// The leases to check, as they may have been changed from outside.
    to_check: Mutex<HashSet<LeaseScope>>,
    check: Notify,
    /// The tasks that release locks.
    pub(super) releases: TaskTracker,
    /// Notifies standbys on other brokers of released leases.
    pub(super) outbox: Outbox,
}

/// The consumers whose leases streams here hold or wait for.
#[derive(Default)]
struct Entries {
    by_name: HashMap<(TopicName, ConsumerId), Arc<Entry>>,
    /// Those whose lease was asked for, as notifications have numbers.
    by_key: HashMap<ConsumerKey, Arc<Entry>>,
}

/// A consumer whose lease streams here hold or wait for.
#[derive(Default)]
pub(super) struct Entry {
    /// The numbers that the lease was last asked for with: other ones after a registration anew.
    /// Changes only while the map of entries is locked.
    key: Mutex<Option<ConsumerKey>>,
    queue: Arc<WaitQueue>,
    pub(super) active: Mutex<Option<Arc<ActiveLease>>>,
    /// Notified when another broker released the lease.
    released: Notify,
    /// How many waiters there are. Changes only while the map of entries is locked.
    waiters: AtomicUsize,
}

/// A stream or pull that wants a consumer's lease. The last one to go removes the consumer's entry.
pub(crate) struct Waiter {
    pub(super) topic: TopicName,
    pub(super) consumer: ConsumerId,
    pub(super) entry: Arc<Entry>,
    pub(super) leases: Arc<Leases>,
}

/// How many streams here wait for a consumer's lease.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// The topic.
    pub topic: TopicName,
    /// The consumer.
    pub consumer: ConsumerId,
    /// How many streams and pulls wait. A pull counts while it is under way.
    pub streams: usize,
}

impl Leases {
    /// No leases yet. They will live on the session that [`crate::broker::lease::session`] keeps
    /// open.
    pub(crate) fn new(session: watch::Receiver<Option<Arc<LeaseSession>>>, outbox: Outbox) -> Self {
        Self {
            session,
            entries: Mutex::default(),
            to_check: Mutex::default(),
            check: Notify::new(),
            releases: TaskTracker::new(),
            outbox,
        }
    }

    /// A waiter for a consumer's lease.
    pub(crate) fn waiter(
        self: &Arc<Self>,
        topic: &TopicName,
        consumer: &ConsumerId,
    ) -> Arc<Waiter> {
        let names = (topic.clone(), consumer.clone());
        let mut entries = self.entries.lock();
        let entry = entries.by_name.entry(names).or_default().clone();
        entry.waiters.fetch_add(1, Ordering::Relaxed);
        drop(entries);
        let (topic, consumer) = (topic.clone(), consumer.clone());
        Arc::new(Waiter { topic, consumer, entry, leases: self.clone() })
    }

    /// The lease of a consumer, if a stream of this broker holds it.
    pub(crate) fn active(
        &self,
        topic: &TopicName,
        consumer: &ConsumerId,
    ) -> Option<Arc<ActiveLease>> {
        let entries = self.entries.lock();
        entries.by_name.get(&(topic.clone(), consumer.clone()))?.active.lock().clone()
    }

    /// Waits until the lease session is open.
    pub(crate) async fn session_is_open(&self) -> Result<(), Error> {
        let mut session = self.session.clone();
        let is_open = |session: &Option<Arc<LeaseSession>>| {
            session.as_ref().is_some_and(|session| !session.closed().is_cancelled())
        };
        // Fails once the task that opens sessions has ended, as the broker stops.
        session.wait_for(is_open).await.map(drop).map_err(|_| Error::unavailable())
    }

    /// The consumers whose leases streams here wait for.
    pub(crate) fn waiting(&self) -> Vec<Waiting> {
        let entries = self.entries.lock();
        let waiting = entries.by_name.iter().map(|((topic, consumer), entry)| {
            let holds = entry.active.lock().is_some();
            let streams = entry.queue.len().saturating_sub(usize::from(holds));
            (streams > 0).then(|| Waiting {
                topic: topic.clone(),
                consumer: consumer.clone(),
                streams,
            })
        });
        waiting.flatten().collect()
    }

    /// All leases whose locks a session holds.
    pub(crate) fn all_on(&self, session: &Arc<LeaseSession>) -> Vec<Arc<ActiveLease>> {
        let entries = self.entries.lock();
        let active = entries.by_name.values().filter_map(|entry| entry.active.lock().clone());
        active.filter(|lease| Arc::ptr_eq(&lease.session, session)).collect()
    }

    /// Another broker released a lease.
    pub(crate) fn released_elsewhere(&self, key: ConsumerKey) {
        if let Some(entry) = self.entries.lock().by_key.get(&key) {
            entry.released.notify_one();
        }
    }

    /// A call to this broker changed leases from outside: it and the other brokers check theirs.
    pub(crate) fn changed(&self, scope: LeaseScope) {
        self.check_soon(scope);
        self.outbox.lease_changed(scope);
    }

    /// Leases may have changed: they are checked now rather than with the next poll.
    pub(crate) fn check_soon(&self, scope: LeaseScope) {
        self.to_check.lock().insert(scope);
        self.check.notify_one();
    }

    /// Waits until leases are to be checked, and returns those of a session.
    pub(crate) async fn next_to_check(&self, session: &Arc<LeaseSession>) -> Vec<Arc<ActiveLease>> {
        let scopes = self.next_scopes().await;
        let mut leases = self.all_on(session);
        leases.retain(|lease| {
            scopes.contains(&LeaseScope::Consumer(lease.key))
                || scopes.contains(&LeaseScope::Topic(lease.key.topic))
        });
        leases
    }

    /// Waits until leases are to be checked, and returns which.
    pub(crate) async fn next_scopes(&self) -> HashSet<LeaseScope> {
        self.check.notified().await;
        std::mem::take(&mut *self.to_check.lock())
    }

    /// Whether no entry is kept.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        let entries = self.entries.lock();
        entries.by_name.is_empty() && entries.by_key.is_empty()
    }

    /// Waits until all dropped leases are released.
    pub(crate) async fn released(&self) {
        self.releases.close();
        self.releases.wait().await;
    }
}

impl Entries {
    /// Finds an entry by this key from now on, and by no other.
    fn set_key(&mut self, entry: &Arc<Entry>, key: Option<ConsumerKey>) {
        let before = std::mem::replace(&mut *entry.key.lock(), key);
        if before == key {
            return;
        }
        if let Some(before) = before
            && self.by_key.get(&before).is_some_and(|found| Arc::ptr_eq(found, entry))
        {
            self.by_key.remove(&before);
        }
        if let Some(key) = key {
            self.by_key.insert(key, entry.clone());
        }
    }
}

impl Waiter {
    /// Joins this broker's queue; the permit comes through the channel.
    pub(crate) fn enqueue(&self, priority: Priority) -> oneshot::Receiver<Permit> {
        self.entry.queue.enqueue(priority)
    }

    /// The permit of this broker's queue, if no stream has it.
    pub(crate) fn try_acquire(&self) -> Option<Permit> {
        self.entry.queue.try_acquire()
    }

    /// Waits until a stream that takes over waits for the permit that this stream has.
    pub(crate) async fn take_over_waits(&self) {
        self.entry.queue.take_over_waits().await;
    }

    /// The holder's name, if a stream of this broker holds the lease.
    pub(crate) fn holder(&self) -> Option<String> {
        self.entry.active.lock().as_ref().map(|lease| lease.holder.clone())
    }

    /// Wakes this waiter from now on when another broker releases the lease of a key.
    pub(super) fn listen_for(&self, key: ConsumerKey) {
        self.leases.entries.lock().set_key(&self.entry, Some(key));
    }

    /// Waits until another broker releases the lease.
    pub(crate) async fn released_elsewhere(&self) {
        self.entry.released.notified().await;
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut entries = self.leases.entries.lock();
        if self.entry.waiters.fetch_sub(1, Ordering::Relaxed) == 1 {
            entries.set_key(&self.entry, None);
            entries.by_name.remove(&(self.topic.clone(), self.consumer.clone()));
        }
    }
}
