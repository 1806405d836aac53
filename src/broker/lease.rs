//! The right to advance a consumer: one stream at a time, across all brokers.
//!
//! Three things make a lease, each for what the others cannot do. A *turn*, in this process: the
//! one session that holds all of a broker's locks would be given a lock twice. The *advisory
//! lock*: it keeps other brokers out, and is freed when a broker dies. The *epoch*: every write of
//! a position names it, so that a holder that lost its lock without knowing cannot write any more.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicI64, Ordering},
    },
};

use tokio::sync::{Notify, OwnedMutexGuard, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Error, hints::Hints};
use crate::{
    model::{ConsumerId, ConsumerKey, Epoch, Offset, TopicName},
    storage::LeaseSession,
};

/// The leases of this broker, and who waits for one.
pub(super) struct Leases {
    /// The session that holds the locks; none while the database is away.
    session: watch::Receiver<Option<Arc<LeaseSession>>>,
    slots: Mutex<HashMap<(TopicName, ConsumerId), Arc<Slot>>>,
    /// Locks on their way back.
    releases: TaskTracker,
    /// Tells other brokers' standbys of a lease that was given back.
    hints: Hints,
}

/// A consumer that somebody here holds or waits for.
#[derive(Default)]
struct Slot {
    turn: Arc<tokio::sync::Mutex<()>>,
    held: Mutex<Option<Arc<Held>>>,
    freed: Notify,
}

/// A place in the queue for a consumer; the last one takes the slot with it.
pub(super) struct Seat {
    topic: TopicName,
    consumer: ConsumerId,
    slot: Arc<Slot>,
    leases: Arc<Leases>,
}

/// The right, within this broker, to ask the database for the lease.
pub(super) struct Turn {
    _guard: OwnedMutexGuard<()>,
}

/// What others in this broker may know of a lease.
pub(super) struct Held {
    pub key: ConsumerKey,
    pub epoch: Epoch,
    pub holder: String,
    /// The offset up to which messages were handed out.
    pub delivered: AtomicI64,
    over: CancellationToken,
}

/// A lease; given back when it is dropped.
pub(super) struct Lease {
    held: Arc<Held>,
    session: Arc<LeaseSession>,
    /// Goes when the lock has gone back, so that the next in line does not ask in vain.
    turn: Option<Turn>,
    seat: Arc<Seat>,
}

impl Leases {
    /// No leases yet, on the session that the keeper provides.
    pub(super) fn new(session: watch::Receiver<Option<Arc<LeaseSession>>>, hints: Hints) -> Self {
        Self { session, slots: Mutex::default(), releases: TaskTracker::new(), hints }
    }

    /// A place in the queue for a consumer.
    pub(super) fn seat(self: &Arc<Self>, topic: &TopicName, consumer: &ConsumerId) -> Arc<Seat> {
        let names = (topic.clone(), consumer.clone());
        let slot = self.slots().entry(names).or_default().clone();
        Arc::new(Seat {
            topic: topic.clone(),
            consumer: consumer.clone(),
            slot,
            leases: self.clone(),
        })
    }

    /// The lease that a stream of this broker has on a consumer.
    pub(super) fn held(&self, topic: &TopicName, consumer: &ConsumerId) -> Option<Arc<Held>> {
        self.slots().get(&(topic.clone(), consumer.clone()))?.held().clone()
    }

    /// All leases of this broker.
    pub(super) fn all_held(&self) -> Vec<Arc<Held>> {
        self.slots().values().filter_map(|slot| slot.held().clone()).collect()
    }

    /// Another broker gave a lease back.
    pub(super) fn freed_elsewhere(&self, topic: TopicName, consumer: ConsumerId) {
        if let Some(slot) = self.slots().get(&(topic, consumer)) {
            slot.freed.notify_one();
        }
    }

