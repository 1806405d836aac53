//! Several brokers on one database.

use std::{pin::pin, sync::Arc, time::Duration};

use tokio::task::JoinSet;
use trunkline::proto;

use crate::support::{TestBroker, until};

#[tokio::test]
async fn brokers_share_topics_consumers_and_leases() {
    let first = Arc::new(TestBroker::start().await);
    let second = Arc::new(first.start_another().await);
    for topic in ["orders", "bills"] {
        first.topic(topic).await;
        second.consumer(topic, "reader").await;
    }
    let mut orders = first.consume("orders", "reader").await;
    let mut bills = second.consume("bills", "reader").await;
    let mut publishers = JoinSet::new();
    for number in 0..4 {
        let broker = if number % 2 == 0 { first.clone() } else { second.clone() };
        publishers.spawn(async move {
            for _ in 0..50 {
                broker.publish("orders", ["order"]).await;
                broker.publish("bills", ["bill"]).await;
            }
        });
    }
    assert!(orders.payloads(200).await.iter().all(|payload| payload == "order"));
    assert!(bills.payloads(200).await.iter().all(|payload| payload == "bill"));
    while let Some(publisher) = publishers.join_next().await {
        publisher.unwrap();
    }
}

#[tokio::test]
async fn a_broker_that_loses_its_listening_session_polls_and_listens_again() {
    let first = TestBroker::start().await;
    let second = first.start_another().await;
    first.topic("orders").await;
    first.consumer("orders", "reader").await;
    let mut stream = second.consume("orders", "reader").await;
    stream.read_to_end().await;
    let sql = first.sql().await;
    let listening = "select count(*) from pg_stat_activity
        where datname = current_database() and application_name = 'trunkline listen'";
    first.end_sessions("trunkline listen").await;
    first.publish("orders", ["a"]).await;
    assert_eq!(stream.payloads(1).await, ["a"]);
    until("both brokers listen again", async || {
        sql.query_one(listening, &[]).await.unwrap().get::<_, i64>(0) == 2
    })
    .await;
    first.publish("orders", ["b"]).await;
    assert_eq!(stream.payloads(1).await, ["b"]);
}

#[tokio::test]
async fn a_false_notification_delays_no_message() {
    let first = TestBroker::start().await;
    let second = first.start_another().await;
    first.topic("orders").await;
    first.consumer("orders", "reader").await;
    let mut stream = second.consume("orders", "reader").await;
    stream.read_to_end().await;
    let sql = first.sql().await;
    let false_notification =
        "select pg_notify('trunkline', 'somebody h' || id || '=1000000') from trunkline.topic";
    sql.execute(false_notification, &[]).await.unwrap();
    for payload in ["a", "b"] {
        first.publish("orders", [payload]).await;
        assert_eq!(stream.payloads(1).await, [payload]);
    }
}

#[tokio::test]
async fn a_false_notification_of_a_deletion_ends_no_call() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    broker.consumer("orders", "reader").await;
    let sql = broker.sql().await;
    let mut consumers = broker.consumers();
    let request = proto::PullRequest {
        topic: "orders".to_owned(),
        consumer_id: "reader".to_owned(),
        max_messages: 1,
        wait: Some(Duration::from_secs(2).try_into().unwrap()),
    };
    let mut pulling = pin!(consumers.pull(request));
    let deleted = "select pg_notify('trunkline', 'somebody t' || id) from trunkline.topic";
    // Again and again while the pull waits, as nobody can see from when on it does.
    let pulled = loop {
        tokio::select! {
            pulled = &mut pulling => break pulled,
            sent = sql.execute(deleted, &[]) => drop(sent.unwrap()),
        }
    };
    assert!(pulled.unwrap().into_inner().messages.is_empty());
}
