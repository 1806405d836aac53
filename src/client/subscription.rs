//! A consumer's stream that goes on after a break, and commits what its caller has dealt with.
//!
//! Messages reach the caller in order and, within one subscription, once: after a break the broker
//! repeats what was not committed, and what the caller already has is passed over here. What a
//! caller has not committed when it dies, the next subscription gets again.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use tokio::{sync::watch, task::JoinHandle};
use tonic::{Code, Status, Streaming};

use super::{Client, is_broken_connection};
use crate::proto::{
    CommitMode, CommitRequest, ConsumeRequest, ConsumeResponse, Gap, Message, OnBusy, Repositioned,
    consume_request::Stop as ProtoStop, consume_response::Event as Frame,
};

/// What a subscription tells its caller.
#[derive(Debug)]
pub enum Event {
    /// The stream holds the lease.
    Attached,
    /// Another stream holds the lease, and this one waits for it.
    Standby {
        /// Who holds it.
        holder: String,
    },
    /// Messages, at least one.
    Messages(Vec<Message>),
    /// A seek moved the position: messages follow from there.
    Repositioned {
        /// The offset of the next message.
        position: i64,
    },
    /// Retention removed messages before they could be had.
    Gap {
        /// The offset of the first one.
        from: i64,
        /// The offset behind the last one.
        to: i64,
    },
    /// Nothing is left to read for now.
    CaughtUp,
    /// All that was asked for has been had.
    End,
    /// The broker went away, and is being looked for.
    Broken(Status),
}

/// What a subscription is asked for besides its consumer.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Takes the lease from whoever holds it, rather than waiting for it.
    pub take_over: bool,
    /// What others are told of who holds the lease; if empty, the broker says where it is from.
    pub client_name: String,
    /// When the subscription ends by itself, if it does.
    pub stop: Option<Stop>,
}

/// When a subscription ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// When nothing is left to read.
    CaughtUp,
    /// When all messages before an offset have been had.
    Offset(i64),
    /// When so many messages have been had.
    Messages(u64),
}

/// A consumer's stream in manual commit mode.
pub struct Subscription {
    client: Client,
    request: ConsumeRequest,
    stop: Option<Stop>,
    stream: Option<Streaming<ConsumeResponse>>,
    backoff: Backoff,
    /// The offset of the next message that the caller does not have yet; 0 before the first.
    next_offset: i64,
    /// The stored position, as the broker last told it.
    stored: i64,
    committer: Committer,
}

impl Subscription {
    /// A stream of a registered consumer, from its stored position on.
    pub fn new(client: Client, topic: &str, consumer_id: &str, options: Options) -> Self {
        let on_busy = if options.take_over { OnBusy::TakeOver } else { OnBusy::Wait };
        let request = ConsumeRequest {
            topic: topic.to_owned(),
            consumer_id: consumer_id.to_owned(),
            commit_mode: CommitMode::Manual.into(),
            on_busy: on_busy.into(),
            client_name: options.client_name,
            ..Default::default()
        };
        let committer = Committer::start(client.clone(), topic, consumer_id);
        Self {
            client,
            request,
            stop: options.stop,
            stream: None,
            backoff: Backoff::default(),
            next_offset: 0,
            stored: 0,
            committer,
        }
    }

    /// Waits for what comes next. An error is final; a break is not, and is told as
    /// [`Event::Broken`] before the next try.
    pub async fn next(&mut self) -> Result<Event, Status> {
        loop {
            if let Some(Stop::Messages(0)) = self.stop {
                return Ok(Event::End);
            }
            match self.next_frame().await {
                Ok(Some(frame)) => {
                    if let Some(event) = self.take(frame) {
                        return Ok(event);
                    }
                }
                Ok(None) => return Ok(Event::End),
                Err(status) if may_resume(&status) => {
                    self.stream = None;
                    return Ok(Event::Broken(status));
                }
                Err(status) => return Err(status),
            }
        }
    }

