//! Calls that name a producer or consumer that is not registered: they do nothing, and authentication
//! changes nothing about their refusals.

use prost::Message as _;
use tonic::Code;
use trunkline::proto::{self, Operation, seek_request::Target};

use crate::support::{
    RawClient, TestBroker, assert_refused, message,
    secured::{SecuredBroker, id_of},
    shop::Shop,
    soon, until,
};

/// All calls that name a registration, about the id `nope`.
fn calls(topic: &str) -> Vec<(&'static str, Vec<u8>)> {
    let (topic, id) = (topic.to_owned(), "nope".to_owned());
    let producer = proto::GetProducerRequest { topic: topic.clone(), producer_id: id.clone() };
    let consumer = proto::GetConsumerRequest { topic: topic.clone(), consumer_id: id.clone() };
    let publish = proto::PublishRequest {
        topic: topic.clone(),
        producer_id: id.clone(),
        messages: vec![message("m")],
        expected_head: Some(99),
        ..Default::default()
    };
    let consume = proto::ConsumeRequest {
        topic: topic.clone(),
        consumer_id: id.clone(),
        ..Default::default()
    };
    let commit = proto::CommitRequest {
        topic: topic.clone(),
        consumer_id: id.clone(),
        epoch: 1,
        position: 99,
    };
    let seek = |target| proto::SeekRequest {
        topic: topic.clone(),
        consumer_id: id.clone(),
        target: Some(target),
    };
    vec![
        ("trunkline.v1.ProducerService/GetProducer", producer.encode_to_vec()),
        ("trunkline.v1.ProducerService/UnregisterProducer", producer.encode_to_vec()),
        ("trunkline.v1.ProducerService/Publish", publish.encode_to_vec()),
        ("trunkline.v1.ProducerService/PublishStream", publish.encode_to_vec()),
        ("trunkline.v1.ConsumerService/GetConsumer", consumer.encode_to_vec()),
        ("trunkline.v1.ConsumerService/UnregisterConsumer", consumer.encode_to_vec()),
        ("trunkline.v1.ConsumerService/Consume", consume.encode_to_vec()),
        ("trunkline.v1.ConsumerService/Pull", consumer.encode_to_vec()),
        ("trunkline.v1.ConsumerService/Commit", commit.encode_to_vec()),
        ("trunkline.v1.ConsumerService/Seek", seek(Target::Offset(0)).encode_to_vec()),
        ("trunkline.v1.ConsumerService/Seek", seek(Target::Offset(99)).encode_to_vec()),
    ]
}

/// An answer as far as a client can tell it from others. Maps have no order.
async fn appearance(
    client: &RawClient,
    headers: &[(&'static str, String)],
    (path, request): &(&'static str, Vec<u8>),
) -> (u16, Code, String, Vec<u8>, Vec<Vec<u8>>) {
    let answer = soon(path, client.call(path, headers, &[request])).await;
    let status = answer.status.unwrap();
    let sorted = |bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        bytes.sort_unstable();
        bytes
    };
    let messages = answer.messages.iter().map(|message| sorted(message)).collect();
    let (code, text) = (status.code(), status.message().to_owned());
    (answer.http_status, code, text, sorted(status.details()), messages)
}

#[tokio::test]
async fn what_is_not_registered_is_refused_with_the_same_bytes_with_and_without_authentication() {
    let open = TestBroker::start().await;
    open.topic("orders").await;
    let secured = SecuredBroker::start().await;
    let root = secured.root().await;
    root.create_topic("orders").await.unwrap();
    for operation in [Operation::Publish, Operation::Consume] {
        root.grant("shop", operation, "*").await;
    }
    let token = root.create_token("shop").await;
    assert_ne!(id_of(&token), id_of(&secured.root));
    let headers = [("authorization", format!("Bearer {token}"))];
    let (without, with) =
        (RawClient::connect(&open.endpoint).await, RawClient::connect(&secured.endpoint).await);
    for topic in ["orders", "absent"] {
        for call in calls(topic) {
            let expected = appearance(&without, &[], &call).await;
            assert_ne!((expected.1, expected.4.len()), (Code::Ok, 0), "{} is refused", call.0);
            assert_eq!(appearance(&with, &headers, &call).await, expected, "{} {topic}", call.0);
        }
    }
}

#[tokio::test]
async fn a_publish_as_nobody_is_not_stored_as_that_of_somebody_who_registers_meanwhile() {
    let Shop { broker, shop, .. } = Shop::open().await;
    let rival = broker.principal("rival", [(Operation::Publish, "orders")]).await;
    let (holder, watcher) = (broker.sql().await, broker.sql().await);
    // A publish that is permitted waits for the head's row.
    holder.batch_execute("begin; select from trunkline.topic_head for update").await.unwrap();
    let publish = tokio::spawn(async move { rival.publish("orders", "new", "forged").await });
    until("the publish waits or is refused", async || {
        let waiting = "select exists (select from pg_locks where not granted)";
        publish.is_finished() || watcher.query_one(waiting, &[]).await.unwrap().get(0)
    })
    .await;
    shop.register_producer("orders", "new", false).await.unwrap();
    holder.batch_execute("rollback").await.unwrap();
    let outcome = soon("the publish ends", publish).await.unwrap();
    assert_refused(outcome, Code::PermissionDenied, "PRODUCER_NOT_REGISTERED");
    shop.publish("orders", "new", "genuine").await.unwrap();
    let stored = "select count(*) from trunkline.message where topic = 'orders'";
    let stored: i64 = watcher.query_one(stored, &[]).await.unwrap().get(0);
    assert_eq!(stored, 1);
}
