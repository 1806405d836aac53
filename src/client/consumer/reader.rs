//! Reads a consumer's stream, and opens it again after a break.
//!
//! Messages come in order and, as long as this lives, once: after a break the broker repeats what
//! was not committed, and what was read already is passed over here.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::{
    super::{
        Client, Connection, Error, Message,
        backoff::Backoff,
        connect::Opened,
        error::{is_transient, reason, retry_delay},
    },
    Event, Stop, batch,
    committer::Wanted,
};
use crate::proto::{
    Attached, ConsumeRequest, Gap, OnBusy, Repositioned,
    consume_request::Stop as ProtoStop,
    raw::{
        ConsumeResponse, consume_response::Event as Frame,
        consumer_service_client::ConsumerServiceClient,
    },
};

/// How long a broker may take to open a stream.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);

type Events = mpsc::Sender<Result<Event, Error>>;

pub(super) struct Reader {
    client: Client,
    request: ConsumeRequest,
    stop: Option<Stop>,
    /// How long a stream may be silent.
    silence: Duration,
    seeks: Arc<AtomicU32>,
    /// What is to be committed; `None` if the broker commits.
    wanted: Option<Arc<Wanted>>,
    /// Where to tell what comes; `None` when all that was asked for has been told. The stream then
    /// stays open for its lease, so that the last commits are taken, but is not read as long as
    /// they are: whoever owns this ends it.
    events: Option<Events>,
    /// Seeks that came when all had been told: they void commits, and nothing else.
    late_seeks: u32,
    backoff: Backoff,
    /// The offset of the next message that was not read yet; 0 before the first.
    next_offset: i64,
    /// The offset behind the last message of the stream; 0 before the first.
    stream_end: i64,
    /// The newest epoch there was; 0 before the first.
    epoch: i64,
    /// The stream's connection: its broker has the lease, so that commits go there, too.
    connection: Option<Connection>,
}

/// Nobody listens, or all there was has been read.
struct Over;

impl Reader {
    pub(super) fn new(
        client: Client,
        request: ConsumeRequest,
        stop: Option<Stop>,
        heartbeat: Duration,
        seeks: Arc<AtomicU32>,
        wanted: Option<Arc<Wanted>>,
        events: Events,
    ) -> Self {
        Self {
            client,
            request,
            stop,
            silence: 3 * heartbeat,
            seeks,
            wanted,
            events: Some(events),
            late_seeks: 0,
            backoff: Backoff::default(),
            next_offset: 0,
            stream_end: 0,
            epoch: 0,
            connection: None,
        }
    }

    /// Reads until what was asked for has been had, an error is final, or nobody listens any more.
    pub(super) async fn run(mut self) {
        if self.stop == Some(Stop::Messages(0)) {
            return;
        }
        loop {
            let status = match self.read().await {
                Ok(Over) => return,
                Err(status) => status,
            };
            if !may_resume(&status) {
                if let Some(events) = &self.events {
                    let _ = events.send(Err(status.into())).await;
                }
                return;
            }
            let asked = self.client.heeded(retry_delay(&status));
            if self.tell(Event::Broken(status.into())).await.is_err() {
                return;
            }
            tokio::time::sleep(self.backoff.next_after(asked)).await;
        }
    }

    /// Opens and reads one stream.
    async fn read(&mut self) -> Result<Over, Status> {
        let Opened { connection, broker } = self.client.open().await?;
        let ended = self.read_over(connection).await;
        if ended.as_ref().is_err_and(is_transient) {
            self.client.lost(broker);
        }
        ended
    }

    async fn read_over(&mut self, connection: Connection) -> Result<Over, Status> {
        let silent = || Status::unavailable("the broker is silent");
        let opening = tokio::time::timeout(OPEN_TIMEOUT, self.open(connection));
        let mut stream = opening.await.map_err(|_| silent())??;
        self.stream_end = 0;
        loop {
            if let Some(wanted) = self.wanted.as_ref().filter(|_| self.events.is_none())
                && self.stream_end >= self.next_offset
            {
                wanted.trouble().await;
            }
            let frame = tokio::time::timeout(self.silence, stream.message());
            let frame = match frame.await.map_err(|_| silent())?? {
                Some(ConsumeResponse { event: Some(frame) }) => frame,
                // A kind of frame that this client does not know yet.
                Some(ConsumeResponse { event: None }) => continue,
                None if self.request.stop.is_some() => return Ok(Over),
                None => return Err(Status::unavailable("the broker hung up")),
            };
            let caught_up = matches!(frame, Frame::CaughtUp(_));
            if let Some(event) = self.take(frame)?
                && self.tell(event).await.is_err()
            {
                return Ok(Over);
            }
            if self.has_all(caught_up) {
                if self.wanted.is_none() {
                    return Ok(Over);
                }
                self.events = None;
            }
        }
    }

    async fn open(&mut self, connection: Connection) -> Result<Streaming<ConsumeResponse>, Status> {
        self.request.stop = self.stop.and_then(|stop| self.asked(stop));
        let mut consumers = ConsumerServiceClient::new(connection.clone());
        self.connection = Some(connection);
        Ok(consumers.consume(self.request.clone()).await?.into_inner())
    }

