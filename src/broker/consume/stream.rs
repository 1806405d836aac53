//! A consumer's stream: attach, hand out what there is, wait for more.

use std::{
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use futures::future::{Either, MaybeDone, maybe_done, select};
use tokio::time::Instant;

use crate::{
    broker::{
        Broker,
        consume::{
            outbox::{self, Fence, Outgoing},
            request::{CommitMode, Consume, Frame, Stop},
        },
        error::Error,
        lease::registry::Lease,
        log::{
            cursor::{Cursor, FrameLimits, Messages},
            seen::Asked,
            topics::LogReader,
        },
    },
    model::{Epoch, Offset},
    storage::Advance,
};

/// How long the database may take for what comes before a stream's first frame.
const FIRST_ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a stream ends, or must begin anew.
pub(crate) enum End {
    ClientGone,
    Error(Error),
    /// A seek moved the position: the stream goes on from there.
    Sought,
    /// The consumer was unregistered and registered again before the stream attached.
    RegisteredAnew,
}

impl From<Error> for End {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// A stream's task.
pub(crate) struct Stream {
    pub(crate) broker: Arc<Broker>,
    pub(crate) request: Consume,
    pub(crate) frames: outbox::Sender,
    fence: Fence,
    pub(crate) beat_at: Instant,
    /// Messages handed out so far, or on their way out.
    handed_out: u64,
    /// When the database was asked for the position.
    pub(crate) asked: Asked,
}

/// What a stream hands out, and where it stands in it.
struct Serving<'a> {
    lease: &'a Lease,
    cursor: Cursor,
    log: &'a mut LogReader,
    /// The end of the last gap: what lies before it is no longer under way.
    floor: Offset,
    /// Whether the head is farther than one frame: from the start, and whenever one frame did not
    /// reach it.
    behind: bool,
}

impl Stream {
    pub(crate) fn new(
        broker: Arc<Broker>,
        request: Consume,
        frames: outbox::Sender,
        fence: Fence,
    ) -> Self {
        let beat_at = Instant::now() + request.heartbeat;
        let asked = broker.logs.losses().asked();
        Self { broker, request, frames, fence, beat_at, handed_out: 0, asked }
    }

    pub(crate) async fn run(mut self) {
        match self.serve().await {
            Ok(()) => tracing::debug!("the stream came to its end"),
            Err(End::ClientGone) => tracing::debug!("the client went away"),
            Err(End::Error(error)) => {
                tracing::debug!(%error, "end the stream");
                // The lease has been dropped by now: a client that does not read holds up nobody.
                let _ = self.frames.send(Outgoing { epoch: Epoch(0), event: Err(error) }).await;
            }
            Err(End::Sought | End::RegisteredAnew) => {
                tracing::error!("a stream ended for a seek or a registration");
            }
        }
    }

    /// Serves until what the stream was asked for is handed out.
    async fn serve(&mut self) -> Result<(), End> {
        let Consume { topic, consumer, .. } = &self.request;
        let name = [self.request.holder.as_str()].into_iter();
        promptly(self.broker.check_text("client_name", name)).await?;
        let waiter = self.broker.leases.waiter(topic, consumer);
        let ((mut lease, mut position), mut log) = loop {
            match self.attach(&waiter).await {
                Err(End::RegisteredAnew) => {}
                attached => break attached?,
            }
        };
        let mut attached = false;
        loop {
            // Whoever told the position has the messages before it.
            self.broker.logs.losses().saw(lease.key().topic, position, self.asked);
            match self.serve_from(position, &lease, &mut log, &mut attached).await {
                Err(End::Sought) => {
                    position = lease.go_on();
                    self.handed_out = self.fence.raise(lease.epoch());
                }
                ended => {
                    lease.release().await;
                    return ended;
                }
            }
        }
    }

    /// Serves from a position until the stream's end, or the next seek.
    async fn serve_from(
        &mut self,
        position: Offset,
        lease: &Lease,
        log: &mut LogReader,
        attached: &mut bool,
    ) -> Result<(), End> {
        // Before its first frame, with which a client may be content.
        self.broker.tell_of_losses(&self.request.topic, lease.key())?;
        let (epoch, head) = (lease.epoch(), (*log.head.borrow()).max(position));
        let event = match attached {
            false => {
                let seek_epoch = lease.seek_epoch();
                Frame::Attached { position, head, epoch, seek_epoch }
            }
            true => Frame::Repositioned { position, head, epoch },
        };
        self.send(event, Some(lease)).await?;
        *attached = true;
        let cursor = Cursor::new(position, head);
        self.hand_out(Serving { lease, cursor, log, floor: position, behind: true }).await
    }

    async fn hand_out(&mut self, mut reading: Serving<'_>) -> Result<(), End> {
        let broker = self.broker.clone();
        while !self.has_reached(reading.cursor.position()) {
            broker.tell_of_losses(&self.request.topic, reading.lease.key())?;
            let known_committed = reading.lease.committed();
            let limits = self.limits(&reading, known_committed);
            // Noted before the read: what comes while it runs still wakes us.
            let known_head = *reading.log.head.borrow_and_update();
            if limits.messages == 0 && reading.cursor.position() < known_head {
                self.wait_for_commit(&mut reading, known_committed).await?;
                continue;
            }
            let Serving { lease, cursor, log, behind, .. } = &mut reading;
            // If the head is said to lie before what was handed out, messages were lost, or what is
            // said is older than what was read here.
            if *behind || cursor.position() != known_head {
                let filled = self.meanwhile(lease, log, cursor.fill(&broker.storage, log)).await?;
                if !filled? {
                    return Err(self.why_gone().await);
                }
                // Before what was read of the old primary is handed out.
                broker.tell_of_losses(&self.request.topic, lease.key())?;
                if cursor.position() > cursor.head() {
                    let (key, first, end) = (lease.key(), cursor.head(), cursor.position());
                    let topic = self.request.topic.clone();
                    promptly(broker.look_for_loss(&topic, key, end)).await?;
                    return Err(Error::MessagesLost { topic, first, end }.into());
                }
                if let Some((from, to)) = cursor.take_gap() {
                    reading.floor = to;
                    self.pass_gap(&mut reading, from, to).await?;
                    continue;
                }
                if let Some(delivery) = cursor.next_frame(limits) {
                    *behind |= delivery.to < cursor.head();
                    self.deliver(delivery, &mut reading).await?;
                    continue;
                }
                if cursor.position() < cursor.head() {
                    // There is more, for which there was no room.
                    self.wait_for_commit(&mut reading, known_committed).await?;
                    continue;
                }
                if std::mem::take(behind) {
                    let (head, lease) = (cursor.head(), *lease);
                    self.send(Frame::CaughtUp { head }, Some(lease)).await?;
                    if self.request.stop == Some(Stop::CaughtUp) {
                        return Ok(());
                    }
                }
            }
            self.wait_for_more(&mut reading).await?;
        }
        Ok(())
    }

    /// Whether all that the stream was asked for is handed out.
    fn has_reached(&self, position: Offset) -> bool {
        match self.request.stop {
            Some(Stop::Offset(end)) => position >= end,
            Some(Stop::Messages(count)) => self.handed_out >= count,
            Some(Stop::CaughtUp) | None => false,
        }
    }

    /// What the next frame may hold.
    fn limits(&self, reading: &Serving<'_>, committed: Offset) -> FrameLimits {
        let mut limits = self.request.frame;
        match self.request.stop {
            Some(Stop::Offset(end)) => limits.end = end,
            Some(Stop::Messages(count)) => {
                let left = usize::try_from(count.saturating_sub(self.handed_out));
                limits.messages = limits.messages.min(left.unwrap_or(usize::MAX));
            }
            Some(Stop::CaughtUp) | None => {}
        }
        if let Some(max) = self.request.max_in_flight {
            let under_way = reading.cursor.position().since(committed.max(reading.floor));
            let room = max.saturating_sub(usize::try_from(under_way).unwrap_or(0));
            limits.messages = limits.messages.min(room);
        }
        limits
    }

    /// Hands messages out. In auto mode their position is written once the frame has its place on
    /// the way out; the next ones are read meanwhile.
    async fn deliver(&mut self, delivery: Messages, reading: &mut Serving<'_>) -> Result<(), End> {
        let (to, count) = (delivery.to, delivery.count());
        self.move_to(to, Frame::Batch(delivery), reading).await?;
        self.handed_out += count as u64;
        Ok(())
    }

    /// Tells of messages that retention removed before they were handed out.
    async fn pass_gap(
        &mut self,
        reading: &mut Serving<'_>,
        from: Offset,
        to: Offset,
    ) -> Result<(), End> {
        self.move_to(to, Frame::Gap { from, to }, reading).await
    }

    async fn move_to(
        &mut self,
        to: Offset,
        event: Frame,
        reading: &mut Serving<'_>,
    ) -> Result<(), End> {
        let Serving { lease, cursor, log, behind, .. } = reading;
        let broker = self.broker.clone();
        let place = self.place(Some(lease)).await?;
        let stores = self.request.commit_mode == CommitMode::Auto;
        let mut ahead = pin!(maybe_done(async {
            match stores && *behind {
                true => cursor.fill(&broker.storage, log).await,
                false => Ok(true),
            }
        }));
        let must_end = match stores {
            true => self.store(to, (lease, log), ahead.as_mut()).await?,
            false => None,
        };
        lease.delivers(to);
        place.send(Outgoing { epoch: lease.epoch(), event: Ok(event) });
        self.beat_at = Instant::now() + self.request.heartbeat;
        if let Some(end) = must_end {
            return Err(end);
        }
        // However long that takes, what was stored as handed out is.
        self.meanwhile(lease, log, ahead.as_mut()).await?;
        // What could not be read ahead is read again, and its error told, when it is due.
        if let Some(Err(error)) = ahead.take_output() {
            tracing::debug!(%error, "read ahead");
        }
        Ok(())
    }

    /// Stores a position, and begins what goes on beside it; why the stream must end after that, if
    /// it must.
    async fn store(
        &mut self,
        to: Offset,
        (lease, log): (&Lease, &LogReader),
        beside: Pin<&mut MaybeDone<impl Future>>,
    ) -> Result<Option<End>, End> {
        let broker = self.broker.clone();
        let advance = Advance { key: lease.key(), epoch: lease.epoch(), position: to };
        let advance = async {
            match select(pin!(broker.positions.advance(advance)), beside).await {
                Either::Left((moved, _)) => moved,
                Either::Right((_, advance)) => advance.await,
            }
        };
        match self.until_stored(lease, log, advance).await? {
            (Ok(true), end) => {
                lease.position_stored(to);
                Ok(end)
            }
            (_, Some(end)) => Err(end),
            (Ok(false), None) => Err(self.why_unmoved(lease).await),
            (Err(error), None) => Err(unwritten(error).into()),
        }
    }

    /// Waits until there is more to hand out.
    async fn wait_for_more(&mut self, reading: &mut Serving<'_>) -> Result<(), End> {
        loop {
            let idle = tokio::select! {
                // The log lives as long as this subscription.
                _ = reading.log.head.changed() => return Ok(()),
                idle = self.idle(Some(reading.lease)) => idle,
            };
            idle?;
            self.beat(self.stored_position(reading), reading.log).await?;
        }
    }

    /// Waits until the client commits, so that more may be under way.
    async fn wait_for_commit(
        &mut self,
        reading: &mut Serving<'_>,
        known: Offset,
    ) -> Result<(), End> {
        loop {
            let idle = tokio::select! {
                () = reading.lease.committed_beyond(known) => return Ok(()),
                idle = self.idle(Some(reading.lease)) => idle,
            };
            idle?;
            self.beat(self.stored_position(reading), reading.log).await?;
        }
    }

    fn stored_position(&self, reading: &Serving<'_>) -> Offset {
        match self.request.commit_mode {
            CommitMode::Auto => reading.cursor.position(),
            CommitMode::Manual => reading.lease.committed(),
        }
    }
}

/// Waits for what a stream needs to begin: its first frame comes at once, or the word that it cannot.
pub(crate) async fn promptly<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let done = tokio::time::timeout(FIRST_ANSWER_TIMEOUT, work).await;
    done.unwrap_or(Err(Error::DatabaseUnavailable))
}

/// In auto mode nothing was handed out of what could not be written, or not for sure: the position
/// tells, when the stream is opened again.
fn unwritten(error: Error) -> Error {
    match error {
        Error::OutcomeUnknown => Error::DatabaseUnavailable,
        other => other,
    }
}
