//! Creates what is missing.

use crate::{
    client::{
        connect::{Client, unary},
        error::Error,
        start::Start,
    },
    proto::{
        CreateSubscriptionRequest, CreateSubscriptionResponse, CreateTopicRequest,
        CreateTopicResponse, DeliveryPolicy, RegisterConsumerRequest, RegisterConsumerResponse,
        RegisterProducerRequest, RegisterProducerResponse,
        consumer_service_client::ConsumerServiceClient,
        producer_service_client::ProducerServiceClient,
        subscription_service_client::SubscriptionServiceClient,
        topic_service_client::TopicServiceClient,
    },
};

impl Client {
    /// Creates a topic unless it exists; the answer says which. A topic that exists needs no right to
    /// create it.
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
    /// [`Error::Refused`] if the name is malformed, [`Error::Lost`] if no broker is reached.
    pub async fn ensure_topic(&self, topic: &str) -> Result<CreateTopicResponse, Error> {
        let topic = topic.to_owned();
        let request = CreateTopicRequest { topic, if_missing: true, ..Default::default() };
        let create = |connection| {
            let request = unary(request.clone());
            async { TopicServiceClient::new(connection).create_topic(request).await }
        };
        Ok(self.call(create).await?.into_inner())
    }

    /// Registers a producer on a topic unless it is registered; the answer says which. No instance of
    /// it is fenced. The broker makes an id up if the given one is empty.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] with NOT_FOUND if the topic does not exist, [`Error::Lost`] if no broker is
    /// reached.
    pub async fn ensure_producer(
        &self,
        topic: &str,
        producer_id: &str,
    ) -> Result<RegisterProducerResponse, Error> {
        let (topic, producer_id) = (topic.to_owned(), producer_id.to_owned());
        let request =
            RegisterProducerRequest { topic, producer_id, if_missing: true, ..Default::default() };
        let register = |connection| {
            let request = unary(request.clone());
            async { ProducerServiceClient::new(connection).register_producer(request).await }
        };
        Ok(self.call(register).await?.into_inner())
    }

    /// Registers a consumer on a topic, at `start`, unless it is registered; the answer says which. The
    /// broker makes an id up if the given one is empty.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] with NOT_FOUND if the topic does not exist, or with OUT_OF_RANGE if a new
    /// consumer would start outside the log; [`Error::Lost`] if no broker is reached.
    pub async fn ensure_consumer(
        &self,
        topic: &str,
        consumer_id: &str,
        start: Start,
    ) -> Result<RegisterConsumerResponse, Error> {
        let request = RegisterConsumerRequest {
            topic: topic.to_owned(),
            consumer_id: consumer_id.to_owned(),
            start: Some(start.into()),
            if_missing: true,
        };
        let register = |connection| {
            let request = unary(request.clone());
            async { ConsumerServiceClient::new(connection).register_consumer(request).await }
        };
        Ok(self.call(register).await?.into_inner())
    }

    /// Creates a subscription on a topic, at `start` and with a policy, unless it exists; the answer says
    /// which. What exists keeps its policy. The broker makes an id up if the given one is empty.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] with NOT_FOUND if the topic does not exist, with OUT_OF_RANGE if a new
    /// subscription would start outside the log, or with FAILED_PRECONDITION if the id is that of a
    /// consumer which workers do not share; [`Error::Lost`] if no broker is reached.
    pub async fn ensure_subscription(
        &self,
        topic: &str,
        subscription_id: &str,
        start: Start,
        policy: DeliveryPolicy,
    ) -> Result<CreateSubscriptionResponse, Error> {
        let request = CreateSubscriptionRequest {
            topic: topic.to_owned(),
            subscription_id: subscription_id.to_owned(),
            policy: Some(policy),
            start: Some(start.into()),
            if_missing: true,
        };
        let create = |connection| {
            let request = unary(request.clone());
            async { SubscriptionServiceClient::new(connection).create_subscription(request).await }
        };
        Ok(self.call(create).await?.into_inner())
    }
}
