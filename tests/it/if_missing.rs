//! Calls that create what is missing, and return what is there.

use std::time::Duration;

use futures::future::join_all;
use tonic::{Code, Status};
use trunkline::proto::{self, Operation, register_consumer_request::Start};

use crate::support::{
    TestBroker, assert_refused,
    secured::{As, SecuredBroker},
};

fn topic(name: &str) -> proto::CreateTopicRequest {
    proto::CreateTopicRequest { topic: name.to_owned(), if_missing: true, ..Default::default() }
}

fn producer(topic: &str, id: &str) -> proto::RegisterProducerRequest {
    let (topic, producer_id) = (topic.to_owned(), id.to_owned());
    proto::RegisterProducerRequest { topic, producer_id, if_missing: true, ..Default::default() }
}

fn consumer(topic: &str, id: &str, start: Option<Start>) -> proto::RegisterConsumerRequest {
    let (topic, consumer_id) = (topic.to_owned(), id.to_owned());
    proto::RegisterConsumerRequest { topic, consumer_id, start, if_missing: true }
}

async fn create(
    broker: &TestBroker,
    request: proto::CreateTopicRequest,
) -> Result<proto::CreateTopicResponse, Status> {
    Ok(broker.topics().create_topic(request).await?.into_inner())
}

#[tokio::test]
async fn a_topic_is_created_once_and_returned_afterwards() {
    let broker = TestBroker::start().await;
    let request = proto::CreateTopicRequest {
        description: "what was ordered".to_owned(),
        labels: [("team".to_owned(), "sales".to_owned())].into(),
        retention: Some(proto::Retention {
            // It is stored in whole milliseconds.
            max_age: Some(Duration::from_nanos(60_000_000_001).try_into().unwrap()),
            max_messages: 1_000,
            ..Default::default()
        }),
        ..topic("orders")
    };
    let created = create(&broker, request.clone()).await.unwrap();
    assert!(!created.existed);
    let found = create(&broker, request).await.unwrap();
    assert!(found.existed);
    assert_eq!(found.topic, created.topic);
    // What a request leaves empty may be anything.
    let found = create(&broker, topic("orders")).await.unwrap();
    assert!(found.existed);
    assert_eq!(found.topic, created.topic);
    // Without the flag, it is refused as ever.
    let request = proto::CreateTopicRequest { if_missing: false, ..topic("orders") };
    assert_refused(create(&broker, request).await, Code::AlreadyExists, "TOPIC_EXISTS");
}

#[tokio::test]
async fn a_topic_that_differs_is_refused_with_what_differs() {
    let broker = TestBroker::start().await;
    let existing = proto::CreateTopicRequest {
        description: "what was ordered".to_owned(),
        labels: [("team".to_owned(), "sales".to_owned())].into(),
        ..topic("orders")
    };
    create(&broker, existing.clone()).await.unwrap();
    let described =
        |text: &str| proto::CreateTopicRequest { description: text.to_owned(), ..existing.clone() };
    let labelled = |value: &str| proto::CreateTopicRequest {
        labels: [("team".to_owned(), value.to_owned())].into(),
        ..existing.clone()
    };
    let kept = |max_bytes| proto::CreateTopicRequest {
        retention: Some(proto::Retention { max_bytes, ..Default::default() }),
        ..described("else")
    };
    for (request, fields) in [
        (described("else"), "description"),
        (labelled("support"), "labels"),
        (kept(1_000), "description,retention"),
        // A retention without limits is one that is given.
        (kept(0), "description"),
    ] {
        let refused = create(&broker, request).await;
        let metadata = assert_refused(refused, Code::AlreadyExists, "TOPIC_DIFFERS");
        assert_eq!((metadata["topic"].as_str(), metadata["fields"].as_str()), ("orders", fields));
    }
    let unlimited = proto::Retention::default();
    let request = proto::CreateTopicRequest { retention: Some(unlimited), ..topic("orders") };
    assert!(create(&broker, request).await.unwrap().existed);
}

#[tokio::test]
async fn registrations_are_made_once_and_returned_afterwards() {
    let broker = TestBroker::start().await;
    let (mut producers, mut consumers) = (broker.producers(), broker.consumers());
    let refused = producers.register_producer(producer("orders", "till")).await;
    assert_refused(refused, Code::NotFound, "TOPIC_NOT_FOUND");
    let refused = consumers.register_consumer(consumer("orders", "kitchen", None)).await;
    assert_refused(refused, Code::NotFound, "TOPIC_NOT_FOUND");
    broker.topic("orders").await;

    let made = producers.register_producer(producer("orders", "till")).await.unwrap().into_inner();
    assert!(!made.existed);
    let found = producers.register_producer(producer("orders", "till")).await.unwrap().into_inner();
    assert!(found.existed);
    assert_eq!(found.producer, made.producer);
    // Fencing needs a new epoch, so it never returns what is there.
    let fence = proto::RegisterProducerRequest { fence: true, ..producer("orders", "till") };
    let fenced = producers.register_producer(fence).await.unwrap().into_inner();
    assert!(!fenced.existed);
    assert_eq!(fenced.producer.unwrap().epoch, made.producer.unwrap().epoch + 1);
    // An id that the broker generates is always new.
    let generated = producers.register_producer(producer("orders", "")).await.unwrap().into_inner();
    assert!(!generated.existed);

    broker.publish("orders", ["a", "b", "c"]).await;
    let at = |offset| Some(Start::Offset(offset));
    let made = consumers.register_consumer(consumer("orders", "kitchen", at(2))).await;
    let made = made.unwrap().into_inner();
    assert!(!made.existed);
    // The start counts for a new consumer only, even one that the log does not have.
    for start in [None, at(0), at(99)] {
        let found = consumers.register_consumer(consumer("orders", "kitchen", start)).await;
        let found = found.unwrap().into_inner();
        assert!(found.existed);
        assert_eq!(found.consumer.unwrap().position, 2);
    }
    let refused = consumers.register_consumer(consumer("orders", "other", at(99))).await;
    assert_refused(refused, Code::OutOfRange, "OFFSET_OUT_OF_RANGE");
}

