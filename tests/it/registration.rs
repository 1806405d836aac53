//! Calls that manage producers and consumers, and every way to refuse them.

use tonic::Code;
use trunkline::proto::{self, register_consumer_request::Start};

use crate::support::{TestBroker, assert_field, assert_refused, info};

fn register_producer(topic: &str, id: &str) -> proto::RegisterProducerRequest {
    proto::RegisterProducerRequest {
        topic: topic.to_owned(),
        producer_id: id.to_owned(),
        ..Default::default()
    }
}

fn register_consumer(
    topic: &str,
    id: &str,
    start: Option<Start>,
) -> proto::RegisterConsumerRequest {
    let (topic, consumer_id) = (topic.to_owned(), id.to_owned());
    proto::RegisterConsumerRequest { topic, consumer_id, start, ..Default::default() }
}

#[tokio::test]
async fn a_producer_can_be_registered_listed_and_unregistered() {
    let broker = TestBroker::start().await;
    let create = proto::CreateTopicRequest { topic: "orders".to_owned(), ..Default::default() };
    broker.topics().create_topic(create).await.unwrap();
    let mut producers = broker.producers();
    let registered = producers.register_producer(register_producer("orders", "web")).await.unwrap();
    let registered = registered.into_inner().producer.unwrap();
    assert_eq!((registered.topic.as_str(), registered.producer_id.as_str()), ("orders", "web"));
    assert!(registered.last_offset.is_none() && registered.last_publish_time.is_none());
    let generated = producers.register_producer(register_producer("orders", "")).await.unwrap();
    let generated = generated.into_inner().producer.unwrap().producer_id;
    assert!(generated.starts_with("producer-"));
    broker.try_publish("orders", &generated, ["a", "b"]).await.unwrap();

    let list = proto::ListProducersRequest { topic: "orders".to_owned(), ..Default::default() };
    let listed = producers.list_producers(list).await.unwrap().into_inner().producers;
    assert_eq!(listed[0].producer_id, generated);
    assert_eq!(listed[0].last_offset, Some(1));
    assert!(listed[0].last_publish_time.is_some());
    assert_eq!((listed[1].producer_id.as_str(), listed[1].last_offset), ("web", None));

    let get = |topic: &str, id: &str| proto::GetProducerRequest {
        topic: topic.to_owned(),
        producer_id: id.to_owned(),
    };
    let found = producers.get_producer(get("orders", "web")).await.unwrap().into_inner().producer;
    assert_eq!(found.unwrap(), listed[1]);
    let nobody = producers.get_producer(get("orders", "nobody")).await;
    assert_refused(nobody, Code::NotFound, "PRODUCER_NOT_FOUND");
    let no_topic = producers.get_producer(get("nope", "web")).await;
    assert_refused(no_topic, Code::NotFound, "TOPIC_NOT_FOUND");
    assert_field(producers.get_producer(get("a b", "web")).await, "topic", None);
    assert_field(producers.get_producer(get("orders", "")).await, "producer_id", None);

    let again = producers.register_producer(register_producer("orders", "web")).await;
    let metadata = assert_refused(again, Code::AlreadyExists, "PRODUCER_EXISTS");
    assert_eq!((metadata["topic"].as_str(), metadata["producer_id"].as_str()), ("orders", "web"));
    let no_topic = producers.register_producer(register_producer("nope", "web")).await;
    assert_refused(no_topic, Code::NotFound, "TOPIC_NOT_FOUND");
    let bad = producers.register_producer(register_producer("orders", "a b")).await;
    assert_field(bad, "producer_id", None);
    let long = producers.register_producer(register_producer("orders", &"x".repeat(256))).await;
    assert_field(long, "producer_id", Some(255));

    let unregister = |topic: &str, id: &str| proto::UnregisterProducerRequest {
        topic: topic.to_owned(),
        producer_id: id.to_owned(),
    };
    producers.unregister_producer(unregister("orders", "web")).await.unwrap();
    let again = producers.unregister_producer(unregister("orders", "web")).await;
    assert_refused(again, Code::NotFound, "PRODUCER_NOT_FOUND");
    let no_topic = producers.unregister_producer(unregister("nope", "web")).await;
    assert_refused(no_topic, Code::NotFound, "TOPIC_NOT_FOUND");
    assert_field(
        producers.unregister_producer(unregister("orders", "")).await,
        "producer_id",
        None,
    );
}

#[tokio::test]
async fn a_consumer_starts_where_it_is_told_to() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    broker.publish("orders", ["a", "b"]).await;
    let later = broker.publish("orders", ["c", "d", "e"]).await;
    let sql = broker.sql().await;
    let when = "select published_at from trunkline.batch where base_offset = $1";
    let when: std::time::SystemTime = sql.query_one(when, &[&later]).await.unwrap().get(0);
    let tomorrow = when + std::time::Duration::from_secs(86_400);

    let earliest = Start::Edge(proto::LogEdge::Earliest.into());
    let latest = Start::Edge(proto::LogEdge::Latest.into());
    let epoch = prost_types::Timestamp::default();
    for (id, start, position) in [
        ("c0", None, 0),
        ("c1", Some(earliest), 0),
        ("c2", Some(latest), 5),
        ("c3", Some(Start::Offset(3)), 3),
        ("c4", Some(Start::Offset(5)), 5),
        ("c5", Some(Start::Time(when.into())), later),
        ("c6", Some(Start::Time(tomorrow.into())), 5),
        ("c7", Some(Start::Time(epoch)), 0),
    ] {
        let request = register_consumer("orders", id, start);
        let registered = broker.consumers().register_consumer(request).await.unwrap();
        let registered = registered.into_inner().consumer.unwrap();
        assert_eq!((registered.position, registered.head), (position, 5), "{id}");
        assert_eq!(registered.lag, 5 - position);
        assert_eq!((registered.epoch, registered.holder.as_str()), (0, ""));
    }
    let generated =
        broker.consumers().register_consumer(register_consumer("orders", "", None)).await;
    assert!(generated.unwrap().into_inner().consumer.unwrap().consumer_id.starts_with("consumer-"));
}

