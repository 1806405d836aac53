//! A worker of a shared subscription.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use trunkline::{
    client::{Client, Connection},
    proto::{
        self, settlement::Verdict, subscribe_request::Request, subscribe_response::Event,
        subscription_service_client::SubscriptionServiceClient,
    },
};

use super::{PRODUCER, TestBroker, payload, soon};

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

    /// Takes so many messages, in as many calls as that takes.
    pub async fn receive_all(&mut self, count: usize) -> Vec<Work> {
        let mut work = Vec::new();
        while work.len() < count {
            work.extend(self.receive((count - work.len()) as i32).await);
        }
        work
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
        Ok(work_of(received.deliveries))
    }

    /// Settles messages, each by itself; returns how many of them that applied to.
    pub async fn settle(&mut self, work: &[Work], verdict: Verdict) -> i32 {
        self.try_settle(work, verdict).await.unwrap()
    }

    pub async fn try_settle(&mut self, work: &[Work], verdict: Verdict) -> Result<i32, Status> {
        let request = self.request(settlements(work, &verdict));
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

    /// The request that opens a stream.
    pub fn open(&self) -> proto::OpenSubscription {
        let (topic, subscription_id) = (self.topic.clone(), self.id.clone());
        proto::OpenSubscription { topic, subscription_id, ..Default::default() }
    }

    /// Opens a stream, and waits until it is attached.
    pub async fn stream(&self) -> WorkerStream {
        self.stream_as(self.open()).await
    }

    pub async fn stream_as(&self, open: proto::OpenSubscription) -> WorkerStream {
        let mut stream = self.try_stream(open).await.unwrap();
        match stream.event().await {
            Event::Attached(_) => stream,
            other => panic!("attached expected, not {other:?}"),
        }
    }

    pub async fn try_stream(&self, open: proto::OpenSubscription) -> Result<WorkerStream, Status> {
        self.requests([Request::Open(open)]).await
    }

    /// A stream that begins with these requests.
    pub async fn requests<const N: usize>(
        &self,
        first: [Request; N],
    ) -> Result<WorkerStream, Status> {
        let (requests, outgoing) = mpsc::channel(100);
        for request in first {
            requests.send(proto::SubscribeRequest { request: Some(request) }).await.unwrap();
        }
        let mut service = self.subscriptions.clone();
        let events = service.subscribe(ReceiverStream::new(outgoing)).await?.into_inner();
        Ok(WorkerStream { requests: Some(requests), events })
    }

    /// Changes how messages are delivered.
    pub async fn update(
        &mut self,
        policy: proto::DeliveryPolicy,
        paths: &[&str],
    ) -> Result<proto::Subscription, Status> {
        let paths = paths.iter().map(|path| (*path).to_owned()).collect();
        let request = proto::UpdateSubscriptionRequest {
            topic: self.topic.clone(),
            subscription_id: self.id.clone(),
            policy: Some(policy),
            update_mask: Some(prost_types::FieldMask { paths }),
        };
        let updated = self.subscriptions.update_subscription(request).await?;
        Ok(updated.into_inner().subscription.unwrap())
    }

    pub fn service(&mut self) -> &mut SubscriptionServiceClient<Connection> {
        &mut self.subscriptions
    }
}

/// A worker's stream.
pub struct WorkerStream {
    /// Dropped when the client closes its side.
    pub requests: Option<mpsc::Sender<proto::SubscribeRequest>>,
    events: Streaming<proto::SubscribeResponse>,
}

impl WorkerStream {
    /// Waits for the next event.
    pub async fn any_event(&mut self) -> Event {
        let event = soon("an event", self.events.message()).await.unwrap();
        event.expect("the stream goes on").event.unwrap()
    }

    /// Waits for the next event that is no heartbeat.
    pub async fn event(&mut self) -> Event {
        loop {
            match self.any_event().await {
                Event::Heartbeat(_) => {}
                event => return event,
            }
        }
    }

    /// The next messages; events that say that there are none may come before.
    pub async fn work(&mut self) -> Vec<Work> {
        loop {
            match self.event().await {
                Event::Deliveries(proto::Deliveries { deliveries }) => return work_of(deliveries),
                Event::CaughtUp(_) | Event::Stalled(_) => {}
                other => panic!("messages expected, not {other:?}"),
            }
        }
    }

