//! The right to advance a consumer: one stream at a time, across all brokers.
//!
//! Three things make a lease, each for what the others cannot do. A *turn*, in this process: the
//! one session that holds all of a broker's locks would be given a lock twice. The *advisory
//! lock*: it keeps other brokers out, and is freed when a broker dies. The *epoch*: every write of
//! a position names it, so that a holder that lost its lock without knowing cannot write any more.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

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

/// How long a stream's end waits for its lease to be free, so that its client can have it at once.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(1);

/// The leases of this broker, and who waits for one.
pub(crate) struct Leases {
    /// The session that holds the locks; none while the database is away.
    session: watch::Receiver<Option<Arc<LeaseSession>>>,
    slots: Mutex<HashMap<(TopicName, ConsumerId), Arc<Entry>>>,
    /// Leases that somebody changed from outside, to be looked at.
    looked_for: Mutex<HashSet<LeaseScope>>,
    look: Notify,
    /// Locks on their way back.
    releases: TaskTracker,
    /// Tells other brokers' standbys of a lease that was given back.
    hints: Outbox,
}

/// A consumer that somebody here holds or waits for.
#[derive(Default)]
struct Entry {
    turns: Arc<WaitQueue>,
    held: Mutex<Option<Arc<ActiveLease>>>,
    freed: Notify,
    /// How many waiters there are; changed under the lock of all slots only.
    waiters: AtomicUsize,
}

/// A place in the queue for a consumer; the last one takes the slot with it.
pub(crate) struct Waiter {
    topic: TopicName,
    consumer: ConsumerId,
    slot: Arc<Entry>,
    leases: Arc<Leases>,
}

/// A lease; given back when it is dropped.
pub(crate) struct Lease {
    held: Arc<ActiveLease>,
    standing: watch::Receiver<LeaseStatus>,
    /// The epoch that the stream knows of.
    epoch: Epoch,
    seek_epoch: Epoch,
    /// Goes when the lock has gone back, so that the next in line does not ask in vain.
    turn: Option<Permit>,
    waiter: Arc<Waiter>,
}

/// What a stream must know of its lease.
#[derive(Clone, Debug)]
pub(crate) enum LeaseEvent {
    /// A seek began a new epoch.
    Sought,
    /// It is over, as its session is.
    SessionLost,
    /// It is over.
    Ended(LeaseEnd),
}

/// What came of asking for a lease.
pub(crate) enum Acquisition {
    /// It is had, and the consumer goes on at the offset.
    Acquired(Box<Lease>, Offset),
    /// It is another's, and the turn is still one's own.
    Busy(Permit),
    /// The consumer is not registered any more.
    Gone,
}

impl Leases {
    /// No leases yet, on the session that the keeper provides.
    pub(crate) fn new(session: watch::Receiver<Option<Arc<LeaseSession>>>, hints: Outbox) -> Self {
        Self {
            session,
            slots: Mutex::default(),
            looked_for: Mutex::default(),
            look: Notify::new(),
            releases: TaskTracker::new(),
            hints,
        }
    }

    /// A place in the queue for a consumer.
    pub(crate) fn waiter(
        self: &Arc<Self>,
        topic: &TopicName,
        consumer: &ConsumerId,
    ) -> Arc<Waiter> {
        let names = (topic.clone(), consumer.clone());
        let mut slots = self.slots();
        let slot = slots.entry(names).or_default().clone();
        slot.waiters.fetch_add(1, Ordering::Relaxed);
        drop(slots);
        Arc::new(Waiter {
            topic: topic.clone(),
            consumer: consumer.clone(),
            slot,
            leases: self.clone(),
        })
    }

    /// The lease that a stream of this broker has on a consumer.
    pub(crate) fn held(
        &self,
        topic: &TopicName,
        consumer: &ConsumerId,
    ) -> Option<Arc<ActiveLease>> {
        self.slots().get(&(topic.clone(), consumer.clone()))?.held().clone()
    }

    /// Waits for a session that can hold locks: one that was lost is opened again.
    pub(crate) async fn can_be_had(&self) -> Result<(), Error> {
        let mut session = self.session.clone();
        let is_open = |session: &Option<Arc<LeaseSession>>| {
            session.as_ref().is_some_and(|session| !session.closed().is_cancelled())
        };
        // Without a keeper the broker stops.
        session.wait_for(is_open).await.map(drop).map_err(|_| Error::DatabaseUnavailable)
    }

