//! Commits: which ones move the position, and which are refused.

use tonic::Code;
use trunkline::proto;

use crate::support::{TestBroker, assert_field, assert_refused};

async fn with_three_messages() -> TestBroker {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    broker.consumer("orders", "billing").await;
    broker.publish("orders", ["a", "b", "c"]).await;
    broker
}

#[tokio::test]
async fn a_commit_moves_the_position_and_repeating_it_changes_nothing() {
    let broker = with_three_messages().await;
    let mut stream = broker.consume_manually("orders", "billing").await;
    stream.messages(3).await;
    assert_eq!(stream.commit(2).await.unwrap(), 2);
    assert_eq!(stream.commit(2).await.unwrap(), 2);
    assert_eq!(stream.commit(3).await.unwrap(), 3);
    assert_eq!(broker.position("orders", "billing").await, 3);
}

#[tokio::test]
async fn a_commit_beyond_the_delivered_messages_is_refused() {
    let broker = with_three_messages().await;
    let mut stream = broker.consume_manually("orders", "billing").await;
    stream.messages(3).await;
    let metadata = assert_refused(stream.commit(4).await, Code::OutOfRange, "COMMIT_BEYOND");
    assert_eq!((metadata["asked"].as_str(), metadata["delivered"].as_str()), ("4", "3"));
    assert_eq!(broker.position("orders", "billing").await, 0);
}

#[tokio::test]
async fn a_commit_without_the_lease_is_refused() {
    let broker = with_three_messages().await;
    let mut first = broker.consume_manually("orders", "billing").await;
    first.messages(3).await;
    let epoch = first.epoch;
    let outcome = first.commit_with(epoch + 1, 1).await;
    assert_refused(outcome, Code::Aborted, "LEASE_LOST");
    drop(first);
    let mut second = broker.consume_manually("orders", "billing").await;
    second.messages(3).await;
    let metadata = assert_refused(second.commit_with(epoch, 1).await, Code::Aborted, "LEASE_LOST");
    assert_eq!(metadata["epoch"], epoch.to_string());
    assert_eq!(broker.position("orders", "billing").await, 0);
    // The same holds on a broker that does not hold the lease.
    let other = broker.start_another().await;
    let (topic, consumer_id) = ("orders".to_owned(), "billing".to_owned());
    let request = proto::CommitRequest { topic, consumer_id, epoch, position: 1 };
    let stale = other.consumers().commit(request.clone()).await;
    assert_refused(stale, Code::Aborted, "LEASE_LOST");
    let current = proto::CommitRequest { epoch: second.epoch, ..request };
    other.consumers().commit(current.clone()).await.unwrap();
    assert_eq!(broker.position("orders", "billing").await, 1);
    let beyond = proto::CommitRequest { position: 4, ..current };
    let beyond = other.consumers().commit(beyond).await;
    assert_refused(beyond, Code::OutOfRange, "COMMIT_BEYOND");
}

#[tokio::test]
async fn a_commit_that_is_invalid_or_of_no_consumer_is_refused() {
    let broker = with_three_messages().await;
    let request = |topic: &str, id: &str, epoch, position| proto::CommitRequest {
        topic: topic.to_owned(),
        consumer_id: id.to_owned(),
        epoch,
        position,
    };
    let mut consumers = broker.consumers();
    assert_field(consumers.commit(request("", "billing", 1, 1)).await, "topic", None);
    assert_field(consumers.commit(request("orders", "", 1, 1)).await, "consumer_id", None);
    assert_field(consumers.commit(request("orders", "billing", 0, 1)).await, "epoch", None);
    assert_field(consumers.commit(request("orders", "billing", 1, -1)).await, "position", None);
    let nobody = consumers.commit(request("orders", "nobody", 1, 1)).await;
    assert_refused(nobody, Code::NotFound, "CONSUMER_NOT_FOUND");
    let no_topic = consumers.commit(request("nope", "billing", 1, 1)).await;
    assert_refused(no_topic, Code::NotFound, "TOPIC_NOT_FOUND");
    let never_attached = consumers.commit(request("orders", "billing", 1, 1)).await;
    assert_refused(never_attached, Code::Aborted, "LEASE_LOST");
}
