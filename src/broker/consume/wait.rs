//! What a stream waits for, and what may end it while it waits.

use std::time::Duration;

use tokio::{
    sync::mpsc::OwnedPermit,
    time::{Instant, sleep_until},
};

use crate::{
    broker::{
        consume::{
            outbox::Outgoing,
            request::{Consume, Frame},
            stream::{End, Finished, Stream, promptly},
        },
        error::Error,
        lease::{
            acquisition::{Lease, LeaseEvent},
            state::LeaseEnd,
        },
        log::topics::LogReader,
    },
    model::{Epoch, Offset},
};

/// How long a stream that must end still waits for a position to be stored.
const STORE_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a stream must end although its client is still there.
enum Reason {
    Withdrawn,
    Draining,
    Deadline,
    Lease(LeaseEvent),
}

impl Stream {
    /// Waits for the database, and sends heartbeats meanwhile, so that the stream does not appear
    /// to hang.
    pub(crate) async fn meanwhile<T>(
        &mut self,
        lease: &Lease,
        log: &LogReader,
        work: impl Future<Output = T>,
    ) -> Result<T, End> {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return Ok(done),
                idle = self.idle(Some(lease)) => idle?,
            }
            self.beat_if_read(lease.committed(), log);
        }
    }

    /// Waits for a position to be stored. Once it is, the messages before it must be handed out if
    /// the client is still there, so a stream that must end still waits for up to 2 s, and ends
    /// after that.
    pub(crate) async fn until_stored<T>(
        &mut self,
        lease: &Lease,
        log: &LogReader,
        work: impl Future<Output = T>,
    ) -> Result<Finished<T>, End> {
        let mut work = std::pin::pin!(work);
        match self.meanwhile(lease, log, &mut work).await {
            Ok(outcome) => Ok(Finished { outcome, must_end: None }),
            Err(End::ClientGone) => Err(End::ClientGone),
            Err(end) => match tokio::time::timeout(STORE_TIMEOUT, work).await {
                Ok(outcome) => Ok(Finished { outcome, must_end: Some(end) }),
                Err(_) => Err(end),
            },
        }
    }

    /// Waits until a heartbeat is due, or the stream must end.
    pub(crate) async fn idle(&self, lease: Option<&Lease>) -> Result<(), End> {
        self.unless_ended(lease, sleep_until(self.beat_at)).await
    }

    /// Waits for something, or until the stream must end.
    pub(crate) async fn unless_ended<T>(
        &self,
        lease: Option<&Lease>,
        work: impl Future<Output = T>,
    ) -> Result<T, End> {
        let reason = tokio::select! {
            done = work => return Ok(done),
            () = self.frames.closed() => return Err(End::ClientGone),
            reason = self.reason_to_end(lease) => reason,
        };
        // Outside the wait, so that a heartbeat that falls due cannot interrupt it.
        Err(self.end_for(reason).await)
    }

    /// Waits for a reason to end other than that the client has gone.
    async fn reason_to_end(&self, lease: Option<&Lease>) -> Reason {
        let deadline = async {
            match self.request.deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        let event = async {
            match lease {
                Some(lease) => lease.event().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.request.withdrawn.cancelled() => Reason::Withdrawn,
            () = self.delivery.calls.draining().cancelled() => Reason::Draining,
            () = deadline => Reason::Deadline,
            event = event => Reason::Lease(event),
        }
    }

    async fn end_for(&self, reason: Reason) -> End {
        match reason {
            Reason::Withdrawn => End::Withdrawn,
            Reason::Draining => Error::Draining.into(),
            Reason::Deadline => Error::DeadlineExceeded.into(),
            Reason::Lease(LeaseEvent::Sought) => End::Sought,
            Reason::Lease(LeaseEvent::SessionLost) => Error::unavailable().into(),
            Reason::Lease(LeaseEvent::Ended(LeaseEnd::TakenOver { by })) => {
                let Consume { topic, consumer, .. } = self.request.clone();
                Error::LeaseTakenOver { topic, consumer, by }.into()
            }
            Reason::Lease(LeaseEvent::Ended(LeaseEnd::Unregistered)) => self.why_gone().await,
        }
    }

    /// Why the consumer no longer exists: it was unregistered, or its topic was deleted.
    pub(crate) async fn why_gone(&self) -> End {
        let Consume { topic, consumer, .. } = &self.request;
        match promptly(async { Ok(self.delivery.catalogue.why_gone(topic, consumer).await) }).await
        {
            Ok(error) | Err(error) => error.into(),
        }
    }

    /// Why a position was not stored: its epoch has ended.
    pub(crate) async fn why_not_stored(&self, lease: &Lease) -> End {
        match lease.check().await {
            Ok(true) => self.end_for(self.reason_to_end(Some(lease)).await).await,
            Ok(false) => {
                let Consume { topic, consumer, .. } = self.request.clone();
                Error::LeaseLost { topic, consumer, epoch: lease.epoch() }.into()
            }
            Err(error) => error.into(),
        }
    }

    /// Sends a heartbeat if one is due.
    pub(crate) async fn beat(&mut self, position: Offset, log: &LogReader) -> Result<(), End> {
        // The wait may have ended for another reason than a heartbeat.
        if Instant::now() < self.beat_at {
            return Ok(());
        }
        let head = *log.head.borrow();
        self.send(Frame::Heartbeat { position, head }, None).await
    }

    /// Sends a heartbeat, unless frames wait already: a client that does not read needs none.
    pub(crate) fn beat_if_read(&mut self, position: Offset, log: &LogReader) {
        if let Ok(permit) = self.frames.try_reserve() {
            let frame = Ok(Frame::Heartbeat { position, head: *log.head.borrow() });
            permit.send(Outgoing { epoch: Epoch(0), frame });
        }
        self.beat_at = Instant::now() + self.request.heartbeat;
    }

    /// Sends a frame.
    pub(crate) async fn send(&mut self, frame: Frame, lease: Option<&Lease>) -> Result<(), End> {
        let epoch = lease.map_or(Epoch(0), Lease::epoch);
        self.reserve(lease).await?.send(Outgoing { epoch, frame: Ok(frame) });
        self.beat_at = Instant::now() + self.request.heartbeat;
        Ok(())
    }

    /// Waits for room in the queue of frames, however long the client takes to read.
    pub(crate) async fn reserve(
        &self,
        lease: Option<&Lease>,
    ) -> Result<OwnedPermit<Outgoing>, End> {
        let reason = tokio::select! {
            permit = self.frames.clone().reserve_owned() => {
                return permit.map_err(|_| End::ClientGone);
            }
            reason = self.reason_to_end(lease) => reason,
        };
        Err(self.end_for(reason).await)
    }
}
