//! Keeps statements that may wait for row locks from taking every session of the query pool.
//!
//! Any session of the database can hold the rows of a topic or a consumer for as long as it likes.
//! While rows are held:
//!
//! - These statements together use at most half of the pool's sessions, but may always use one.
//!   Those of one topic use at most a quarter of the pool, or two sessions if the half has two.
//!   Those of one consumer use one. With two sessions or more, some are therefore left for
//!   statements that wait for no row, which includes every read.
//! - No statement waits for a lock on its session for longer than 500 ms. It then returns the
//!   session and is tried again behind those that came meanwhile, for 5 s in all.
//!
//! A statement whose rows are free waits only behind tries of at most 500 ms each. If so many are
//! queued that this takes 5 s, it fails as if its rows were held. Statements queue here without a
//! session: those of a topic or a consumer in order of arrival, and all of them in turn over the
//! owners of the calls ([`SessionShare`]). Not covered are publishes and position writes, which have sessions of
//! their own, and the first try of each pull, which waits for up to 100 ms for each of its two locks.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    sync::Semaphore,
    time::{self, Instant},
};

use crate::{
    model::{ConsumerId, TopicName},
    storage::{error::Error, session::share::SessionShare},
};

/// How long a statement waits for its rows in all its tries together.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The pause before a statement whose rows are held is tried again.
const PAUSE: Duration = Duration::from_millis(50);

/// Permits for statements that may wait for row locks.
pub struct RowLocks {
    /// One permit for each session that these statements may use together.
    all: Semaphore,
    /// The broker's own share, for what no client has asked for.
    own: SessionShare,
    sessions_of_a_topic: usize,
    /// The permits of topics and consumers whose statements run or wait.
    owners: Mutex<HashMap<Owner, Permits>>,
}

/// The topic, or the consumer of a topic, whose rows a statement needs.
type Owner = (TopicName, Option<ConsumerId>);

/// The permits of a topic or a consumer.
struct Permits {
    semaphore: Arc<Semaphore>,
    /// How many statements use them, or wait for them.
    shares: usize,
}

/// One statement's use of the permits of a topic or a consumer; dropping the last one removes them.
struct Share<'a> {
    locks: &'a RowLocks,
    owner: Owner,
    permits: Arc<Semaphore>,
}

impl RowLocks {
    /// Permits for a pool of so many sessions.
    pub(crate) fn new(sessions: usize) -> Self {
        let all = (sessions / 2).max(1);
        Self {
            all: Semaphore::new(all),
            own: SessionShare::default(),
            sessions_of_a_topic: (sessions / 4).max(2).min(all),
            owners: Mutex::default(),
        }
    }

    /// Runs a statement on rows of a topic.
    pub async fn of_topic<T, F>(
        &self,
        topic: &TopicName,
        statement: impl Fn() -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let shares = [self.share_of_topic(topic)];
        self.try_until(Instant::now() + TIMEOUT, &shares, statement).await
    }

    /// Runs a statement on rows of a consumer and its topic.
    pub async fn of_consumer<T, F>(
        &self,
        topic: &TopicName,
        consumer: &ConsumerId,
        statement: impl Fn() -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let give_up_at = Instant::now() + TIMEOUT;
        self.of_consumer_until(give_up_at, topic, consumer, statement).await
    }

    /// Like [`Self::of_consumer`], until a deadline.
    pub async fn of_consumer_until<T, F>(
        &self,
        give_up_at: Instant,
        topic: &TopicName,
        consumer: &ConsumerId,
        statement: impl Fn() -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        // The consumer's permit comes first, so that only one statement that waits for its row
        // competes for the topic's permits.
        let shares = [self.share_of_consumer(topic, consumer), self.share_of_topic(topic)];
        self.try_until(give_up_at, &shares, statement).await
    }

    /// Runs a statement on rows of a topic once.
    pub async fn once_of_topic<T, F>(&self, topic: &TopicName, statement: F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let shares = [self.share_of_topic(topic)];
        self.try_once(Instant::now() + TIMEOUT, &shares, || statement).await
    }

