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
    super::{Client, Connection, Error, Message, backoff::Backoff, error::is_transient, reason},
    Event, Stop,
    committer::Wanted,
};
use crate::proto::{
    Attached, ConsumeRequest, ConsumeResponse, Gap, MessageBatch, OnBusy, Repositioned,
    consume_request::Stop as ProtoStop, consume_response::Event as Frame,
    consumer_service_client::ConsumerServiceClient,
};

pub(super) struct Reader {
    client: Client,
    request: ConsumeRequest,
    stop: Option<Stop>,
    /// How long a stream may be silent.
    silence: Duration,
    seeks: Arc<AtomicU32>,
    /// What is to be committed; `None` if the broker commits.
    wanted: Option<Arc<Wanted>>,
    backoff: Backoff,
    /// The offset of the next message that was not read yet; 0 before the first.
    next_offset: i64,
    /// The newest epoch there was; 0 before the first.
    epoch: i64,
    /// The stream's connection: its broker has the lease, so that commits go there, too.
    connection: Option<Connection>,
}

impl Reader {
    pub(super) fn new(
        client: Client,
        request: ConsumeRequest,
        stop: Option<Stop>,
        heartbeat: Duration,
        seeks: Arc<AtomicU32>,
        wanted: Option<Arc<Wanted>>,
    ) -> Self {
        Self {
            client,
            request,
            stop,
            silence: heartbeat * 3,
            seeks,
            wanted,
            backoff: Backoff::default(),
            next_offset: 0,
            epoch: 0,
            connection: None,
        }
    }

    /// Reads until what was asked for has been had, an error is final, or nobody listens any more.
    pub(super) async fn run(mut self, events: mpsc::Sender<Result<Event, Error>>) {
        while self.stop != Some(Stop::Messages(0)) {
            let Err(status) = self.read(&events).await else { return };
            if !may_resume(&status) {
                let _ = events.send(Err(status.into())).await;
                return;
            }
            self.client.lost();
            if events.send(Ok(Event::Broken(status.into()))).await.is_err() {
                return;
            }
            tokio::time::sleep(self.backoff.next()).await;
        }
    }

    /// Reads one stream. `Ok` when all that was asked for has been had, or nobody listens.
    async fn read(&mut self, events: &mpsc::Sender<Result<Event, Error>>) -> Result<(), Status> {
        let silent = || Status::unavailable("the broker is silent");
        let opening = tokio::time::timeout(self.silence, self.open());
        let mut stream = opening.await.map_err(|_| silent())??;
        loop {
            let frame = tokio::time::timeout(self.silence, stream.message());
            let event = match frame.await.map_err(|_| silent())?? {
                Some(ConsumeResponse { event: Some(frame) }) => self.take(frame),
                // A kind of frame that this client does not know yet.
                Some(ConsumeResponse { event: None }) => None,
                None if self.request.stop.is_some() => return Ok(()),
                None => return Err(Status::unavailable("the broker hung up")),
            };
            let Some(event) = event else { continue };
            if events.send(Ok(event)).await.is_err() || self.stop == Some(Stop::Messages(0)) {
                return Ok(());
            }
        }
    }

    async fn open(&mut self) -> Result<Streaming<ConsumeResponse>, Status> {
        self.request.stop = self.stop.and_then(|stop| self.asked(stop));
        let connection = self.client.open().await?;
        let mut consumers = ConsumerServiceClient::new(connection.clone());
        self.connection = Some(connection);
        Ok(consumers.consume(self.request.clone()).await?.into_inner())
    }

    /// How a stream is to end. The broker would count what it repeats after a break, and whoever
    /// listens does not: then the messages are counted here alone.
    fn asked(&self, stop: Stop) -> Option<ProtoStop> {
        match stop {
            Stop::CaughtUp => Some(ProtoStop::UntilCaughtUp(true)),
            Stop::Offset(offset) => Some(ProtoStop::UntilOffset(offset)),
            Stop::Messages(_) if self.epoch > 0 => None,
            Stop::Messages(count) => {
                Some(ProtoStop::MaxMessages(i64::try_from(count).unwrap_or(i64::MAX)))
            }
        }
    }

    fn take(&mut self, frame: Frame) -> Option<Event> {
        self.backoff.reset();
        match frame {
            Frame::Attached(attached) => Some(self.attached(&attached)),
            Frame::Standby(standby) => Some(Event::Standby { holder: standby.holder }),
            Frame::Batch(batch) => self.messages(batch),
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
            Frame::Heartbeat(_) => None,
        }
    }

    fn attached(&mut self, attached: &Attached) -> Event {
        let Attached { position, epoch, seek_epoch, .. } = *attached;
        if self.epoch > 0 && seek_epoch > self.epoch {
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
        self.next_offset = position;
        self.seeks.fetch_add(1, Ordering::AcqRel);
    }

    fn began(&mut self, epoch: i64, position: i64) {
        self.epoch = epoch;
        if let (Some(wanted), Some(connection)) = (&self.wanted, &self.connection) {
            let seeks = self.seeks.load(Ordering::Acquire);
            wanted.began(epoch, seeks, position, connection.clone());
        }
    }

    fn delivered(&self, end: i64) {
        if let Some(wanted) = &self.wanted {
            wanted.delivered(end);
        }
    }

    fn messages(&mut self, batch: MessageBatch) -> Option<Event> {
        let mut messages = batch.messages;
        self.delivered(messages.last()?.offset + 1);
        if messages.first()?.offset < self.next_offset {
            messages.retain(|message| message.offset >= self.next_offset);
        }
        self.next_offset = messages.last()?.offset + 1;
        if let Some(Stop::Messages(left)) = &mut self.stop {
            messages.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= messages.len() as u64;
        }
        let seeks = self.seeks.load(Ordering::Acquire);
        let received = messages.into_iter().map(|message| Message::received(message, seeks));
        Some(Event::Messages(received.collect()))
    }
}

/// Whether the stream may be opened again: after a break, and when another stream has the lease, to
/// wait for it.
fn may_resume(status: &Status) -> bool {
    let lease = ["LEASE_LOST", "LEASE_TAKEN_OVER"];
    is_transient(status) || reason(status).is_some_and(|reason| lease.contains(&reason.as_str()))
}
