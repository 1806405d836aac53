//! Reads a consumer's stream, and opens it again after a break.
//!
//! Messages come in order and, within one reader, once: after a break the broker repeats what was
//! not committed, and the reader skips what it has already read.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::{sync::mpsc, task::JoinHandle};
use tonic::{Status, Streaming};

use super::{
    committer::CommitState,
    decode::decode_batch,
    event::{Event, Stop},
};
use crate::{
    client::{
        backoff::Backoff,
        connect::{Client, Connection, StreamConnection},
        error::{Error, is_transient, reason, retry_delay},
        message::Message,
    },
    proto::{
        Attached, ConsumeRequest, Gap, OnBusy, Repositioned,
        consume_request::Stop as ProtoStop,
        raw::{
            ConsumeResponse, consume_response::Event as Frame,
            consumer_service_client::ConsumerServiceClient,
        },
    },
};

/// How long a broker may take to open a stream.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);

type Events = mpsc::Sender<Result<Event, Error>>;

/// What a reader needs to start.
pub(super) struct ReaderSpawner {
    pub(super) client: Client,
    pub(super) request: ConsumeRequest,
    pub(super) stop: Option<Stop>,
    pub(super) heartbeat: Duration,
    /// The number of seeks, which the reader increases.
    pub(super) seeks: Arc<AtomicU32>,
    /// What is to be committed; `None` if the broker commits.
    pub(super) commits: Option<Arc<CommitState>>,
    pub(super) events: Events,
}

struct Reader {
    client: Client,
    request: ConsumeRequest,
    stop: Option<Stop>,
    /// How long a stream may be silent.
    silence: Duration,
    seeks: Arc<AtomicU32>,
    commits: Option<Arc<CommitState>>,
    /// Where events go; `None` once the consumer has all that it asked for. The stream then stays
    /// open to keep its lease for the last commits. It is not read while commits succeed, and ends
    /// when the reader's task is aborted.
    events: Option<Events>,
    /// Seeks that came after the last event: they void commits, and have no other effect.
    late_seeks: u32,
    backoff: Backoff,
    /// The offset of the next message to read; 0 before the first.
    next_offset: i64,
    /// The offset after the stream's last message; 0 before the first.
    stream_end: i64,
    /// The newest epoch so far; 0 before the first.
    epoch: i64,
    /// The stream's connection. Commits go over it too, as its broker has the lease.
    connection: Option<Connection>,
    /// How often the token had been replaced when that connection was opened.
    replacements: u64,
}

/// Nobody listens any more, or everything asked for has been read.
struct Finished;

impl ReaderSpawner {
    pub(super) fn spawn(self) -> JoinHandle<()> {
        let Self { client, request, stop, heartbeat, seeks, commits, events } = self;
        let reader = Reader {
            client,
            request,
            stop,
            silence: 3 * heartbeat,
            seeks,
            commits,
            events: Some(events),
            late_seeks: 0,
            backoff: Backoff::default(),
            next_offset: 0,
            stream_end: 0,
            epoch: 0,
            connection: None,
            replacements: 0,
        };
        tokio::spawn(reader.run())
    }
}

impl Reader {
    /// Reads until everything asked for has been read, an error is final, or nobody listens any
    /// more.
    async fn run(mut self) {
        if self.stop == Some(Stop::Messages(0)) {
            return;
        }
        loop {
            let status = match self.read().await {
                Ok(Finished) => return,
                Err(status) => status,
            };
            let has_another_token = self.client.has_another_token(status.code(), self.replacements);
            if !may_resume(&status) && !has_another_token {
                if let Some(events) = &self.events {
                    let _ = events.send(Err(status.into())).await;
                }
                return;
            }
            let requested = self.client.pause_for(retry_delay(&status));
            if self.send(Event::Broken(status.into())).await.is_err() {
                return;
            }
            tokio::time::sleep(self.backoff.next_after(requested)).await;
        }
    }

    /// Opens and reads one stream.
    async fn read(&mut self) -> Result<Finished, Status> {
        let StreamConnection { connection, broker, replacements } = self.client.open().await?;
        self.replacements = replacements;
        let ended = self.read_over(connection).await;
        if ended.as_ref().is_err_and(is_transient) {
            self.client.record_lost(broker);
        }
        ended
    }

    async fn read_over(&mut self, connection: Connection) -> Result<Finished, Status> {
        let silent = || Status::unavailable("the broker is silent");
        let opening = tokio::time::timeout(OPEN_TIMEOUT, self.open(connection));
        let mut stream = opening.await.map_err(|_| silent())??;
        self.stream_end = 0;
        loop {
            if let Some(commits) = self.commits.as_ref().filter(|_| self.events.is_none())
                && self.stream_end >= self.next_offset
            {
                commits.failing().await;
            }
            let frame = tokio::time::timeout(self.silence, stream.message());
            let frame = match frame.await.map_err(|_| silent())?? {
                Some(ConsumeResponse { event: Some(frame) }) => frame,
                // A kind of frame that this version does not know.
                Some(ConsumeResponse { event: None }) => continue,
                None if self.request.stop.is_some() => return Ok(Finished),
                None => return Err(Status::unavailable("the broker closed the stream")),
            };
            let caught_up = matches!(frame, Frame::CaughtUp(_));
            if let Some(event) = self.observe(frame)?
                && self.send(event).await.is_err()
            {
                return Ok(Finished);
            }
            if self.has_read_all(caught_up) {
                if self.commits.is_none() {
                    return Ok(Finished);
                }
                self.events = None;
            }
        }
    }

