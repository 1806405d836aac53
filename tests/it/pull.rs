//! Pulls: unary calls that take the next messages.

use std::{sync::Arc, time::Duration};

use tokio::task::JoinSet;
use tonic::Code;
use trunkline::proto;

use crate::support::{TestBroker, assert_field, assert_refused, soon};

#[tokio::test]
async fn a_pull_takes_the_next_messages_and_moves_the_position() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    broker.consumer("orders", "billing").await;
    broker.publish("orders", ["a", "b", "c"]).await;
    let pulled = broker.pull("orders", "billing", 2).await.unwrap();
    let payloads: Vec<_> = pulled.messages.iter().map(|m| m.payload.clone()).collect();
    assert_eq!(payloads, ["a", "b"]);
    assert_eq!((pulled.position, pulled.head), (2, 3));
    let pulled = broker.pull("orders", "billing", 0).await.unwrap();
    assert_eq!((pulled.messages.len(), pulled.position), (1, 3));
    let pulled = broker.pull("orders", "billing", 0).await.unwrap();
    assert_eq!((pulled.messages.len(), pulled.position, pulled.head), (0, 3, 3));
}

#[tokio::test]
async fn a_pull_waits_for_a_message_for_the_requested_time() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    broker.consumer("orders", "billing").await;
    let request = |wait: Duration| proto::PullRequest {
        topic: "orders".to_owned(),
        consumer_id: "billing".to_owned(),
        max_messages: 10,
        wait: Some(wait.try_into().unwrap()),
    };
    let mut consumers = broker.consumers();
    let none = consumers.pull(request(Duration::from_millis(50))).await.unwrap().into_inner();
    assert!(none.messages.is_empty());
    let waiting = consumers.pull(request(Duration::from_secs(15)));
    let (pulled, _) = soon("the pull ends with the message", async {
        tokio::join!(waiting, broker.publish("orders", ["a"]))
    })
    .await;
    assert_eq!(pulled.unwrap().into_inner().messages.len(), 1);
}

#[tokio::test]
async fn concurrent_pulls_of_one_consumer_deliver_each_message_once() {
    let broker = Arc::new(TestBroker::start().await);
    let other = Arc::new(broker.start_another().await);
    broker.topic("orders").await;
    broker.consumer("orders", "billing").await;
    for _ in 0..10 {
        broker.publish("orders", ["x"; 30]).await;
    }
    let mut pulls = JoinSet::new();
    for number in 0..30 {
        let broker = if number % 2 == 0 { broker.clone() } else { other.clone() };
        pulls.spawn(async move { broker.pull("orders", "billing", 10).await });
    }
    let mut offsets = Vec::new();
    while let Some(pulled) = pulls.join_next().await {
        offsets.extend(pulled.unwrap().unwrap().messages.iter().map(|message| message.offset));
    }
    offsets.sort_unstable();
    assert_eq!(offsets, (0..300).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_pull_is_refused_while_a_stream_holds_the_lease() {
    let broker = TestBroker::start().await;
    let other = broker.start_another().await;
    broker.topic("orders").await;
    broker.consumer("orders", "billing").await;
    let mut stream = broker.consume("orders", "billing").await;
    stream.attached().await;
    let holder = broker.get_consumer("orders", "billing").await.holder;
    for broker in [&broker, &other] {
        let refused = broker.pull("orders", "billing", 1).await;
        let metadata = assert_refused(refused, Code::FailedPrecondition, "LEASE_HELD");
        assert_eq!(metadata["holder"], holder);
    }
    // The refused pulls took nothing.
    assert_eq!(broker.position("orders", "billing").await, 0);
}

#[tokio::test]
async fn a_pull_that_is_invalid_or_of_no_consumer_is_refused() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    broker.consumer("orders", "billing").await;
    assert_field(broker.pull("", "billing", 1).await, "topic", None);
    assert_field(broker.pull("orders", "", 1).await, "consumer_id", None);
    assert_field(broker.pull("orders", "billing", -1).await, "max_messages", None);
    for seconds in [-1, 61] {
        let wait = Some(prost_types::Duration { seconds, nanos: 0 });
        let (topic, consumer_id) = ("orders".to_owned(), "billing".to_owned());
        let request = proto::PullRequest { topic, consumer_id, max_messages: 1, wait };
        assert_field(broker.consumers().pull(request).await, "wait", Some(60));
    }
    let nobody = broker.pull("orders", "nobody", 1).await;
    assert_refused(nobody, Code::NotFound, "CONSUMER_NOT_FOUND");
    let no_topic = broker.pull("nope", "billing", 1).await;
    assert_refused(no_topic, Code::NotFound, "TOPIC_NOT_FOUND");
}
