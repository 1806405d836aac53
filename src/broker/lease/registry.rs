//! The leases of this broker, and the streams that wait for one.
//!
//! A lease has three parts:
//!
//! * the *permit* of this broker's queue, as the one session that holds all of a broker's locks would
//!   be granted a lock that it has already;
//! * the *advisory lock*, which excludes other brokers, and which PostgreSQL releases when a broker
//!   dies;
//! * the *epoch*, which every write of a position names, so that a holder that lost its lock without
//!   noticing can no longer write.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::{Notify, oneshot, watch},
    task::JoinHandle,
};
use tokio_util::task::TaskTracker;

use crate::{
    broker::{
        error::Error,
        lease::{
            queue::{Permit, Priority, WaitQueue},
            state::{ActiveLease, LeaseEnd, LeaseState, LeaseStatus},
        },
        notify::outbox::{LeaseScope, Outbox},
    },
    model::{ConsumerId, ConsumerKey, Epoch, Offset, TopicName},
    storage::{ClaimToken, EpochStart, LeaseSession},
};

/// How long a stream that ends waits for its lease to be released, so that its client can acquire
/// it again at once.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(1);

/// The leases of this broker.
pub(crate) struct Leases {
    /// The session that holds the locks; `None` while the database is away.
    session: watch::Receiver<Option<Arc<LeaseSession>>>,
    entries: Mutex<HashMap<(TopicName, ConsumerId), Arc<Entry>>>,
    /// The leases to check, as they may have been changed from outside.
    to_check: Mutex<HashSet<LeaseScope>>,
    check: Notify,
    /// The tasks that release locks.
    releases: TaskTracker,
    /// Notifies standbys on other brokers of released leases.
    outbox: Outbox,
}

/// A consumer whose lease streams here hold or wait for.
#[derive(Default)]
struct Entry {
    queue: Arc<WaitQueue>,
    active: Mutex<Option<Arc<ActiveLease>>>,
    /// Notified when another broker released the lease.
    released: Notify,
    /// How many waiters there are. Changes only while the map of entries is locked.
    waiters: AtomicUsize,
}

/// A stream or pull that wants a consumer's lease. The last one to go removes the consumer's entry.
pub(crate) struct Waiter {
    topic: TopicName,
    consumer: ConsumerId,
    entry: Arc<Entry>,
    leases: Arc<Leases>,
}

/// A lease; released when it is dropped.
pub(crate) struct Lease {
    active: Arc<ActiveLease>,
    status: watch::Receiver<LeaseStatus>,
    /// The epoch that the stream works under.
    epoch: Epoch,
    seek_epoch: Epoch,
    /// Dropped after the lock is released, so that the lock is free when the next stream asks for
    /// it.
    permit: Option<Permit>,
    waiter: Arc<Waiter>,
}

/// A change of a lease that its stream must act on.
#[derive(Clone, Debug)]
pub(crate) enum LeaseEvent {
    /// A seek began a new epoch.
    Sought,
    /// The lease session was lost, and the lease with it.
    SessionLost,
    /// The lease ended.
    Ended(LeaseEnd),
}

/// A lease that was acquired.
pub(crate) struct Acquired {
    pub lease: Box<Lease>,
    /// The stored position, which its stream starts from.
    pub position: Offset,
}

/// The outcome of asking the database for a lease.
pub(crate) enum Acquisition {
    /// The lease was acquired.
    Acquired(Acquired),
    /// Another broker has the lock, or another stream claims it; the permit is still ours.
    Busy(Permit),
    /// Another session of the database holds the consumer's row; the permit is still ours.
    RowLocked(Permit),
    /// The consumer is no longer registered.
    Unregistered,
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
        let entry = entries.entry(names).or_default().clone();
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
        entries.get(&(topic.clone(), consumer.clone()))?.active.lock().clone()
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

    /// All leases whose locks a session holds.
    pub(crate) fn all_on(&self, session: &Arc<LeaseSession>) -> Vec<Arc<ActiveLease>> {
        let entries = self.entries.lock();
        let active = entries.values().filter_map(|entry| entry.active.lock().clone());
        active.filter(|lease| Arc::ptr_eq(&lease.session, session)).collect()
    }