    async fn open(&mut self, connection: Connection) -> Result<Streaming<ConsumeResponse>, Status> {
        self.request.stop = self.stop.and_then(|stop| self.broker_stop(stop));
        let mut consumers = ConsumerServiceClient::new(connection.clone());
        self.connection = Some(connection);
        Ok(consumers.consume(self.request.clone()).await?.into_inner())
    }

    /// When the broker is to end a stream. Never, where the client commits: the broker would release
    /// the lease before the last messages are committed, and would count messages that it repeats
    /// after a break.
    fn broker_stop(&self, stop: Stop) -> Option<ProtoStop> {
        match stop {
            _ if self.commits.is_some() => None,
            Stop::CaughtUp => Some(ProtoStop::UntilCaughtUp(true)),
            Stop::Offset(offset) => Some(ProtoStop::UntilOffset(offset)),
            Stop::Messages(left) => {
                Some(ProtoStop::MaxMessages(i64::try_from(left).unwrap_or(i64::MAX)))
            }
        }
    }

    /// Whether everything asked for has been sent to the consumer.
    fn has_read_all(&self, caught_up: bool) -> bool {
        match self.stop {
            Some(Stop::CaughtUp) => caught_up,
            Some(Stop::Offset(end)) => self.epoch > 0 && self.next_offset >= end,
            Some(Stop::Messages(left)) => left == 0,
            None => false,
        }
    }

    async fn send(&self, event: Event) -> Result<(), Finished> {
        match &self.events {
            Some(events) => events.send(Ok(event)).await.map_err(|_| Finished),
            None => Ok(()),
        }
    }

    /// Records a frame; returns the event to send, if there is one.
    fn observe(&mut self, frame: Frame) -> Result<Option<Event>, Status> {
        Ok(match frame {
            Frame::Batch(batch) => {
                self.backoff.reset();
                let messages = decode_batch(&batch, self.seeks.load(Ordering::Acquire));
                self.observe_messages(
                    messages.map_err(|error| Status::internal(error.to_string()))?,
                )
            }
            Frame::Attached(attached) => Some(self.observe_attached(&attached)),
            Frame::Standby(standby) => Some(Event::Standby { holder: standby.holder }),
            Frame::Repositioned(Repositioned { position, epoch, .. }) => {
                self.record_seek(position);
                self.begin_epoch(epoch, position);
                Some(Event::Repositioned { position })
            }
            Frame::Gap(Gap { first_offset: from, end_offset: to }) => {
                self.record_delivered(to);
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

    fn observe_attached(&mut self, attached: &Attached) -> Event {
        let Attached { position, epoch, seek_epoch, head } = *attached;
        // Epochs or offsets start again when the consumer is registered again, or the topic created
        // again.
        let other_log = epoch <= self.epoch || head < self.next_offset;
        if self.epoch > 0 && (seek_epoch > self.epoch || other_log) {
            self.record_seek(position);
        } else if self.epoch > 0 && position > self.next_offset && self.commits.is_none() {
            let from = self.next_offset;
            tracing::warn!(first = from, end = position, "messages may have been lost in transit");
        }
        // Another stream may have read on meanwhile.
        self.next_offset = self.next_offset.max(position);
        self.begin_epoch(epoch, position);
        // The take-over is done; if another stream takes the lease later, this one waits for it.
        self.request.on_busy = OnBusy::Wait.into();
        Event::Attached { position }
    }

    /// Records a seek: messages read before it are void.
    fn record_seek(&mut self, position: i64) {
        match self.events {
            Some(_) => {
                self.next_offset = position;
                self.seeks.fetch_add(1, Ordering::AcqRel);
            }
            None => self.late_seeks += 1,
        }
    }

    fn begin_epoch(&mut self, epoch: i64, position: i64) {
        self.epoch = epoch;
        if let (Some(commits), Some(connection)) = (&self.commits, &self.connection) {
            let seeks = self.seeks.load(Ordering::Acquire) + self.late_seeks;
            commits.begin_epoch(epoch, seeks, position, connection.clone());
        }
    }

    fn record_delivered(&self, end: i64) {
        if let Some(commits) = &self.commits {
            commits.record_delivered(end);
        }
    }

    fn observe_messages(&mut self, mut messages: Vec<Message>) -> Option<Event> {
        self.stream_end = messages.last()?.offset + 1;
        self.record_delivered(self.stream_end);
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
        if let Some(commits) = &self.commits {
            commits.end_streams();
        }
    }
}

/// Whether the stream may be opened again: after a break, or to wait for the lease when another
/// stream has taken it.
fn may_resume(status: &Status) -> bool {
    let lease = ["LEASE_LOST", "LEASE_TAKEN_OVER"];
    is_transient(status) || reason(status).is_some_and(|reason| lease.contains(&reason.as_str()))
}
