//! Topics, producers and consumers: every call, and every way to refuse it.

use std::collections::BTreeMap;

use tonic::Code;
use trunkline::proto::{self, register_consumer_request::Start};

use crate::support::{TestBroker, assert_field, assert_refused};

fn create(topic: &str) -> proto::CreateTopicRequest {
    proto::CreateTopicRequest { topic: topic.to_owned(), ..Default::default() }
}

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
    proto::RegisterConsumerRequest { topic, consumer_id, start }
}

fn labels(entries: impl IntoIterator<Item = (String, String)>) -> BTreeMap<String, String> {
    entries.into_iter().collect()
}

#[tokio::test]
async fn a_topic_is_created_described_changed_and_deleted() {
    let broker = TestBroker::start().await;
    let mut topics = broker.topics();
    let asked = proto::CreateTopicRequest {
        topic: "orders".to_owned(),
        description: "what was ordered".to_owned(),
        labels: labels([("team".to_owned(), "sales".to_owned())]),
        retention: None,
    };
    let created = topics.create_topic(asked).await.unwrap().into_inner().topic.unwrap();
    assert_eq!(
        (created.name.as_str(), created.description.as_str()),
        ("orders", "what was ordered")
    );
    assert_eq!(created.labels["team"], "sales");
    assert_eq!((created.first_offset, created.head), (0, 0));
    assert!(created.create_time.is_some() && created.last_publish_time.is_none());

    broker.producer("orders", "producer").await;
    broker.publish("orders", ["a", "b"]).await;
    let get = proto::GetTopicRequest { topic: "orders".to_owned() };
    let found = topics.get_topic(get.clone()).await.unwrap().into_inner().topic.unwrap();
    assert_eq!(found.head, 2);
    assert!(found.last_publish_time.is_some());

    let update = |description: &str, paths: &[&str]| proto::UpdateTopicRequest {
        topic: "orders".to_owned(),
        description: description.to_owned(),
        labels: BTreeMap::new(),
        update_mask: Some(prost_types::FieldMask {
            paths: paths.iter().map(|&path| path.to_owned()).collect(),
        }),
        retention: None,
    };
    let updated = topics.update_topic(update("new", &["description"])).await.unwrap();
    let updated = updated.into_inner().topic.unwrap();
    assert_eq!((updated.description.as_str(), updated.labels.len()), ("new", 1));
    let updated =
        topics.update_topic(update("", &["*"])).await.unwrap().into_inner().topic.unwrap();
    assert_eq!((updated.description.as_str(), updated.labels.len()), ("", 0));
    let unmasked = proto::UpdateTopicRequest { update_mask: None, ..update("filled", &[]) };
    let updated = topics.update_topic(unmasked).await.unwrap().into_inner().topic.unwrap();
    assert_eq!(updated.description, "filled");

    let delete = proto::DeleteTopicRequest { topic: "orders".to_owned() };
    topics.delete_topic(delete.clone()).await.unwrap();
    for outcome in [
        topics.get_topic(get).await.map(|_| ()),
        topics.delete_topic(delete).await.map(|_| ()),
        topics.update_topic(update("x", &["*"])).await.map(|_| ()),
    ] {
        let metadata = assert_refused(outcome, Code::NotFound, "TOPIC_NOT_FOUND");
        assert_eq!(metadata["topic"], "orders");
    }
    // Nothing of the old one survives.
    broker.topic("orders").await;
    assert_eq!(broker.publish("orders", ["first again"]).await, 0);
    assert_eq!(broker.stored().await, 1);
}

#[tokio::test]
async fn a_topic_that_is_ill_formed_or_exists_is_not_created() {
    let broker = TestBroker::start().await;
    let mut topics = broker.topics();
    topics.create_topic(create("orders")).await.unwrap();
    let metadata = assert_refused(
        topics.create_topic(create("orders")).await,
        Code::AlreadyExists,
        "TOPIC_EXISTS",
    );
    assert_eq!(metadata["topic"], "orders");

    for bad in ["", ".", "..", "a b", "a/b", "ä"] {
        assert_field(topics.create_topic(create(bad)).await, "topic", None);
        let get = proto::GetTopicRequest { topic: bad.to_owned() };
        assert_field(topics.get_topic(get).await, "topic", None);
        let delete = proto::DeleteTopicRequest { topic: bad.to_owned() };
        assert_field(topics.delete_topic(delete).await, "topic", None);
    }
    assert_field(topics.create_topic(create(&"x".repeat(256))).await, "topic", Some(255));
    topics.create_topic(create(&"x".repeat(255))).await.unwrap();

    let described =
        |description: String| proto::CreateTopicRequest { description, ..create("new") };
    let long = topics.create_topic(described("x".repeat(1_025))).await;
    assert_field(long, "description", Some(1_024));
    assert_field(topics.create_topic(described("\0".to_owned())).await, "description", None);
    let labelled = |entries| proto::CreateTopicRequest { labels: entries, ..create("new") };
    let many = labels((0..65).map(|n| (n.to_string(), String::new())));
    assert_field(topics.create_topic(labelled(many)).await, "labels", Some(64));
    let large = labels([("n".to_owned(), "v".repeat(16 * 1024))]);
    assert_field(topics.create_topic(labelled(large)).await, "labels", Some(16_384));
    let get = proto::GetTopicRequest { topic: "new".to_owned() };
    assert_refused(topics.get_topic(get).await, Code::NotFound, "TOPIC_NOT_FOUND");

    let update = |paths: &[&str]| proto::UpdateTopicRequest {
        topic: "orders".to_owned(),
        update_mask: Some(prost_types::FieldMask {
            paths: paths.iter().map(|&path| path.to_owned()).collect(),
        }),
        ..Default::default()
    };
    assert_field(topics.update_topic(update(&["name"])).await, "update_mask", None);
    assert_field(topics.update_topic(update(&[])).await, "update_mask", None);
}

