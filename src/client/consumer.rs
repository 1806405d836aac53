//! A consumer: a stream of messages that goes on after a break.

mod committer;
mod reader;

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
    vec,
};

use futures_core::Stream;
use tokio::{sync::mpsc, task::JoinHandle};
use tonic::Code;

use super::{Client, Error, Message, Start, unary};
use crate::proto::{
    CommitMode, ConsumeRequest, OnBusy, RegisterConsumerRequest,
    consumer_service_client::ConsumerServiceClient,
};
use committer::Committer;
use reader::Reader;

/// Events that are read ahead; the reader waits for room then, and the broker for the reader.
const READ_AHEAD: usize = 2;

/// How often an idle stream beats, if nothing else is said.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// When a consumer's position moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commit {
    /// A message counts as dealt with when the next one is asked for, or when the consumer is
    /// closed; that is committed in the background. None is passed over; after a crash the last
    /// ones may come again.
    Auto,
    /// When [`Consumer::commit`] says so. None is passed over; what was not committed comes again
    /// after a crash.
    Manual,
    /// Before a message is handed out, by the broker. None comes twice; what was on its way, or
    /// read ahead, when the connection broke or the consumer was closed is not repeated.
    AtMostOnce,
}

/// When a consumer ends by itself; for [`ConsumerBuilder::stop`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// When nothing is left to read.
    CaughtUp,
    /// When all messages before an offset have been had.
    Offset(i64),
    /// When so many messages have been read, those that a seek then brings again included.
    Messages(u64),
}

/// What a consumer tells besides its messages.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The stream holds the lease.
    Attached {
        /// The stored position. What this consumer has had already is not repeated, unless it was
        /// sought while it was away.
        position: i64,
    },
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
    /// The broker went away or gave the lease to another stream; it is being tried again.
    Broken(Error),
}

/// A consumer's messages, in the order of their offsets; from [`Client::consumer`].
///
/// A [`Stream`] of messages that ends only when it was asked to, or with an error for which there
/// is no remedy. Whoever wants to know of standbys, seeks, gaps and breaks takes
/// [`Self::next_event`].
///
/// ```no_run
/// # async fn example(mut consumer: trunkline::client::Consumer) -> Result<(), trunkline::client::Error> {
/// use tokio_stream::StreamExt as _;
///
/// while let Some(message) = consumer.next().await {
///     let message = message?;
///     println!("{}: {:?}", message.offset, message.payload);
///     consumer.commit(&message);
/// }
/// consumer.close().await?;
/// # Ok(())
/// # }
/// ```
///
/// Dropped without [`Self::close`], it forgets what was not yet committed.
#[derive(Debug)]
pub struct Consumer {
    events: mpsc::Receiver<Result<Event, Error>>,
    reading: JoinHandle<()>,
    /// How often the consumer has been sought: what was read before a seek is not handed out.
    seeks: Arc<AtomicU32>,
    ready: vec::IntoIter<Message>,
    commit: Commit,
    committer: Option<Committer>,
    /// The last message handed out, if it is to be committed when the next one is asked for.
    taken: Option<(u32, i64)>,
}

/// What a [`Consumer`] is asked for.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it is opened"]
pub struct ConsumerBuilder {
    client: Client,
    request: ConsumeRequest,
    commit: Commit,
    stop: Option<Stop>,
    register: Option<Start>,
    heartbeat: Duration,
}

impl ConsumerBuilder {
    pub(super) fn new(client: Client, topic: &str, consumer_id: &str, commit: Commit) -> Self {
        let mode = match commit {
            Commit::AtMostOnce => CommitMode::Auto,
            Commit::Auto | Commit::Manual => CommitMode::Manual,
        };
        let request = ConsumeRequest {
            topic: topic.to_owned(),
            consumer_id: consumer_id.to_owned(),
            commit_mode: mode.into(),
            ..Default::default()
        };
        let heartbeat = HEARTBEAT;
        Self { client, request, commit, stop: None, register: None, heartbeat }
    }

    /// Registers the consumer at a place of the log if it is not registered; else it must be.
    pub fn register_at(mut self, start: Start) -> Self {
        self.register = Some(start);
        self
    }

    /// Takes the lease from whoever holds it, rather than waiting for it; after that, it waits.
    pub fn take_over(mut self) -> Self {
        self.request.on_busy = OnBusy::TakeOver.into();
        self
    }

