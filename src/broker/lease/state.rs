//! What this broker knows about a lease, and what the database last said about it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicI64, Ordering},
};

use tokio::sync::watch;

use crate::{
    model::{ConsumerKey, Epoch, Offset},
    storage::{LeaseChange, LeaseSession},
};

/// A lease that a stream of this broker holds.
pub(crate) struct ActiveLease {
    pub key: ConsumerKey,
    pub holder: String,
    /// The session that holds the lock.
    pub session: Arc<LeaseSession>,
    pub state: LeaseState,
}

/// A lease's epoch, positions and end.
pub(crate) struct LeaseState {
    status: watch::Sender<LeaseStatus>,
    /// The offset up to which messages were handed out.
    delivered: AtomicI64,
    /// Whether the last commit was not made through this broker: from SQL, or to another broker.
    is_committed_elsewhere: AtomicBool,
}

/// What the stream of a lease watches.
#[derive(Clone, Debug)]
pub(crate) struct LeaseStatus {
    /// The epoch under which positions are stored; a seek raises it.
    pub epoch: Epoch,
    /// The position at which the epoch began.
    pub start: Offset,
    /// The stored position.
    pub committed: Offset,
    /// Why the lease ended, if it did.
    pub ended: Option<LeaseEnd>,
}

/// Why a lease ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LeaseEnd {
    /// Another stream took it over.
    TakenOver { by: String },
    /// The consumer is no longer registered.
    Unregistered,
}

impl LeaseState {
    /// The state of a lease whose epoch begins at a position.
    pub(crate) fn new(epoch: Epoch, position: Offset) -> Self {
        let status = LeaseStatus { epoch, start: position, committed: position, ended: None };
        Self {
            status: watch::Sender::new(status),
            delivered: AtomicI64::new(position.0),
            is_committed_elsewhere: AtomicBool::new(false),
        }
    }

    /// The status, now and from now on.
    pub(crate) fn watch(&self) -> watch::Receiver<LeaseStatus> {
        self.status.subscribe()
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.status.borrow().epoch
    }

    /// The stored position, as far as this broker knows.
    pub(crate) fn committed(&self) -> Offset {
        self.status.borrow().committed
    }

    /// The offset up to which messages were handed out.
    pub(crate) fn delivered(&self) -> Offset {
        Offset(self.delivered.load(Ordering::Acquire))
    }

    /// Records that messages up to an offset are about to be handed out under an epoch. Does
    /// nothing if a seek has ended that epoch.
    pub(crate) fn record_delivered(&self, epoch: Epoch, end: Offset) {
        // Borrowed until the offset is stored, so that no seek can come in between.
        let status = self.status.borrow();
        if status.epoch == epoch {
            self.delivered.store(end.0, Ordering::Release);
        }
    }

    /// Records that this broker stored a position under an epoch.
    pub(crate) fn record_stored(&self, epoch: Epoch, position: Offset) {
        self.advance(epoch, position, false);
    }

    /// Whether the last commit was not made through this broker.
    pub(crate) fn is_committed_elsewhere(&self) -> bool {
        self.is_committed_elsewhere.load(Ordering::Relaxed)
    }

    fn advance(&self, epoch: Epoch, position: Offset, elsewhere: bool) {
        self.status.send_if_modified(|status| {
            let advances = status.epoch == epoch && position > status.committed;
            if advances {
                status.committed = position;
                // Before the stream learns of it.
                self.is_committed_elsewhere.store(elsewhere, Ordering::Relaxed);
            }
            advances
        });
    }

    /// Records a change that the lease's own session found; `None` if the consumer no longer
    /// exists.
    ///
    /// The session held the lock when it answered, so only a seek or a claim can have begun another
    /// epoch. The answer may be older than what is known here, but then it reports no claim.
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
                // Before the stream learns of the seek and hands out messages from there.
                self.delivered.store(position.0, Ordering::Release);
            }
            sought
        });
        self.advance(epoch, position, true);
    }

    /// Ends the lease, unless it has ended already.
    fn end(&self, reason: LeaseEnd) {
        self.status.send_if_modified(|status| {
            let ends = status.ended.is_none();
            status.ended = status.ended.take().or(Some(reason));
            ends
        });
    }
}
