//! Producers and consumers belong to principals.

use tonic::Code;
use trunkline::proto::{self, Operation, assign_owner_request::Registration};

use crate::support::{
    TestBroker, assert_refused, info,
    secured::{As, SecuredBroker, end_of},
    shop::{Shop, appearance},
};

#[tokio::test]
async fn a_registration_belongs_to_the_principal_that_made_it() {
    let Shop { broker, root, shop, office } = Shop::open().await;
    let rival = broker
        .principal("rival", [(Operation::Publish, "orders"), (Operation::Consume, "orders")])
        .await;
    for fence in [false, true] {
        let refused = rival.register_producer("orders", "web", fence).await;
        let metadata = assert_refused(refused, Code::PermissionDenied, "NOT_OWNER");
        assert_eq!(metadata["producer_id"], "web");
    }
    let refused = rival.publish("orders", "web", "a").await;
    assert_refused(refused, Code::PermissionDenied, "NOT_OWNER");
    let refused = rival.try_consume("orders", "billing").await;
    let metadata = assert_refused(refused, Code::PermissionDenied, "NOT_OWNER");
    assert_eq!(metadata["consumer_id"], "billing");
    shop.publish("orders", "web", "a").await.unwrap();
    // The owner's own.
    let again = shop.register_producer("orders", "web", false).await;
    assert_refused(again, Code::AlreadyExists, "PRODUCER_EXISTS");
    let fenced = shop.register_producer("orders", "web", true).await.unwrap();
    assert_eq!((fenced.owner.as_str(), fenced.epoch), ("shop", 1));
    // The producers of roles of PostgreSQL, registered or not.
    let refused = rival.register_producer("orders", "sql.till", false).await;
    assert_refused(refused, Code::PermissionDenied, "NOT_OWNER");
    // What is not registered is refused as ever.
    let refused = rival.publish("orders", "nope", "a").await;
    assert_refused(refused, Code::PermissionDenied, "PRODUCER_NOT_REGISTERED");
    let mut refused = rival.try_consume("orders", "nope").await.unwrap();
    info(&end_of(&mut refused).await, Code::NotFound, "CONSUMER_NOT_FOUND");

    // An administrator of the topic gives it to somebody else.
    root.assign("orders", Registration::ProducerId("web".to_owned()), "rival").await.unwrap();
    let refused = shop.publish("orders", "web", "b").await;
    assert_refused(refused, Code::PermissionDenied, "NOT_OWNER");
    let epoch = proto::PublishRequest {
        topic: "orders".to_owned(),
        producer_id: "web".to_owned(),
        producer_epoch: 1,
        messages: vec![crate::support::message("b")],
        ..Default::default()
    };
    rival.producers().publish(epoch).await.unwrap();
    let refused = office.assign("orders", Registration::ProducerId("web".to_owned()), "x").await;
    assert_refused(refused, Code::PermissionDenied, "NOT_GRANTED");
    for (topic, id, reason) in
        [("orders", "nope", "PRODUCER_NOT_FOUND"), ("nope", "web", "TOPIC_NOT_FOUND")]
    {
        let refused = root.assign(topic, Registration::ProducerId(id.to_owned()), "x").await;
        assert_refused(refused, Code::NotFound, reason);
    }
}

#[tokio::test]
async fn a_registration_made_without_authentication_belongs_to_nobody() {
    let open = TestBroker::start().await;
    open.topic("orders").await;
    open.consumer("orders", "billing").await;
    let root = trunkline::server::bootstrap(&open.database.url).await.unwrap();
    let broker = SecuredBroker::start_on(open.database.clone(), root).await;
    let shop = broker.principal("shop", [(Operation::Publish, "*")]).await;
    let refused = shop.publish("orders", "producer", "a").await;
    let status = refused.unwrap_err();
    info(&status, Code::PermissionDenied, "NO_OWNER");
    assert!(status.message().contains("trunkline producer assign"), "{status:?}");
    let refused = shop.register_producer("orders", "producer", true).await;
    assert_refused(refused, Code::PermissionDenied, "NO_OWNER");
    let id = || Registration::ProducerId("producer".to_owned());
    broker.root().await.assign("orders", id(), "shop").await.unwrap();
    assert_eq!(shop.publish("orders", "producer", "a").await.unwrap(), 0);
    // A broker that does not authenticate lets everyone go on.
    assert_eq!(open.publish("orders", ["b"]).await, 1);
}