    /// What others are told of who holds the lease, at most 255 bytes; if not said, the client's
    /// address and the broker's host and process.
    pub fn client_name(mut self, name: impl Into<String>) -> Self {
        self.request.client_name = name.into();
        self
    }

    /// Ends by itself.
    pub fn stop(mut self, stop: Stop) -> Self {
        self.stop = Some(stop);
        self
    }

    /// How many messages may be handed out beyond what is committed; any number if not said. With
    /// [`Commit::AtMostOnce`] the broker refuses it.
    pub fn max_in_flight(mut self, messages: u32) -> Self {
        self.request.max_in_flight = messages.min(i32::MAX as u32) as i32;
        self
    }

    /// How often an idle stream beats, 100 ms to 60 s; 15 s if not said. A stream that is silent
    /// for three times as long is opened again.
    pub fn heartbeat_interval(mut self, interval: Duration) -> Self {
        self.heartbeat = interval;
        self
    }

    /// Opens the consumer.
    ///
    /// ```no_run
    /// # async fn example(client: trunkline::client::Client) -> Result<(), trunkline::client::Error> {
    /// use tokio_stream::StreamExt as _;
    /// use trunkline::client::{Commit, Start, Stop};
    ///
    /// let mut consumer = client
    ///     .consumer("orders", "billing", Commit::Auto)
    ///     .register_at(Start::Earliest)
    ///     .stop(Stop::CaughtUp)
    ///     .open()
    ///     .await?;
    /// while let Some(message) = consumer.next().await {
    ///     println!("{:?}", message?.payload);
    /// }
    /// consumer.close().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] or [`Error::Lost`] if the consumer is to be registered and cannot be.
    /// That there is no such topic or consumer, the first message tells.
    pub async fn open(mut self) -> Result<Consumer, Error> {
        let bounds = Duration::from_millis(100)..=Duration::from_secs(60);
        if !bounds.contains(&self.heartbeat) {
            let problem = "must be 100 ms to 60 s".to_owned();
            return Err(Error::Invalid { field: "heartbeat_interval", problem });
        }
        self.request.heartbeat_interval = self.heartbeat.try_into().ok();
        if let Some(start) = self.register {
            self.register(start).await?;
        }
        let committer = (self.commit != Commit::AtMostOnce).then(|| {
            let ConsumeRequest { topic, consumer_id, .. } = &self.request;
            Committer::start(topic, consumer_id)
        });
        let wanted = committer.as_ref().map(Committer::wanted);
        let seeks = Arc::new(AtomicU32::new(0));
        let (sender, events) = mpsc::channel(READ_AHEAD);
        let reader =
            Reader::new(self.client, self.request, self.stop, seeks.clone(), wanted, sender);
        Ok(Consumer {
            events,
            reading: tokio::spawn(reader.run()),
            seeks,
            ready: Vec::new().into_iter(),
            commit: self.commit,
            committer,
            taken: None,
        })
    }

    /// Registers the consumer unless it is registered.
    async fn register(&self, start: Start) -> Result<(), Error> {
        let request = RegisterConsumerRequest {
            topic: self.request.topic.clone(),
            consumer_id: self.request.consumer_id.clone(),
            start: Some(start.into()),
        };
        let register = async |connection| {
            ConsumerServiceClient::new(connection).register_consumer(unary(request.clone())).await
        };
        match self.client.ask(register).await {
            Err(status) if status.code() != Code::AlreadyExists => Err(status.into()),
            _ => Ok(()),
        }
    }
}

impl Consumer {
    /// Says that a message, and all before it, are dealt with. That is committed in the background,
    /// the newest standing for all before it; [`Self::close`] waits for it.
    ///
    /// It has no effect on a message of before a seek, and none with [`Commit::AtMostOnce`].
    pub fn commit(&self, message: &Message) {
        if let Some(committer) = &self.committer {
            committer.want(message.seeks, message.offset + 1);
        }
    }

