//! How a stream acquires its lease: at once, as a standby that waits for it, or by taking it over.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::oneshot,
    time::{Instant, sleep_until},
};

use crate::{
    broker::{
        backoff::POLL_INTERVAL,
        consume::{
            request::{Consume, Frame, OnBusy},
            stream::{End, Stream, promptly},
        },
        error::Error,
        lease::{
            acquisition::{Acquired, Acquisition},
            queue::{Permit, Priority},
            registry::Waiter,
        },
        log::topics::LogReader,
        notify::outbox::LeaseScope,
    },
    model::{Act, AuditEntry, Offset, RegistrationKey},
    storage::{Claim, ClaimToken, Stored},
};

/// How often a stream that takes over renews its claim, and checks whether the holder has released
/// the lock.
const TAKE_OVER_POLL: Duration = Duration::from_millis(250);

/// How long a new stream waits for the lease session. Longer than the longest pause before a lost
/// session is reopened.
const SESSION_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a claim waits for its consumer's row: less than a stream's first answer may take, so that
/// the error says that the row is locked.
const CLAIM_TIMEOUT: Duration = Duration::from_secs(4);

/// How long a new stream waits for its consumer's row while another session of the database holds
/// it, and how often it tries.
const ROW_TIMEOUT: Duration = Duration::from_millis(500);
const ROW_RETRY: Duration = Duration::from_millis(50);

/// How long the first such wait is; the next ones double. A position that is being stored locks the
/// row for a few milliseconds.
const FIRST_ROW_RETRY: Duration = Duration::from_millis(5);

/// How long a stream that ends waits for its claim to be withdrawn.
const WITHDRAW_TIMEOUT: Duration = Duration::from_secs(1);

/// A stream that wants its consumer's lease.
#[derive(Clone, Copy)]
struct Candidate<'a> {
    waiter: &'a Arc<Waiter>,
    /// The consumer's registration, as it was found.
    stored: Stored,
    log: &'a LogReader,
}

/// The outcome of an attempt to acquire the lease.
enum Attempt {
    Acquired(Acquired),
    /// Another broker has the lock, or another stream claims it; the permit is still ours.
    Busy(Permit),
}

impl Stream {
    /// Acquires the lease as the client asks, and joins the topic's readers.
    pub(crate) async fn acquire_lease(
        &mut self,
        waiter: &Arc<Waiter>,
    ) -> Result<(Acquired, LogReader), End> {
        let Consume { topic, consumer, on_busy, .. } = &self.request;
        let on_busy = *on_busy;
        let (stored, log) = promptly(self.delivery.begin_reading(topic, consumer)).await?;
        self.until_session_is_open().await?;
        let candidate = Candidate { waiter, stored, log: &log };
        let (acquired, is_taken_over) = match on_busy {
            OnBusy::Wait => (self.wait_for_lease(candidate).await?, false),
            OnBusy::Fail => (self.acquire_at_once(candidate).await?, false),
            OnBusy::TakeOver => self.take_over(candidate).await?,
        };
        self.delivery.metrics.leases.count_acquisition(is_taken_over, self.began.elapsed());
        Ok((acquired, log))
    }

    /// Acquires the lease if it is free.
    async fn acquire_at_once(&mut self, candidate: Candidate<'_>) -> Result<Acquired, End> {
        let waiter = candidate.waiter;
        if let Some(permit) = waiter.try_acquire()
            && let Attempt::Acquired(acquired) = self.acquire(candidate, permit, None).await?
        {
            return Ok(acquired);
        }
        let Consume { topic, consumer, .. } = &self.request;
        let holder = promptly(self.delivery.find_holder(waiter, topic, consumer)).await?;
        let (topic, consumer) = (topic.clone(), consumer.clone());
        Err(Error::LeaseHeld { topic, consumer, holder }.into())
    }

