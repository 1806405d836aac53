//! The client library: publish and consume, without the broker's code.
//!
//! A [`Client`] is a connection to a broker. It opens a [`Producer`], which batches messages and
//! stores each of them exactly once, a [`Consumer`], a stream of messages that resumes when its
//! connection breaks, and a [`Worker`], which runs a handler for each message of a subscription that
//! workers share. Each has a connection of its own, so that none delays another. Everything else that
//! a broker offers is a call of [`Client::topics`], [`Client::producers`], [`Client::consumers`] or
//! [`Client::subscriptions`].
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
//! * Once [`Producer::publish`] has returned an offset, the message is on disk, and it is there
//!   once, however often the connection broke in between.
//! * A consumer's messages arrive in the order of their offsets. With [`Commit::Manual`] and
//!   [`Commit::Auto`] no message is skipped, whatever breaks; with [`Commit::AtMostOnce`] none
//!   arrives twice.
//! * Each message of a subscription is handled until a worker acknowledges it, or it is parked.
//! * Memory is bounded: a producer waits for room, a consumer reads only a few frames ahead, and a
//!   worker says how many messages it may have.
//!
//! With the feature `otel`, traces follow messages from producers to consumers: the module `trace` says
//! how.

mod address;
mod backoff;
mod builder;
mod connect;
mod consumer;
mod credentials;
mod deliver_at;
mod ensure;
mod error;
mod message;
mod producer;
mod start;
#[cfg(feature = "otel")]
pub mod trace;
mod worker;

#[cfg(feature = "cli")]
pub(crate) use address::complete;
pub use builder::{ClientBuilder, ConsumerBuilder, ProducerBuilder, WorkerBuilder};
pub use connect::{Client, Connection};
#[doc(hidden)]
pub use consumer::decode_batch;
pub use consumer::{Commit, Consumer, Event, Stop};
pub use credentials::Credentials;
pub use error::{ConnectError, Error, Refusal, explain, is_broken_connection, reason};
pub use message::Message;
pub use producer::{Acknowledgement, Producer};
pub use start::Start;
pub use worker::{IntoVerdict, Job, Verdict, Worker, WorkerEvent, WorkerNotice, WorkerStream};
