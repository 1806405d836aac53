//! Deadlines that callers set for streams, take-overs and pulls.

use std::time::{Duration, Instant};

use tonic::{Code, Request};
use trunkline::proto::{self, OnBusy};

use crate::support::{TestBroker, assert_refused, info, soon};

async fn with_consumer() -> TestBroker {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    broker.consumer("orders", "billing").await;
    broker
}

fn with_deadline<T>(deadline: Duration, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(deadline);
    request
}

#[tokio::test]
async fn a_stream_ends_at_its_deadline_and_frees_the_lease() {
    let broker = with_consumer().await;
    let deadline = Duration::from_millis(500);
    let started = Instant::now();
    let mut stream =
        broker.open(with_deadline(deadline, TestBroker::request("orders", "billing"))).await;
    stream.attached().await;
    broker.publish("orders", ["a"]).await;
    assert_eq!(stream.payloads(1).await, ["a"]);
    info(&stream.ended().await, Code::DeadlineExceeded, "DEADLINE_EXCEEDED");
    assert!(started.elapsed() >= deadline);
    // Releasing the lease may take a moment; a standby gets it then.
    let mut next = broker.consume("orders", "billing").await;
    broker.publish("orders", ["b"]).await;
    assert_eq!(next.payloads(1).await, ["b"]);
}

#[tokio::test]
async fn a_standby_and_a_take_over_end_at_their_deadlines() {
    let broker = with_consumer().await;
    let mut holder = broker.consume("orders", "billing").await;
    holder.attached().await;
    let deadline = Duration::from_millis(300);
    let mut standby =
        broker.open(with_deadline(deadline, TestBroker::request("orders", "billing"))).await;
    standby.standby().await;
    info(&standby.ended().await, Code::DeadlineExceeded, "DEADLINE_EXCEEDED");
    drop(holder);

    // A lock that no stream holds cannot be taken over.
    let sql = broker.sql().await;
    let lock = "select pg_advisory_lock(topic_id, id) from trunkline.consumer_topic";
    crate::support::until("the lock is free", async || {
        let free = "select bool_and(pg_try_advisory_lock(topic_id, id))
            from trunkline.consumer_topic";
        sql.query_one(free, &[]).await.unwrap().get(0)
    })
    .await;
    sql.batch_execute(lock).await.unwrap();
    let take_over = proto::ConsumeRequest {
        on_busy: OnBusy::TakeOver.into(),
        ..TestBroker::request("orders", "billing")
    };
    let mut taker = broker.open(with_deadline(deadline, take_over)).await;
    taker.standby().await;
    info(&taker.ended().await, Code::DeadlineExceeded, "DEADLINE_EXCEEDED");
}

#[tokio::test]
async fn a_client_that_does_not_read_loses_the_lease_at_its_deadline() {
    let broker = with_consumer().await;
    let payload = "x".repeat(512 * 1024);
    for _ in 0..4 {
        broker.publish("orders", [payload.as_str(); 16]).await;
    }
    let deadline = Duration::from_millis(500);
    let mut stopped =
        broker.open(with_deadline(deadline, TestBroker::request("orders", "billing"))).await;
    stopped.attached().await;
    let mut next = broker.consume("orders", "billing").await;
    soon("the standby attaches", next.attaches()).await;
}

#[tokio::test]
async fn a_pull_stops_waiting_at_its_deadline_and_takes_nothing() {
    let broker = with_consumer().await;
    let (topic, consumer_id) = ("orders".to_owned(), "billing".to_owned());
    let wait = Some(prost_types::Duration { seconds: 30, nanos: 0 });
    let pull = proto::PullRequest { topic, consumer_id, max_messages: 1, wait };
    let refused =
        soon("an answer", broker.consumers().pull(with_deadline(Duration::from_secs(1), pull)))
            .await;
    assert_refused(refused, Code::DeadlineExceeded, "DEADLINE_EXCEEDED");
    broker.publish("orders", ["a"]).await;
    assert_eq!(broker.pull("orders", "billing", 1).await.unwrap().messages.len(), 1);
}

#[tokio::test]
async fn a_pull_that_waits_for_the_lease_ends_at_its_deadline() {
    let broker = with_consumer().await;
    let sql = broker.sql().await;
    let lock = "select pg_advisory_lock(topic_id, id) from trunkline.consumer_topic";
    sql.batch_execute(lock).await.unwrap();
    let pull = || {
        let (topic, consumer_id) = ("orders".to_owned(), "billing".to_owned());
        proto::PullRequest { topic, consumer_id, ..Default::default() }
    };
    // First behind another session, then behind a standby of this broker.
    let deadline = Duration::from_millis(900);
    let refused = soon("an answer", broker.consumers().pull(with_deadline(deadline, pull()))).await;
    assert_refused(refused, Code::DeadlineExceeded, "DEADLINE_EXCEEDED");
    let mut standby = broker.consume("orders", "billing").await;
    standby.standby().await;
    let refused = soon("an answer", broker.consumers().pull(with_deadline(deadline, pull()))).await;
    assert_refused(refused, Code::DeadlineExceeded, "DEADLINE_EXCEEDED");
    // Without a deadline, a pull waits for one second, and the refusal names the holder.
    drop(standby);
    let refused = soon("an answer", broker.consumers().pull(pull())).await;
    assert_refused(refused, Code::FailedPrecondition, "LEASE_HELD");
}