    /// How the broker is to end a stream. Where the client commits, it is not to: it would give the
    /// lease away before the last messages are committed, and count what it repeats after a break.
    fn asked(&self, stop: Stop) -> Option<ProtoStop> {
        match stop {
            _ if self.wanted.is_some() => None,
            Stop::CaughtUp => Some(ProtoStop::UntilCaughtUp(true)),
            Stop::Offset(offset) => Some(ProtoStop::UntilOffset(offset)),
            Stop::Messages(left) => {
                Some(ProtoStop::MaxMessages(i64::try_from(left).unwrap_or(i64::MAX)))
            }
        }
    }

    /// Whether all that was asked for has been told.
    fn has_all(&self, caught_up: bool) -> bool {
        match self.stop {
            Some(Stop::CaughtUp) => caught_up,
            Some(Stop::Offset(end)) => self.epoch > 0 && self.next_offset >= end,
            Some(Stop::Messages(left)) => left == 0,
            None => false,
        }
    }

    async fn tell(&self, event: Event) -> Result<(), Over> {
        match &self.events {
            Some(events) => events.send(Ok(event)).await.map_err(|_| Over),
            None => Ok(()),
        }
    }

    fn take(&mut self, frame: Frame) -> Result<Option<Event>, Status> {
        Ok(match frame {
            Frame::Batch(batch) => {
                self.backoff.reset();
                let messages = batch::decode(&batch, self.seeks.load(Ordering::Acquire));
                self.messages(messages.map_err(|error| Status::internal(error.to_string()))?)
            }
            Frame::Attached(attached) => Some(self.attached(&attached)),
            Frame::Standby(standby) => Some(Event::Standby { holder: standby.holder }),
            Frame::Repositioned(Repositioned { position, epoch, .. }) => {
                self.sought(position);
                self.began(epoch, position);
                Some(Event::Repositioned { position })
            }
            Frame::Gap(Gap { first_offset: from, end_offset: to }) => {
                self.delivered(to);
                let from = from.max(self.next_offset);
                self.next_offset = to.max(self.next_offset);
                (to > from).then_some(Event::Gap { from, to })
            }
            Frame::CaughtUp(_) => Some(Event::CaughtUp),
            Frame::Heartbeat(_) => {
                self.backoff.reset();
                None
            }
        })
    }

    fn attached(&mut self, attached: &Attached) -> Event {
        let Attached { position, epoch, seek_epoch, head } = *attached;
        // A registration that was made anew, or the topic, begins to count anew.
        let other_log = epoch <= self.epoch || head < self.next_offset;
        if self.epoch > 0 && (seek_epoch > self.epoch || other_log) {
            self.sought(position);
        } else if self.epoch > 0 && position > self.next_offset && self.wanted.is_none() {
            let from = self.next_offset;
            tracing::warn!(from, to = position, "messages may have been lost on their way");
        }
        // Others may have read on meanwhile.
        self.next_offset = self.next_offset.max(position);
        self.began(epoch, position);
        // It has been taken over; from now on others may do the same.
        self.request.on_busy = OnBusy::Wait.into();
        Event::Attached { position }
    }

    /// A seek: what was read before counts no more.
    fn sought(&mut self, position: i64) {
        match self.events {
            Some(_) => {
                self.next_offset = position;
                self.seeks.fetch_add(1, Ordering::AcqRel);
            }
            None => self.late_seeks += 1,
        }
    }

    fn began(&mut self, epoch: i64, position: i64) {
        self.epoch = epoch;
        if let (Some(wanted), Some(connection)) = (&self.wanted, &self.connection) {
            let seeks = self.seeks.load(Ordering::Acquire) + self.late_seeks;
            wanted.began(epoch, seeks, position, connection.clone());
        }
    }

    fn delivered(&self, end: i64) {
        if let Some(wanted) = &self.wanted {
            wanted.delivered(end);
        }
    }

    fn messages(&mut self, mut messages: Vec<Message>) -> Option<Event> {
        self.stream_end = messages.last()?.offset + 1;
        self.delivered(self.stream_end);
        if messages.first()?.offset < self.next_offset {
            messages.retain(|message| message.offset >= self.next_offset);
        }
        match &mut self.stop {
            Some(Stop::Offset(end)) => messages.retain(|message| message.offset < *end),
            Some(Stop::Messages(left)) => {
                messages.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= messages.len() as u64;
            }
            Some(Stop::CaughtUp) | None => {}
        }
        self.next_offset = messages.last()?.offset + 1;
        Some(Event::Messages(messages))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if let Some(wanted) = &self.wanted {
            wanted.no_more_streams();
        }
    }
}

/// Whether the stream may be opened again: after a break, and when another stream has the lease, to
/// wait for it.
fn may_resume(status: &Status) -> bool {
    let lease = ["LEASE_LOST", "LEASE_TAKEN_OVER"];
    is_transient(status) || reason(status).is_some_and(|reason| lease.contains(&reason.as_str()))
}
