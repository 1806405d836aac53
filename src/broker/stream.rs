//! A consumer's stream: attach, hand out what there is, wait for more.

use std::sync::Arc;

use tokio::{
    sync::mpsc::{self, Permit},
    time::{Instant, sleep_until},
};

use super::{
    Broker, CommitMode, Consume, Delivery, Error, Event, OnBusy, cursor::Cursor,
    feed::Subscription, lease::Lease,
};
use crate::{model::Offset, storage::Advance};

/// Why a stream ends.
pub(super) enum End {
    ClientGone,
    Error(Error),
}

impl From<Error> for End {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// A stream's task.
pub(super) struct Stream {
    pub(super) broker: Arc<Broker>,
    pub(super) request: Consume,
    frames: mpsc::Sender<Result<Event, Error>>,
    beat_at: Instant,
}

impl Stream {
    pub(super) fn new(
        broker: Arc<Broker>,
        request: Consume,
        frames: mpsc::Sender<Result<Event, Error>>,
    ) -> Self {
        let beat_at = Instant::now() + request.heartbeat;
        Self { broker, request, frames, beat_at }
    }

    pub(super) async fn run(mut self) {
        match self.serve().await {
            Err(End::ClientGone) => tracing::debug!("the client went away"),
            Err(End::Error(error)) => {
                tracing::debug!(%error, "end the stream");
                // The lease has been dropped by now: a client that does not read holds up nobody.
                let _ = self.frames.send(Err(error)).await;
            }
            Ok(never) => match never {},
        }
    }

    async fn serve(&mut self) -> Result<std::convert::Infallible, End> {
        let Consume { topic, consumer, .. } = &self.request;
        let stored = self.broker.find_position(topic, consumer).await?;
        let log = self.broker.feeds.subscribe(stored.key.topic, stored.head);
        let seat = self.broker.leases.seat(topic, consumer);
        let (lease, position) = match self.request.on_busy {
            OnBusy::Wait => self.wait_for_lease(&seat, stored, &log).await?,
            OnBusy::Fail => self.acquire_at_once(&seat, stored.key).await?,
        };
        let head = (*log.head.borrow()).max(position);
        self.send(Event::Attached { position, head, epoch: lease.epoch() }, Some(&lease)).await?;
        self.hand_out(lease, Cursor::new(position, head), log).await
    }

    async fn hand_out(
        &mut self,
        lease: Lease,
        mut cursor: Cursor,
        mut log: Subscription,
    ) -> Result<std::convert::Infallible, End> {
        // Behind the head: from the start, and whenever one frame did not reach it.
        let mut behind = true;
        loop {
            // Noted before the read: what comes while it runs still wakes us.
            let known_head = *log.head.borrow_and_update();
            if behind || cursor.position() < known_head {
                if !cursor.fill(&self.broker.storage, &log, !behind).await? {
                    return Err(self.why_over(&lease).await.into());
                }
                if let Some(delivery) = cursor.next_frame() {
                    behind |= delivery.to < cursor.head();
                    self.deliver(delivery, &lease, &mut cursor, &log, behind).await?;
                    continue;
                }
                if std::mem::take(&mut behind) {
                    let head = cursor.head();
                    self.send(Event::CaughtUp { head }, Some(&lease)).await?;
                }
            }
            self.wait_for_more(&lease, &cursor, &mut log).await?;
        }
    }

    /// Hands messages out. In auto mode their position is written once the frame has its place on
    /// the way out; the next ones are read meanwhile.
    async fn deliver(
        &mut self,
        delivery: Delivery,
        lease: &Lease,
        cursor: &mut Cursor,
        log: &Subscription,
        behind: bool,
    ) -> Result<(), End> {
        let broker = self.broker.clone();
        let place = self.place(Some(lease)).await?;
        if self.request.commit_mode == CommitMode::Auto {
            let (key, epoch) = (lease.key(), lease.epoch());
            let advance = Advance { key, epoch, position: delivery.to };
            let read_ahead = async {
                match behind {
                    true => cursor.fill(&broker.storage, log, false).await,
                    false => Ok(true),
                }
            };
            let (moved, filled) = tokio::join!(broker.positions.advance(advance), read_ahead);
            if !moved.map_err(unwritten)? {
                return Err(self.why_over(lease).await.into());
            }
            // What could not be read ahead is read again, and its error told, when it is due.
            if let Err(error) = filled {
                tracing::debug!(%error, "read ahead");
            }
        }
        lease.delivers(delivery.to);
        place.send(Ok(Event::Batch(delivery)));
        self.beat_at = Instant::now() + self.request.heartbeat;
        Ok(())
    }