    /// Another broker released a lease.
    pub(crate) fn released_elsewhere(&self, topic: TopicName, consumer: ConsumerId) {
        if let Some(entry) = self.entries.lock().get(&(topic, consumer)) {
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

    /// Waits until all dropped leases are released.
    pub(crate) async fn released(&self) {
        self.releases.close();
        self.releases.wait().await;
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

    /// Waits until another broker releases the lease.
    pub(crate) async fn released_elsewhere(&self) {
        self.entry.released.notified().await;
    }

    /// Asks the database for the lease; a stream that takes it over gives its `claim`.
    ///
    /// Must not be cancelled: that could leave a lock behind that no lease accounts for.
    pub(crate) async fn acquire(
        self: &Arc<Self>,
        permit: Permit,
        key: ConsumerKey,
        holder: &str,
        claim: Option<&ClaimToken>,
    ) -> Result<Acquisition, Error> {
        let session = self.leases.session.borrow().clone().ok_or_else(Error::unavailable)?;
        if !session.try_lock(key).await.map_err(Error::of_read)? {
            return Ok(Acquisition::Busy(permit));
        }
        let begun = session.begin_epoch(key, holder, claim).await;
        let (epoch, position, seek_epoch) = match begun {
            Ok(EpochStart::Epoch { epoch, position, seek_epoch }) => (epoch, position, seek_epoch),
            other => {
                unlock(&session, key).await;
                return match other.map_err(Error::of_read)? {
                    EpochStart::Gone => Ok(Acquisition::Unregistered),
                    EpochStart::RowLocked => Ok(Acquisition::RowLocked(permit)),
                    EpochStart::Claimed | EpochStart::Epoch { .. } => Ok(Acquisition::Busy(permit)),
                };
            }
        };
        let (holder, state) = (holder.to_owned(), LeaseState::new(epoch, position));
        let status = state.watch();
        let active = Arc::new(ActiveLease { key, holder, session, state });
        *self.entry.active.lock() = Some(active.clone());
        let (permit, waiter) = (Some(permit), self.clone());
        let lease = Lease { active, status, epoch, seek_epoch, permit, waiter };
        Ok(Acquisition::Acquired(Acquired { lease: Box::new(lease), position }))
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut entries = self.leases.entries.lock();
        if self.entry.waiters.fetch_sub(1, Ordering::Relaxed) == 1 {
            entries.remove(&(self.topic.clone(), self.consumer.clone()));
        }
    }
}

impl Lease {
    pub(crate) fn key(&self) -> ConsumerKey {
        self.active.key
    }

    /// The epoch that the stream writes positions under.
    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The epoch that the last seek began; 0 if there was none.
    pub(crate) fn seek_epoch(&self) -> Epoch {
        self.seek_epoch
    }

    /// The stored position, as far as this broker knows.
    pub(crate) fn committed(&self) -> Offset {
        self.active.state.committed()
    }

    /// Records that messages up to an offset are about to be handed out.
    pub(crate) fn record_delivered(&self, end: Offset) {
        self.active.state.record_delivered(self.epoch, end);
    }

    /// Records that a position was stored under the lease's epoch.
    pub(crate) fn record_stored(&self, position: Offset) {
        self.active.state.record_stored(self.epoch, position);
    }

    /// Waits until the stored position is beyond `known`; for ever if the lease ended.
    pub(crate) async fn committed_beyond(&self, known: Offset) {
        let mut status = self.status.clone();
        // The sender lives as long as the lease.
        let _ = status.wait_for(|status| status.committed > known).await;
    }

    /// Waits for something that the stream must act on.
    pub(crate) async fn event(&self) -> LeaseEvent {
        let mut status = self.status.clone();
        let changed = status.wait_for(|now| now.ended.is_some() || now.epoch != self.epoch);
        tokio::select! {
            // The loss of the session takes precedence.
            biased;
            () = self.active.session.closed().cancelled() => LeaseEvent::SessionLost,
            Ok(now) = changed => match &now.ended {
                Some(end) => LeaseEvent::Ended(end.clone()),
                None => LeaseEvent::Sought,
            },
        }
    }

    /// Adopts the epoch that a seek began, and returns the position it began at.
    pub(crate) fn adopt_seek(&mut self) -> Offset {
        let now = self.status.borrow();
        self.epoch = now.epoch;
        self.seek_epoch = now.epoch;
        now.start
    }

    /// Releases the lease, and waits for that for up to a second.
    pub(crate) async fn release(mut self) {
        if let Some(released) = self.begin_release() {
            // After the timeout the task carries on by itself.
            let _ = tokio::time::timeout(RELEASE_TIMEOUT, released).await;
        }
    }

    /// Begins to release the lease, unless that has been done.
    fn begin_release(&mut self) -> Option<JoinHandle<()>> {
        let permit = self.permit.take()?;
        *self.waiter.entry.active.lock() = None;
        let (session, key) = (self.active.session.clone(), self.active.key);
        let waiter = self.waiter.clone();
        let leases = waiter.leases.clone();
        Some(leases.releases.spawn(async move {
            unlock(&session, key).await;
            drop(permit);
            waiter.leases.outbox.lease_released(waiter.topic.clone(), waiter.consumer.clone());
        }))
    }

    /// Asks the database whether the lease has changed, and records what has.
    pub(crate) async fn check(&self) -> Result<bool, Error> {
        let known = [(self.key(), self.epoch, Offset(i64::MAX))];
        let changes = self.active.session.find_changes(&known).await.map_err(Error::of_read)?;
        let changed = !changes.is_empty();
        changes.into_iter().for_each(|(_, change)| self.active.state.observe(change));
        Ok(changed)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.begin_release();
    }
}

/// Releases a lock. If that fails, ends the session: a lock that no lease accounts for would block
/// its consumer.
async fn unlock(session: &LeaseSession, key: ConsumerKey) {
    match session.unlock(key).await {
        Ok(true) => {}
        Ok(false) => tracing::error!(?key, "release a lock that the session did not have"),
        Err(error) => {
            if !session.closed().is_cancelled() {
                tracing::warn!(%error, "release a lock: end the lease session");
            }
            session.close();
        }
    }
}
