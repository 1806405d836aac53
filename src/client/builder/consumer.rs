//! How a consumer is opened.

use std::time::Duration;

use crate::{
    client::{
        connect::Client,
        consumer::{Commit, Consumer, ConsumerSpawner, Stop},
        error::Error,
        start::Start,
    },
    proto::{CommitMode, ConsumeRequest, OnBusy},
};

/// How often an idle stream sends a heartbeat by default.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// The options of a [`Consumer`]; from [`Client::consumer`].
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

impl Client {
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
        ConsumerBuilder {
            client: self.clone(),
            request,
            commit,
            stop: None,
            register: None,
            heartbeat: HEARTBEAT,
        }
    }
}

impl ConsumerBuilder {
    /// Registers the consumer at this start if it is not registered. By default, opening an
    /// unregistered consumer is refused.
    pub fn register_at(mut self, start: Start) -> Self {
        self.register = Some(start);
        self
    }

    /// Takes the lease from its holder instead of waiting for it. If the lease is lost later, the
    /// consumer waits for it.
    pub fn take_over(mut self) -> Self {
        self.request.on_busy = OnBusy::TakeOver.into();
        self
    }

    /// The name by which others see the holder of the lease, at most 255 bytes. By default it is
    /// made of the client's address and the broker's host and process.
    pub fn client_name(mut self, name: impl Into<String>) -> Self {
        self.request.client_name = name.into();
        self
    }

    /// When the consumer ends by itself; by default it never does.
    pub fn stop(mut self, stop: Stop) -> Self {
        self.stop = Some(stop);
        self
    }

    /// How many messages may be handed out beyond the committed position; unlimited by default.
    /// With [`Commit::AtMostOnce`] the broker refuses it.
    pub fn max_in_flight(mut self, messages: u32) -> Self {
        self.request.max_in_flight = messages.min(i32::MAX as u32) as i32;
        self
    }

    /// How often an idle stream sends a heartbeat, 100 ms to 60 s; 15 s by default. A stream that
    /// is silent for three intervals is opened again.
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
    /// [`Error::Invalid`] if the id is empty or the heartbeat interval is out of its range;
    /// [`Error::Refused`] or [`Error::Lost`] if the consumer is to be registered and cannot be. If the
    /// topic or the consumer does not exist, the first message is an error instead.
    pub async fn open(mut self) -> Result<Consumer, Error> {
        let range = Duration::from_millis(100)..=Duration::from_secs(60);
        if !range.contains(&self.heartbeat) {
            let problem = "must be 100 ms to 60 s".to_owned();
            return Err(Error::Invalid { field: "heartbeat_interval", problem });
        }
        if self.request.consumer_id.is_empty() {
            // The broker would register a new consumer, under an id that it generates.
            let problem = "is empty".to_owned();
            return Err(Error::Invalid { field: "consumer_id", problem });
        }
        self.request.heartbeat_interval = self.heartbeat.try_into().ok();
        if let Some(start) = self.register {
            let ConsumeRequest { topic, consumer_id, .. } = &self.request;
            self.client.ensure_consumer(topic, consumer_id, start).await?;
        }
        let Self { client, request, commit, stop, heartbeat, .. } = self;
        Ok(ConsumerSpawner { client, request, commit, stop, heartbeat }.spawn())
    }
}
