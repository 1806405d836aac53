//! A producer that batches messages and stores each of them exactly once.
//!
//! Messages gather in a request, which is sent when no other request is unanswered, when it is
//! full, or when its oldest message has waited for the linger time. At most eight requests are
//! unanswered at a time, which is as many as the broker remembers for each producer. After a break
//! they are all sent again with their old sequences; the broker stores each once and answers with
//! its offsets.

mod acknowledgement;
mod buffer;
mod delivery;
mod limits;
mod send_span;

use std::{sync::Arc, time::Duration};

use tokio::task::JoinHandle;

use crate::{
    client::{connect::Client, error::Error},
    proto::{self, NewMessage, PublishStreamRequest},
};
pub use acknowledgement::Acknowledgement;
use buffer::Buffer;
use delivery::DeliverySpawner;
pub(super) use limits::Limits;
use send_span::SendSpan;

/// Publishes to one topic; from [`Client::producer`].
///
/// Any number of tasks may share a producer. It is the only live instance of its producer id:
/// opening another one fences this one, whose publishes are then refused (`PRODUCER_FENCED`).
///
/// A refusal by the broker ends the producer, and every waiting message fails with that refusal.
/// Whatever the broker would refuse in a single message is therefore checked before it is sent.
/// A producer dropped without [`Self::close`] abandons what was not acknowledged
/// ([`Error::Lost`]).
#[derive(Debug)]
pub struct Producer {
    buffer: Arc<Buffer>,
    delivery: JoinHandle<()>,
    registration: proto::Producer,
}

/// What a producer needs to start delivering.
pub(super) struct ProducerSpawner {
    pub(super) client: Client,
    pub(super) topic: String,
    pub(super) producer_id: String,
    /// The registration that this instance has just fenced.
    pub(super) registration: proto::Producer,
    pub(super) limits: Limits,
    pub(super) retry_for: Duration,
}

impl ProducerSpawner {
    /// Starts the delivery.
    pub(super) fn spawn(self) -> Producer {
        let Self { client, topic, producer_id, registration, limits, retry_for } = self;
        let buffer = Arc::new(Buffer::new(limits));
        let delivery = DeliverySpawner {
            client,
            buffer: buffer.clone(),
            template: PublishStreamRequest {
                topic,
                producer_id,
                producer_epoch: registration.epoch,
                ..Default::default()
            },
            next_sequence: registration.next_sequence,
            retry_for,
        };
        Producer { buffer, delivery: delivery.spawn(), registration }
    }
}

impl Producer {
    /// Publishes a message, and waits until it is on disk; returns its offset.
    ///
    /// Calls made one after the other wait for each message in turn; concurrent calls share a
    /// request:
    ///
    /// ```no_run
    /// # async fn example(producer: trunkline::client::Producer) -> Result<(), trunkline::client::Error> {
    /// use trunkline::proto::NewMessage;
    ///
    /// let first = producer.publish("as simple as this").await?;
    /// let second = producer.publish(NewMessage::new("with a key").with_key("order-7")).await?;
    /// assert!(second > first);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if the message exceeds a limit, and [`Error::Refused`] if the broker
    /// refuses it: either way it is not stored. [`Error::Lost`] if the broker was not reached again
    /// in time: the message may or may not be stored.
    pub async fn publish(&self, message: impl Into<NewMessage>) -> Result<i64, Error> {
        self.send(message).await?.offset().await
    }

    /// Enqueues a message, after waiting for room, and returns the acknowledgement that will hold
    /// its offset.
    ///
    /// Messages that one task sends one after the other are stored in that order.
    ///
    /// ```no_run
    /// # async fn example(producer: trunkline::client::Producer) -> Result<(), trunkline::client::Error> {
    /// let mut sent = Vec::new();
    /// for line in ["one", "two", "three"] {
    ///     sent.push(producer.send(line).await?);
    /// }
    /// for acknowledgement in sent {
    ///     println!("stored at {}", acknowledgement.offset().await?);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if the message exceeds a limit; the producer's final error if it has
    /// ended.
    pub async fn send(&self, message: impl Into<NewMessage>) -> Result<Acknowledgement, Error> {
        let mut message = message.into();
        let mut span = SendSpan::start(&self.registration.topic, &mut message);
        let added = self.buffer.add(message, &mut span).await;
        if let (Err(error), Some(span)) = (&added, span) {
            span.end(Err(error));
        }
        added
    }

    /// Sends the gathered messages without lingering, and waits until every message sent so far is
    /// answered.
    ///
    /// # Errors
    ///
    /// The first error since the last flush of a message that was not stored; otherwise the error
    /// of the newest message.
    pub async fn flush(&self) -> Result<(), Error> {
        let newest = match self.buffer.flush() {
            Some(newest) => newest.wait().await.clone().map(|_| ()),
            None => Ok(()),
        };
        self.buffer.take_failure().map_or(newest, Err)
    }

    /// Flushes, and closes the connection.
    ///
    /// # Errors
    ///
    /// Those of [`Self::flush`].
    pub async fn close(self) -> Result<(), Error> {
        let flushed = self.flush().await;
        self.buffer.end(&Error::Closed);
        flushed
    }

    /// The sequence of the first message that this instance publishes, which is how many messages
    /// with sequences its id has published before. A program that publishes nothing but a source
    /// that it can read again, such as a file, resumes after that many of the source's messages.
    pub fn first_sequence(&self) -> i64 {
        self.registration.next_sequence
    }

    /// The registration as it was when this instance was opened. It is final for older instances:
    /// nothing that they still have under way can be stored any more.
    pub fn registration(&self) -> &proto::Producer {
        &self.registration
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.buffer.end(&Error::Closed);
        self.delivery.abort();
    }
}
