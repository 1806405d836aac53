//! A consumer: a stream of messages that goes on after a break.

mod batch;
mod builder;
mod committer;
mod event;
mod reader;

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll, ready},
    vec,
};

use futures_core::Stream;
use tokio::{sync::mpsc, task::JoinHandle};

use super::{Error, Message};
#[doc(hidden)]
pub use batch::decode as decode_batch;
pub use builder::ConsumerBuilder;
use committer::Committer;
pub use event::{Commit, Event, Stop};

/// Events that are read ahead; the reader waits for room then, and the broker for the reader.
const READ_AHEAD: usize = 2;

/// A consumer's messages, in the order of their offsets; from
/// [`Client::consumer`](super::Client::consumer).
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
        let Some(committer) = self.committer.take() else { return Ok(()) };
        // Whatever the reader has still to tell must not keep it from looking after the stream.
        let listening = async {
            while self.events.recv().await.is_some() {}
            std::future::pending().await
        };
        tokio::select! {
            finished = committer.finish() => finished,
            () = listening => Ok(()),
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
        offsets.map(|offset| Message { seeks, ..message(offset).into() }).collect()
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
