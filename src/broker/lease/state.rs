//! A lease as this broker knows it, and as the database last described it.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use tokio::sync::watch;

use crate::{
    model::{ConsumerKey, Epoch, Offset},
    storage::{LeaseChange, LeaseSession},
};

/// A lease that a stream of this broker has.
pub(crate) struct ActiveLease {
    pub key: ConsumerKey,
    pub holder: String,
    /// The session that has the lock.
    pub session: Arc<LeaseSession>,
    pub state: LeaseState,
}

/// A lease's epoch, positions and end.
pub(crate) struct LeaseState {
    status: watch::Sender<LeaseStatus>,
    /// The offset up to which messages were handed out.
    delivered: AtomicI64,
}

/// What a lease's stream must follow.
#[derive(Clone, Debug)]
pub(crate) struct LeaseStatus {
    /// The epoch under which positions are written; a seek raises it.
    pub epoch: Epoch,
    /// The position at which the epoch began.
    pub start: Offset,
    /// The stored position, where the client commits.
    pub committed: Offset,
    /// Why the lease ended, if it did.
    pub ended: Option<LeaseEnd>,
}

/// Why a lease ended.
#[derive(Clone, Debug)]
pub(crate) enum LeaseEnd {
    /// Another stream took it over.
    TakenOver { by: String },
    /// The consumer is not registered any more.
    Unregistered,
}

impl LeaseState {
    /// An epoch begins at a position.
    pub(crate) fn new(epoch: Epoch, position: Offset) -> Self {
        let status = LeaseStatus { epoch, start: position, committed: position, ended: None };
        Self { status: watch::Sender::new(status), delivered: AtomicI64::new(position.0) }
    }

    /// The status, from now on.
    pub(crate) fn watch(&self) -> watch::Receiver<LeaseStatus> {
        self.status.subscribe()
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.status.borrow().epoch
    }

    /// The stored position, as far as it is known here.
    pub(crate) fn committed(&self) -> Offset {
        self.status.borrow().committed
    }

    /// The offset up to which messages were handed out.
    pub(crate) fn delivered(&self) -> Offset {
        Offset(self.delivered.load(Ordering::Acquire))
    }

    /// Messages up to an offset are about to be handed out under an epoch. If a seek has ended that
    /// epoch, they do not count.
    pub(crate) fn delivers(&self, epoch: Epoch, end: Offset) {
        // Borrowed until the offset is stored, so that no seek comes in between.
        let status = self.status.borrow();
        if status.epoch == epoch {
            self.delivered.store(end.0, Ordering::Release);
        }
    }

    /// A position was stored under an epoch.
    pub(crate) fn position_stored(&self, epoch: Epoch, position: Offset) {
        self.status.send_if_modified(|status| {
            let advances = status.epoch == epoch && position > status.committed;
            if advances {
                status.committed = position;
            }
            advances
        });
    }

    /// Takes a change from the lease's own session; `None` if the consumer does not exist any more.
    ///
    /// The session held the lock when it answered, so only a seek or a claim can have begun another
    /// epoch. The answer may be older than what is known here, but then it names no claim.
    pub(crate) fn observe(&self, change: Option<LeaseChange>) {
        let Some(LeaseChange { epoch, position, taken, taker }) = change else {
            return self.end(LeaseEnd::Unregistered);
        };
        if taken {
            return self.end(LeaseEnd::TakenOver { by: taker });
        }
        self.status.send_if_modified(|status| {
            let sought = epoch > status.epoch;
            if sought {
                (status.epoch, status.start, status.committed) = (epoch, position, position);
                // Before the stream learns of the seek, and hands messages out from there.
                self.delivered.store(position.0, Ordering::Release);
            }
            sought
        });
        self.position_stored(epoch, position);
    }

    /// Ends the lease. The first reason stays.
    fn end(&self, reason: LeaseEnd) {
        self.status.send_if_modified(|status| {
            let ends = status.ended.is_none();
            status.ended = status.ended.take().or(Some(reason));
            ends
        });
    }
}
