//! Lends the sessions of the query pool to owners in turn, so that one that asks for many at once
//! keeps others waiting for no longer than a statement takes.
//!
//! Each owner has a line of its own. Only the first of each line stands in the queue for a session,
//! so of every owner at most one statement is ahead of another owner's. Nothing is reserved: an owner
//! uses all sessions while nobody else waits for one.
//!
//! A line is as long as its owner has calls and streams open, each of which waits for one session at
//! a time. Whoever waits for too long is refused.
//!
//! Statements that may wait for row locks first need a permit ([`super::row_locks`]), which their
//! owners get in turn as well, in a second line of each. A statement with its permit then passes by
//! its owner's first line: the permits are few, and one that waits behind a thousand reads of its own
//! owner would keep them from other owners.

use std::{sync::Arc, time::Duration};

use futures::future::Either;
use tokio::{
    sync::{Mutex, OwnedSemaphorePermit, Semaphore, SemaphorePermit},
    task::futures::TaskLocalFuture,
};

use crate::storage::error::Error;

/// How many acts of an owner may be under way at a time.
const MAX_ACTS: usize = 64;

/// The lines of one owner. Cheap to clone; every clone has the same lines.
#[derive(Clone, Debug, Default)]
pub struct SessionShare(Arc<Lines>);

#[derive(Debug)]
struct Lines {
    /// For a session.
    sessions: Mutex<()>,
    /// For a permit to wait for row locks.
    row_locks: Mutex<()>,
    /// The acts that may still begin.
    acts: Arc<Semaphore>,
}

impl Default for Lines {
    fn default() -> Self {
        Self {
            sessions: Mutex::default(),
            row_locks: Mutex::default(),
            acts: Arc::new(Semaphore::new(MAX_ACTS)),
        }
    }
}

tokio::task_local! {
    /// The share of whoever the current task works for.
    static CURRENT: SessionShare;

    /// Set while a statement runs that has a permit to wait for row locks.
    static HAS_PERMIT: ();
}

/// The sessions of a pool, and who gets the next one.
pub(crate) struct SessionShares {
    free: Arc<Semaphore>,
    /// The broker's own, for what no client has asked for, such as retention.
    own: SessionShare,
    /// How long to wait for a session.
    wait: Duration,
}

impl SessionShare {
    /// Runs work for the owner of this share.
    pub fn scope<F: Future>(self, work: F) -> TaskLocalFuture<Self, F> {
        CURRENT.scope(self, work)
    }

    /// Runs work, perhaps in a task of its own, for whom the current task works.
    pub fn inherit<F: Future>(work: F) -> Either<TaskLocalFuture<Self, F>, F> {
        match CURRENT.try_with(Self::clone) {
            Ok(share) => Either::Left(share.scope(work)),
            Err(_) => Either::Right(work),
        }
    }

    /// What tells apart those that tasks work for. It may be used again once nobody has that share.
    pub fn current_id() -> usize {
        CURRENT.try_with(|share| Arc::as_ptr(&share.0).addr()).unwrap_or(0)
    }

    /// The share of whoever the current task works for, or `own`, the broker's, if nobody asked for it.
    pub(super) fn current_or(own: &Self) -> Self {
        CURRENT.try_with(Self::clone).unwrap_or_else(|_| own.clone())
    }

    /// Waits for one of the permits to wait for row locks, behind the owner's own statements that wait
    /// for one. They are never closed.
    pub(super) async fn row_lock_permit<'a>(
        &self,
        permits: &'a Semaphore,
    ) -> Option<SemaphorePermit<'a>> {
        let _first = self.0.row_locks.lock().await;
        permits.acquire().await.ok()
    }

    /// Runs a statement that has such a permit.
    pub(super) fn with_permit<F: Future>(statement: F) -> TaskLocalFuture<(), F> {
        HAS_PERMIT.scope((), statement)
    }

    /// Waits until the owner that the current task works for may begin one more act, which counts
    /// until the permit is dropped; `None` for the broker's own work.
    pub async fn begin_act() -> Option<OwnedSemaphorePermit> {
        let acts = CURRENT.try_with(|share| share.0.acts.clone()).ok()?;
        // Nobody closes it.
        acts.acquire_owned().await.ok()
    }

    /// Whether nobody else uses it or could.
    pub fn is_unused(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }
}

impl SessionShares {
    /// Lends so many sessions, to those who wait no longer than this.
    pub(crate) fn new(sessions: usize, wait: Duration) -> Self {
        Self { free: Arc::new(Semaphore::new(sessions)), own: SessionShare::default(), wait }
    }

