//! A consumer: a stream of messages that resumes when its connection breaks.

mod committer;
mod decode;
mod event;
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

use crate::{
    client::{connect::Client, error::Error, message::Message},
    proto::ConsumeRequest,
};
use committer::Committer;
#[doc(hidden)]
pub use decode::decode_batch;
pub use event::{Commit, Event, Stop};
use reader::ReaderSpawner;

/// How many events are read ahead. Beyond that the reader waits for room, and the broker for the
/// reader.
const READ_AHEAD: usize = 2;

/// A consumer's messages, in the order of their offsets; from
/// [`Client::consumer`](super::Client::consumer).
///
/// It is a [`Stream`] of messages that ends only as its [`Stop`] says, or with an error that a
/// retry cannot remedy. [`Self::next_event`] also reports standbys, seeks, gaps and breaks.
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
/// A consumer dropped without [`Self::close`] abandons what is not yet committed.
#[derive(Debug)]
pub struct Consumer {
    events: mpsc::Receiver<Result<Event, Error>>,
    reader: JoinHandle<()>,
    /// How many seeks the reader has seen. Messages read before the last one are discarded.
    seeks: Arc<AtomicU32>,
    /// Messages of the last event that were not yet handed out.
    ready: vec::IntoIter<Message>,
    commit: Commit,
    committer: Option<Committer>,
    /// With [`Commit::Auto`], what to commit when the next message is asked for: the number of
    /// seeks, and the offset after the last message handed out.
    handed_out: Option<(u32, i64)>,
}

/// What a consumer needs to start reading.
pub(super) struct ConsumerSpawner {
    pub(super) client: Client,
    pub(super) request: ConsumeRequest,
    pub(super) commit: Commit,
    pub(super) stop: Option<Stop>,
    pub(super) heartbeat: Duration,
}

impl ConsumerSpawner {
    /// Starts the reader, and the committer unless the broker commits.
    pub(super) fn spawn(self) -> Consumer {
        let Self { client, request, commit, stop, heartbeat } = self;
        let committer = (commit != Commit::AtMostOnce).then(|| {
            let ConsumeRequest { topic, consumer_id, .. } = &request;
            Committer::spawn(topic, consumer_id)
        });
        let commits = committer.as_ref().map(Committer::state);
        let seeks = Arc::new(AtomicU32::new(0));
        let (sender, events) = mpsc::channel(READ_AHEAD);
        let reader = ReaderSpawner {
            client,
            request,
            stop,
            heartbeat,
            seeks: seeks.clone(),
            commits,
            events: sender,
        };
        Consumer {
            events,
            reader: reader.spawn(),
            seeks,
            ready: Vec::new().into_iter(),
            commit,
            committer,
            handed_out: None,
        }
    }
}

impl Consumer {
    /// Marks a message, and all before it, as processed. They are committed in the background, the
    /// newest position standing for all before it; [`Self::close`] waits for that.
    ///
    /// This has no effect on a message from before a seek, and none with [`Commit::AtMostOnce`].
    pub fn commit(&self, message: &Message) {
        if let Some(committer) = &self.committer {
            committer.request(message.seeks, message.offset + 1);
        }
    }

    /// Waits for the next event: messages that arrived together, or something else. `None` once the
    /// consumer has stopped as its [`Stop`] says.
    ///
    /// With [`Commit::Auto`], all messages of an event count as processed when the next event is
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
    /// broken connection is not an error but an [`Event::Broken`] before the next try.
    pub async fn next_event(&mut self) -> Option<Result<Event, Error>> {
        std::future::poll_fn(|context| self.poll_event(context)).await
    }

    /// Commits what is processed, waits until that is stored, and ends the stream.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`] or [`Error::Refused`] if a commit failed: messages that are not committed
    /// will be delivered again.
    pub async fn close(mut self) -> Result<(), Error> {
        self.commit_handed_out();
        // The stream stays open and holds the lease, so that nobody else moves the position.
        let Some(committer) = self.committer.take() else { return Ok(()) };
        // Discards events, as a full queue would keep the reader from looking after the stream.
        let discarding = async {
            while self.events.recv().await.is_some() {}
            std::future::pending().await
        };
        tokio::select! {
            finished = committer.finish() => finished,
            () = discarding => Ok(()),
        }
    }

    fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Event, Error>>> {
        self.commit_handed_out();
        if self.ready.len() > 0 {
            let messages = std::mem::replace(&mut self.ready, Vec::new().into_iter());
            let messages: Vec<_> = messages.filter(|message| self.is_current(message)).collect();
            if !messages.is_empty() {
                self.record_handed_out(messages.last());
                return Poll::Ready(Some(Ok(Event::Messages(messages))));
            }
        }
        loop {
            let event = ready!(self.events.poll_recv(context));
            if let Some(Ok(Event::Messages(messages))) = &event {
                if !messages.last().is_some_and(|last| self.is_current(last)) {
                    continue;
                }
                self.record_handed_out(messages.last());
            }
            return Poll::Ready(event);
        }
    }

    /// Whether no seek has come since the message was read.
    fn is_current(&self, message: &Message) -> bool {
        message.seeks == self.seeks.load(Ordering::Acquire)
    }

    fn record_handed_out(&mut self, message: Option<&Message>) {
        if self.commit == Commit::Auto {
            self.handed_out = message.map(|message| (message.seeks, message.offset + 1));
        }
    }

    fn commit_handed_out(&mut self) {
        let handed_out = self.handed_out.take();
        if let (Some((seeks, position)), Some(committer)) = (handed_out, &self.committer) {
            committer.request(seeks, position);
        }
    }
}

impl Stream for Consumer {
    type Item = Result<Message, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        this.commit_handed_out();
        loop {
            while let Some(message) = this.ready.next() {
                if this.is_current(&message) {
                    this.record_handed_out(Some(&message));
                    return Poll::Ready(Some(Ok(message)));
                }
            }
            match ready!(this.events.poll_recv(context)) {
                Some(Ok(Event::Messages(messages))) => this.ready = messages.into_iter(),
                Some(Ok(Event::Gap { from, to })) => {
                    tracing::warn!(
                        first = from,
                        end = to,
                        "messages were removed before they were read"
                    );
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
        self.reader.abort();
    }
}

#[cfg(test)]
mod tests {
    use tokio_stream::StreamExt as _;

    use super::*;
    use crate::proto;

    fn messages(offsets: std::ops::Range<i64>, seeks: u32) -> Vec<Message> {
        let message = |offset| proto::Message { offset, ..Default::default() };
        offsets.map(|offset| Message { seeks, ..message(offset).into() }).collect()
    }

    #[tokio::test]
    async fn messages_read_ahead_of_a_seek_are_not_handed_out() {
        let (sender, events) = mpsc::channel(READ_AHEAD);
        let mut consumer = Consumer {
            events,
            reader: tokio::spawn(async {}),
            seeks: Arc::new(AtomicU32::new(0)),
            ready: messages(0..10, 0).into_iter(),
            commit: Commit::Manual,
            committer: None,
            handed_out: None,
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