    /// Says that the caller has dealt with all messages before this offset. Commits are sent in
    /// the background, the newest standing for all before it.
    pub fn commit(&self, position: i64) {
        self.committer.want(position);
    }

    /// Ends the stream, and waits until what was wanted is committed.
    pub async fn close(self) -> Result<(), Status> {
        self.committer.finish().await
    }

    async fn next_frame(&mut self) -> Result<Option<Frame>, Status> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            None => {
                self.backoff.pause().await;
                self.request.stop = self.stop.and_then(|stop| self.asked(stop));
                let opened = self.client.consumers().consume(self.request.clone()).await?;
                self.stream.insert(opened.into_inner())
            }
        };
        match stream.message().await? {
            Some(ConsumeResponse { event: Some(frame) }) => Ok(Some(frame)),
            // A kind of frame that this client does not know yet: as good as a sign of life.
            Some(ConsumeResponse { event: None }) => Ok(Some(Frame::Heartbeat(Default::default()))),
            None if self.request.stop.is_some() => Ok(None),
            None => Err(Status::unavailable("the broker ended the stream without a status")),
        }
    }

    /// How a stream is to end. The broker would count what it repeats after a break, and the caller
    /// does not: then the messages are counted here alone.
    fn asked(&self, stop: Stop) -> Option<ProtoStop> {
        match stop {
            Stop::CaughtUp => Some(ProtoStop::UntilCaughtUp(true)),
            Stop::Offset(offset) => Some(ProtoStop::UntilOffset(offset)),
            Stop::Messages(_) if self.next_offset > 0 => None,
            Stop::Messages(count) => {
                Some(ProtoStop::MaxMessages(i64::try_from(count).unwrap_or(i64::MAX)))
            }
        }
    }

    fn take(&mut self, frame: Frame) -> Option<Event> {
        self.backoff = Backoff::default();
        match frame {
            Frame::Attached(attached) => {
                // Behind what is known to be committed: a seek moved it while nobody was here.
                if attached.position < self.committer.committed().max(self.stored) {
                    self.next_offset = attached.position;
                    self.committer.sought();
                }
                self.stored = attached.position;
                self.committer.attached(attached.epoch);
                // It has been taken over; from now on others may do the same.
                self.request.on_busy = OnBusy::Wait.into();
                Some(Event::Attached)
            }
            Frame::Repositioned(Repositioned { position, epoch, .. }) => {
                self.next_offset = position;
                self.stored = position;
                self.committer.sought();
                self.committer.attached(epoch);
                Some(Event::Repositioned { position })
            }
            Frame::Gap(Gap { from, to }) => {
                self.committer.delivered(to);
                let from = from.max(self.next_offset);
                self.next_offset = to.max(self.next_offset);
                (to > from).then_some(Event::Gap { from, to })
            }
            Frame::Standby(standby) => Some(Event::Standby { holder: standby.holder }),
            Frame::Batch(batch) => {
                let mut messages = batch.messages;
                self.committer.delivered(messages.last().map_or(0, |last| last.offset + 1));
                if messages.first().is_some_and(|first| first.offset < self.next_offset) {
                    messages.retain(|message| message.offset >= self.next_offset);
                }
                self.next_offset = messages.last()?.offset + 1;
                if let Some(Stop::Messages(left)) = &mut self.stop {
                    messages.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= messages.len() as u64;
                }
                Some(Event::Messages(messages))
            }
            Frame::CaughtUp(_) => Some(Event::CaughtUp),
            Frame::Heartbeat(_) => None,
        }
    }
}

/// Whether the stream may simply be opened again.
fn may_resume(status: &Status) -> bool {
    // A broker that vanishes in mid-stream looks like UNKNOWN or INTERNAL to the transport.
    status.code() == Code::Unavailable || is_broken_connection(status)
}

/// What is to be committed, as far as it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Wanted {
    epoch: i64,
    /// The offset behind what this epoch's stream delivered: no commit may go beyond.
    delivered: i64,
    position: i64,
    /// How often a seek moved the position: what was committed before says nothing then.
    seeks: u32,
}

