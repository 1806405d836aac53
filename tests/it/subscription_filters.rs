//! Subscriptions that deliver some messages of their topic, by their headers.

use std::time::Duration;

use tonic::Code;
use trunkline::proto;

use crate::support::{
    PRODUCER, TestBroker, assert_field, info, until,
    worker::{TestWorker, at_once, payloads, publish, with_jobs},
};

fn filtered(filter: &str) -> proto::DeliveryPolicy {
    proto::DeliveryPolicy { filter: filter.to_owned(), ..at_once() }
}

/// Publishes messages with the header `kind`.
async fn publish_kinds(broker: &TestBroker, kinds: &[&str]) {
    let message = |kind: &&str| proto::NewMessage {
        payload: (*kind).to_owned().into(),
        headers: [("kind".to_owned(), (*kind).to_owned())].into(),
        ..Default::default()
    };
    let request = proto::PublishRequest {
        topic: "jobs".to_owned(),
        producer_id: PRODUCER.to_owned(),
        messages: kinds.iter().map(message).collect(),
        ..Default::default()
    };
    broker.producers().publish(request).await.unwrap();
}

#[tokio::test]
async fn only_messages_that_match_are_delivered_and_the_others_cost_nothing_later() {
    let (broker, mut worker) = with_jobs(0, filtered("headers.kind = \"order\"")).await;
    publish_kinds(&broker, &["offer", "order", "order", "offer", "offer", "order", "offer"]).await;
    let work = worker.receive_all(3).await;
    let offsets: Vec<i64> = work.iter().map(|work| work.offset).collect();
    assert_eq!(offsets, [1, 2, 5]);
    assert!(worker.receive_now(10).await.is_empty());
    assert_eq!(worker.acknowledge(&work).await, 3);
    assert_eq!(worker.describe().await.floor, 7);
    // They are left out without any that match, too.
    publish_kinds(&broker, &["offer"; 5]).await;
    assert!(worker.receive_now(10).await.is_empty());
    until("what is left out is stored", async || worker.describe().await.floor == 12).await;
}

#[tokio::test]
async fn what_is_left_out_stays_so_on_another_broker() {
    let (broker, mut worker) = with_jobs(0, filtered("NOT headers:kind")).await;
    publish_kinds(&broker, &["a"]).await;
    publish(&broker, 2).await;
    let work = worker.receive_all(2).await;
    assert_eq!(payloads(&work), ["m0", "m1"]);
    assert_eq!(worker.acknowledge(&work[1..]).await, 1);
    let database = broker.database.clone();
    broker.stop().await;
    let broker = TestBroker::start_on(database).await;
    let mut worker = TestWorker::at(&broker.client, "jobs", "pool");
    assert_eq!(payloads(&worker.receive(10).await), ["m0"]);
    let described = worker.describe().await;
    assert_eq!(described.policy.unwrap().filter, "NOT headers:kind");
}

#[tokio::test]
async fn a_filter_can_be_changed_for_what_was_not_delivered() {
    let (broker, mut worker) = with_jobs(0, filtered("headers.kind = \"a\"")).await;
    publish_kinds(&broker, &["a", "a", "b"]).await;
    let work = worker.receive(1).await;
    worker.update(filtered("headers.kind = \"b\""), &["filter"]).await.unwrap();
    let next = worker.receive(10).await;
    assert_eq!(payloads(&next), ["b"]);
    assert_eq!(worker.acknowledge(&work).await + worker.acknowledge(&next).await, 2);
    worker.update(filtered(""), &["filter"]).await.unwrap();
    publish_kinds(&broker, &["c"]).await;
    assert_eq!(payloads(&worker.receive(10).await), ["c"]);
}

#[tokio::test]
async fn a_filter_that_cannot_be_read_delivers_nothing_until_it_is_set_again() {
    let (broker, mut worker) = with_jobs(0, filtered("headers.kind = \"a\"")).await;
    publish_kinds(&broker, &["a", "b"]).await;
    let another_version = "update trunkline.subscription set filter = 'kind LIKE ''a%'''";
    broker.sql().await.execute(another_version, &[]).await.unwrap();
    let refusal = worker.try_receive(10, Duration::ZERO).await.unwrap_err();
    info(&refusal, Code::FailedPrecondition, "FILTER_UNREADABLE");
    let mut stream = worker.stream().await;
    info(&stream.ended().await, Code::FailedPrecondition, "FILTER_UNREADABLE");
    let described = worker.describe().await;
    assert_eq!((described.floor, described.policy.unwrap().filter.as_str()), (0, "kind LIKE 'a%'"));
    let listed = broker.run(&["subscription", "list", "jobs"]).await;
    assert_eq!(listed.code(), 0, "{listed:?}");
    // A change of something else would keep it.
    assert_field(worker.update(at_once(), &["max_deliveries"]).await, "policy.filter", None);
    worker.update(filtered("headers.kind = \"b\""), &["filter"]).await.unwrap();
    assert_eq!(payloads(&worker.receive(10).await), ["b"]);
}

#[tokio::test]
async fn a_filter_says_where_it_is_wrong() {
    let (_broker, mut worker) = with_jobs(0, at_once()).await;
    let long = format!("headers:{}", "x".repeat(1_017));
    for (filter, limit) in [("headers.kind == \"a\"", None), (long.as_str(), Some(1_024))] {
        let updated = worker.update(filtered(filter), &["filter"]).await;
        assert_field(updated, "policy.filter", limit);
    }
    let refusal = worker.update(filtered("headers.kind == \"a\""), &[]).await.unwrap_err();
    assert!(refusal.message().contains("at character 14"), "{refusal}");
}
