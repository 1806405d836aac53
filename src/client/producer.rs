//! A producer that batches what it is given, and stores it exactly once.
//!
//! Messages gather in a batch, which is sent as soon as nothing else is under way, when it is full,
//! or when its oldest message has waited for the linger time. At most eight requests are under way
//! at a time: so many the broker remembers for each producer, so that after a break all that was
//! not answered is sent again under its old sequences, stored once, and given its offsets.

mod acknowledgement;
mod buffer;
mod delivery;

use std::{sync::Arc, time::Duration};

use tokio::task::JoinHandle;

use super::{Client, Error, unary};
use crate::proto::{
    self, GetProducerRequest, MAX_REQUEST_MESSAGES, NewMessage, RegisterProducerRequest,
    producer_service_client::ProducerServiceClient,
};
pub use acknowledgement::Acknowledgement;
use buffer::{Buffer, Limits};
use delivery::Delivery;

/// Publishes to one topic; from [`Client::producer`].
///
/// Any number of tasks may share one. It is the only live instance of its producer id: opening
/// another one shuts this one out, whose publishes are then refused (`PRODUCER_FENCED`).
///
/// Anything that the broker refuses ends it, and all that waits fails with that refusal: what would
/// be refused of one message alone, is told before it is sent. Dropped without [`Self::close`], it
/// forgets what was not acknowledged ([`Error::Lost`]).
#[derive(Debug)]
pub struct Producer {
    buffer: Arc<Buffer>,
    delivering: JoinHandle<()>,
    opened: proto::Producer,
}

/// What a [`Producer`] is asked for.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it is opened"]
pub struct ProducerBuilder {
    client: Client,
    topic: String,
    producer_id: String,
    register: bool,
    limits: Limits,
    retry_for: Duration,
}

impl ProducerBuilder {
    pub(super) fn new(client: Client, topic: &str, producer_id: &str) -> Self {
        Self {
            client,
            topic: topic.to_owned(),
            producer_id: producer_id.to_owned(),
            register: false,
            limits: Limits::default(),
            retry_for: Duration::from_secs(60),
        }
    }

    /// Registers the producer on the topic if it is not registered; else opening it is refused.
    pub fn register(mut self) -> Self {
        self.register = true;
        self
    }

    /// How long a message may wait for others to be sent with while requests are under way; 1 ms if
    /// not said. With nothing under way, none waits.
    pub fn linger(mut self, linger: Duration) -> Self {
        self.limits.linger = linger;
        self
    }

    /// How many messages a request may hold, 1 to 10,000; 4,000 if not said.
    pub fn max_batch_messages(mut self, messages: usize) -> Self {
        self.limits.batch_messages = messages;
        self
    }

    /// How many bytes of payloads, keys and headers a request may hold, up to 8 MiB; 1 MiB if not
    /// said. A larger message makes a request of its own.
    pub fn max_batch_bytes(mut self, bytes: usize) -> Self {
        self.limits.batch_bytes = bytes;
        self
    }

    /// How many bytes may be on their way, from 2 MiB; 32 MiB if not said. A message counts for 100
    /// bytes more than it has, and for 100 more for each header. Whoever publishes waits for room.
    pub fn max_buffered_bytes(mut self, bytes: usize) -> Self {
        self.limits.buffered_bytes = bytes;
        self
    }

    /// How long a broker that is lost is looked for before what waits fails with [`Error::Lost`];
    /// 60 s if not said.
    pub fn retry_for(mut self, patience: Duration) -> Self {
        self.retry_for = patience;
        self
    }

    /// Opens the producer.
    ///
    /// ```no_run
    /// # async fn example(client: trunkline::client::Client) -> Result<(), trunkline::client::Error> {
    /// use std::time::Duration;
    ///
    /// let linger = Duration::from_millis(5);
    /// let producer = client.producer("orders", "shop").register().linger(linger).open().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] with NOT_FOUND if there is no such topic, or if the producer is not
    /// registered and is not to be; [`Error::Invalid`] for a limit that cannot be kept, or an empty
    /// id.
    pub async fn open(self) -> Result<Producer, Error> {
        self.limits.check()?;
        if self.producer_id.is_empty() {
            // A broker would register another one, under an id of its own making.
            let problem = "is empty".to_owned();
            return Err(Error::Invalid { field: "producer_id", problem });
        }
        let registered = self.fence().await?;
        let buffer = Arc::new(Buffer::new(self.limits));
        let delivery = Delivery::new(
            self.client,
            buffer.clone(),
            proto::PublishStreamRequest {
                topic: self.topic,
                producer_id: self.producer_id,
                producer_epoch: registered.epoch,
                ..Default::default()
            },
            registered.next_sequence,
            self.retry_for,
        );
        Ok(Producer { buffer, delivering: tokio::spawn(delivery.run()), opened: registered })
    }