#[tokio::test]
async fn only_ones_own_producers_are_shown_to_those_who_only_publish() {
    let Shop { broker, root, shop, office } = Shop::open().await;
    let rival = broker.principal("rival", [(Operation::Publish, "orders")]).await;
    rival.register_producer("orders", "app", false).await.unwrap();
    let list = async |who: &As| {
        let request =
            proto::ListProducersRequest { topic: "orders".to_owned(), ..Default::default() };
        let producers = who.producers().list_producers(request).await.unwrap().into_inner();
        producers.producers.into_iter().map(|it| (it.producer_id, it.owner)).collect::<Vec<_>>()
    };
    let (app, web) = (("app".into(), "rival".into()), ("web".into(), "shop".into()));
    let all = [app, web];
    assert_eq!(list(&rival).await, all[..1]);
    assert_eq!(list(&shop).await, all[1..]);
    assert_eq!(list(&office).await, all);
    assert_eq!(list(&root).await, all);
    let get = |id: &str| proto::GetProducerRequest {
        topic: "orders".to_owned(),
        producer_id: id.to_owned(),
    };
    rival.producers().get_producer(get("app")).await.unwrap();
    let hidden = rival.producers().get_producer(get("web")).await.unwrap_err();
    let absent = rival.producers().get_producer(get("xxx")).await.unwrap_err();
    info(&hidden, Code::NotFound, "PRODUCER_NOT_FOUND");
    assert_eq!(appearance(&hidden, "web"), appearance(&absent, "xxx"));
    office.producers().get_producer(get("web")).await.unwrap();
}

#[tokio::test]
async fn an_id_that_is_registered_anew_belongs_to_its_new_owner() {
    let Shop { broker, shop, .. } = Shop::open().await;
    let rival = broker.principal("rival", [(Operation::Publish, "orders")]).await;
    shop.publish("orders", "web", "a").await.unwrap();
    let unregister = proto::UnregisterProducerRequest {
        topic: "orders".to_owned(),
        producer_id: "web".to_owned(),
    };
    let refused = rival.producers().unregister_producer(unregister.clone()).await;
    assert_refused(refused, Code::PermissionDenied, "NOT_OWNER");
    shop.producers().unregister_producer(unregister).await.unwrap();
    assert_eq!(rival.register_producer("orders", "web", false).await.unwrap().owner, "rival");
    let refused = shop.publish("orders", "web", "b").await;
    assert_refused(refused, Code::PermissionDenied, "NOT_OWNER");
    rival.publish("orders", "web", "b").await.unwrap();
}

/// What a broker remembers of owners may be older than what another one has changed.
#[tokio::test]
async fn an_owner_of_before_does_not_unregister_what_is_somebody_elses_now() {
    let Shop { broker, root, shop, .. } = Shop::open().await;
    let grants = [(Operation::Publish, "orders"), (Operation::Consume, "orders")];
    let rival = broker.principal("rival", grants).await;
    root.grant("shop", Operation::Consume, "orders").await;
    shop.register_consumer("orders", "stock").await.unwrap();
    // The broker remembers both owners.
    shop.publish("orders", "web", "a").await.unwrap();
    drop(shop.consume("orders", "stock").await);
    let sql = broker.sql().await;
    // As if the ids had been registered anew on another broker, a moment ago.
    sql.batch_execute(
        "begin; set local session_replication_role = replica;
         update trunkline.producer_topic set owner = 'rival' where producer_id = 'web';
         update trunkline.consumer_topic set owner = 'rival' where consumer_id = 'stock';
         commit",
    )
    .await
    .unwrap();
    let topic = "orders".to_owned();
    let web = proto::UnregisterProducerRequest { topic, producer_id: "web".to_owned() };
    let topic = "orders".to_owned();
    let stock = proto::UnregisterConsumerRequest { topic, consumer_id: "stock".to_owned() };
    let refused = shop.producers().unregister_producer(web.clone()).await;
    assert_refused(refused, Code::NotFound, "PRODUCER_NOT_FOUND");
    let refused = shop.consumers().unregister_consumer(stock.clone()).await;
    assert_refused(refused, Code::NotFound, "CONSUMER_NOT_FOUND");
    rival.producers().unregister_producer(web).await.unwrap();
    // An administrator of the topic unregisters everyone's.
    root.consumers().unregister_consumer(stock).await.unwrap();
}