    async fn wait_for_more(
        &mut self,
        lease: &Lease,
        cursor: &Cursor,
        log: &mut Subscription,
    ) -> Result<(), End> {
        loop {
            let idle = tokio::select! {
                // The feed lives as long as this subscription.
                _ = log.head.changed() => return Ok(()),
                idle = self.idle(Some(lease)) => idle,
            };
            idle?;
            let position = match self.request.commit_mode {
                CommitMode::Auto => cursor.position(),
                CommitMode::Manual => self.stored_position(lease).await?,
            };
            self.beat(position, log).await?;
        }
    }

    /// Waits until it is time to beat, or the stream must end.
    pub(super) async fn idle(&self, lease: Option<&Lease>) -> Result<(), End> {
        tokio::select! {
            () = sleep_until(self.beat_at) => Ok(()),
            () = self.frames.closed() => Err(End::ClientGone),
            error = self.must_end(lease) => Err(error.into()),
        }
    }

    /// Waits for a reason to end that is not the client's.
    async fn must_end(&self, lease: Option<&Lease>) -> Error {
        let over = async {
            match lease {
                Some(lease) => {
                    lease.over().await;
                    self.why_over(lease).await
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.broker.draining.cancelled() => Error::Draining,
            error = over => error,
        }
    }

    /// Why a lease is over: its session is, its consumer or topic is gone, or another took it.
    async fn why_over(&self, lease: &Lease) -> Error {
        if lease.session_lost() {
            return Error::DatabaseUnavailable;
        }
        let Consume { topic, consumer, .. } = &self.request;
        match self.broker.find_position(topic, consumer).await {
            Ok(_) => Error::LeaseLost {
                topic: topic.clone(),
                consumer: consumer.clone(),
                epoch: lease.epoch(),
            },
            Err(error) => error,
        }
    }

    async fn stored_position(&self, lease: &Lease) -> Result<Offset, End> {
        let Consume { topic, consumer, .. } = &self.request;
        let stored = self.broker.find_position(topic, consumer).await?;
        if stored.epoch != lease.epoch() {
            return Err(self.why_over(lease).await.into());
        }
        Ok(stored.position)
    }

    pub(super) async fn beat(&mut self, position: Offset, log: &Subscription) -> Result<(), End> {
        // A wait may end for another reason than that it is time.
        if Instant::now() < self.beat_at {
            return Ok(());
        }
        let head = *log.head.borrow();
        self.send(Event::Heartbeat { position, head }, None).await
    }

    pub(super) async fn send(&mut self, event: Event, lease: Option<&Lease>) -> Result<(), End> {
        self.place(lease).await?.send(Ok(event));
        self.beat_at = Instant::now() + self.request.heartbeat;
        Ok(())
    }

    /// Waits for a frame's place on the way out, for as long as the client takes.
    async fn place(&self, lease: Option<&Lease>) -> Result<Permit<'_, Result<Event, Error>>, End> {
        tokio::select! {
            place = self.frames.reserve() => place.map_err(|_| End::ClientGone),
            error = self.must_end(lease) => Err(error.into()),
        }
    }
}

/// In auto mode nothing was handed out of what could not be written, or not for sure: the position
/// tells, when the stream is opened again.
fn unwritten(error: Error) -> Error {
    match error {
        Error::OutcomeUnknown => Error::DatabaseUnavailable,
        other => other,
    }
}
