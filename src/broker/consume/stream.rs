//! A consumer's stream: acquires the lease, hands out the messages there are, and waits for more.

use std::{
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use futures::future::{Either, MaybeDone, maybe_done, select};
use tokio::time::Instant;
use tracing::Instrument as _;

use crate::{
    broker::{
        catalogue::Catalogue,
        consume::{
            delivery::Delivery,
            outbox::{self, Fence, Frames, Outgoing},
            request::{CommitMode, Consume, Frame, Stop},
        },
        error::Error,
        lease::acquisition::{Acquired, Lease},
        log::{
            cursor::Cursor,
            messages::{FrameLimits, Messages},
            topics::{LogReader, Observation},
        },
    },
    model::{Epoch, Offset, OffsetRange},
    storage::Advance,
};

/// How long the database may take for the work before a stream's first frame.
const FIRST_ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Work that has finished, and why the stream must end after it, if it must.
pub(crate) struct Finished<T> {
    pub outcome: T,
    pub must_end: Option<End>,
}

/// Why a stream ends, or starts over.
pub(crate) enum End {
    ClientGone,
    /// The client may no longer consume. Whoever withdrew that tells the client.
    Withdrawn,
    Error(Error),
    /// A seek moved the position: the stream continues from there.
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
    pub(crate) delivery: Arc<Delivery>,
    pub(crate) request: Consume,
    pub(crate) frames: outbox::FrameSender,
    pub(crate) began: Instant,
    fence: Fence,
    /// When the next heartbeat is due.
    pub(crate) beat_at: Instant,
    /// Whether the client knows that its stream is a standby.
    pub(crate) stands_by: bool,
    /// How many messages were handed out, or are on their way to the client.
    handed_out: u64,
    /// The observation that was begun before the position was read.
    pub(crate) observation: Observation,
}

/// The work under a lease: what is handed out, and how far it has come.
struct Serving<'a> {
    lease: &'a Lease,
    cursor: Cursor,
    log: &'a mut LogReader,
    /// The end of the last gap: messages before it are not in flight.
    gap_end: Offset,
    /// Whether the head may be more than one frame away: at first, and when a frame did not reach
    /// it.
    behind: bool,
}

impl Delivery {
    /// Starts a stream. Later errors are sent in the stream.
    pub fn consume(self: &Arc<Self>, request: Consume) -> Result<Frames, Error> {
        self.calls.admit()?;
        let admitted = self.streams.admit()?;
        let (frames, fence, receiver) = outbox::channel();
        let now = Instant::now();
        let stream = Stream {
            delivery: self.clone(),
            began: now,
            beat_at: now + request.heartbeat,
            stands_by: false,
            request,
            frames,
            fence,
            handed_out: 0,
            observation: self.logs.begin(),
        };
        let served = async {
            stream.run().await;
            drop(admitted);
        };
        self.calls.spawn(served.in_current_span());
        Ok(receiver)
    }
}

impl Stream {
    async fn run(mut self) {
        match self.serve().await {
            Ok(()) => tracing::debug!("the stream reached its end"),
            Err(End::ClientGone) => tracing::debug!("the client went away"),
            Err(End::Withdrawn) => tracing::debug!("the client may no longer consume"),
            Err(End::Error(error)) => {
                let error = error.logged("end a stream");
                tracing::debug!(%error, "end the stream");
                // The lease has been released, so a client that does not read blocks no other
                // stream.
                let _ = self.frames.send(Outgoing { epoch: Epoch(0), frame: Err(error) }).await;
            }
            Err(End::Sought | End::RegisteredAnew) => {
                tracing::error!("a seek or registration ended a stream");
            }
        }
    }

