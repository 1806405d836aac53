//! Draining: a broker answers what it accepted, ends what is open, and does not hang.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};
use trunkline::proto::{NewMessage, PublishStreamRequest, consume_response::Event};

use crate::support::{TestBroker, TestDatabase, info, retry_delay, soon, until};

#[tokio::test]
async fn a_stop_ends_streams_with_a_status_and_releases_their_leases() {
    let broker = TestBroker::start().await;
    let other = broker.start_another().await;
    broker.topic("orders").await;
    broker.consumer("orders", "billing").await;
    let mut stream = broker.consume("orders", "billing").await;
    stream.attached().await;
    let (requests, outgoing) = mpsc::channel(4);
    let answers = broker.producers().publish_stream(ReceiverStream::new(outgoing)).await;
    let mut answers = answers.unwrap().into_inner();
    let request = || PublishStreamRequest {
        topic: "orders".to_owned(),
        producer_id: "producer".to_owned(),
        messages: vec![NewMessage { payload: "a".into(), ..Default::default() }],
        ..Default::default()
    };
    requests.send(request()).await.unwrap();
    assert!(soon("an answer", answers.message()).await.unwrap().is_some());
    let mut watched = broker.health().watch(HealthCheckRequest::default()).await.unwrap();
    let watched = watched.get_mut();
    assert_eq!(watched.message().await.unwrap().unwrap().status(), ServingStatus::Serving);

    let started = Instant::now();
    let stopped = broker.shut_down();
    let health = soon("health reports it", watched.message()).await.unwrap().unwrap();
    assert_eq!(health.status(), ServingStatus::NotServing);
    let status = stream.ended().await;
    info(&status, Code::Unavailable, "DRAINING");
    assert!(retry_delay(&status).is_some());
    let status = soon("the publish stream ends", answers.message()).await.unwrap_err();
    info(&status, Code::Unavailable, "DRAINING");
    soon("the broker stops", stopped).await.unwrap().unwrap();
    // Well within the drain timeout of five seconds, although streams and a watch were open.
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());

    let mut next = other.consume("orders", "billing").await;
    next.attached().await;
}

/// The stored position will say that they were delivered, so they must be.
#[tokio::test]
async fn a_stop_delivers_messages_whose_position_is_being_stored() {
    let broker = TestBroker::start().await;
    let mut streams = Vec::new();
    for topic in ["orders", "idle"] {
        broker.topic(topic).await;
        broker.consumer(topic, "billing").await;
        let mut stream = broker.consume(topic, "billing").await;
        stream.attached().await;
        streams.push(stream);
    }
    let mut locking = broker.sql().await;
    let lock = locking.transaction().await.unwrap();
    lock.execute("select from trunkline.consumer_topic for update", &[]).await.unwrap();
    broker.publish("orders", ["a"]).await;
    until("the position is being stored", async || {
        broker.sessions_waiting_for_locks("trunkline position").await == 1
    })
    .await;
    let stopped = broker.shut_down();
    // Once the idle stream has ended, the other one has been told to end, too.
    info(&streams[1].ended().await, Code::Unavailable, "DRAINING");
    lock.rollback().await.unwrap();
    assert_eq!(streams[0].payloads(1).await, ["a"]);
    info(&streams[0].ended().await, Code::Unavailable, "DRAINING");
    soon("the broker stops", stopped).await.unwrap().unwrap();
}

/// A stream reads ahead while it stores a position, and what it delivers must not wait for that.
#[tokio::test]
async fn a_stop_delivers_what_the_stored_position_covers_although_the_next_read_hangs() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    broker.consumer("orders", "billing").await;
    for _ in 0..20 {
        broker.try_publish("orders", "producer", [vec![b'x'; 900_000]]).await.unwrap();
    }
    let mut stream = broker.consume("orders", "billing").await;
    assert_eq!(stream.payloads(1).await.len(), 1);
    let (mut locking, sql) = (broker.sql().await, broker.sql().await);
    let lock = locking.transaction().await.unwrap();
    lock.batch_execute("lock table trunkline.batch in access exclusive mode").await.unwrap();
    let reading = tokio::spawn(async move {
        let mut delivered = 1;
        loop {
            match stream.try_next().await {
                Ok(Event::Batch(batch)) => delivered += batch.messages.len() as i64,
                Ok(_) => {}
                Err(status) => return (delivered, status),
            }
        }
    });
    until("the next read hangs", async || {
        broker.sessions_waiting_for_locks("trunkline query").await > 0
    })
    .await;
    let stopped = broker.shut_down();
    let (delivered, status) = soon("the stream ends", reading).await.unwrap();
    info(&status, Code::Unavailable, "DRAINING");
    lock.rollback().await.unwrap();
    let position = "select position from trunkline.consumer_topic";
    let stored: i64 = sql.query_one(position, &[]).await.unwrap().get(0);
    assert_eq!(stored, delivered);
    assert!(delivered < 20, "no read hung");
    soon("the broker stops", stopped).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_client_that_does_not_read_cannot_delay_the_stop() {
    let database = std::sync::Arc::new(TestDatabase::create().await);
    let url = database.url.clone();
    let broker = TestBroker::start_with(database, &url, None, Duration::from_millis(500)).await;
    broker.topic("orders").await;
    broker.consumer("orders", "slow").await;
    for _ in 0..40 {
        broker.try_publish("orders", "producer", [vec![b'x'; 1_000_000]]).await.unwrap();
    }
    let _unread = broker.consume("orders", "slow").await;
    until("the stream is full", async || broker.position("orders", "slow").await >= 5).await;
    let started = Instant::now();
    soon("the broker stops", broker.shut_down()).await.unwrap().unwrap();
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[tokio::test]
async fn accepted_publishes_are_stored_before_a_broker_stops() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    let database = broker.database.clone();
    let mut publishing = tokio::task::JoinSet::new();
    for number in 0..200 {
        let mut producers = broker.producers();
        publishing.spawn(async move {
            let request = trunkline::proto::PublishRequest {
                topic: "orders".to_owned(),
                producer_id: "producer".to_owned(),
                messages: vec![NewMessage { payload: vec![number].into(), ..Default::default() }],
                ..Default::default()
            };
            producers.publish(request).await
        });
    }
    let first = publishing.join_next().await.unwrap().unwrap();
    let mut acknowledged = i64::from(first.is_ok());
    broker.stop().await;
    while let Some(outcome) = publishing.join_next().await {
        acknowledged += i64::from(outcome.unwrap().is_ok());
    }
    let stored = "select coalesce(sum(count), 0)::bigint from trunkline.batch";
    let stored: i64 = database.sql().await.query_one(stored, &[]).await.unwrap().get(0);
    assert!(stored >= acknowledged, "{acknowledged} acknowledged, {stored} stored");
    assert!(acknowledged > 0);
}