/// Of many callers at once, one creates, and all get the same.
#[tokio::test]
async fn callers_at_once_create_one() {
    const CALLERS: usize = 24;
    let broker = TestBroker::start().await;
    let created = (0..CALLERS).map(|_| create(&broker, topic("orders")));
    let created: Vec<_> = join_all(created).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(created.iter().filter(|created| !created.existed).count(), 1);
    assert!(created.iter().all(|it| it.topic == created[0].topic));

    let registered = (0..CALLERS).map(|_| {
        let mut producers = broker.producers();
        async move { producers.register_producer(producer("orders", "till")).await }
    });
    let registered = join_all(registered).await.into_iter().map(|it| it.unwrap().into_inner());
    assert_eq!(registered.filter(|registered| !registered.existed).count(), 1);

    let registered = (0..CALLERS).map(|_| {
        let mut consumers = broker.consumers();
        async move { consumers.register_consumer(consumer("orders", "kitchen", None)).await }
    });
    let registered = join_all(registered).await.into_iter().map(|it| it.unwrap().into_inner());
    assert_eq!(registered.filter(|registered| !registered.existed).count(), 1);
}

#[tokio::test]
async fn whoever_may_use_a_topic_but_not_create_it_gets_it_if_it_exists() {
    let broker = SecuredBroker::start().await;
    let root = broker.root().await;
    let shop = broker.principal("shop", [(Operation::Publish, "orders")]).await;
    let ask = async |who: &As, name: &str| {
        let created = who.topics().create_topic(topic(name)).await;
        created.map(|created| created.into_inner().existed)
    };
    assert_refused(ask(&shop, "orders").await, Code::PermissionDenied, "NOT_GRANTED");
    root.create_topic("orders").await.unwrap();
    root.create_topic("hidden").await.unwrap();
    assert!(ask(&shop, "orders").await.unwrap());
    let request = proto::CreateTopicRequest { description: "else".to_owned(), ..topic("orders") };
    let refused = shop.topics().create_topic(request).await;
    assert_refused(refused, Code::AlreadyExists, "TOPIC_DIFFERS");
    // Nothing tells whether a topic exists that the caller must not know of.
    let hidden = ask(&shop, "hidden").await.unwrap_err();
    let missing = ask(&shop, "nowhere").await.unwrap_err();
    assert_eq!(hidden.message().replace("hidden", "nowhere"), missing.message());
    assert_refused::<bool>(Err(hidden), Code::PermissionDenied, "NOT_GRANTED");
    broker.stop().await;
}

/// An id belongs to whoever was first, also if another asks at the same time.
#[tokio::test]
async fn an_id_of_somebody_else_is_not_returned() {
    let broker = SecuredBroker::start().await;
    let root = broker.root().await;
    root.create_topic("orders").await.unwrap();
    let grants = [(Operation::Publish, "orders"), (Operation::Consume, "orders")];
    let (a, b) = (broker.principal("a", grants).await, broker.principal("b", grants).await);
    for round in 0..10 {
        let id = format!("till-{round}");
        let ask = |who: &As| {
            let (mut producers, request) = (who.producers(), producer("orders", &id));
            async move { producers.register_producer(request).await }
        };
        let asked = join_all([ask(&a), ask(&b), ask(&a), ask(&b)]).await;
        let mut owners = Vec::new();
        for (asked, name) in asked.into_iter().zip(["a", "b", "a", "b"]) {
            match asked {
                Ok(registered) => {
                    let registered = registered.into_inner().producer.unwrap();
                    assert_eq!(registered.owner, name);
                    owners.push(registered.owner);
                }
                Err(refused) => assert!(
                    matches!(refused.code(), Code::PermissionDenied | Code::AlreadyExists),
                    "{refused:?}"
                ),
            }
        }
        assert_eq!(owners.len(), 2, "{owners:?}");
        assert_eq!(owners[0], owners[1]);
    }
    let consumers = |who: &As| who.consumers();
    let made = consumers(&a).register_consumer(consumer("orders", "kitchen", None)).await.unwrap();
    assert!(!made.into_inner().existed);
    let refused = consumers(&b).register_consumer(consumer("orders", "kitchen", None)).await;
    assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied);
    broker.stop().await;
}

#[tokio::test]
async fn what_existed_is_not_recorded_in_the_audit() {
    let broker = SecuredBroker::start().await;
    let root = broker.root().await;
    for _ in 0..3 {
        root.topics().create_topic(topic("orders")).await.unwrap();
        root.producers().register_producer(producer("orders", "till")).await.unwrap();
        root.consumers().register_consumer(consumer("orders", "kitchen", None)).await.unwrap();
    }
    let request = proto::ListAuditRequest { topic: "orders".to_owned(), ..Default::default() };
    let page = root.access().list_audit(request).await.unwrap().into_inner();
    let mut acts: Vec<String> = page.records.into_iter().map(|record| record.act).collect();
    acts.sort();
    assert_eq!(acts, ["create_topic", "register_consumer", "register_producer"]);
    broker.stop().await;
}