impl Wanted {
    fn committable(self) -> i64 {
        self.position.min(self.delivered)
    }
}

struct Committer {
    wanted: watch::Sender<Wanted>,
    /// The position that the broker said it had stored, since the last seek; 0 before.
    committed: Arc<AtomicI64>,
    task: JoinHandle<Result<(), Status>>,
}

impl Committer {
    fn start(client: Client, topic: &str, consumer_id: &str) -> Self {
        let (wanted, changes) = watch::channel(Wanted::default());
        let request = CommitRequest {
            topic: topic.to_owned(),
            consumer_id: consumer_id.to_owned(),
            epoch: 0,
            position: 0,
        };
        let committed = Arc::new(AtomicI64::new(0));
        let task = tokio::spawn(commit(client, request, changes, committed.clone()));
        Self { wanted, committed, task }
    }

    fn committed(&self) -> i64 {
        self.committed.load(Ordering::Acquire)
    }

    fn attached(&self, epoch: i64) {
        self.wanted.send_modify(|wanted| {
            wanted.epoch = epoch;
            wanted.delivered = 0;
        });
    }

    /// What was wanted before the seek counts no more.
    fn sought(&self) {
        self.wanted.send_modify(|wanted| {
            wanted.position = 0;
            wanted.seeks += 1;
            self.committed.store(0, Ordering::Release);
        });
    }

    fn delivered(&self, end: i64) {
        self.wanted.send_modify(|wanted| wanted.delivered = end);
    }

    fn want(&self, position: i64) {
        self.wanted.send_modify(|wanted| wanted.position = position);
    }

    async fn finish(self) -> Result<(), Status> {
        drop(self.wanted);
        self.task.await.unwrap_or_else(|error| Err(Status::internal(error.to_string())))
    }
}

/// Commits until nothing more will be wanted; returns whether all that was wanted is committed.
async fn commit(
    client: Client,
    mut request: CommitRequest,
    mut changes: watch::Receiver<Wanted>,
    committed: Arc<AtomicI64>,
) -> Result<(), Status> {
    let mut outcome = Ok(());
    let mut seeks = 0;
    loop {
        let open = changes.changed().await.is_ok();
        let wanted = *changes.borrow_and_update();
        if wanted.seeks != seeks {
            // What became of commits of before says nothing any more.
            outcome = Ok(());
            seeks = wanted.seeks;
        }
        if wanted.committable() > committed.load(Ordering::Acquire) {
            request.epoch = wanted.epoch;
            request.position = wanted.committable();
            // One that fails is not lost: the next one, or the next stream, stands for it.
            outcome = client.consumers().commit(request.clone()).await.map(|_| ());
            let still_wanted = changes.borrow();
            if outcome.is_ok() && still_wanted.seeks == seeks {
                committed.store(request.position, Ordering::Release);
            }
        }
        if !open {
            let unsent = wanted.position > committed.load(Ordering::Acquire);
            return match outcome {
                Ok(()) if unsent => Err(Status::unavailable(
                    "the broker was lost before all that was dealt with could be committed",
                )),
                outcome => outcome,
            };
        }
    }
}

/// Pauses before a stream is opened again: none before the first, then from 100 ms to 5 s, each
/// shortened by chance so that clients of one broker do not come back all at once.
#[derive(Default)]
struct Backoff {
    tries: u32,
}

impl Backoff {
    async fn pause(&mut self) {
        const FIRST: Duration = Duration::from_millis(100);
        const LONGEST: Duration = Duration::from_secs(5);
        if self.tries > 0 {
            let pause = FIRST.saturating_mul(1 << (self.tries - 1).min(10)).min(LONGEST);
            let chance = uuid::Uuid::new_v4().as_u128() as u8;
            tokio::time::sleep(pause.mul_f64(0.5 + f64::from(chance) / 512.0)).await;
        }
        self.tries += 1;
    }
}