    /// Takes a new epoch, which shuts older instances out, and with it the count of what they have
    /// published.
    async fn fence(&self) -> Result<proto::Producer, Error> {
        let (topic, producer_id) = (self.topic.clone(), self.producer_id.clone());
        if !self.register {
            let get = GetProducerRequest { topic: topic.clone(), producer_id: producer_id.clone() };
            let found = |connection| {
                let get = unary(get.clone());
                async { ProducerServiceClient::new(connection).get_producer(get).await }
            };
            self.client.ask(found).await?;
        }
        let request = RegisterProducerRequest { topic, producer_id, fence: true };
        let register = |connection| {
            let request = unary(request.clone());
            async { ProducerServiceClient::new(connection).register_producer(request).await }
        };
        let registered = self.client.ask(register).await?.into_inner();
        Ok(registered.producer.unwrap_or_default())
    }
}

impl Producer {
    /// Publishes a message, and waits until it is on disk; returns its offset.
    ///
    /// One call after the other waits for each; many at a time share a request:
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
    /// [`Error::Invalid`] if the message breaks a limit; then, and if the broker refuses it
    /// ([`Error::Refused`]), nothing of it is stored. [`Error::Lost`] if the broker was not found
    /// again in time: it may be stored or not.
    pub async fn publish(&self, message: impl Into<NewMessage>) -> Result<i64, Error> {
        self.send(message).await?.offset().await
    }

    /// Takes a message in, after waiting for room, and returns what its offset is to be had from.
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
    /// [`Error::Invalid`] if the message breaks a limit, and the producer's own error if it has
    /// given up.
    pub async fn send(&self, message: impl Into<NewMessage>) -> Result<Acknowledgement, Error> {
        self.buffer.add(message.into()).await
    }

    /// Sends what has gathered without lingering, and waits until all that was sent before is
    /// answered.
    ///
    /// # Errors
    ///
    /// The first error, since the last flush, of a message that was not stored; else that of the
    /// newest.
    pub async fn flush(&self) -> Result<(), Error> {
        let newest = match self.buffer.flush() {
            Some(newest) => newest.wait().await.clone().map(|_| ()),
            None => Ok(()),
        };
        self.buffer.take_failure().map_or(newest, Err)
    }

    /// Flushes, and ends the connection.
    ///
    /// # Errors
    ///
    /// As [`Self::flush`].
    pub async fn close(self) -> Result<(), Error> {
        let flushed = self.flush().await;
        self.buffer.end(&Error::Closed);
        flushed
    }

    /// The sequence of the first message that this instance publishes: how many messages its id
    /// has published with sequences before. Whoever publishes from a source that can be read again,
    /// such as a file, and nothing else, goes on behind so many messages of it.
    pub fn first_sequence(&self) -> i64 {
        self.opened.next_sequence
    }

    /// The registration as it was when this instance was opened: nothing that older instances have
    /// under way can be stored any more.
    pub fn registration(&self) -> &proto::Producer {
        &self.opened
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.buffer.end(&Error::Closed);
        self.delivering.abort();
    }
}

/// An error of an option that cannot be kept.
fn check_option(field: &'static str, fits: bool, limit: &str) -> Result<(), Error> {
    match fits {
        true => Ok(()),
        false => Err(Error::Invalid { field, problem: format!("must be {limit}") }),
    }
}

impl Limits {
    fn check(&self) -> Result<(), Error> {
        const MIB: usize = 1024 * 1024;
        let linger = self.linger <= Duration::from_secs(600);
        check_option("linger", linger, "10 minutes at the most")?;
        let messages = (1..=MAX_REQUEST_MESSAGES).contains(&self.batch_messages);
        check_option("max_batch_messages", messages, "1 to 10,000")?;
        check_option("max_batch_bytes", (1..=8 * MIB).contains(&self.batch_bytes), "1 B to 8 MiB")?;
        let buffered = (2 * MIB..=1024 * MIB).contains(&self.buffered_bytes);
        check_option("max_buffered_bytes", buffered, "2 MiB to 1 GiB")
    }
}
