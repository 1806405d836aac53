//! A consumer's stream: attach, hand out what there is, wait for more.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::mpsc::{self, Permit},
    time::{Instant, sleep_until},
};
use tracing::Instrument as _;

use super::{
    Broker, Error, POLL_INTERVAL,
    cursor::{Cursor, Delivery},
    feed::Subscription,
    lease::{Lease, Seat},
};
use crate::{
    model::{ConsumerId, ConsumerKey, Epoch, Offset, TopicName},
    storage::{Advance, Stored},
};

/// What a stream is to do.
#[derive(Clone, Debug)]
pub struct Consume {
    /// The topic.
    pub topic: TopicName,
    /// The consumer whose position the stream advances.
    pub consumer: ConsumerId,
    /// When the position moves.
    pub commit_mode: CommitMode,
    /// What to do when another stream holds the lease.
    pub on_busy: OnBusy,
    /// How long the stream may stay idle before it beats.
    pub heartbeat: Duration,
    /// What others are told of who holds the lease.
    pub holder: String,
}

/// When a stream's position moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitMode {
    /// Before a frame leaves.
    Auto,
    /// When the client commits.
    Manual,
}

/// What a stream does when another one holds the lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnBusy {
    /// It waits.
    Wait,
    /// It ends.
    Fail,
}

/// What a stream tells its client.
#[derive(Clone, Debug)]
pub enum Event {
    /// The stream holds the lease.
    Attached {
        /// The offset of the first message to come.
        position: Offset,
        /// The offset that the topic's next message gets.
        head: Offset,
        /// The number of this acquisition.
        epoch: Epoch,
    },
    /// Another stream holds the lease.
    Standby {
        /// Who holds it.
        holder: String,
    },
    /// Messages at the position.
    Batch(Delivery),
    /// Nothing is left to read for now.
    CaughtUp {
        /// The offset that the topic's next message gets.
        head: Offset,
    },
    /// The stream is alive, though idle.
    Heartbeat {
        /// The stored position.
        position: Offset,
        /// The offset that the topic's next message gets.
        head: Offset,
    },
}

/// The frames of a stream. After an error there are no more.
pub type Frames = mpsc::Receiver<Result<Event, Error>>;

/// Frames that may wait for a slow client. When they do, the stream stops reading: a slow client
/// slows only itself, and costs a few megabytes at the most.
const FRAMES_AHEAD: usize = 3;

impl Broker {
    /// Starts a stream. Whatever goes wrong from here on, is told in the stream.
    pub fn consume(self: &Arc<Self>, request: Consume) -> Result<Frames, Error> {
        self.refuse_when_draining()?;
        let (frames, stream) = mpsc::channel(FRAMES_AHEAD);
        let beat_at = Instant::now() + request.heartbeat;
        let stream_task = Stream { broker: self.clone(), request, frames, beat_at };
        self.calls.spawn(stream_task.run().in_current_span());
        Ok(stream)
    }

    /// A consumer's stored position, or what is missing.
    pub(super) async fn find_position(
        &self,
        topic: &TopicName,
        consumer: &ConsumerId,
    ) -> Result<Stored, Error> {
        let stored = self.storage.find_stored_position(topic, consumer).await;
        if let Some(stored) = stored.map_err(Error::of_read)? {
            return Ok(stored);
        }
        self.get_topic(topic.clone()).await?;
        Err(Error::ConsumerNotFound { topic: topic.clone(), consumer: consumer.clone() })
    }
}

/// Why a stream ends.
enum End {
    ClientGone,
    Error(Error),
}

impl From<Error> for End {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

struct Stream {
    broker: Arc<Broker>,
    request: Consume,
    frames: mpsc::Sender<Result<Event, Error>>,
    beat_at: Instant,
}

impl Stream {
    async fn run(mut self) {
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

    async fn acquire_at_once(
        &self,
        seat: &Arc<Seat>,
        key: ConsumerKey,
    ) -> Result<(Lease, Offset), End> {
        if let Some(turn) = seat.try_turn()
            && let Ok(acquired) = seat.acquire(turn, key, &self.request.holder).await?
        {
            return Ok(acquired);
        }
        let Consume { topic, consumer, .. } = &self.request;
        let holder = self.broker.find_holder(seat, topic, consumer).await?;
        let (topic, consumer) = (topic.clone(), consumer.clone());
        Err(Error::LeaseHeld { topic, consumer, holder }.into())
    }

    /// Waits as a standby: first for this broker's turn, then for the other brokers.
    async fn wait_for_lease(
        &mut self,
        seat: &Arc<Seat>,
        stored: Stored,
        log: &Subscription,
    ) -> Result<(Lease, Offset), End> {
        let mut turn = match seat.try_turn() {
            Some(turn) => turn,
            None => {
                self.stand_by(seat).await?;
                let mut turn = std::pin::pin!(seat.turn());
                loop {
                    tokio::select! {
                        turn = &mut turn => break turn,
                        idle = self.idle(None) => idle?,
                    }
                    self.beat(stored.position, log).await?;
                }
            }
        };
        let mut told = false;
        loop {
            match seat.acquire(turn, stored.key, &self.request.holder).await? {
                Ok(acquired) => return Ok(acquired),
                Err(still_my_turn) => turn = still_my_turn,
            }
            if !told {
                self.stand_by(seat).await?;
                told = true;
            }
            let poll = tokio::time::sleep(POLL_INTERVAL);
            tokio::select! {
                () = seat.freed_elsewhere() => {}
                () = poll => {}
                idle = self.idle(None) => {
                    idle?;
                    self.beat(stored.position, log).await?;
                }
            }
        }
    }

    async fn stand_by(&mut self, seat: &Seat) -> Result<(), End> {
        let Consume { topic, consumer, .. } = &self.request;
        let holder = self.broker.find_holder(seat, topic, consumer).await?;
        self.send(Event::Standby { holder }, None).await
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
    async fn idle(&self, lease: Option<&Lease>) -> Result<(), End> {
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

    async fn beat(&mut self, position: Offset, log: &Subscription) -> Result<(), End> {
        // A wait may end for another reason than that it is time.
        if Instant::now() < self.beat_at {
            return Ok(());
        }
        let head = *log.head.borrow();
        self.send(Event::Heartbeat { position, head }, None).await
    }

    async fn send(&mut self, event: Event, lease: Option<&Lease>) -> Result<(), End> {
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

impl Broker {
    /// Who holds a consumer's lease, for people.
    pub(super) async fn find_holder(
        &self,
        seat: &Seat,
        topic: &TopicName,
        consumer: &ConsumerId,
    ) -> Result<String, Error> {
        if let Some(holder) = seat.holder() {
            return Ok(holder);
        }
        let found = self.get_consumer(topic.clone(), consumer.clone()).await?;
        // Pulls hold it for a moment, and leave no name.
        let holder = found.holder.filter(|holder| !holder.is_empty());
        Ok(holder.unwrap_or_else(|| "a pull or a stream that just ended".to_owned()))
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
