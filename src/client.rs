//! The client library: publish and consume, without the broker's side of things.
//!
//! A [`Client`] is a connection to a broker. From it come a [`Producer`], which batches what it is
//! given and stores it exactly once, and a [`Consumer`], a stream of messages that goes on after a
//! break. Both open a connection of their own, so that none holds another one up. Everything else
//! that a broker can do is a call of [`Client::topics`], [`Client::producers`] or
//! [`Client::consumers`].
//!
//! ```no_run
//! use tokio_stream::StreamExt as _;
//! use trunkline::client::{Client, Commit, Start};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::connect("http://127.0.0.1:50051").await?;
//! client.ensure_topic("orders").await?;
//!
//! let producer = client.producer("orders", "shop").register().open().await?;
//! let offset = producer.publish("a new order").await?;
//! println!("stored at offset {offset}");
//! producer.close().await?;
//!
//! let mut consumer = client
//!     .consumer("orders", "billing", Commit::Manual)
//!     .register_at(Start::Earliest)
//!     .open()
//!     .await?;
//! while let Some(message) = consumer.next().await {
//!     let message = message?;
//!     println!("{}: {}", message.offset, String::from_utf8_lossy(&message.payload));
//!     consumer.commit(&message);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # What it promises
//!
//! * A message that [`Producer::publish`] gave an offset for is on disk, once, however often the
//!   connection broke in between.
//! * A consumer's messages come in the order of their offsets. With [`Commit::Manual`] and
//!   [`Commit::Auto`] none is passed over, whatever breaks; with [`Commit::AtMostOnce`] none comes
//!   twice.
//! * Memory is bounded: a producer waits for room, and a consumer reads a few batches ahead.

mod backoff;
mod builder;
mod connect;
mod consumer;
mod error;
mod message;
mod producer;
mod start;

use std::time::Duration;

use tonic::{Code, Request};

pub use builder::{ClientBuilder, Credentials};
pub use connect::{Client, ConnectError, Connection};
#[doc(hidden)]
pub use consumer::decode_batch;
pub use consumer::{Commit, Consumer, ConsumerBuilder, Event, Stop};
pub use error::{Error, Refusal, explain, is_broken_connection, reason};
pub use message::Message;
pub use producer::{Acknowledgement, Producer, ProducerBuilder};
pub use start::Start;

use crate::proto::{self, topic_service_client::TopicServiceClient};

/// How long the library's own unary calls may take.
const UNARY_TIMEOUT: Duration = Duration::from_secs(30);

/// A request that ends in time, whoever answers or does not.
fn unary<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(UNARY_TIMEOUT);
    request
}

impl Client {
    /// Creates a topic unless it exists.
    ///
    /// ```no_run
    /// # async fn example(client: trunkline::client::Client) -> Result<(), trunkline::client::Error> {
    /// client.ensure_topic("orders").await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] if the name is not well-formed, [`Error::Lost`] if the broker is not
    /// there.
    pub async fn ensure_topic(&self, topic: &str) -> Result<(), Error> {
        let request = proto::CreateTopicRequest { topic: topic.to_owned(), ..Default::default() };
        let create = |connection| {
            let request = unary(request.clone());
            async { TopicServiceClient::new(connection).create_topic(request).await }
        };
        match self.ask(create).await {
            Err(status) if status.code() != Code::AlreadyExists => Err(status.into()),
            _ => Ok(()),
        }
    }

    /// A producer of a topic, to be opened with [`ProducerBuilder::open`].
    ///
    /// ```no_run
    /// # async fn example(client: trunkline::client::Client) -> Result<(), trunkline::client::Error> {
    /// let producer = client.producer("orders", "shop").open().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn producer(&self, topic: &str, producer_id: &str) -> ProducerBuilder {
        ProducerBuilder::new(self.clone(), topic, producer_id)
    }

    /// A consumer of a topic, to be opened with [`ConsumerBuilder::open`]; `commit` says when its
    /// position moves.
    ///
    /// ```no_run
    /// # async fn example(client: trunkline::client::Client) -> Result<(), trunkline::client::Error> {
    /// use trunkline::client::Commit;
    ///
    /// let consumer = client.consumer("orders", "billing", Commit::Auto).open().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn consumer(&self, topic: &str, consumer_id: &str, commit: Commit) -> ConsumerBuilder {
        ConsumerBuilder::new(self.clone(), topic, consumer_id, commit)
    }
}