#[tokio::test]
async fn no_page_of_a_list_is_more_than_a_client_takes() {
    let broker = TestBroker::start().await;
    // The largest topics that there may be.
    let sql = broker.sql().await;
    sql.batch_execute(
        "with made as (
            insert into trunkline.topic (name, description, labels)
            select 'large-' || lpad(n::text, 4, '0'), repeat('d', 1024),
                   (select jsonb_object_agg('l' || l, repeat('v', 250)) from generate_series(1, 64) l)
            from generate_series(1, 500) n returning id
        )
        insert into trunkline.topic_head (topic_id) select id from made",
    )
    .await
    .unwrap();
    let mut topics = broker.topics().max_decoding_message_size(4 * 1024 * 1024);
    let (mut names, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = proto::ListTopicsRequest { page_size: 1_000, page_token };
        let page = topics.list_topics(request).await.unwrap().into_inner();
        assert!(!page.topics.is_empty());
        names.extend(page.topics.into_iter().map(|topic| topic.name));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    let expected: Vec<String> = (1..=500).map(|number| format!("large-{number:04}")).collect();
    assert_eq!(names, expected);
}

#[tokio::test]
async fn lists_come_in_pages_by_name() {
    let broker = TestBroker::start().await;
    // Byte order, whatever the database's collation is.
    for topic in ["b", "B", "a", "c-1", "c.1"] {
        broker.topics().create_topic(create(topic)).await.unwrap();
    }
    let (mut names, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = proto::ListTopicsRequest { page_size: 2, page_token };
        let page = broker.topics().list_topics(request).await.unwrap().into_inner();
        assert!(page.topics.len() <= 2);
        names.extend(page.topics.into_iter().map(|topic| topic.name));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(names, ["B", "a", "b", "c-1", "c.1"]);

    let ask = |page_size, page_token: &str| proto::ListTopicsRequest {
        page_size,
        page_token: page_token.to_owned(),
    };
    assert_field(broker.topics().list_topics(ask(-1, "")).await, "page_size", None);
    assert_field(broker.topics().list_topics(ask(0, "nonsense")).await, "page_token", None);
    let all = broker.topics().list_topics(ask(1_000_000, "")).await.unwrap().into_inner();
    assert_eq!((all.topics.len(), all.next_page_token.as_str()), (5, ""));

    for id in ["p1", "p2", "p3"] {
        broker.producer("a", id).await;
        broker.consumer("a", id).await;
    }
    let first = proto::ListProducersRequest {
        topic: "a".to_owned(),
        page_size: 2,
        page_token: String::new(),
    };
    let producers = broker.producers().list_producers(first.clone()).await.unwrap().into_inner();
    assert_eq!(producers.producers.len(), 2);
    let second =
        proto::ListProducersRequest { page_token: producers.next_page_token.clone(), ..first };
    let last = broker.producers().list_producers(second).await.unwrap().into_inner();
    assert_eq!((last.producers[0].producer_id.as_str(), last.next_page_token.as_str()), ("p3", ""));

    // A token of another list is refused.
    let crossed = proto::ListConsumersRequest {
        topic: "a".to_owned(),
        page_size: 2,
        page_token: producers.next_page_token,
    };
    assert_field(broker.consumers().list_consumers(crossed.clone()).await, "page_token", None);
    let first = proto::ListConsumersRequest { page_token: String::new(), ..crossed };
    let consumers = broker.consumers().list_consumers(first.clone()).await.unwrap().into_inner();
    let ids: Vec<&str> = consumers.consumers.iter().map(|c| c.consumer_id.as_str()).collect();
    assert_eq!(ids, ["p1", "p2"]);
    let negative = proto::ListConsumersRequest { page_size: -5, ..first.clone() };
    assert_field(broker.consumers().list_consumers(negative).await, "page_size", None);
    let nowhere = proto::ListConsumersRequest { topic: "nope".to_owned(), ..first };
    let outcome = broker.consumers().list_consumers(nowhere).await;
    assert_refused(outcome, Code::NotFound, "TOPIC_NOT_FOUND");
    let nowhere = proto::ListProducersRequest { topic: "nope".to_owned(), ..Default::default() };
    let outcome = broker.producers().list_producers(nowhere).await;
    assert_refused(outcome, Code::NotFound, "TOPIC_NOT_FOUND");
    let negative = proto::ListProducersRequest {
        topic: "a".to_owned(),
        page_size: -1,
        page_token: String::new(),
    };
    assert_field(broker.producers().list_producers(negative).await, "page_size", None);
}

#[tokio::test]
async fn a_producer_is_registered_listed_and_unregistered() {
    let broker = TestBroker::start().await;
    broker.topics().create_topic(create("orders")).await.unwrap();
    let mut producers = broker.producers();
    let registered = producers.register_producer(register_producer("orders", "web")).await.unwrap();
    let registered = registered.into_inner().producer.unwrap();
    assert_eq!((registered.topic.as_str(), registered.producer_id.as_str()), ("orders", "web"));
    assert!(registered.last_offset.is_none() && registered.last_publish_time.is_none());
    let given = producers.register_producer(register_producer("orders", "")).await.unwrap();
    let given = given.into_inner().producer.unwrap().producer_id;
    assert!(given.starts_with("producer-"));
    broker.try_publish("orders", &given, ["a", "b"]).await.unwrap();

    let list = proto::ListProducersRequest { topic: "orders".to_owned(), ..Default::default() };
    let listed = producers.list_producers(list).await.unwrap().into_inner().producers;
    assert_eq!(listed[0].producer_id, given);
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
    let nowhere = producers.get_producer(get("nope", "web")).await;
    assert_refused(nowhere, Code::NotFound, "TOPIC_NOT_FOUND");
    assert_field(producers.get_producer(get("a b", "web")).await, "topic", None);
    assert_field(producers.get_producer(get("orders", "")).await, "producer_id", None);

    let again = producers.register_producer(register_producer("orders", "web")).await;
    let metadata = assert_refused(again, Code::AlreadyExists, "PRODUCER_EXISTS");
    assert_eq!((metadata["topic"].as_str(), metadata["producer_id"].as_str()), ("orders", "web"));
    let nowhere = producers.register_producer(register_producer("nope", "web")).await;
    assert_refused(nowhere, Code::NotFound, "TOPIC_NOT_FOUND");
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
    let nowhere = producers.unregister_producer(unregister("nope", "web")).await;
    assert_refused(nowhere, Code::NotFound, "TOPIC_NOT_FOUND");
    assert_field(
        producers.unregister_producer(unregister("orders", "")).await,
        "producer_id",
        None,
    );
}

#[tokio::test]
async fn a_consumer_starts_where_it_was_told_to() {
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
    let given = broker.consumers().register_consumer(register_consumer("orders", "", None)).await;
    assert!(given.unwrap().into_inner().consumer.unwrap().consumer_id.starts_with("consumer-"));
}

#[tokio::test]
async fn a_consumer_that_is_ill_formed_or_exists_is_not_registered() {
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
    assert_eq!(listed.consumers.len(), 1, "nothing of what was refused is stored");
}

#[tokio::test]
async fn a_consumer_is_described_and_unregistered() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    broker.consumer("orders", "billing").await;
    broker.publish("orders", ["a", "b", "c"]).await;
    let mut stream = broker.consume_manually("orders", "billing").await;
    stream.messages(3).await;
    stream.commit(1).await.unwrap();
    let found = broker.get_consumer("orders", "billing").await;
    assert_eq!((found.position, found.head, found.lag, found.epoch), (1, 3, 2, stream.epoch));
    assert!(found.holder.starts_with("127.0.0.1:"), "{}", found.holder);
    assert!(found.create_time.is_some() && found.last_activity_time.is_some());

    let unregister = |topic: &str, id: &str| proto::UnregisterConsumerRequest {
        topic: topic.to_owned(),
        consumer_id: id.to_owned(),
    };
    let mut consumers = broker.consumers();
    consumers.unregister_consumer(unregister("orders", "billing")).await.unwrap();
    // An idle stream learns of it by itself.
    crate::support::info(&stream.ended().await, Code::NotFound, "CONSUMER_NOT_FOUND");

    let again = consumers.unregister_consumer(unregister("orders", "billing")).await;
    let metadata = assert_refused(again, Code::NotFound, "CONSUMER_NOT_FOUND");
    assert_eq!(
        (metadata["topic"].as_str(), metadata["consumer_id"].as_str()),
        ("orders", "billing")
    );
    let nowhere = consumers.unregister_consumer(unregister("nope", "billing")).await;
    assert_refused(nowhere, Code::NotFound, "TOPIC_NOT_FOUND");
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
    let nowhere = consumers.get_consumer(get("nope", "billing")).await;
    assert_refused(nowhere, Code::NotFound, "TOPIC_NOT_FOUND");
    assert_field(consumers.get_consumer(get("", "billing")).await, "topic", None);
    assert_field(consumers.get_consumer(get("orders", "?")).await, "consumer_id", None);
}