    /// Runs a statement once, for a caller that runs one at a time and so needs no share.
    pub async fn once<T, F>(&self, statement: F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        self.try_once(Instant::now() + TIMEOUT, &[], || statement).await
    }

    async fn try_until<T, F>(
        &self,
        give_up_at: Instant,
        shares: &[Share<'_>],
        statement: impl Fn() -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        loop {
            match self.try_once(give_up_at, shares, &statement).await {
                Err(Error::Locked(_)) if Instant::now() < give_up_at => {
                    time::sleep_until(give_up_at.min(Instant::now() + PAUSE)).await;
                }
                outcome => return outcome,
            }
        }
    }

    /// Runs a statement under a permit of each share and then one of all. Permits are always
    /// acquired in this order, so that no two statements wait for each other.
    async fn try_once<T, F>(
        &self,
        give_up_at: Instant,
        shares: &[Share<'_>],
        statement: impl FnOnce() -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let permits = async {
            let mut permits = Vec::with_capacity(shares.len());
            for share in shares {
                permits.push(share.permits.acquire().await);
            }
            let of_all = SessionShare::current_or(&self.own).row_lock_permit(&self.all).await;
            (permits, of_all)
        };
        // None of the semaphores is ever closed.
        let Ok(_permits) = time::timeout_at(give_up_at, permits).await else {
            return Err(Error::Locked(
                "no turn in time: other statements wait for locked rows".to_owned(),
            ));
        };
        SessionShare::with_permit(statement()).await
    }

    fn share_of_topic(&self, topic: &TopicName) -> Share<'_> {
        self.share((topic.clone(), None), self.sessions_of_a_topic)
    }

    fn share_of_consumer(&self, topic: &TopicName, consumer: &ConsumerId) -> Share<'_> {
        self.share((topic.clone(), Some(consumer.clone())), 1)
    }

