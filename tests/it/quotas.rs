//! What an operator limits: streams, topics, producers and consumers.

use std::{collections::HashMap, fmt::Debug};

use tonic::{Code, Status};
use trunkline::{broker::Quotas, proto};

use crate::support::{
    PRODUCER, TestBroker, TestDatabase, Trunkline, assert_refused, info, soon, until,
};

#[track_caller]
fn assert_exhausted<T: Debug>(
    outcome: Result<T, Status>,
    reason: &str,
    limit: usize,
) -> HashMap<String, String> {
    let metadata = assert_refused(outcome, Code::ResourceExhausted, reason);
    assert_eq!(metadata["limit"], limit.to_string());
    metadata
}

fn create(topic: &str) -> proto::CreateTopicRequest {
    proto::CreateTopicRequest { topic: topic.to_owned(), ..Default::default() }
}

fn register(id: &str, fence: bool) -> proto::RegisterProducerRequest {
    let (topic, producer_id) = ("orders".to_owned(), id.to_owned());
    proto::RegisterProducerRequest { topic, producer_id, fence, ..Default::default() }
}

fn register_consumer(id: &str) -> proto::RegisterConsumerRequest {
    let (topic, consumer_id) = ("orders".to_owned(), id.to_owned());
    proto::RegisterConsumerRequest { topic, consumer_id, ..Default::default() }
}

#[tokio::test]
async fn a_broker_serves_no_more_streams_than_its_limit() {
    let broker = TestBroker::start_limited(Quotas { streams: 2, ..Default::default() }).await;
    broker.topic("orders").await;
    broker.consumer("orders", "billing").await;
    let mut holder = broker.consume("orders", "billing").await;
    holder.attached().await;
    let mut standby = broker.consume("orders", "billing").await;
    standby.standby().await;
    let request = || TestBroker::request("orders", "billing");
    let refused = broker.consumers().consume(request()).await;
    assert_exhausted(refused.map(drop), "TOO_MANY_STREAMS", 2);
    // A pull is no stream.
    info(
        &broker.pull("orders", "billing", 1).await.unwrap_err(),
        Code::FailedPrecondition,
        "LEASE_HELD",
    );
    drop(holder);
    standby.attaches().await;
    until("there is room for a stream", async || {
        broker.consumers().consume(request()).await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn the_limit_of_streams_is_a_quarter_of_the_databases_locks() {
    let database = TestDatabase::create().await;
    let locks = "select current_setting('max_locks_per_transaction')::bigint
        * (current_setting('max_connections')::bigint
           + current_setting('max_prepared_transactions')::bigint)";
    let locks: i64 = database.sql().await.query_one(locks, &[]).await.unwrap().get(0);
    for (options, streams) in [(vec![], locks / 4), (vec!["--max-streams", "7"], 7)] {
        let start = ["--listen", "127.0.0.1:0", "--database-url", &database.url];
        let arguments: Vec<_> = ["serve"].into_iter().chain(start).chain(options).collect();
        let mut broker = Trunkline::spawn(&arguments);
        let line = soon("the log", broker.log_line("started")).await;
        assert!(line.contains(&format!("max_streams={streams} ")), "{line}");
        broker.kill().await;
    }
}

#[tokio::test]
async fn a_database_has_no_more_topics_than_the_limit() {
    let broker = TestBroker::start_limited(Quotas { topics: 2, ..Default::default() }).await;
    broker.topic("orders").await;
    broker.topic("bills").await;
    let mut topics = broker.topics();
    assert_exhausted(topics.create_topic(create("audit")).await, "TOO_MANY_TOPICS", 2);
    let taken = topics.create_topic(create("orders")).await;
    assert_refused(taken, Code::AlreadyExists, "TOPIC_EXISTS");
    broker.delete_topic("bills").await;
    topics.create_topic(create("audit")).await.unwrap();
}

#[tokio::test]
async fn a_topic_has_no_more_producers_than_the_limit() {
    let quotas = Quotas { producers_per_topic: 2, ..Default::default() };
    let broker = TestBroker::start_limited(quotas).await;
    broker.topic("orders").await;
    broker.topic("bills").await;
    broker.producer("orders", "second").await;
    let mut producers = broker.producers();
    for fence in [false, true] {
        let refused = producers.register_producer(register("third", fence)).await;
        let metadata = assert_exhausted(refused, "TOO_MANY_PRODUCERS", 2);
        assert_eq!(metadata["topic"], "orders");
    }
    let taken = producers.register_producer(register(PRODUCER, false)).await;
    assert_refused(taken, Code::AlreadyExists, "PRODUCER_EXISTS");
    producers.register_producer(register(PRODUCER, true)).await.unwrap();
    let gone = proto::RegisterProducerRequest { topic: "gone".to_owned(), ..Default::default() };
    let refused = producers.register_producer(gone).await;
    assert_refused(refused, Code::NotFound, "TOPIC_NOT_FOUND");

    let (topic, producer_id) = ("orders".to_owned(), "second".to_owned());
    let unregister = proto::UnregisterProducerRequest { topic, producer_id };
    producers.unregister_producer(unregister).await.unwrap();
    producers.register_producer(register("third", false)).await.unwrap();
}

#[tokio::test]
async fn a_topic_has_no_more_consumers_than_the_limit() {
    let quotas = Quotas { consumers_per_topic: 2, ..Default::default() };
    let broker = TestBroker::start_limited(quotas).await;
    broker.topic("orders").await;
    broker.consumer("orders", "billing").await;
    broker.consumer("orders", "audit").await;
    let mut consumers = broker.consumers();
    let refused = consumers.register_consumer(register_consumer("third")).await;
    let metadata = assert_exhausted(refused, "TOO_MANY_CONSUMERS", 2);
    assert_eq!(metadata["topic"], "orders");
    let taken = consumers.register_consumer(register_consumer("audit")).await;
    assert_refused(taken, Code::AlreadyExists, "CONSUMER_EXISTS");
    let (topic, consumer_id) = ("orders".to_owned(), "audit".to_owned());
    let unregister = proto::UnregisterConsumerRequest { topic, consumer_id };
    consumers.unregister_consumer(unregister).await.unwrap();
    consumers.register_consumer(register_consumer("third")).await.unwrap();
}