    /// Waits until the pool has a session for the owner that the current task works for.
    pub(crate) async fn admit(&self) -> Result<OwnedSemaphorePermit, Error> {
        let SessionShare(lines) = SessionShare::current_or(&self.own);
        let waiting = async {
            let _first = match HAS_PERMIT.try_with(|()| ()) {
                Ok(()) => None,
                Err(_) => Some(lines.sessions.lock().await),
            };
            self.free.clone().acquire_owned().await
        };
        match tokio::time::timeout(self.wait, waiting).await {
            Ok(permit) => permit.map_err(|_| Error::Closed),
            Err(_) => Err(Error::Unavailable(format!("no session was free in {:?}", self.wait))),
        }
    }

    /// Callers that wait get an error.
    pub(crate) fn close(&self) {
        self.free.close();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    const LONG: Duration = Duration::from_secs(3_600);

    #[tokio::test]
    async fn an_owner_uses_all_sessions_while_nobody_else_waits() {
        let shares = SessionShares::new(3, LONG);
        let greedy = SessionShare::default();
        let admit = || Box::pin(greedy.clone().scope(shares.admit()));
        let held: Vec<_> = (0..3).map(|_| admit().now_or_never().unwrap().unwrap()).collect();
        assert!(admit().now_or_never().is_none());
        drop(held);
        assert!(admit().now_or_never().is_some());
    }

    #[tokio::test]
    async fn owners_get_sessions_in_turn_however_many_each_waits_for() {
        let shares = SessionShares::new(1, LONG);
        let (greedy, other) = (SessionShare::default(), SessionShare::default());
        let admit = |share: &SessionShare| Box::pin(share.clone().scope(shares.admit()));
        let mut held = admit(&greedy).await.unwrap();
        let mut of_greedy: Vec<_> = (0..3).map(|_| admit(&greedy)).collect();
        for waiting in &mut of_greedy {
            assert!(waiting.now_or_never().is_none());
        }
        let mut of_other: Vec<_> = (0..2).map(|_| admit(&other)).collect();
        for waiting in &mut of_other {
            assert!(waiting.now_or_never().is_none());
        }
        let mut order = Vec::new();
        while of_greedy.len() + of_other.len() > 0 {
            // Those that are now the first of their lines need to be polled to stand in the queue.
            for waiting in of_greedy.iter_mut().chain(&mut of_other) {
                assert!(waiting.now_or_never().is_none());
            }
            drop(held);
            let mut admitted = None;
            for (name, waiting) in [("greedy", &mut of_greedy), ("other", &mut of_other)] {
                if let Some(permit) = waiting.first_mut().and_then(|first| first.now_or_never()) {
                    drop(waiting.remove(0));
                    order.push(name);
                    admitted = Some(permit.unwrap());
                }
            }
            held = admitted.unwrap();
        }
        assert_eq!(order, ["greedy", "other", "greedy", "other", "greedy"]);
    }

    #[tokio::test]
    async fn a_statement_with_a_permit_for_row_locks_passes_by_its_owners_line() {
        let shares = SessionShares::new(1, LONG);
        let held = shares.admit().await.unwrap();
        let mut reads = [Box::pin(shares.admit()), Box::pin(shares.admit())];
        for read in &mut reads {
            assert!(read.now_or_never().is_none());
        }
        let mut permitted = Box::pin(SessionShare::with_permit(shares.admit()));
        assert!((&mut permitted).now_or_never().is_none());
        drop(held);
        let [first, second] = &mut reads;
        drop(first.now_or_never().unwrap().unwrap());
        assert!(second.now_or_never().is_none());
        drop(permitted.now_or_never().unwrap().unwrap());
    }

    #[tokio::test]
    async fn who_gives_up_and_who_waits_for_a_pool_that_closes_hold_up_nobody() {
        let shares = SessionShares::new(1, LONG);
        let held = shares.admit().await.unwrap();
        let mut first = Box::pin(shares.admit());
        let mut second = Box::pin(shares.admit());
        assert!(first.as_mut().now_or_never().is_none());
        assert!(second.as_mut().now_or_never().is_none());
        drop(first);
        drop(held);
        let held = second.await.unwrap();
        let waiting = shares.admit();
        shares.close();
        assert!(matches!(waiting.await, Err(Error::Closed)));
        drop(held);
    }

    #[tokio::test]
    async fn who_waits_too_long_is_refused() {
        let shares = SessionShares::new(1, Duration::from_millis(10));
        let _held = shares.admit().await.unwrap();
        assert!(matches!(shares.admit().await, Err(Error::Unavailable(_))));
    }

    #[tokio::test]
    async fn a_task_works_for_whom_its_parent_worked() {
        let share = SessionShare::default();
        let child = share.clone().scope(async {
            tokio::spawn(SessionShare::inherit(async { CURRENT.with(SessionShare::clone) })).await
        });
        assert!(Arc::ptr_eq(&child.await.unwrap().0, &share.0));
        assert!(share.is_unused());
    }
}