    /// Waits as a standby: first in this broker's queue, then for other brokers to release the
    /// lock.
    async fn wait_for_lease(&mut self, candidate: Candidate<'_>) -> Result<Acquired, End> {
        let Candidate { waiter, stored, log } = candidate;
        let (mut permit, mut is_standby) = match waiter.try_acquire() {
            Some(permit) => (permit, false),
            None => {
                self.stand_by(waiter).await?;
                let mut granted = waiter.enqueue(Priority::Normal);
                (self.wait_in_queue(&mut granted, stored.position, log).await?, true)
            }
        };
        loop {
            match self.acquire(candidate, permit, None).await? {
                Attempt::Acquired(acquired) => return Ok(acquired),
                Attempt::Busy(still_ours) => permit = still_ours,
            }
            if !std::mem::replace(&mut is_standby, true) {
                self.stand_by(waiter).await?;
            }
            let poll = tokio::time::sleep(POLL_INTERVAL);
            tokio::select! {
                () = waiter.released_elsewhere() => {}
                () = poll => {}
                () = waiter.take_over_waits() => {
                    drop(permit);
                    let mut granted = waiter.enqueue(Priority::Returning);
                    permit = self.wait_in_queue(&mut granted, stored.position, log).await?;
                }
                idle = self.idle(None) => {
                    idle?;
                    self.beat(stored.position, log).await?;
                }
            }
        }
    }

