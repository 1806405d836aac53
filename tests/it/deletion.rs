//! Deleting topics: what happens to their streams, publishes and names.

use std::sync::Arc;

use tokio::task::JoinSet;
use tonic::Code;
use trunkline::proto::{self, publish_stream_response::Result as Answer};

use crate::support::{
    PRODUCER, PublishStream, TestBroker, assert_refused, info, message, soon, until,
};

#[tokio::test]
async fn streams_standbys_and_pulls_of_a_deleted_topic_end_on_every_broker() {
    let broker = TestBroker::start().await;
    let other = broker.start_another().await;
    broker.topic("orders").await;
    for id in ["here", "there", "puller"] {
        broker.consumer("orders", id).await;
    }
    let mut here = broker.consume("orders", "here").await;
    let mut there = other.consume_manually("orders", "there").await;
    here.read_to_end().await;
    there.read_to_end().await;
    let mut standby_here = other.consume("orders", "here").await;
    standby_here.standby().await;
    let mut standby_there = other.consume("orders", "there").await;
    standby_there.standby().await;
    let (topic, consumer_id) = ("orders".to_owned(), "puller".to_owned());
    let wait = Some(prost_types::Duration { seconds: 60, nanos: 0 });
    let pull = proto::PullRequest { topic, consumer_id, max_messages: 1, wait };
    let mut consumers = other.consumers();
    let pulling = tokio::spawn(async move { consumers.pull(pull).await });

    broker.delete_topic("orders").await;
    for stream in [&mut here, &mut there, &mut standby_here, &mut standby_there] {
        let metadata = info(&stream.ended().await, Code::NotFound, "TOPIC_NOT_FOUND");
        assert_eq!(metadata["topic"], "orders");
    }
    let pulled = soon("the pull ends", pulling).await.unwrap();
    assert_refused(pulled, Code::NotFound, "TOPIC_NOT_FOUND");
    assert_refused(there.commit(0).await, Code::NotFound, "TOPIC_NOT_FOUND");
}

#[tokio::test]
async fn concurrent_publishes_are_stored_before_the_deletion_or_refused_after_it() {
    let broker = Arc::new(TestBroker::start().await);
    let other = Arc::new(broker.start_another().await);
    broker.topic("orders").await;
    broker.topic("bills").await;
    let mut publishers = JoinSet::new();
    for number in 0..16 {
        let broker = if number % 2 == 0 { broker.clone() } else { other.clone() };
        publishers.spawn(async move {
            loop {
                match broker.try_publish("orders", PRODUCER, ["x"]).await {
                    Ok(_) => {}
                    Err(status) => return status,
                }
            }
        });
    }
    let mut stream = PublishStream::open(&broker).await;
    let request = |topic: &str| proto::PublishStreamRequest {
        topic: topic.to_owned(),
        producer_id: PRODUCER.to_owned(),
        messages: vec![message("x")],
        ..Default::default()
    };
    until("publishes are in flight", async || broker.get_topic("orders").await.head > 100).await;
    broker.delete_topic("orders").await;
    while let Some(ended) = publishers.join_next().await {
        info(&ended.unwrap(), Code::NotFound, "TOPIC_NOT_FOUND");
    }
    // A publish stream goes on with other topics.
    stream.send(request("orders")).await;
    stream.send(request("bills")).await;
    let Answer::Refusal(refusal) = stream.answer().await else { panic!("a refusal expected") };
    assert_eq!((refusal.code, refusal.reason.as_str()), (5, "TOPIC_NOT_FOUND"));
    assert_eq!(stream.first_offset().await, 0);
}

