//! Calls that manage topics, lists of everything, and every way to refuse them.

use std::collections::BTreeMap;

use tonic::Code;
use trunkline::proto;

use crate::support::{TestBroker, assert_field, assert_refused};

fn create(topic: &str) -> proto::CreateTopicRequest {
    proto::CreateTopicRequest { topic: topic.to_owned(), ..Default::default() }
}

fn labels(entries: impl IntoIterator<Item = (String, String)>) -> BTreeMap<String, String> {
    entries.into_iter().collect()
}

#[tokio::test]
async fn a_topic_can_be_created_described_updated_and_deleted() {
    let broker = TestBroker::start().await;
    let mut topics = broker.topics();
    let request = proto::CreateTopicRequest {
        topic: "orders".to_owned(),
        description: "what was ordered".to_owned(),
        labels: labels([("team".to_owned(), "sales".to_owned())]),
        ..Default::default()
    };
    let created = topics.create_topic(request).await.unwrap().into_inner().topic.unwrap();
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
        ..Default::default()
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
    // Nothing of the old topic survives.
    broker.topic("orders").await;
    assert_eq!(broker.publish("orders", ["first again"]).await, 0);
    assert_eq!(broker.stored().await, 1);
}

#[tokio::test]
async fn creating_a_topic_that_is_invalid_or_exists_is_refused() {
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
async fn no_page_of_a_list_exceeds_the_message_size_limit_of_clients() {
    let broker = TestBroker::start().await;
    // Topics of the largest size that is allowed.
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
async fn lists_are_paged_and_sorted_by_name() {
    let broker = TestBroker::start().await;
    // In byte order, whatever the database's collation.
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

    // A page token of another list is refused.
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
    let no_topic = proto::ListConsumersRequest { topic: "nope".to_owned(), ..first };
    let outcome = broker.consumers().list_consumers(no_topic).await;
    assert_refused(outcome, Code::NotFound, "TOPIC_NOT_FOUND");
    let no_topic = proto::ListProducersRequest { topic: "nope".to_owned(), ..Default::default() };
    let outcome = broker.producers().list_producers(no_topic).await;
    assert_refused(outcome, Code::NotFound, "TOPIC_NOT_FOUND");
    let negative = proto::ListProducersRequest {
        topic: "a".to_owned(),
        page_size: -1,
        page_token: String::new(),
    };
    assert_field(broker.producers().list_producers(negative).await, "page_size", None);
}
