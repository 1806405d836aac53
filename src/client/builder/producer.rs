//! How a producer is opened.

use std::time::Duration;

use crate::{
    client::{
        connect::{Client, unary},
        error::Error,
        producer::{Limits, Producer, ProducerSpawner},
    },
    proto::{
        self, GetProducerRequest, RegisterProducerRequest,
        producer_service_client::ProducerServiceClient,
    },
};

/// The options of a [`Producer`]; from [`Client::producer`].
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

impl Client {
    /// A producer of a topic, to be opened with [`ProducerBuilder::open`].
    ///
    /// ```no_run
    /// # async fn example(client: trunkline::client::Client) -> Result<(), trunkline::client::Error> {
    /// let producer = client.producer("orders", "shop").open().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn producer(&self, topic: &str, producer_id: &str) -> ProducerBuilder {
        ProducerBuilder {
            client: self.clone(),
            topic: topic.to_owned(),
            producer_id: producer_id.to_owned(),
            register: false,
            limits: Limits::default(),
            retry_for: Duration::from_secs(60),
        }
    }
}

impl ProducerBuilder {
    /// Registers the producer on the topic if it is not registered. By default, opening an
    /// unregistered producer is refused.
    pub fn register(mut self) -> Self {
        self.register = true;
        self
    }

    /// How long a message may wait for others to share its request while requests are unanswered;
    /// 1 ms by default. A message never waits when there is no unanswered request.
    pub fn linger(mut self, linger: Duration) -> Self {
        self.limits.linger = linger;
        self
    }

    /// How many messages a request may hold, 1 to 10,000; 4,000 by default.
    pub fn max_batch_messages(mut self, messages: usize) -> Self {
        self.limits.request_messages = messages;
        self
    }

    /// How many bytes of payloads, keys and headers a request may hold, up to 8 MiB; 1 MiB by
    /// default. A larger message gets a request of its own.
    pub fn max_batch_bytes(mut self, bytes: usize) -> Self {
        self.limits.request_bytes = bytes;
        self
    }

    /// How many bytes of messages may be unanswered, 2 MiB to 1 GiB; 32 MiB by default. Each message
    /// counts for its size plus 100 bytes, and 100 more for each header. Publishing waits for room.
    pub fn max_buffered_bytes(mut self, bytes: usize) -> Self {
        self.limits.buffered_bytes = bytes;
        self
    }

    /// How long to go on looking for a lost broker before waiting messages fail with
    /// [`Error::Lost`]; 60 s by default.
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
    /// [`Error::Refused`] with NOT_FOUND if the topic does not exist, or if the producer is not
    /// registered and [`Self::register`] was not asked for; [`Error::Invalid`] if a limit is out of
    /// its range or the id is empty.
    pub async fn open(self) -> Result<Producer, Error> {
        self.limits.check()?;
        if self.producer_id.is_empty() {
            // The broker would register a new producer, under an id that it generates.
            let problem = "is empty".to_owned();
            return Err(Error::Invalid { field: "producer_id", problem });
        }
        let registration = self.fence().await?;
        let Self { client, topic, producer_id, limits, retry_for, .. } = self;
        let spawner =
            ProducerSpawner { client, topic, producer_id, registration, limits, retry_for };
        Ok(spawner.spawn())
    }

    /// Begins a new epoch, which fences older instances and so makes the number of messages that
    /// they have published final.
    async fn fence(&self) -> Result<proto::Producer, Error> {
        let (topic, producer_id) = (self.topic.clone(), self.producer_id.clone());
        if !self.register {
            let get = GetProducerRequest { topic: topic.clone(), producer_id: producer_id.clone() };
            let found = |connection| {
                let get = unary(get.clone());
                async { ProducerServiceClient::new(connection).get_producer(get).await }
            };
            self.client.call(found).await?;
        }
        let request =
            RegisterProducerRequest { topic, producer_id, fence: true, ..Default::default() };
        let register = |connection| {
            let request = unary(request.clone());
            async { ProducerServiceClient::new(connection).register_producer(request).await }
        };
        let registered = self.client.call(register).await?.into_inner();
        Ok(registered.producer.unwrap_or_default())
    }
}
