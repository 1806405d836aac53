//! A worker of a shared subscription.

use std::time::Duration;

use tonic::Status;
use trunkline::{
    client::{Client, Connection},
    proto::{self, settlement::Verdict, subscription_service_client::SubscriptionServiceClient},
};

use super::{TestBroker, payload};

/// Works on messages of one subscription, at one broker.
pub struct TestWorker {
    subscriptions: SubscriptionServiceClient<Connection>,
    topic: String,
    id: String,
}

/// A message that a worker got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Work {
    pub delivery: i64,
    pub offset: i64,
    pub payload: String,
    pub attempt: i32,
}

impl TestWorker {
    pub fn at(client: &Client, topic: &str, id: &str) -> Self {
        let subscriptions = SubscriptionServiceClient::new(client.connection());
        Self { subscriptions, topic: topic.to_owned(), id: id.to_owned() }
    }

    /// A worker of a new subscription that starts at the earliest message.
    pub async fn subscribe(
        broker: &TestBroker,
        topic: &str,
        id: &str,
        policy: proto::DeliveryPolicy,
    ) -> Self {
        let mut worker = Self::at(&broker.client, topic, id);
        let request = proto::CreateSubscriptionRequest {
            topic: topic.to_owned(),
            subscription_id: id.to_owned(),
            policy: Some(policy),
            ..Default::default()
        };
        worker.subscriptions.create_subscription(request).await.unwrap();
        worker
    }

    /// Takes up to so many messages, and waits for the first one for up to 10 seconds.
    pub async fn receive(&mut self, max: i32) -> Vec<Work> {
        self.try_receive(max, Duration::from_secs(10)).await.unwrap()
    }

    /// Takes up to so many messages, if there are any.
    pub async fn receive_now(&mut self, max: i32) -> Vec<Work> {
        self.try_receive(max, Duration::ZERO).await.unwrap()
    }

    pub async fn try_receive(&mut self, max: i32, wait: Duration) -> Result<Vec<Work>, Status> {
        let request = proto::ReceiveRequest {
            topic: self.topic.clone(),
            subscription_id: self.id.clone(),
            max_messages: max,
            wait: wait.try_into().ok(),
        };
        let received = self.subscriptions.receive(request).await?.into_inner();
        let mut work = Vec::new();
        for proto::Delivery { delivery, batch, attempts } in received.deliveries {
            let messages = batch.unwrap_or_default().messages;
            assert_eq!(messages.len(), attempts.len());
            work.extend(messages.iter().zip(attempts).map(|(message, attempt)| Work {
                delivery,
                offset: message.offset,
                payload: payload(message),
                attempt,
            }));
        }
        Ok(work)
    }

    /// Settles messages, each by itself; returns how many of them that applied to.
    pub async fn settle(&mut self, work: &[Work], verdict: Verdict) -> i32 {
        self.try_settle(work, verdict).await.unwrap()
    }

    pub async fn try_settle(&mut self, work: &[Work], verdict: Verdict) -> Result<i32, Status> {
        let settlement = |work: &Work| proto::Settlement {
            delivery: work.delivery,
            offsets: vec![work.offset],
            verdict: Some(verdict.clone()),
            ..Default::default()
        };
        let request = self.request(work.iter().map(settlement).collect());
        let settled = self.subscriptions.settle(request).await?.into_inner();
        assert_eq!(settled.applied.len(), work.len());
        Ok(settled.applied.into_iter().sum())
    }

    pub async fn acknowledge(&mut self, work: &[Work]) -> i32 {
        self.settle(work, Verdict::Acknowledge(proto::Acknowledge {})).await
    }

    pub fn request(&self, settlements: Vec<proto::Settlement>) -> proto::SettleRequest {
        let (topic, subscription_id) = (self.topic.clone(), self.id.clone());
        proto::SettleRequest { topic, subscription_id, settlements }
    }

    pub async fn describe(&mut self) -> proto::Subscription {
        let (topic, subscription_id) = (self.topic.clone(), self.id.clone());
        let request = proto::GetSubscriptionRequest { topic, subscription_id };
        let got = self.subscriptions.get_subscription(request).await.unwrap();
        got.into_inner().subscription.unwrap()
    }

    pub fn service(&mut self) -> &mut SubscriptionServiceClient<Connection> {
        &mut self.subscriptions
    }
}

/// That messages are delivered again after so many milliseconds, or after what the policy says.
pub fn retry(delay_ms: Option<u64>) -> Verdict {
    let delay = delay_ms.and_then(|delay| Duration::from_millis(delay).try_into().ok());
    Verdict::Retry(proto::Retry { delay })
}

pub fn reject(reason: &str) -> Verdict {
    Verdict::Reject(proto::Reject { reason: reason.to_owned() })
}

pub fn payloads(work: &[Work]) -> Vec<&str> {
    work.iter().map(|work| work.payload.as_str()).collect()
}

/// A policy that delivers messages again at once.
pub fn at_once() -> proto::DeliveryPolicy {
    let zero = prost_types::Duration::default();
    proto::DeliveryPolicy { min_backoff: Some(zero), max_backoff: Some(zero), ..Default::default() }
}