#[tokio::test]
async fn registering_a_consumer_that_is_invalid_or_exists_is_refused() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    broker.publish("orders", ["a", "b"]).await;
    broker.consumer("orders", "billing").await;
    let register = async |topic: &str, id: &str, start| {
        broker.consumers().register_consumer(register_consumer(topic, id, start)).await
    };
    let again = register("orders", "billing", None).await;
    let metadata = assert_refused(again, Code::AlreadyExists, "CONSUMER_EXISTS");
    assert_eq!(
        (metadata["topic"].as_str(), metadata["consumer_id"].as_str()),
        ("orders", "billing")
    );
    assert_refused(register("nope", "c", None).await, Code::NotFound, "TOPIC_NOT_FOUND");
    assert_field(register("orders", "a b", None).await, "consumer_id", None);
    let long = "x".repeat(256);
    assert_field(register("orders", &long, None).await, "consumer_id", Some(255));
    assert_field(register("orders", "c", Some(Start::Offset(-1))).await, "offset", None);
    assert_field(register("orders", "c", Some(Start::Edge(99))).await, "edge", None);
    for (seconds, nanos) in [(i64::MAX, 0), (i64::MIN, 0), (0, -1), (0, 1_000_000_000)] {
        let time = prost_types::Timestamp { seconds, nanos };
        assert_field(register("orders", "c", Some(Start::Time(time))).await, "time", None);
    }
    let beyond = register("orders", "c", Some(Start::Offset(3))).await;
    let metadata = assert_refused(beyond, Code::OutOfRange, "OFFSET_OUT_OF_RANGE");
    let of = |name: &str| metadata[name].as_str();
    assert_eq!((of("offset"), of("first_offset"), of("head")), ("3", "0", "2"));
    let list = proto::ListConsumersRequest { topic: "orders".to_owned(), ..Default::default() };
    let listed = broker.consumers().list_consumers(list).await.unwrap().into_inner();
    assert_eq!(listed.consumers.len(), 1, "refused registrations store nothing");
}

#[tokio::test]
async fn a_consumer_can_be_described_and_unregistered() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    broker.consumer("orders", "billing").await;
    broker.publish("orders", ["a", "b", "c"]).await;
    let mut stream = broker.consume_manually("orders", "billing").await;
    stream.messages(3).await;
    stream.commit(1).await.unwrap();
    let found = broker.get_consumer("orders", "billing").await;
    assert_eq!((found.position, found.head, found.lag, found.epoch), (1, 3, 2, stream.epoch));
    // Others learn neither the client's address nor the broker's host.
    assert!(found.holder.starts_with("connection "), "{}", found.holder);
    assert!(!found.holder.contains("127.0.0.1"), "{}", found.holder);
    assert!(found.create_time.is_some() && found.last_activity_time.is_some());

    let unregister = |topic: &str, id: &str| proto::UnregisterConsumerRequest {
        topic: topic.to_owned(),
        consumer_id: id.to_owned(),
    };
    let mut consumers = broker.consumers();
    consumers.unregister_consumer(unregister("orders", "billing")).await.unwrap();
    // Its idle stream ends.
    info(&stream.ended().await, Code::NotFound, "CONSUMER_NOT_FOUND");

    let again = consumers.unregister_consumer(unregister("orders", "billing")).await;
    let metadata = assert_refused(again, Code::NotFound, "CONSUMER_NOT_FOUND");
    assert_eq!(
        (metadata["topic"].as_str(), metadata["consumer_id"].as_str()),
        ("orders", "billing")
    );
    let no_topic = consumers.unregister_consumer(unregister("nope", "billing")).await;
    assert_refused(no_topic, Code::NotFound, "TOPIC_NOT_FOUND");
    assert_field(
        consumers.unregister_consumer(unregister("orders", "")).await,
        "consumer_id",
        None,
    );
    let get = |topic: &str, id: &str| proto::GetConsumerRequest {
        topic: topic.to_owned(),
        consumer_id: id.to_owned(),
    };
    let gone = consumers.get_consumer(get("orders", "billing")).await;
    assert_refused(gone, Code::NotFound, "CONSUMER_NOT_FOUND");
    let no_topic = consumers.get_consumer(get("nope", "billing")).await;
    assert_refused(no_topic, Code::NotFound, "TOPIC_NOT_FOUND");
    assert_field(consumers.get_consumer(get("", "billing")).await, "topic", None);
    assert_field(consumers.get_consumer(get("orders", "?")).await, "consumer_id", None);
}