    fn share(&self, owner: Owner, sessions: usize) -> Share<'_> {
        let mut owners = self.owners.lock();
        let new = || Permits { semaphore: Arc::new(Semaphore::new(sessions)), shares: 0 };
        let permits = owners.entry(owner.clone()).or_insert_with(new);
        permits.shares += 1;
        let permits = permits.semaphore.clone();
        drop(owners);
        Share { locks: self, owner, permits }
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        let mut owners = self.locks.owners.lock();
        if let Some(permits) = owners.get_mut(&self.owner) {
            permits.shares -= 1;
            if permits.shares == 0 {
                owners.remove(&self.owner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::{future::join_all, poll};

    use super::*;

    /// Rows that statements wait for.
    struct Held {
        rows: Semaphore,
        on_a_session: AtomicUsize,
    }

    impl Held {
        fn new() -> Self {
            Self { rows: Semaphore::new(0), on_a_session: AtomicUsize::new(0) }
        }

        async fn wait(&self) -> Result<(), Error> {
            self.on_a_session.fetch_add(1, Ordering::Relaxed);
            let _row = self.rows.acquire().await;
            Ok(())
        }

        fn on_a_session(&self) -> usize {
            self.on_a_session.load(Ordering::Relaxed)
        }
    }

    fn topic(name: &str) -> TopicName {
        TopicName::parse(name).unwrap()
    }

    fn consumer(id: &str) -> ConsumerId {
        ConsumerId::parse(id).unwrap()
    }

    #[tokio::test]
    async fn held_rows_take_their_share_of_the_sessions_and_leave_the_others() {
        let locks = RowLocks::new(8);
        let held = Held::new();
        let (orders, billing, free) = (topic("orders"), consumer("billing"), consumer("free"));
        let seeks = (0..12).map(|_| locks.of_consumer(&orders, &billing, || held.wait()));
        let mut seeks = Box::pin(join_all(seeks));
        assert!(poll!(&mut seeks).is_pending());
        assert_eq!(held.on_a_session(), 1, "of one consumer");
        locks.of_consumer(&orders, &free, async || Ok(())).await.unwrap();

        let updates = (0..12).map(|_| locks.of_topic(&orders, || held.wait()));
        let mut updates = Box::pin(join_all(updates));
        assert!(poll!(&mut updates).is_pending());
        assert_eq!(held.on_a_session(), 2, "of one topic");
        locks.of_topic(&topic("other"), async || Ok(())).await.unwrap();

        let topics: Vec<_> = (0..12).map(|number| topic(&format!("held-{number}"))).collect();
        let others = topics.iter().map(|topic| locks.of_topic(topic, || held.wait()));
        let mut others = Box::pin(join_all(others));
        assert!(poll!(&mut others).is_pending());
        assert_eq!(held.on_a_session(), 4, "of all");

        held.rows.add_permits(1);
        let (seeks, updates, others) = tokio::join!(seeks, updates, others);
        for done in seeks.into_iter().chain(updates).chain(others) {
            done.unwrap();
        }
        assert_eq!(held.on_a_session(), 36);
        assert!(locks.owners.lock().is_empty(), "no permits are left behind");
    }

    #[tokio::test]
    async fn a_statement_whose_rows_are_held_is_tried_again_behind_the_others() {
        let locks = RowLocks::new(1);
        let (held, free) = (topic("held"), topic("free"));
        let tries = AtomicUsize::new(0);
        let locked = locks.of_topic(&held, || async {
            match tries.fetch_add(1, Ordering::Relaxed) {
                0..3 => Err(Error::Locked("a row".to_owned())),
                _ => Ok(()),
            }
        });
        let mut locked = Box::pin(locked);
        assert!(poll!(&mut locked).is_pending());
        // It returns its permit for the pause.
        assert!(poll!(Box::pin(locks.of_topic(&free, async || Ok(())))).is_ready());
        locked.await.unwrap();
        assert_eq!(tries.load(Ordering::Relaxed), 4);
        assert!(locks.owners.lock().is_empty());
    }

    #[tokio::test]
    async fn owners_get_permits_in_turn_however_many_statements_each_has() {
        let locks = RowLocks::new(2);
        let held = Held::new();
        let (greedy, other) = (SessionShare::default(), SessionShare::default());
        let topics: Vec<_> = (0..12).map(|number| topic(&format!("greedy-{number}"))).collect();
        let of_greedy = topics.iter().map(|topic| locks.of_topic(topic, || held.wait()));
        let mut of_greedy = Box::pin(greedy.scope(join_all(of_greedy)));
        assert!(poll!(&mut of_greedy).is_pending());
        assert_eq!(held.on_a_session(), 1);
        let orders = topic("orders");
        let waiting = locks.of_topic(&orders, async || Ok(held.on_a_session()));
        let mut waiting = Box::pin(other.scope(waiting));
        assert!(poll!(&mut waiting).is_pending());
        held.rows.add_permits(1);
        let (of_greedy, before) = tokio::join!(of_greedy, waiting);
        assert!(of_greedy.iter().all(Result::is_ok));
        // The one that had the permit, and the first of the greedy owner's line.
        assert_eq!(before.unwrap(), 2);
    }

    #[tokio::test]
    async fn a_statement_that_gets_no_permit_in_time_is_as_one_whose_rows_are_held() {
        let locks = RowLocks::new(8);
        let held = Held::new();
        let (orders, billing) = (topic("orders"), consumer("billing"));
        let mut first = Box::pin(locks.of_consumer(&orders, &billing, || held.wait()));
        assert!(poll!(&mut first).is_pending());
        let soon = Instant::now() + Duration::from_millis(10);
        let second = locks.of_consumer_until(soon, &orders, &billing, || held.wait()).await;
        assert!(matches!(second, Err(Error::Locked(_))), "{second:?}");
        // A call that goes away leaves nothing behind.
        drop(first);
        assert!(locks.owners.lock().is_empty());
        locks.of_consumer(&orders, &billing, async || Ok(())).await.unwrap();
    }
}
