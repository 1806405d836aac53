//! Limits to what all workers of a subscription have together.

use std::time::Duration;

use trunkline::proto::{self, settlement::Verdict, stalled::Limit};

use crate::support::{
    TestBroker,
    worker::{TestWorker, at_once, payloads, publish, retry, with_jobs},
};

fn messages(most: i32) -> proto::DeliveryPolicy {
    proto::DeliveryPolicy { max_outstanding_messages: most, ..at_once() }
}

fn bytes(most: i64) -> proto::DeliveryPolicy {
    proto::DeliveryPolicy { max_outstanding_bytes: most, ..at_once() }
}

/// Three messages of 1,000 bytes.
async fn with_large_jobs(policy: proto::DeliveryPolicy) -> (TestBroker, TestWorker) {
    let (broker, worker) = with_jobs(0, policy).await;
    for _ in 0..3 {
        broker.publish("jobs", ["x".repeat(1_000).as_str()]).await;
    }
    (broker, worker)
}

fn acknowledge() -> Verdict {
    Verdict::Acknowledge(proto::Acknowledge {})
}

#[tokio::test]
async fn all_workers_together_get_no_more_messages_than_the_policy_says() {
    let (_broker, mut worker) = with_jobs(10, messages(3)).await;
    let first = worker.receive(2).await;
    let mut stream = worker.stream().await;
    assert_eq!(payloads(&stream.work().await), ["m2"]);
    let stalled = stream.stalled().await;
    assert_eq!((stalled.limit(), stalled.outstanding_messages), (Limit::Outstanding, 1));
    assert!(worker.receive_now(10).await.is_empty());
    // What one worker settles makes room for another one.
    assert_eq!(worker.acknowledge(&first[..1]).await, 1);
    assert_eq!(payloads(&stream.work().await), ["m3"]);
    assert_eq!(stream.stalled().await.limit(), Limit::Outstanding);
    // And so does a message that is to be delivered again, which comes first.
    assert_eq!(worker.settle(&first[1..], retry(Some(0))).await, 1);
    assert_eq!(payloads(&stream.work().await), ["m1"]);
}

#[tokio::test]
async fn a_change_of_the_limit_takes_effect_at_once() {
    let (_broker, mut worker) = with_jobs(10, messages(2)).await;
    let mut stream = worker.stream().await;
    let mut work = stream.works(2).await;
    assert_eq!(stream.stalled().await.limit(), Limit::Outstanding);
    worker.update(messages(5), &["max_outstanding_messages"]).await.unwrap();
    work.extend(stream.works(3).await);
    assert_eq!(stream.stalled().await.limit(), Limit::Outstanding);
    // With a lower one, workers keep what they have, and get nothing until they have less than that.
    worker.update(messages(2), &["max_outstanding_messages"]).await.unwrap();
    stream.settle(1, &work[..3], acknowledge()).await;
    assert_eq!(stream.settled(1).await, 3);
    assert!(worker.receive_now(10).await.is_empty());
    stream.settle(2, &work[3..4], acknowledge()).await;
    // There is room at once, and the answer comes once it is on disk.
    assert_eq!(payloads(&stream.work().await), ["m5"]);
    assert_eq!(stream.settled(2).await, 1);
    worker.update(messages(0), &["max_outstanding_messages"]).await.unwrap();
    assert_eq!(payloads(&stream.works(4).await), ["m6", "m7", "m8", "m9"]);
}

#[tokio::test]
async fn all_workers_together_get_no_more_bytes_than_the_policy_says() {
    let (_broker, mut worker) = with_large_jobs(bytes(1_800)).await;
    let mut one = worker.stream().await;
    let work = one.work().await;
    assert_eq!(work.len(), 1);
    let stalled = one.stalled().await;
    assert_eq!((stalled.limit(), stalled.outstanding_messages), (Limit::OutstandingBytes, 1));
    // Although this one has nothing.
    let mut other = worker.stream().await;
    let stalled = other.stalled().await;
    assert_eq!((stalled.limit(), stalled.outstanding_messages), (Limit::OutstandingBytes, 0));
    assert_eq!(worker.acknowledge(&work).await, 1);
    // Both of them wait, and one gets the next message.
    let next = tokio::select! {
        next = one.work() => next,
        next = other.work() => next,
    };
    assert_eq!((next.len(), next[0].offset), (1, 1));
}

#[tokio::test]
async fn a_message_larger_than_the_limit_is_delivered_when_no_worker_has_any() {
    let (_broker, mut worker) = with_large_jobs(bytes(1)).await;
    for offset in 0..3 {
        let work = worker.receive(10).await;
        assert_eq!((work.len(), work[0].offset), (1, offset));
        assert!(worker.receive_now(10).await.is_empty());
        assert_eq!(worker.acknowledge(&work).await, 1);
    }
}

#[tokio::test]
async fn a_message_that_is_due_again_waits_for_room_too() {
    let (broker, mut worker) = with_jobs(2, messages(2)).await;
    let work = worker.receive_all(2).await;
    worker.update(messages(1), &["max_outstanding_messages"]).await.unwrap();
    assert_eq!(worker.settle(&work[..1], retry(Some(300))).await, 1);
    // It becomes due while this call waits, and the limit holds.
    let mut waiting = TestWorker::at(&broker.client, "jobs", "pool");
    let got = waiting.try_receive(10, Duration::from_secs(1)).await.unwrap();
    assert!(got.is_empty(), "{got:?}");
    assert_eq!(worker.acknowledge(&work[1..]).await, 1);
    assert_eq!(payloads(&worker.receive(10).await), ["m0"]);
    publish(&broker, 1).await;
    assert!(worker.receive_now(10).await.is_empty());
}