    /// Waits for what comes next: messages as they come together, or something else that happened.
    /// `None` when all that was asked for has been had.
    ///
    /// With [`Commit::Auto`], all messages of an event count as dealt with when the next one is
    /// asked for.
    ///
    /// ```no_run
    /// # async fn example(mut consumer: trunkline::client::Consumer) -> Result<(), trunkline::client::Error> {
    /// use trunkline::client::Event;
    ///
    /// while let Some(event) = consumer.next_event().await {
    ///     match event? {
    ///         Event::Messages(messages) => {
    ///             println!("{} at once", messages.len());
    ///             messages.last().map(|last| consumer.commit(last));
    ///         }
    ///         Event::Standby { holder } => println!("{holder} reads; waiting"),
    ///         Event::Broken(error) => println!("trying again: {error}"),
    ///         _ => {}
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// An error is final: [`Error::Refused`] if the topic or the consumer is gone, for example. A
    /// break is none, and is told as [`Event::Broken`] before the next try.
    pub async fn next_event(&mut self) -> Option<Result<Event, Error>> {
        std::future::poll_fn(|context| self.poll_event(context)).await
    }

    /// Ends the stream after committing what is dealt with, and waits until it is committed.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`] or [`Error::Refused`] if that could not be: what is not committed comes
    /// again.
    pub async fn close(mut self) -> Result<(), Error> {
        self.commit_taken();
        // The stream holds the lease meanwhile: nobody else moves the position.
        match self.committer.take() {
            Some(committer) => committer.finish().await,
            None => Ok(()),
        }
    }

    fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Event, Error>>> {
        self.commit_taken();
        if self.ready.len() > 0 {
            let messages = std::mem::replace(&mut self.ready, Vec::new().into_iter());
            let messages: Vec<_> = messages.filter(|message| self.is_current(message)).collect();
            if !messages.is_empty() {
                self.take(messages.last());
                return Poll::Ready(Some(Ok(Event::Messages(messages))));
            }
        }
        loop {
            let event = ready!(self.events.poll_recv(context));
            if let Some(Ok(Event::Messages(messages))) = &event {
                if !messages.last().is_some_and(|last| self.is_current(last)) {
                    continue;
                }
                self.take(messages.last());
            }
            return Poll::Ready(event);
        }
    }

    /// Whether no seek has come since the message was read.
    fn is_current(&self, message: &Message) -> bool {
        message.seeks == self.seeks.load(Ordering::Acquire)
    }

    fn take(&mut self, message: Option<&Message>) {
        if self.commit == Commit::Auto {
            self.taken = message.map(|message| (message.seeks, message.offset + 1));
        }
    }

    fn commit_taken(&mut self) {
        if let (Some((seeks, position)), Some(committer)) = (self.taken.take(), &self.committer) {
            committer.want(seeks, position);
        }
    }
}

impl Stream for Consumer {
    type Item = Result<Message, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        this.commit_taken();
        loop {
            while let Some(message) = this.ready.next() {
                if this.is_current(&message) {
                    this.take(Some(&message));
                    return Poll::Ready(Some(Ok(message)));
                }
            }
            match ready!(this.events.poll_recv(context)) {
                Some(Ok(Event::Messages(messages))) => this.ready = messages.into_iter(),
                Some(Ok(Event::Gap { from, to })) => {
                    tracing::warn!(from, to, "messages were removed before they could be had");
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

#[cfg(test)]
mod tests {
    use tokio_stream::StreamExt as _;

    use super::*;
    use crate::proto;

    fn messages(offsets: std::ops::Range<i64>, seeks: u32) -> Vec<Message> {
        let message = |offset| proto::Message { offset, ..Default::default() };
        offsets.map(|offset| Message::received(message(offset), seeks)).collect()
    }

    #[tokio::test]
    async fn what_was_read_ahead_of_a_seek_is_not_handed_out() {
        let (sender, events) = mpsc::channel(READ_AHEAD);
        let mut consumer = Consumer {
            events,
            reading: tokio::spawn(async {}),
            seeks: Arc::new(AtomicU32::new(0)),
            ready: messages(0..10, 0).into_iter(),
            commit: Commit::Manual,
            committer: None,
            taken: None,
        };
        assert_eq!(consumer.next().await.unwrap().unwrap().offset, 0);
        sender.send(Ok(Event::Messages(messages(10..20, 0)))).await.unwrap();
        // The reader comes to a seek.
        consumer.seeks.fetch_add(1, Ordering::AcqRel);
        sender.send(Ok(Event::Messages(messages(3..5, 1)))).await.unwrap();
        assert_eq!(consumer.next().await.unwrap().unwrap().offset, 3);
        assert_eq!(consumer.next_event().await, Some(Ok(Event::Messages(messages(4..5, 1)))));
    }
}