    /// All leases whose lock a session has.
    pub(crate) fn all_held(&self, session: &Arc<LeaseSession>) -> Vec<Arc<ActiveLease>> {
        let slots = self.slots();
        let held = slots.values().filter_map(|slot| slot.held().clone());
        held.filter(|held| Arc::ptr_eq(&held.session, session)).collect()
    }

    /// Another broker gave a lease back.
    pub(crate) fn freed_elsewhere(&self, topic: TopicName, consumer: ConsumerId) {
        if let Some(slot) = self.slots().get(&(topic, consumer)) {
            slot.freed.notify_one();
        }
    }

    /// Somebody changed a lease from outside, on this broker: it and the others look at theirs.
    pub(crate) fn changed(&self, whose: LeaseScope) {
        self.look_at(whose);
        self.hints.lease_changed(whose);
    }

    /// A lease may have changed: the keeper looks at it now.
    pub(crate) fn look_at(&self, whose: LeaseScope) {
        self.looked_for.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).insert(whose);
        self.look.notify_one();
    }

    /// Waits for leases of a session to look at.
    pub(crate) async fn to_look_at(&self, session: &Arc<LeaseSession>) -> Vec<Arc<ActiveLease>> {
        let looked_for = self.looked_for().await;
        let mut held = self.all_held(session);
        held.retain(|held| {
            looked_for.contains(&LeaseScope::Consumer(held.key))
                || looked_for.contains(&LeaseScope::Topic(held.key.topic))
        });
        held
    }

    /// Waits until somebody looks for leases, and tells whose.
    pub(crate) async fn looked_for(&self) -> HashSet<LeaseScope> {
        self.look.notified().await;
        let mut looked_for = self.looked_for.lock().unwrap_or_else(|error| error.into_inner());
        std::mem::take(&mut *looked_for)
    }

    /// Waits until the leases that were dropped have gone back.
    pub(crate) async fn released(&self) {
        self.releases.close();
        self.releases.wait().await;
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<(TopicName, ConsumerId), Arc<Entry>>> {
        self.slots.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Entry {
    fn held(&self) -> MutexGuard<'_, Option<Arc<ActiveLease>>> {
        self.held.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Waiter {
    /// A place in line within this broker; the turn comes over it.
    pub(crate) fn enqueue(&self, place: Priority) -> oneshot::Receiver<Permit> {
        self.slot.turns.enqueue(place)
    }

    /// The turn, if nobody here has it.
    pub(crate) fn try_acquire(&self) -> Option<Permit> {
        self.slot.turns.try_acquire()
    }

    /// Waits until somebody who takes over waits for the turn that one has.
    pub(crate) async fn take_over_waits(&self) {
        self.slot.turns.take_over_waits().await;
    }

    /// Who holds the lease in this broker, if a stream here does.
    pub(crate) fn holder(&self) -> Option<String> {
        self.slot.held().as_ref().map(|held| held.holder.clone())
    }

    /// Waits until another broker says that it gave the lease back.
    pub(crate) async fn freed_elsewhere(&self) {
        self.slot.freed.notified().await;
    }

    /// Asks the database for the lease; `claim` is that of a stream that takes it over.
    ///
    /// Must run to its end: dropped half-way, it would leave a lock that nobody knows of.
    pub(crate) async fn acquire(
        self: &Arc<Self>,
        turn: Permit,
        key: ConsumerKey,
        holder: &str,
        claim: Option<&ClaimToken>,
    ) -> Result<Acquisition, Error> {
        let session = self.leases.session.borrow().clone().ok_or(Error::DatabaseUnavailable)?;
        if !session.try_lock(key).await.map_err(Error::of_read)? {
            return Ok(Acquisition::Busy(turn));
        }
        let begun = session.begin_epoch(key, holder, claim).await;
        let (epoch, position, seek_epoch) = match begun {
            Ok(EpochStart::Epoch { epoch, position, seek_epoch }) => (epoch, position, seek_epoch),
            other => {
                give_back(&session, key).await;
                return match other.map_err(Error::of_read)? {
                    EpochStart::Gone => Ok(Acquisition::Gone),
                    EpochStart::Claimed | EpochStart::Epoch { .. } => Ok(Acquisition::Busy(turn)),
                };
            }
        };
        let (holder, progress) = (holder.to_owned(), LeaseState::new(epoch, position));
        let standing = progress.watch();
        let held = Arc::new(ActiveLease { key, holder, session, progress });
        *self.slot.held() = Some(held.clone());
        let (turn, waiter) = (Some(turn), self.clone());
        let lease = Lease { held, standing, epoch, seek_epoch, turn, waiter };
        Ok(Acquisition::Acquired(Box::new(lease), position))
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut slots = self.leases.slots();
        if self.slot.waiters.fetch_sub(1, Ordering::Relaxed) == 1 {
            slots.remove(&(self.topic.clone(), self.consumer.clone()));
        }
    }
}

impl Lease {
    pub(crate) fn key(&self) -> ConsumerKey {
        self.held.key
    }

    /// The number under which the stream writes positions.
    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The epoch that the last seek began; 0 if there was none.
    pub(crate) fn seek_epoch(&self) -> Epoch {
        self.seek_epoch
    }

    /// The stored position, as far as it is known here.
    pub(crate) fn committed(&self) -> Offset {
        self.held.progress.committed()
    }

    /// Messages up to an offset are about to be handed out.
    pub(crate) fn delivers(&self, end: Offset) {
        self.held.progress.delivers(self.epoch, end);
    }

    /// A position was stored under the lease's epoch.
    pub(crate) fn position_stored(&self, position: Offset) {
        self.held.progress.position_stored(self.epoch, position);
    }

    /// Waits until the stored position moves; for ever if the lease is over.
    pub(crate) async fn committed_beyond(&self, known: Offset) {
        let mut standing = self.standing.clone();
        // The sender lives as long as this lease.
        let _ = standing.wait_for(|standing| standing.committed > known).await;
    }

    /// Waits for something that the stream must act on.
    pub(crate) async fn news(&self) -> LeaseEvent {
        let mut standing = self.standing.clone();
        let changed = standing.wait_for(|now| now.over.is_some() || now.epoch != self.epoch);
        tokio::select! {
            // Of a lease whose session is over nothing else is true any more.
            biased;
            () = self.held.session.closed().cancelled() => LeaseEvent::SessionLost,
            Ok(now) = changed => match &now.over {
                Some(over) => LeaseEvent::Ended(over.clone()),
                None => LeaseEvent::Sought,
            },
        }
    }

    /// Takes the new epoch of a seek; returns where it begins.
    pub(crate) fn go_on(&mut self) -> Offset {
        let now = self.standing.borrow();
        self.epoch = now.epoch;
        self.seek_epoch = now.epoch;
        now.start
    }

    /// Gives the lease back, and waits until it is free, or for a moment if that takes long.
    pub(crate) async fn release(mut self) {
        if let Some(given_back) = self.give_back() {
            // It goes on by itself.
            let _ = tokio::time::timeout(RELEASE_TIMEOUT, given_back).await;
        }
    }

    /// Begins to give the lease back, once.
    fn give_back(&mut self) -> Option<JoinHandle<()>> {
        let turn = self.turn.take()?;
        *self.waiter.slot.held() = None;
        let (session, waiter, key) =
            (self.held.session.clone(), self.waiter.clone(), self.held.key);
        let leases = waiter.leases.clone();
        Some(leases.releases.spawn(async move {
            give_back(&session, key).await;
            drop(turn);
            waiter.leases.hints.lease_freed(waiter.topic.clone(), waiter.consumer.clone());
        }))
    }

    /// Asks the database at once how the lease stands; false if nothing has changed.
    pub(crate) async fn look(&self) -> Result<bool, Error> {
        let mine = [(self.key(), self.epoch, Offset(i64::MAX))];
        let changes = self.held.session.find_changes(&mine).await.map_err(Error::of_read)?;
        let changed = !changes.is_empty();
        changes.into_iter().for_each(|(_, seen)| self.held.progress.saw(seen));
        Ok(changed)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// Gives a lock back. If that fails, ends the session: a lock that nobody knows of would keep its
/// consumer from everybody.
async fn give_back(session: &LeaseSession, key: ConsumerKey) {
    match session.unlock(key).await {
        Ok(true) => {}
        Ok(false) => tracing::error!(?key, "give back a lock that the session did not have"),
        Err(error) => {
            if !session.closed().is_cancelled() {
                tracing::warn!(%error, "give back a lock: end the lease session");
            }
            session.close();
        }
    }
}
