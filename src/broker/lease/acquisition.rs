//! A lease, from its acquisition to its release.
//!
//! It has three parts:
//!
//! * the *permit* of this broker's queue, as the one session that holds all of a broker's locks would
//!   be granted a lock that it has already;
//! * the *advisory lock*, which excludes other brokers, and which PostgreSQL releases when a broker
//!   dies;
//! * the *epoch*, which every write of a position names, so that a holder that lost its lock without
//!   noticing can no longer write.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, task::JoinHandle, time::sleep};

use crate::{
    broker::{
        backoff::POLL_INTERVAL,
        error::Error,
        lease::{
            queue::Permit,
            registry::Waiter,
            state::{ActiveLease, LeaseEnd, LeaseState, LeaseStatus},
        },
        notify::outbox::LeaseScope,
    },
    model::{ConsumerKey, Epoch, Offset},
    storage::{ClaimToken, EpochStart, LeaseSession},
};

/// How long a stream that ends waits for its lease to be released, so that its client can acquire
/// it again at once.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(1);

/// When a stream that is held back first looks for a commit from elsewhere, if the commit before came
/// from elsewhere. Each further pause is half as long again, and so the stream waits for at most half as
/// long again as its client works. In the end, the poll of the leases finds the commit.
const FIRST_LOOK: Duration = Duration::from_millis(5);

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

impl Waiter {
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
        // Before the lock is found to be taken: its release may follow at once.
        self.listen_for(key);
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
    ///
    /// Nobody tells of a commit from SQL, so the database is asked for it.
    pub(crate) async fn committed_beyond(&self, known: Offset) {
        let mut status = self.status.clone();
        let mut pause = FIRST_LOOK;
        loop {
            tokio::select! {
                // Cannot fail: the sender lives as long as the lease.
                _ = status.wait_for(|status| status.committed > known) => return,
                () = sleep(pause), if self.active.state.is_committed_elsewhere() => {}
            }
            if pause < POLL_INTERVAL {
                self.waiter.leases.check_soon(LeaseScope::Consumer(self.key()));
                pause = pause * 3 / 2;
            }
        }
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
            waiter.leases.outbox.lease_released(key);
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
        Ok(false) => {
            let (topic_number, consumer_number) = (key.topic.0, key.consumer);
            tracing::error!(topic_number, consumer_number, "released a lock that was not held");
        }
        Err(error) => {
            if !session.closed().is_cancelled() {
                tracing::warn!(%error, "release a lock");
            }
            session.close();
        }
    }
}
