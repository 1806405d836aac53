//! A consumer's stream that goes on after a break, and commits what its caller has dealt with.
//!
//! Messages reach the caller in order and, within one subscription, once: after a break the broker
//! repeats what was not committed, and what the caller already has is passed over here. What a
//! caller has not committed when it dies, the next subscription gets again.

use std::time::Duration;

use tokio::{sync::watch, task::JoinHandle};
use tonic::{Code, Status, Streaming};

use super::{Client, is_broken_connection};
use crate::proto::{
    CommitMode, CommitRequest, ConsumeRequest, ConsumeResponse, Message, OnBusy,
    consume_response::Event as Frame,
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
    /// Nothing is left to read for now.
    CaughtUp,
    /// The broker went away, and is being looked for.
    Broken(Status),
}

/// A consumer's stream in manual commit mode.
pub struct Subscription {
    client: Client,
    request: ConsumeRequest,
    stream: Option<Streaming<ConsumeResponse>>,
    backoff: Backoff,
    /// The offset of the next message that the caller does not have yet; 0 before the first.
    next_offset: i64,
    committer: Committer,
}

impl Subscription {
    /// A stream of a registered consumer, from its stored position on.
    pub fn new(client: Client, topic: &str, consumer_id: &str) -> Self {
        let request = ConsumeRequest {
            topic: topic.to_owned(),
            consumer_id: consumer_id.to_owned(),
            commit_mode: CommitMode::Manual.into(),
            on_busy: OnBusy::Wait.into(),
            heartbeat_interval: None,
        };
        let committer = Committer::start(client.clone(), topic, consumer_id);
        Self {
            client,
            request,
            stream: None,
            backoff: Backoff::default(),
            next_offset: 0,
            committer,
        }
    }

    /// Waits for what comes next. An error is final; a break is not, and is told as
    /// [`Event::Broken`] before the next try.
    pub async fn next(&mut self) -> Result<Event, Status> {
        loop {
            match self.next_frame().await {
                Ok(frame) => {
                    if let Some(event) = self.take(frame) {
                        return Ok(event);
                    }
                }
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

    async fn next_frame(&mut self) -> Result<Frame, Status> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            None => {
                self.backoff.pause().await;
                let opened = self.client.consumers().consume(self.request.clone()).await?;
                self.stream.insert(opened.into_inner())
            }
        };
        match stream.message().await? {
            Some(ConsumeResponse { event: Some(frame) }) => Ok(frame),
            // A kind of frame that this client does not know yet: as good as a sign of life.
            Some(ConsumeResponse { event: None }) => Ok(Frame::Heartbeat(Default::default())),
            None => Err(Status::unavailable("the broker ended the stream without a status")),
        }
    }

    fn take(&mut self, frame: Frame) -> Option<Event> {
        self.backoff = Backoff::default();
        match frame {
            Frame::Attached(attached) => {
                self.committer.attached(attached.epoch);
                Some(Event::Attached)
            }
            Frame::Standby(standby) => Some(Event::Standby { holder: standby.holder }),
            Frame::Batch(batch) => {
                let mut messages = batch.messages;
                self.committer.delivered(messages.last().map_or(0, |last| last.offset + 1));
                if messages.first().is_some_and(|first| first.offset < self.next_offset) {
                    messages.retain(|message| message.offset >= self.next_offset);
                }
                self.next_offset = messages.last()?.offset + 1;
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
}

impl Wanted {
    fn committable(self) -> i64 {
        self.position.min(self.delivered)
    }
}

struct Committer {
    wanted: watch::Sender<Wanted>,
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
        Self { wanted, task: tokio::spawn(commit(client, request, changes)) }
    }

    fn attached(&self, epoch: i64) {
        self.wanted.send_modify(|wanted| {
            wanted.epoch = epoch;
            wanted.delivered = 0;
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
) -> Result<(), Status> {
    let mut committed = 0;
    let mut outcome = Ok(());
    loop {
        let open = changes.changed().await.is_ok();
        let wanted = *changes.borrow_and_update();
        if wanted.committable() > committed {
            request.epoch = wanted.epoch;
            request.position = wanted.committable();
            // One that fails is not lost: the next one, or the next stream, stands for it.
            outcome = client.consumers().commit(request.clone()).await.map(|_| ());
            if outcome.is_ok() {
                committed = request.position;
            }
        }
        if !open {
            return outcome;
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
