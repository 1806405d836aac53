//! How a stream gets its lease: at once, as a standby that waits for it, or by taking it over.

use std::{sync::Arc, time::Duration};

use tokio::sync::oneshot;

use crate::{
    broker::{
        POLL_INTERVAL,
        consume::{
            request::{Consume, Frame, OnBusy},
            stream::{End, Stream, promptly},
        },
        error::Error,
        lease::{
            queue::{Permit, Priority},
            registry::{Acquisition, Lease, Waiter},
        },
        log::topics::LogReader,
        notify::outbox::LeaseScope,
    },
    model::{ConsumerKey, Offset},
    storage::{ClaimToken, Stored},
};

/// How often a stream that takes over asks whether the holder has let go, and says that it is
/// still there.
const TAKE_OVER_POLL: Duration = Duration::from_millis(250);

/// How long a stream's beginning waits for the session that holds the leases: longer than the
/// longest pause before it is opened again.
const SESSION_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a stream's end waits for its claim to be withdrawn.
const WITHDRAW_TIMEOUT: Duration = Duration::from_secs(1);

/// A lease, and where its consumer goes on.
type Acquired = (Box<Lease>, Offset);

impl Stream {
    /// Gets the lease, as the client wants it where somebody else has it.
    pub(crate) async fn attach(
        &mut self,
        waiter: &Arc<Waiter>,
    ) -> Result<(Acquired, LogReader), End> {
        let Consume { topic, consumer, on_busy, .. } = &self.request;
        let on_busy = *on_busy;
        let (stored, log) = promptly(self.broker.begin_reading(topic, consumer)).await?;
        self.until_session_is_open().await?;
        let acquired = match on_busy {
            OnBusy::Wait => self.wait_for_lease(waiter, stored, &log).await?,
            OnBusy::Fail => self.acquire_at_once(waiter, stored.key).await?,
            OnBusy::TakeOver => self.take_over(waiter, stored, &log).await?,
        };
        Ok((acquired, log))
    }

    /// Takes the lease if it is free.
    async fn acquire_at_once(
        &mut self,
        waiter: &Arc<Waiter>,
        key: ConsumerKey,
    ) -> Result<Acquired, End> {
        if let Some(turn) = waiter.try_acquire()
            && let Ok(acquired) = self.acquire(waiter, turn, key, None).await?
        {
            return Ok(acquired);
        }
        let Consume { topic, consumer, .. } = &self.request;
        let holder = promptly(self.broker.find_holder(waiter, topic, consumer)).await?;
        let (topic, consumer) = (topic.clone(), consumer.clone());
        Err(Error::LeaseHeld { topic, consumer, holder }.into())
    }

    /// Waits as a standby: first for this broker's turn, then for the other brokers.
    async fn wait_for_lease(
        &mut self,
        waiter: &Arc<Waiter>,
        stored: Stored,
        log: &LogReader,
    ) -> Result<Acquired, End> {
        let (mut turn, mut told) = match waiter.try_acquire() {
            Some(turn) => (turn, false),
            None => {
                self.stand_by(waiter).await?;
                let mut line = waiter.enqueue(Priority::Normal);
                (self.wait_in_line(&mut line, stored.position, log).await?, true)
            }
        };
        loop {
            match self.acquire(waiter, turn, stored.key, None).await? {
                Ok(acquired) => return Ok(acquired),
                Err(still_my_turn) => turn = still_my_turn,
            }
            if !std::mem::replace(&mut told, true) {
                self.stand_by(waiter).await?;
            }
            let poll = tokio::time::sleep(POLL_INTERVAL);
            tokio::select! {
                () = waiter.freed_elsewhere() => {}
                () = poll => {}
                () = waiter.take_over_waits() => {
                    drop(turn);
                    let mut line = waiter.enqueue(Priority::Returning);
                    turn = self.wait_in_line(&mut line, stored.position, log).await?;
                }
                idle = self.idle(None) => {
                    idle?;
                    self.beat(stored.position, log).await?;
                }
            }
        }
    }