    /// Takes the lease over from any holder. The claim fences the holder and keeps all other
    /// streams from acquiring the lease; the stream then waits until the holder's broker has
    /// released the lock. Returns whether there was a holder, too.
    async fn take_over(&mut self, candidate: Candidate<'_>) -> Result<(Acquired, bool), End> {
        let Candidate { waiter, stored, .. } = candidate;
        let permit = match waiter.try_acquire() {
            Some(permit) => match self.acquire(candidate, permit, None).await? {
                Attempt::Acquired(acquired) => return Ok((acquired, false)),
                Attempt::Busy(still_ours) => Some(still_ours),
            },
            None => None,
        };
        self.stand_by(waiter).await?;
        let claim = ClaimToken::generate();
        let taken = self.acquire_claimed(candidate, permit, &claim).await;
        if let Ok(Acquired { lease, position }) = &taken {
            let Consume { topic, consumer, origin, .. } = &self.request;
            let entry = AuditEntry::new(Act::TakeOver, origin.clone())
                .to_registration(&RegistrationKey::consumer(topic, consumer))
                .with("epoch", lease.epoch())
                .with("position", position);
            self.delivery.audit.record(entry).await;
        } else {
            // A claim that is not withdrawn expires within seconds, so do not wait long.
            let Consume { topic, consumer, .. } = &self.request;
            let storage = &self.delivery.storage;
            let withdrawing = storage
                .row_locks()
                .of_consumer(topic, consumer, || storage.withdraw_claim(stored.key, &claim));
            match tokio::time::timeout(WITHDRAW_TIMEOUT, withdrawing).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "withdraw a claim"),
                Err(_) => {
                    let error = format!("no answer in {WITHDRAW_TIMEOUT:?}");
                    tracing::debug!(error, "withdraw a claim");
                }
            }
        }
        taken.map(|acquired| (acquired, true))
    }

    /// Claims the lease, and acquires it once the holder's broker has released the lock.
    async fn acquire_claimed(
        &mut self,
        candidate: Candidate<'_>,
        permit: Option<Permit>,
        claim: &ClaimToken,
    ) -> Result<Acquired, End> {
        let Candidate { waiter, stored, log } = candidate;
        self.claim(candidate, claim, true).await?;
        self.delivery.leases.changed(LeaseScope::Consumer(stored.key));
        let mut permit = match permit {
            Some(permit) => permit,
            None => {
                let mut granted = waiter.enqueue(Priority::TakeOver);
                loop {
                    let waiting = self.wait_in_queue(&mut granted, stored.position, log);
                    match tokio::time::timeout(TAKE_OVER_POLL, waiting).await {
                        Ok(permit) => break permit?,
                        Err(_) => self.claim(candidate, claim, false).await?,
                    }
                }
            }
        };
        loop {
            match self.acquire(candidate, permit, Some(claim)).await? {
                Attempt::Acquired(acquired) => return Ok(acquired),
                Attempt::Busy(still_ours) => permit = still_ours,
            }
            let poll = tokio::time::sleep(TAKE_OVER_POLL);
            tokio::select! {
                () = waiter.released_elsewhere() => {}
                () = poll => {}
                idle = self.idle(None) => {
                    idle?;
                    self.beat(stored.position, log).await?;
                }
            }
            self.claim(candidate, claim, false).await?;
        }
    }

    /// Claims the lease, or renews the claim; an error if another stream has claimed it since.
    async fn claim(
        &mut self,
        candidate: Candidate<'_>,
        claim: &ClaimToken,
        is_new: bool,
    ) -> Result<(), End> {
        let Consume { topic, consumer, holder, .. } = self.request.clone();
        let storage = self.delivery.storage.clone();
        let claiming = async {
            let claim = || storage.claim_lease(candidate.stored.key, claim, &holder, is_new);
            let give_up_at = Instant::now() + CLAIM_TIMEOUT;
            let row_locks = storage.row_locks();
            let claimed = row_locks.of_consumer_until(give_up_at, &topic, &consumer, claim);
            claimed.await.map_err(Error::of_read)
        };
        match self.while_standing_by(candidate, promptly(claiming)).await? {
            Claim::Stands => Ok(()),
            Claim::Superseded { by } => Err(Error::LeaseTakenOver { topic, consumer, by }.into()),
            Claim::Gone => Err(self.gone_before_attaching().await),
        }
    }

    /// Asks the database for the lease once.
    async fn acquire(
        &mut self,
        candidate: Candidate<'_>,
        mut permit: Permit,
        claim: Option<&ClaimToken>,
    ) -> Result<Attempt, End> {
        let (waiter, key) = (candidate.waiter, candidate.stored.key);
        let holder = self.request.holder.clone();
        let give_up_at = Instant::now() + ROW_TIMEOUT;
        let mut pause = FIRST_ROW_RETRY;
        loop {
            self.observation = self.delivery.logs.begin();
            let asked = waiter.acquire(permit, key, &holder, claim);
            match self.while_standing_by(candidate, asked).await? {
                Acquisition::Acquired(acquired) => return Ok(Attempt::Acquired(acquired)),
                Acquisition::Busy(permit) => return Ok(Attempt::Busy(permit)),
                Acquisition::RowLocked(still_ours) => permit = still_ours,
                Acquisition::Unregistered => return Err(self.gone_before_attaching().await),
            }
            if Instant::now() >= give_up_at {
                let (topic_number, consumer_number) = (key.topic.0, key.consumer);
                tracing::warn!(
                    topic_number,
                    consumer_number,
                    "another session of the database holds a consumer"
                );
                return Err(Error::unavailable().into());
            }
            // Waits here, not on the session that all leases share.
            self.unless_ended(None, tokio::time::sleep(pause)).await?;
            pause = (2 * pause).min(ROW_RETRY);
        }
    }

    /// The registration that was found no longer exists; there may be a new one by now.
    async fn gone_before_attaching(&self) -> End {
        let Consume { topic, consumer, .. } = &self.request;
        match promptly(self.delivery.catalogue.position(topic, consumer)).await {
            Ok(_) => End::RegisteredAnew,
            Err(error) => error.into(),
        }
    }

    /// Waits until the lease session is open. After a session was lost, all streams start again at
    /// once; one that gets no session within two heartbeats ends with an error.
    async fn until_session_is_open(&self) -> Result<(), End> {
        let limit = SESSION_TIMEOUT.min(2 * self.request.heartbeat);
        let open = tokio::time::timeout(limit, self.delivery.leases.session_is_open());
        let open = self.unless_ended(None, open).await?;
        Ok(open.unwrap_or(Err(Error::unavailable()))?)
    }

    /// Waits for the permit of this broker's queue, and sends heartbeats meanwhile.
    async fn wait_in_queue(
        &mut self,
        granted: &mut oneshot::Receiver<Permit>,
        position: Offset,
        log: &LogReader,
    ) -> Result<Permit, End> {
        loop {
            tokio::select! {
                permit = &mut *granted => return permit.map_err(|_| {
                    tracing::error!("the queue for a lease ended early");
                    Error::internal().into()
                }),
                idle = self.idle(None) => idle?,
            }
            self.beat(position, log).await?;
        }
    }

    /// Tells the client that its stream is a standby, and who holds the lease.
    async fn stand_by(&mut self, waiter: &Waiter) -> Result<(), End> {
        let Consume { topic, consumer, .. } = &self.request;
        let holder = promptly(self.delivery.find_holder(waiter, topic, consumer)).await?;
        self.send(Frame::Standby { holder }, None).await?;
        self.stands_by = true;
        Ok(())
    }

    /// Waits for the database until it answers. A standby sends heartbeats meanwhile, so that the
    /// stream does not appear to hang; before a stream's first frame there are none.
    async fn while_standing_by<T>(
        &mut self,
        candidate: Candidate<'_>,
        work: impl Future<Output = T>,
    ) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                () = sleep_until(self.beat_at), if self.stands_by => {}
            }
            self.beat_if_read(candidate.stored.position, candidate.log);
        }
    }
}
