//! What a stream waits for, and what ends it meanwhile.

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
            stream::{End, Stream, promptly},
        },
        error::Error,
        lease::{
            registry::{Lease, LeaseEvent},
            state::LeaseEnd,
        },
        log::topics::LogReader,
    },
    model::{Epoch, Offset},
};

/// How long a stream that must end waits for a position that is being stored.
const STORED_WITHIN: Duration = Duration::from_secs(2);

/// Why a stream must end, other than that its client has gone.
enum Reason {
    Draining,
    Deadline,
    Lease(LeaseEvent),
}

impl Stream {
    /// Waits for the database, and beats meanwhile: a stream that has nothing to tell must not be
    /// taken for one that hangs.
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
            let (position, head) = (lease.committed(), *log.head.borrow());
            // A client that does not read needs no beat.
            if let Ok(place) = self.frames.try_reserve() {
                place.send(Outgoing {
                    epoch: Epoch(0),
                    event: Ok(Frame::Heartbeat { position, head }),
                });
            }
            self.beat_at = Instant::now() + self.request.heartbeat;
        }
    }

    /// Waits for a position to be stored. What is passed over by it must be handed out, as long as
    /// there is a client: a stream that must end waits a moment for it, and ends then.
    pub(crate) async fn until_stored<T>(
        &mut self,
        lease: &Lease,
        log: &LogReader,
        work: impl Future<Output = T>,
    ) -> Result<(T, Option<End>), End> {
        let mut work = std::pin::pin!(work);
        match self.meanwhile(lease, log, &mut work).await {
            Ok(done) => Ok((done, None)),
            Err(End::ClientGone) => Err(End::ClientGone),
            Err(end) => match tokio::time::timeout(STORED_WITHIN, work).await {
                Ok(done) => Ok((done, Some(end))),
                Err(_) => Err(end),
            },
        }
    }

    /// Waits until it is time to beat, or the stream must end.
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
        // Not within the wait: a client that is to be told why must not be sent a beat instead.
        Err(self.end_for(reason).await)
    }

    /// Waits for a reason to end that is not the client's.
    async fn reason_to_end(&self, lease: Option<&Lease>) -> Reason {
        let deadline = async {
            match self.request.deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        let news = async {
            match lease {
                Some(lease) => lease.news().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.broker.draining.cancelled() => Reason::Draining,
            () = deadline => Reason::Deadline,
            news = news => Reason::Lease(news),
        }
    }

    async fn end_for(&self, reason: Reason) -> End {
        match reason {
            Reason::Draining => Error::Draining.into(),
            Reason::Deadline => Error::DeadlineExceeded.into(),
            Reason::Lease(LeaseEvent::Sought) => End::Sought,
            Reason::Lease(LeaseEvent::SessionLost) => Error::DatabaseUnavailable.into(),
            Reason::Lease(LeaseEvent::Ended(LeaseEnd::TakenOver { by })) => {
                let Consume { topic, consumer, .. } = self.request.clone();
                Error::LeaseTakenOver { topic, consumer, by }.into()
            }
            Reason::Lease(LeaseEvent::Ended(LeaseEnd::Unregistered)) => self.why_gone().await,
        }
    }

    /// Why the consumer is not there any more: it, or its topic, is gone.
    pub(crate) async fn why_gone(&self) -> End {
        let Consume { topic, consumer, .. } = &self.request;
        match promptly(async { Ok(self.broker.find_missing(topic, consumer).await) }).await {
            Ok(error) | Err(error) => error.into(),
        }
    }

    /// Why a position could not be moved: the epoch is over.
    pub(crate) async fn why_unmoved(&self, lease: &Lease) -> End {
        match lease.look().await {
            Ok(true) => self.end_for(self.reason_to_end(Some(lease)).await).await,
            Ok(false) => {
                let Consume { topic, consumer, .. } = self.request.clone();
                Error::LeaseLost { topic, consumer, epoch: lease.epoch() }.into()
            }
            Err(error) => error.into(),
        }
    }

    pub(crate) async fn beat(&mut self, position: Offset, log: &LogReader) -> Result<(), End> {
        // A wait may end for another reason than that it is time.
        if Instant::now() < self.beat_at {
            return Ok(());
        }
        let head = *log.head.borrow();
        self.send(Frame::Heartbeat { position, head }, None).await
    }

    pub(crate) async fn send(&mut self, event: Frame, lease: Option<&Lease>) -> Result<(), End> {
        let epoch = lease.map_or(Epoch(0), Lease::epoch);
        self.place(lease).await?.send(Outgoing { epoch, event: Ok(event) });
        self.beat_at = Instant::now() + self.request.heartbeat;
        Ok(())
    }

    /// Waits for a frame's place on the way out, for as long as the client takes.
    pub(crate) async fn place(&self, lease: Option<&Lease>) -> Result<OwnedPermit<Outgoing>, End> {
        let reason = tokio::select! {
            place = self.frames.clone().reserve_owned() => {
                return place.map_err(|_| End::ClientGone);
            }
            reason = self.reason_to_end(lease) => reason,
        };
        Err(self.end_for(reason).await)
    }
}
