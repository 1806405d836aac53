//! A lease as others in this broker may know it, and as the database last told.

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
    pub progress: LeaseState,
}

/// How far a lease has come.
pub(crate) struct LeaseState {
    standing: watch::Sender<LeaseStatus>,
    /// The offset up to which messages were handed out.
    delivered: AtomicI64,
}

/// How a lease stands.
#[derive(Clone, Debug)]
pub(crate) struct LeaseStatus {
    /// The number under which positions are written; a seek makes it grow.
    pub epoch: Epoch,
    /// Where the epoch began.
    pub start: Offset,
    /// The stored position, where the client moves it.
    pub committed: Offset,
    /// Why the lease is over, if it is.
    pub over: Option<LeaseEnd>,
}

/// Why a lease is over.
#[derive(Clone, Debug)]
pub(crate) enum LeaseEnd {
    /// Another stream took it.
    TakenOver { by: String },
    /// The consumer is not registered any more.
    Unregistered,
}

impl LeaseState {
    /// An epoch begins at a position.
    pub(crate) fn new(epoch: Epoch, position: Offset) -> Self {
        let standing = LeaseStatus { epoch, start: position, committed: position, over: None };
        Self { standing: watch::Sender::new(standing), delivered: AtomicI64::new(position.0) }
    }

    /// How the lease stands, from now on.
    pub(crate) fn watch(&self) -> watch::Receiver<LeaseStatus> {
        self.standing.subscribe()
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.standing.borrow().epoch
    }

    /// The stored position, as far as it is known here.
    pub(crate) fn committed(&self) -> Offset {
        self.standing.borrow().committed
    }

    /// The offset up to which messages were handed out.
    pub(crate) fn delivered(&self) -> Offset {
        Offset(self.delivered.load(Ordering::Acquire))
    }

    /// Messages up to an offset are about to be handed out under an epoch. Of one that a seek has
    /// ended they count no more.
    pub(crate) fn delivers(&self, epoch: Epoch, end: Offset) {
        // ActiveLease while it is stored, so that no seek comes in between.
        let standing = self.standing.borrow();
        if standing.epoch == epoch {
            self.delivered.store(end.0, Ordering::Release);
        }
    }

    /// A position was stored under an epoch.
    pub(crate) fn position_stored(&self, epoch: Epoch, position: Offset) {
        self.standing.send_if_modified(|standing| {
            let news = standing.epoch == epoch && position > standing.committed;
            if news {
                standing.committed = position;
            }
            news
        });
    }

    /// Takes in what the database told over this lease's own session, so while the lock was held:
    /// nobody but a seek or a claim can have begun another epoch. It may be older than what is
    /// known here, but then it names no claim.
    pub(crate) fn saw(&self, seen: Option<LeaseChange>) {
        let Some(LeaseChange { epoch, position, taken, taker }) = seen else {
            return self.end(LeaseEnd::Unregistered);
        };
        if taken {
            return self.end(LeaseEnd::TakenOver { by: taker });
        }
        self.standing.send_if_modified(|standing| {
            let sought = epoch > standing.epoch;
            if sought {
                (standing.epoch, standing.start, standing.committed) = (epoch, position, position);
                // Before the stream hears of it, and delivers from there.
                self.delivered.store(position.0, Ordering::Release);
            }
            sought
        });
        self.position_stored(epoch, position);
    }

    fn end(&self, why: LeaseEnd) {
        self.standing.send_if_modified(|standing| {
            let ends = standing.over.is_none();
            standing.over = standing.over.take().or(Some(why));
            ends
        });
    }
}
