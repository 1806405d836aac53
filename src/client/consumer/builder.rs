//! What a consumer is asked for before it is opened.

use std::{
    sync::{Arc, atomic::AtomicU32},
    time::Duration,
};

use tokio::sync::mpsc;
use tonic::Code;

use super::{
    super::{Client, Error, Start, unary},
    Commit, Consumer, READ_AHEAD, Stop,
    committer::Committer,
    reader::Reader,
};
use crate::proto::{
    CommitMode, ConsumeRequest, OnBusy, RegisterConsumerRequest,
    consumer_service_client::ConsumerServiceClient,
};

/// How often an idle stream beats, if nothing else is said.
const HEARTBEAT: Duration = Duration::from_secs(15);

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
    pub(in super::super) fn new(
        client: Client,
        topic: &str,
        consumer_id: &str,
        commit: Commit,
    ) -> Self {
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
    /// [`Error::Invalid`] if the id is empty; [`Error::Refused`] or [`Error::Lost`] if the consumer
    /// is to be registered and cannot be. That there is no such topic or consumer, the first message
    /// tells.
    pub async fn open(mut self) -> Result<Consumer, Error> {
        let bounds = Duration::from_millis(100)..=Duration::from_secs(60);
        if !bounds.contains(&self.heartbeat) {
            let problem = "must be 100 ms to 60 s".to_owned();
            return Err(Error::Invalid { field: "heartbeat_interval", problem });
        }
        if self.request.consumer_id.is_empty() {
            // A broker would register another one, under an id of its own making.
            let problem = "is empty".to_owned();
            return Err(Error::Invalid { field: "consumer_id", problem });
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
        let reader = Reader::new(
            self.client,
            self.request,
            self.stop,
            self.heartbeat,
            seeks.clone(),
            wanted,
            sender,
        );
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
        let register = |connection| {
            let request = unary(request.clone());
            async { ConsumerServiceClient::new(connection).register_consumer(request).await }
        };
        match self.client.ask(register).await {
            Err(status) if status.code() != Code::AlreadyExists => Err(status.into()),
            _ => Ok(()),
        }
    }
}