    /// Takes the lease, whoever has it: claims it, which fences the holder and keeps all others
    /// back, and waits until the holder's broker has given the lock up.
    async fn take_over(
        &mut self,
        waiter: &Arc<Waiter>,
        stored: Stored,
        log: &LogReader,
    ) -> Result<Acquired, End> {
        let turn = match waiter.try_acquire() {
            Some(turn) => match self.acquire(waiter, turn, stored.key, None).await? {
                Ok(acquired) => return Ok(acquired),
                Err(still_my_turn) => Some(still_my_turn),
            },
            None => None,
        };
        self.stand_by(waiter).await?;
        let claim = ClaimToken::generate();
        let taken = self.take_claimed(waiter, turn, stored, &claim, log).await;
        if let Ok((lease, position)) = &taken {
            let Consume { topic, consumer, holder, .. } = &self.request;
            let epoch = lease.epoch();
            tracing::info!(%topic, %consumer, by = holder, %epoch, %position, "took a lease over");
        } else {
            // Void in seconds by itself: nobody waits long for that.
            let withdrawing = self.broker.storage.withdraw_claim(stored.key, &claim);
            match tokio::time::timeout(WITHDRAW_TIMEOUT, withdrawing).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "withdraw a claim"),
                Err(_) => tracing::debug!("withdraw a claim: no answer in {WITHDRAW_TIMEOUT:?}"),
            }
        }
        taken
    }

    async fn take_claimed(
        &mut self,
        waiter: &Arc<Waiter>,
        turn: Option<Permit>,
        stored: Stored,
        claim: &ClaimToken,
        log: &LogReader,
    ) -> Result<Acquired, End> {
        self.claim(stored.key, claim, true).await?;
        self.broker.leases.changed(LeaseScope::Consumer(stored.key));
        let mut turn = match turn {
            Some(turn) => turn,
            None => {
                let mut line = waiter.enqueue(Priority::TakeOver);
                loop {
                    let waiting = self.wait_in_line(&mut line, stored.position, log);
                    match tokio::time::timeout(TAKE_OVER_POLL, waiting).await {
                        Ok(turn) => break turn?,
                        Err(_) => self.claim(stored.key, claim, false).await?,
                    }
                }
            }
        };
        loop {
            match self.acquire(waiter, turn, stored.key, Some(claim)).await? {
                Ok(acquired) => return Ok(acquired),
                Err(still_my_turn) => turn = still_my_turn,
            }
            let poll = tokio::time::sleep(TAKE_OVER_POLL);
            tokio::select! {
                () = waiter.freed_elsewhere() => {}
                () = poll => {}
                idle = self.idle(None) => {
                    idle?;
                    self.beat(stored.position, log).await?;
                }
            }
            self.claim(stored.key, claim, false).await?;
        }
    }

    /// Says that this stream takes the lease over; an error if another one has said so since.
    async fn claim(&self, key: ConsumerKey, claim: &ClaimToken, anew: bool) -> Result<(), End> {
        let Consume { topic, consumer, holder, .. } = &self.request;
        let claiming = async {
            let claimed = self.broker.storage.claim_lease(key, claim, holder, anew).await;
            claimed.map_err(Error::of_read)
        };
        match promptly(claiming).await? {
            Some((true, _)) => Ok(()),
            Some((false, by)) => {
                let (topic, consumer) = (topic.clone(), consumer.clone());
                Err(Error::LeaseTakenOver { topic, consumer, by }.into())
            }
            None => Err(self.gone_before_it_attached().await),
        }
    }

    /// Asks the database for the lease; gives the turn back if it is another's.
    async fn acquire(
        &mut self,
        waiter: &Arc<Waiter>,
        turn: Permit,
        key: ConsumerKey,
        claim: Option<&ClaimToken>,
    ) -> Result<Result<Acquired, Permit>, End> {
        self.asked = self.broker.logs.losses().asked();
        match waiter.acquire(turn, key, &self.request.holder, claim).await? {
            Acquisition::Acquired(lease, position) => Ok(Ok((lease, position))),
            Acquisition::Busy(turn) => Ok(Err(turn)),
            Acquisition::Gone => Err(self.gone_before_it_attached().await),
        }
    }

    /// The registration that was found is gone: perhaps there is another one by now.
    async fn gone_before_it_attached(&self) -> End {
        let Consume { topic, consumer, .. } = &self.request;
        match promptly(self.broker.find_position(topic, consumer)).await {
            Ok(_) => End::RegisteredAnew,
            Err(error) => error.into(),
        }
    }

    /// Waits until leases can be had: when their session was lost, all streams begin anew at once,
    /// and would be sent away for the moment in which it is opened again.
    ///
    /// Without a turn meanwhile: a pull needs one and no session. A client that is used to be told
    /// something within a heartbeat or two is sent away by then.
    async fn until_session_is_open(&self) -> Result<(), End> {
        let limit = SESSION_TIMEOUT.min(2 * self.request.heartbeat);
        let open = tokio::time::timeout(limit, self.broker.leases.can_be_had());
        let open = self.unless_ended(None, open).await?;
        Ok(open.unwrap_or(Err(Error::DatabaseUnavailable))?)
    }

    /// Waits for a turn within this broker, and beats meanwhile.
    async fn wait_in_line(
        &mut self,
        line: &mut oneshot::Receiver<Permit>,
        position: Offset,
        log: &LogReader,
    ) -> Result<Permit, End> {
        loop {
            tokio::select! {
                turn = &mut *line => return turn.map_err(|_| Error::Internal.into()),
                idle = self.idle(None) => idle?,
            }
            self.beat(position, log).await?;
        }
    }

    async fn stand_by(&mut self, waiter: &Waiter) -> Result<(), End> {
        let Consume { topic, consumer, .. } = &self.request;
        let holder = promptly(self.broker.find_holder(waiter, topic, consumer)).await?;
        self.send(Frame::Standby { holder }, None).await
    }
}