    /// So many messages, in as many events as they come.
    pub async fn works(&mut self, count: usize) -> Vec<Work> {
        let mut works = Vec::new();
        while works.len() < count {
            works.extend(self.work().await);
        }
        assert_eq!(works.len(), count);
        works
    }

    pub async fn caught_up(&mut self) {
        let event = self.event().await;
        assert!(matches!(event, Event::CaughtUp(_)), "{event:?}");
    }

    pub async fn stalled(&mut self) -> proto::Stalled {
        match self.event().await {
            Event::Stalled(stalled) => stalled,
            other => panic!("stalled expected, not {other:?}"),
        }
    }

    pub async fn ask(&self, request: Request) {
        let request = proto::SubscribeRequest { request: Some(request) };
        self.requests.as_ref().unwrap().send(request).await.unwrap();
    }

    /// Asks to settle messages, each by itself.
    pub async fn settle(&self, request_id: i64, work: &[Work], verdict: Verdict) {
        let settlements = settlements(work, &verdict);
        self.ask(Request::Settle(proto::SettleMessages { settlements, request_id })).await;
    }

    /// Waits for the answer to a request; returns how many messages its settlements applied to. Reasons why
    /// there are no messages may come before.
    pub async fn settled(&mut self, request_id: i64) -> i32 {
        loop {
            match self.event().await {
                Event::Settled(settled) => {
                    assert_eq!(settled.request_id, request_id);
                    return settled.applied.into_iter().sum();
                }
                Event::CaughtUp(_) | Event::Stalled(_) => {}
                other => panic!("an answer expected, not {other:?}"),
            }
        }
    }

    /// Acknowledges messages, and waits until that is stored.
    pub async fn acknowledge(&mut self, work: &[Work]) -> i32 {
        self.settle(-1, work, Verdict::Acknowledge(proto::Acknowledge {})).await;
        self.settled(-1).await
    }

    /// The error that the stream ends with.
    pub async fn ended(&mut self) -> Status {
        loop {
            if let Err(status) = soon("the stream ends", self.events.message()).await {
                return status;
            }
        }
    }

    /// Closes the client's side, and waits until the stream has ended well.
    pub async fn close(mut self) {
        self.requests = None;
        while soon("the stream ends", self.events.message()).await.unwrap().is_some() {}
    }
}

fn work_of(deliveries: Vec<proto::Delivery>) -> Vec<Work> {
    let mut work = Vec::new();
    for proto::Delivery { delivery, batch, attempts } in deliveries {
        let messages = batch.unwrap_or_default().messages;
        assert_eq!(messages.len(), attempts.len());
        work.extend(messages.iter().zip(attempts).map(|(message, attempt)| Work {
            delivery,
            offset: message.offset,
            payload: payload(message),
            attempt,
        }));
    }
    work
}

fn settlements(work: &[Work], verdict: &Verdict) -> Vec<proto::Settlement> {
    let settlement = |work: &Work| proto::Settlement {
        delivery: work.delivery,
        offsets: vec![work.offset],
        verdict: Some(verdict.clone()),
        ..Default::default()
    };
    work.iter().map(settlement).collect()
}

/// A broker with messages `m0`, `m1` and so on in the topic `jobs`, and the subscription `pool`.
pub async fn with_jobs(count: usize, policy: proto::DeliveryPolicy) -> (TestBroker, TestWorker) {
    let broker = TestBroker::start().await;
    broker.topic("jobs").await;
    let worker = TestWorker::subscribe(&broker, "jobs", "pool", policy).await;
    publish(&broker, count).await;
    (broker, worker)
}

/// Publishes messages `m0`, `m1` and so on to the topic `jobs`.
pub async fn publish(broker: &TestBroker, count: usize) {
    // As many as a request may have.
    for first in (0..count).step_by(10_000) {
        let messages = (first..count.min(first + 10_000)).map(|number| format!("m{number}"));
        broker.try_publish("jobs", PRODUCER, messages).await.unwrap();
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