    /// Serves until the stream has handed out what it was asked for.
    async fn serve(&mut self) -> Result<(), End> {
        let Consume { topic, consumer, holder, .. } = &self.request;
        let delivery = self.delivery.clone();
        let names = [holder.as_str()].into_iter();
        promptly(delivery.characters.check(&*delivery.storage, "client_name", names)).await?;
        if self.request.is_missing {
            promptly(delivery.catalogue.topic(topic)).await?;
            return Err(Catalogue::no_consumer(topic, consumer).into());
        }
        let waiter = delivery.leases.waiter(topic, consumer);
        let (Acquired { mut lease, mut position }, mut log) = loop {
            match self.acquire_lease(&waiter).await {
                Err(End::RegisteredAnew) => {}
                acquired => break acquired?,
            }
        };
        let mut attached = false;
        loop {
            // The server that returned the position has the messages before it.
            self.observation.observe_head(lease.key().topic, position);
            match self.serve_from(position, &lease, &mut log, &mut attached).await {
                Err(End::Sought) => {
                    position = lease.adopt_seek();
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
        // Before the first frame, which may be all that the client reads.
        self.report_truncation(lease)?;
        let (epoch, head) = (lease.epoch(), (*log.head.borrow()).max(position));
        let frame = match attached {
            false => {
                let seek_epoch = lease.seek_epoch();
                Frame::Attached { position, head, epoch, seek_epoch }
            }
            true => Frame::Repositioned { position, head, epoch },
        };
        self.send(frame, Some(lease)).await?;
        *attached = true;
        let cursor = Cursor::new(position, head);
        self.hand_out(Serving { lease, cursor, log, gap_end: position, behind: true }).await
    }

    async fn hand_out(&mut self, mut serving: Serving<'_>) -> Result<(), End> {
        let delivery = self.delivery.clone();
        while !self.has_reached(serving.cursor.position()) {
            self.report_truncation(serving.lease)?;
            let known_committed = serving.lease.committed();
            let limits = self.limits(&serving, known_committed);
            // Noted before the read: a head that moves during the read still wakes the stream.
            let known_head = *serving.log.head.borrow_and_update();
            if limits.messages == 0 && serving.cursor.position() < known_head {
                self.wait_for_commit(&mut serving, known_committed).await?;
                continue;
            }
            let Serving { lease, cursor, log, behind, .. } = &mut serving;
            // If the head lies before what was handed out, the log was truncated, or the head was
            // read earlier than those messages.
            if *behind || cursor.position() != known_head {
                let fill = cursor.fill(&delivery.storage, log);
                if !self.meanwhile(lease, log, fill).await?? {
                    return Err(self.why_gone().await);
                }
                // Before handing out messages that may have been read from the old primary.
                self.report_truncation(lease)?;
                if cursor.position() > cursor.head() {
                    let lost = OffsetRange { start: cursor.head(), end: cursor.position() };
                    let topic = self.request.topic.clone();
                    let check = delivery.truncation.check_log(&topic, lease.key(), lost.end);
                    promptly(check).await?;
                    return Err(Error::MessagesLost { topic, lost }.into());
                }
                if let Some(gap) = cursor.take_gap() {
                    serving.gap_end = gap.end;
                    self.advance(gap.end, Frame::Gap(gap), &mut serving).await?;
                    continue;
                }
                if let Some(messages) = cursor.next_messages(limits) {
                    *behind |= messages.range.end < cursor.head();
                    self.hand_out_messages(messages, &mut serving).await?;
                    continue;
                }
                if cursor.position() < cursor.head() {
                    // There are more messages, but no more may be in flight.
                    self.wait_for_commit(&mut serving, known_committed).await?;
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
            self.wait_for_more(&mut serving).await?;
        }
        Ok(())
    }

    fn report_truncation(&self, lease: &Lease) -> Result<(), Error> {
        self.delivery.truncation.report(&self.request.topic, lease.key())
    }

    /// Whether the stream has handed out what it was asked for.
    fn has_reached(&self, position: Offset) -> bool {
        match self.request.stop {
            Some(Stop::Offset(end)) => position >= end,
            Some(Stop::Messages(count)) => self.handed_out >= count,
            Some(Stop::CaughtUp) | None => false,
        }
    }

    /// What the next frame may hold.
    fn limits(&self, serving: &Serving<'_>, committed: Offset) -> FrameLimits {
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
            let in_flight = serving.cursor.position().since(committed.max(serving.gap_end));
            let room = max.saturating_sub(usize::try_from(in_flight).unwrap_or(0));
            limits.messages = limits.messages.min(room);
        }
        limits
    }

    async fn hand_out_messages(
        &mut self,
        messages: Messages,
        serving: &mut Serving<'_>,
    ) -> Result<(), End> {
        let (end, count) = (messages.range.end, messages.count());
        self.advance(end, Frame::Messages(messages), serving).await?;
        self.handed_out += count as u64;
        Ok(())
    }

    /// Sends a frame that ends at a position. In auto mode the position is stored once there is
    /// room for the frame in the queue, while the next batches are read.
    async fn advance(
        &mut self,
        position: Offset,
        frame: Frame,
        serving: &mut Serving<'_>,
    ) -> Result<(), End> {
        let Serving { lease, cursor, log, behind, .. } = serving;
        let delivery = self.delivery.clone();
        let permit = self.reserve(Some(lease)).await?;
        let stores = self.request.commit_mode == CommitMode::Auto;
        let mut read_ahead = pin!(maybe_done(async {
            match stores && *behind {
                true => cursor.fill(&delivery.storage, log).await,
                false => Ok(true),
            }
        }));
        let must_end = match stores {
            true => self.store(position, lease, log, read_ahead.as_mut()).await?,
            false => None,
        };
        lease.record_delivered(position);
        if let Frame::Messages(messages) = &frame {
            let (count, bytes) = (messages.count(), messages.bytes());
            delivery.metrics.traffic.count_consumed(lease.key().topic, count, bytes);
        }
        permit.send(Outgoing { epoch: lease.epoch(), frame: Ok(frame) });
        self.beat_at = Instant::now() + self.request.heartbeat;
        if let Some(end) = must_end {
            return Err(end);
        }
        // However long the read takes, the frame has been sent.
        self.meanwhile(lease, log, read_ahead.as_mut()).await?;
        // The next fill repeats a failed read, and reports its error.
        if let Some(Err(error)) = read_ahead.take_output() {
            error.log_cause("read ahead");
        }
        Ok(())
    }

    /// Stores a position, and drives the read-ahead meanwhile. Returns why the stream must end
    /// after that, if it must.
    async fn store(
        &mut self,
        position: Offset,
        lease: &Lease,
        log: &LogReader,
        read_ahead: Pin<&mut MaybeDone<impl Future>>,
    ) -> Result<Option<End>, End> {
        let delivery = self.delivery.clone();
        let advance = Advance { key: lease.key(), epoch: lease.epoch(), position };
        let advance = async {
            match select(pin!(delivery.positions.advance(advance)), read_ahead).await {
                Either::Left((moved, _)) => moved,
                Either::Right((_, advance)) => advance.await,
            }
        };
        match self.until_stored(lease, log, advance).await? {
            Finished { outcome: Ok(true), must_end } => {
                lease.record_stored(position);
                Ok(must_end)
            }
            Finished { must_end: Some(end), .. } => Err(end),
            Finished { outcome: Ok(false), .. } => Err(self.why_not_stored(lease).await),
            Finished { outcome: Err(error), .. } => Err(not_stored(error).into()),
        }
    }

    /// Waits until there is more to hand out.
    async fn wait_for_more(&mut self, serving: &mut Serving<'_>) -> Result<(), End> {
        loop {
            let idle = tokio::select! {
                // Cannot fail: the sender lives as long as the reader.
                _ = serving.log.head.changed() => return Ok(()),
                idle = self.idle(Some(serving.lease)) => idle,
            };
            idle?;
            self.beat(self.committed(serving), serving.log).await?;
        }
    }

    /// Waits until the client commits, so that more messages may be in flight.
    async fn wait_for_commit(
        &mut self,
        serving: &mut Serving<'_>,
        known: Offset,
    ) -> Result<(), End> {
        let mut committed = pin!(serving.lease.committed_beyond(known));
        loop {
            let idle = tokio::select! {
                () = &mut committed => return Ok(()),
                idle = self.idle(Some(serving.lease)) => idle,
            };
            idle?;
            self.beat(self.committed(serving), serving.log).await?;
        }
    }

    fn committed(&self, serving: &Serving<'_>) -> Offset {
        match self.request.commit_mode {
            CommitMode::Auto => serving.cursor.position(),
            CommitMode::Manual => serving.lease.committed(),
        }
    }
}

/// Limits the time of work before a stream's first frame, so that the client soon gets a frame or
/// an error.
pub(crate) async fn promptly<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let done = tokio::time::timeout(FIRST_ANSWER_TIMEOUT, work).await;
    done.unwrap_or(Err(Error::unavailable()))
}

/// In auto mode no frame is sent before its position is stored. The client's next stream starts at
/// the stored position, so no outcome is unknown to the client.
fn not_stored(error: Error) -> Error {
    match error {
        Error::OutcomeUnknown(cause) => Error::DatabaseUnavailable(cause),
        other => other,
    }
}