#[tokio::test]
async fn a_recreated_topic_starts_at_offset_0_and_inherits_nothing() {
    let broker = TestBroker::start().await;
    let other = broker.start_another().await;
    broker.topic("orders").await;
    broker.consumer("orders", "billing").await;
    broker.publish("orders", ["old", "older"]).await;
    let sequenced = |sequence| proto::PublishRequest {
        topic: "orders".to_owned(),
        producer_id: PRODUCER.to_owned(),
        messages: vec![message("sequenced")],
        sequence: Some(sequence),
        ..Default::default()
    };
    broker.producers().publish(sequenced(0)).await.unwrap();
    let mut stream = other.consume("orders", "billing").await;
    stream.messages(3).await;

    broker.delete_topic("orders").await;
    let request = proto::CreateTopicRequest { topic: "orders".to_owned(), ..Default::default() };
    broker.topics().create_topic(request).await.unwrap();
    let unregistered = broker.try_publish("orders", PRODUCER, ["new"]).await;
    assert_refused(unregistered, Code::PermissionDenied, "PRODUCER_NOT_REGISTERED");
    // A late publish of the old registration is not taken for one of the new registration.
    let producer_epoch = broker.register_producer("orders", PRODUCER).await.epoch;
    let late = broker.producers().publish(sequenced(1)).await;
    assert_refused(late, Code::FailedPrecondition, "PRODUCER_FENCED");
    let new = |request| proto::PublishRequest { producer_epoch, ..request };
    let unsequenced =
        proto::PublishRequest { messages: vec![message("new")], sequence: None, ..sequenced(0) };
    for (request, offset) in [(unsequenced, 0), (sequenced(0), 1)] {
        let published = other.producers().publish(new(request)).await.unwrap().into_inner();
        assert_eq!((published.first_offset, published.duplicate), (offset, false));
    }

    // The old stream does not continue on the new topic.
    assert_eq!(stream.ended().await.code(), Code::NotFound);
    let gone = broker.pull("orders", "billing", 1).await;
    assert_refused(gone, Code::NotFound, "CONSUMER_NOT_FOUND");
    other.consumer("orders", "billing").await;
    let mut stream = other.consume("orders", "billing").await;
    let attached = stream.attached().await;
    assert_eq!((attached.position, attached.head), (0, 2));
    assert_eq!(stream.payloads(2).await, ["new", "sequenced"]);

    // The old messages are deleted bit by bit.
    let sql = broker.sql().await;
    until("the old messages are deleted", async || {
        let left = "select (select count(*) from trunkline.batch b
                            where not exists (select from trunkline.topic where id = topic_id))
                         + (select count(*) from trunkline.deleted_topic)";
        sql.query_one(left, &[]).await.unwrap().get::<_, i64>(0) == 0
    })
    .await;
    assert_eq!(broker.stored().await, 2);
}

#[tokio::test]
async fn creating_and_deleting_a_topic_repeatedly_leaves_no_stream_and_no_lock_behind() {
    let broker = TestBroker::start().await;
    let other = broker.start_another().await;
    for round in 0..10 {
        broker.topic("orders").await;
        broker.consumer("orders", "billing").await;
        let at = if round % 2 == 0 { &broker } else { &other };
        let mut stream = at.consume("orders", "billing").await;
        stream.attached().await;
        broker.publish("orders", ["x"]).await;
        broker.delete_topic("orders").await;
        info(&stream.ended().await, Code::NotFound, "TOPIC_NOT_FOUND");
    }
    broker.all_leases_are_free().await;
}

#[tokio::test]
async fn a_deletion_waits_for_a_concurrent_registration_and_deletes_it_too() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    let mut sql = broker.sql().await;
    let registering = sql.transaction().await.unwrap();
    registering
        .batch_execute(
            "insert into trunkline.producer_topic (topic_id, producer_id)
             select id, 'late' from trunkline.topic;
             insert into trunkline.consumer_topic (topic_id, consumer_id, position)
             select id, 'late', 0 from trunkline.topic",
        )
        .await
        .unwrap();
    let mut topics = broker.topics();
    let request = proto::DeleteTopicRequest { topic: "orders".to_owned() };
    let deleting = tokio::spawn(async move { topics.delete_topic(request).await });
    let watching = broker.sql().await;
    until("the deletion waits", async || broker.waiting_for_locks().await > 0).await;
    registering.commit().await.unwrap();
    soon("the topic is deleted", deleting).await.unwrap().unwrap();
    for table in ["topic", "topic_head", "producer_topic", "consumer_topic"] {
        let count = format!("select count(*) from trunkline.{table}");
        assert_eq!(watching.query_one(&count, &[]).await.unwrap().get::<_, i64>(0), 0, "{table}");
    }
}
