//! The topics of a run, and the producers and consumers registered on them.

use std::time::SystemTime;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use tonic::Status;

use super::super::failure::Failure;
use crate::{
    client::Client,
    proto::{
        CreateSubscriptionRequest, CreateTopicRequest, DeleteTopicRequest, LogEdge,
        RegisterConsumerRequest, RegisterProducerRequest, register_consumer_request::Start,
    },
};

/// The number of concurrent calls.
const IN_FLIGHT: usize = 32;

/// A prefix that only the names of this run's topics have.
pub(super) fn prefix() -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    format!("bench-{}-{}-", now.as_millis(), std::process::id())
}

/// Topics that only this run uses.
pub(super) struct BenchTopics {
    names: Vec<String>,
}

/// The id of a producer or consumer, registered on a topic.
#[derive(Clone, Debug)]
pub(super) struct RegisteredId {
    pub(super) topic: String,
    pub(super) id: String,
}

impl BenchTopics {
    pub(super) async fn create(client: &Client, prefix: &str, count: u32) -> Result<Self, Failure> {
        let names: Vec<String> = (0..count).map(|number| format!("{prefix}{number}")).collect();
        let create = async |topic: &String| {
            let request = CreateTopicRequest { topic: topic.clone(), ..Default::default() };
            client.topics().create_topic(request).await.map(|_| ())
        };
        all(names.iter().map(create)).await?;
        Ok(Self { names })
    }

    /// Registers `count` producers, spread over the topics.
    pub(super) async fn producers(
        &self,
        client: &Client,
        name: &str,
        count: u32,
    ) -> Result<Vec<RegisteredId>, Failure> {
        let producers = self.spread(name, count);
        let register = async |producer: &RegisteredId| {
            let RegisteredId { topic, id } = producer.clone();
            let request = RegisterProducerRequest {
                topic,
                producer_id: id,
                fence: false,
                ..Default::default()
            };
            client.producers().register_producer(request).await.map(|_| ())
        };
        all(producers.iter().map(register)).await?;
        Ok(producers)
    }

    /// Registers `count` consumers, spread over the topics.
    pub(super) async fn consumers(
        &self,
        client: &Client,
        start: LogEdge,
        count: u32,
    ) -> Result<Vec<RegisteredId>, Failure> {
        let consumers = self.spread("consumer", count);
        let register = async |consumer: &RegisteredId| {
            let RegisteredId { topic, id } = consumer.clone();
            let request = RegisterConsumerRequest {
                topic,
                consumer_id: id,
                start: Some(Start::Edge(start.into())),
                ..Default::default()
            };
            client.consumers().register_consumer(request).await.map(|_| ())
        };
        all(consumers.iter().map(register)).await?;
        Ok(consumers)
    }

    /// Creates a subscription on each topic.
    pub(super) async fn subscriptions(
        &self,
        client: &Client,
    ) -> Result<Vec<RegisteredId>, Failure> {
        let subscriptions = self.spread("workers", self.names.len() as u32);
        let create = async |subscription: &RegisteredId| {
            let RegisteredId { topic, id } = subscription.clone();
            let request =
                CreateSubscriptionRequest { topic, subscription_id: id, ..Default::default() };
            client.subscriptions().create_subscription(request).await.map(|_| ())
        };
        all(subscriptions.iter().map(create)).await?;
        Ok(subscriptions)
    }

    pub(super) async fn delete(&self, client: &Client) -> Result<(), Failure> {
        let delete = async |topic: &String| {
            let request = DeleteTopicRequest { topic: topic.clone() };
            client.topics().delete_topic(request).await.map(|_| ())
        };
        all(self.names.iter().map(delete)).await
    }

    fn spread(&self, what: &str, count: u32) -> Vec<RegisteredId> {
        let topics = self.names.iter().cycle();
        let ids = (0..count).map(|number| format!("{what}-{number}"));
        topics.zip(ids).map(|(topic, id)| RegisteredId { topic: topic.clone(), id }).collect()
    }
}

/// Makes all calls, [`IN_FLIGHT`] at a time.
async fn all(
    calls: impl Iterator<Item = impl Future<Output = Result<(), Status>>>,
) -> Result<(), Failure> {
    let calls = stream::iter(calls).buffer_unordered(IN_FLIGHT);
    Ok(calls.try_collect().await?)
}