    /// Waits until the leases that were dropped have gone back.
    pub(super) async fn released(&self) {
        self.releases.close();
        self.releases.wait().await;
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<(TopicName, ConsumerId), Arc<Slot>>> {
        self.slots.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Slot {
    fn held(&self) -> MutexGuard<'_, Option<Arc<Held>>> {
        self.held.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Seat {
    /// Waits for this broker's turn at the consumer; turns come in the order of asking.
    pub(super) async fn turn(&self) -> Turn {
        Turn { _guard: self.slot.turn.clone().lock_owned().await }
    }

    /// The turn, if nobody here has it.
    pub(super) fn try_turn(&self) -> Option<Turn> {
        let guard = self.slot.turn.clone().try_lock_owned().ok()?;
        Some(Turn { _guard: guard })
    }

    /// Who holds the lease in this broker, if a stream here does.
    pub(super) fn holder(&self) -> Option<String> {
        self.slot.held().as_ref().map(|held| held.holder.clone())
    }

    /// Waits until another broker says that it gave the lease back.
    pub(super) async fn freed_elsewhere(&self) {
        self.slot.freed.notified().await;
    }

    /// Asks the database for the lease. `Err` gives the turn back: the lock is another broker's.
    ///
    /// Must run to its end: dropped half-way, it would leave a lock that nobody knows of.
    pub(super) async fn acquire(
        self: &Arc<Self>,
        turn: Turn,
        key: ConsumerKey,
        holder: &str,
    ) -> Result<Result<(Lease, Offset), Turn>, Error> {
        let session = self.leases.session.borrow().clone().ok_or(Error::DatabaseUnavailable)?;
        if !session.try_lock(key).await.map_err(Error::of_read)? {
            return Ok(Err(turn));
        }
        let begun = session.begin_epoch(key, holder).await;
        let acquired = match begun {
            Ok(Some(acquired)) => acquired,
            other => {
                give_back(&session, key).await;
                other.map_err(Error::of_read)?;
                let (topic, consumer) = (self.topic.clone(), self.consumer.clone());
                return Err(Error::ConsumerNotFound { topic, consumer });
            }
        };
        let held = Arc::new(Held {
            key,
            epoch: acquired.epoch,
            holder: holder.to_owned(),
            delivered: AtomicI64::new(acquired.position.0),
            over: session.closed().child_token(),
        });
        *self.slot.held() = Some(held.clone());
        let lease = Lease { held, session, turn: Some(turn), seat: self.clone() };
        Ok(Ok((lease, acquired.position)))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut slots = self.leases.slots();
        // The map's own and this one: nobody else waits or holds.
        if Arc::strong_count(&self.slot) <= 2 {
            slots.remove(&(self.topic.clone(), self.consumer.clone()));
        }
    }
}

impl Held {
    /// Ends the lease from outside: its epoch is over.
    pub(super) fn fence(&self) {
        self.over.cancel();
    }

    /// The offset up to which messages were handed out.
    pub(super) fn delivered(&self) -> Offset {
        Offset(self.delivered.load(Ordering::Acquire))
    }
}

impl Lease {
    pub(super) fn key(&self) -> ConsumerKey {
        self.held.key
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.held.epoch
    }

    /// Messages up to an offset are about to be handed out.
    pub(super) fn delivers(&self, end: Offset) {
        self.held.delivered.store(end.0, Ordering::Release);
    }

    /// Waits until the lease is over.
    pub(super) async fn over(&self) {
        self.held.over.cancelled().await;
    }

    /// Whether the lease is over because its session is.
    pub(super) fn session_lost(&self) -> bool {
        self.session.closed().is_cancelled()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        *self.seat.slot.held() = None;
        let (session, seat, turn) = (self.session.clone(), self.seat.clone(), self.turn.take());
        let key = self.held.key;
        let leases = seat.leases.clone();
        leases.releases.spawn(async move {
            give_back(&session, key).await;
            drop(turn);
            seat.leases.hints.lease_freed(seat.topic.clone(), seat.consumer.clone());
        });
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
