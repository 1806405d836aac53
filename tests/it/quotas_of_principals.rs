//! How much each principal may do and have.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;
use tonic::{Code, Status};
use trunkline::proto::{
    self, Limit, Operation, assign_owner_request::Registration,
    publish_stream_response::Result as Answer,
};

use crate::support::{
    assert_field, assert_refused, info, message, retry_delay,
    secured::{As, SecuredPublishStream, id_of},
    shop::Shop,
    until,
};

async fn try_set(
    who: &As,
    principal: &str,
    limit: i32,
    value: i64,
) -> Result<proto::Quota, Status> {
    let request = proto::SetQuotaRequest { principal: principal.to_owned(), limit, value };
    Ok(who.access().set_quota(request).await?.into_inner().quota.unwrap())
}

async fn set(root: &As, principal: &str, limit: Limit, value: i64) -> proto::Quota {
    try_set(root, principal, limit.into(), value).await.unwrap()
}

async fn unset(who: &As, principal: &str, limit: Limit) -> Result<(), Status> {
    let (principal, limit) = (principal.to_owned(), limit.into());
    let request = proto::RemoveQuotaRequest { principal, limit };
    who.access().remove_quota(request).await.map(drop)
}

/// The quotas that a caller sees, page by page.
async fn list(who: &As, principal: &str) -> Vec<(String, Limit, i64)> {
    let (mut found, mut page_token) = (Vec::new(), String::new());
    loop {
        let request =
            proto::ListQuotasRequest { principal: principal.to_owned(), page_size: 2, page_token };
        let page = who.access().list_quotas(request).await.unwrap().into_inner();
        found.extend(
            page.quotas
                .into_iter()
                .map(|quota| (quota.principal.clone(), quota.limit(), quota.value)),
        );
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return found;
        }
    }
}

async fn publish(who: &As, id: &str, messages: &[&str]) -> Result<i64, Status> {
    let request = proto::PublishRequest {
        topic: "orders".to_owned(),
        producer_id: id.to_owned(),
        messages: messages.iter().map(|&payload| message(payload.to_owned())).collect(),
        ..Default::default()
    };
    Ok(who.producers().publish(request).await?.into_inner().first_offset)
}

#[track_caller]
fn assert_exhausted<T: std::fmt::Debug>(
    outcome: Result<T, Status>,
    reason: &str,
    limit_name: &str,
    limit: i64,
) -> (HashMap<String, String>, Option<Duration>) {
    let status = outcome.map(|_| ()).unwrap_err();
    let metadata = info(&status, Code::ResourceExhausted, reason);
    assert_eq!(
        (&metadata["limit"], metadata["limit_name"].as_str()),
        (&limit.to_string(), limit_name)
    );
    assert_eq!(metadata["principal"], "shop");
    (metadata, retry_delay(&status))
}

/// Another principal that may publish to `orders`, as the producer `till`.
async fn bank(shop: &Shop) -> As {
    let bank = shop.broker.principal("bank", [(Operation::Publish, "orders")]).await;
    bank.register_producer("orders", "till", false).await.unwrap();
    bank
}

async fn receipt(stream: &mut SecuredPublishStream) -> i64 {
    match stream.answer().await.unwrap().result.unwrap() {
        Answer::Receipt(receipt) => receipt.first_offset,
        refusal => panic!("{refusal:?}"),
    }
}

#[tokio::test]
async fn quotas_are_set_listed_and_removed_by_administrators() {
    let Shop { broker: _broker, root, shop, .. } = Shop::open().await;
    let first = set(&root, "shop", Limit::Streams, 5).await;
    assert_eq!((first.principal.as_str(), first.limit(), first.value), ("shop", Limit::Streams, 5));
    assert_eq!((first.changed_by.as_str(), first.change_time.is_some()), ("admin", true));
    set(&root, "shop", Limit::Streams, 6).await;
    set(&root, "shop", Limit::BytesPerSecond, 1_000_000_000_000).await;
    set(&root, "*", Limit::Streams, 7).await;
    set(&root, "office", Limit::Topics, 1).await;
    let quota = |principal: &str, limit, value| (principal.to_owned(), limit, value);
    let of_shop =
        [quota("shop", Limit::BytesPerSecond, 1_000_000_000_000), quota("shop", Limit::Streams, 6)];
    let others = [quota("*", Limit::Streams, 7), quota("office", Limit::Topics, 1)];
    assert_eq!(list(&root, "").await, [&others[..], &of_shop[..]].concat());
    assert_eq!(list(&root, "*").await, &others[..1]);
    assert_eq!(list(&shop, "").await, of_shop);
    assert_eq!(list(&shop, "shop").await, of_shop);
    for hidden in ["*", "office"] {
        assert_eq!(list(&shop, hidden).await, []);
    }
    let refused = try_set(&shop, "shop", Limit::Streams.into(), 9).await;
    assert_refused(refused, Code::PermissionDenied, "NOT_GRANTED");
    let refused = unset(&shop, "shop", Limit::Streams).await;
    assert_refused(refused, Code::PermissionDenied, "NOT_GRANTED");
    unset(&root, "shop", Limit::Streams).await.unwrap();
    let refused = unset(&root, "shop", Limit::Streams).await;
    let metadata = assert_refused(refused, Code::NotFound, "QUOTA_NOT_FOUND");
    assert_eq!(
        (metadata["principal"].as_str(), metadata["limit_name"].as_str()),
        ("shop", "streams")
    );
    assert_eq!(list(&root, "shop").await, &of_shop[..1]);
}

#[tokio::test]
async fn a_malformed_quota_is_refused_with_its_field() {
    let Shop { broker, root, .. } = Shop::open().await;
    let streams = Limit::Streams.into();
    for (principal, limit, value, field, bound) in [
        ("", streams, 1, "principal", None),
        ("a b", streams, 1, "principal", None),
        (&"x".repeat(129), streams, 1, "principal", Some(128)),
        ("shop*", streams, 1, "principal", None),
        ("shop", 0, 1, "limit", None),
        ("shop", 99, 1, "limit", None),
        ("shop", streams, 0, "value", None),
        ("shop", streams, -1, "value", None),
        ("shop", streams, 1_000_000_000_001, "value", Some(1_000_000_000_000)),
    ] {
        assert_field(try_set(&root, principal, limit, value).await, field, bound);
    }
    assert_field(unset(&root, "a b", Limit::Streams).await, "principal", None);
    let list = async |principal: &str, page_size, page_token: &str| {
        let (principal, page_token) = (principal.to_owned(), page_token.to_owned());
        let request = proto::ListQuotasRequest { principal, page_size, page_token };
        root.access().list_quotas(request).await
    };
    assert_field(list("a b", 0, "").await, "principal", None);
    assert_field(list("", -1, "").await, "page_size", None);
    assert_field(list("", 0, "nonsense").await, "page_token", None);

    let fill = "insert into trunkline.access_quota (principal, limit_name, value)
        select 'p' || n, 'topics', 1 from generate_series(1, 100000) n";
    let sql = broker.sql().await;
    // Without the triggers, which are not what is tested here.
    sql.batch_execute("set session_replication_role = replica").await.unwrap();
    sql.batch_execute(fill).await.unwrap();
    let refused = try_set(&root, "shop", streams, 1).await;
    let metadata = assert_refused(refused, Code::ResourceExhausted, "TOO_MANY_QUOTAS");
    assert_eq!(metadata["limit"], "100000");
    try_set(&root, "p1", Limit::Topics.into(), 2).await.unwrap();
}

#[tokio::test]
async fn a_rate_refuses_the_calls_of_its_principal_and_of_no_other() {
    let shop = Shop::open().await;
    let bank = bank(&shop).await;
    let Shop { broker: _broker, root, shop, .. } = shop;
    let many = ["m"; 100];
    let kilobytes = "x".repeat(100_000);
    for (limit, name, value, messages) in [
        (Limit::MessagesPerSecond, "messages-per-second", 1, &many[..]),
        (Limit::BytesPerSecond, "bytes-per-second", 1_000, &[kilobytes.as_str()][..]),
    ] {
        set(&root, "shop", limit, value).await;
        // More than a second permits passes once, and is made up for.
        publish(&shop, "web", messages).await.unwrap();
        let refused = publish(&shop, "web", &["one more"]).await;
        let (_, delay) = assert_exhausted(refused, "RATE_EXCEEDED", name, value);
        let delay = delay.unwrap();
        assert!((30..=100).contains(&delay.as_secs()), "{delay:?}");
        publish(&bank, "till", messages).await.unwrap();
        publish(&bank, "till", messages).await.unwrap();
        // A changed quota forgets what is owed.
        set(&root, "shop", limit, value + 1).await;
        publish(&shop, "web", messages).await.unwrap();
        publish(&shop, "web", &["one more"]).await.unwrap_err();
        unset(&root, "shop", limit).await.unwrap();
        for _ in 0..3 {
            publish(&shop, "web", messages).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_refused_call_passes_after_the_time_that_its_refusal_names() {
    let Shop { broker: _broker, root, shop, .. } = Shop::open().await;
    set(&root, "shop", Limit::MessagesPerSecond, 50).await;
    publish(&shop, "web", &["m"; 100]).await.unwrap();
    let status = publish(&shop, "web", &["m"]).await.unwrap_err();
    let delay = retry_delay(&status).unwrap();
    assert!(delay <= Duration::from_millis(1_020), "{delay:?}");
    until("the call passes", async || publish(&shop, "web", &["m"]).await.is_ok()).await;
}

#[tokio::test]
async fn a_default_holds_for_those_without_a_quota_of_their_own_on_every_broker() {
    let shop = Shop::open().await;
    let bank = bank(&shop).await;
    let Shop { broker, root, shop, .. } = shop;
    let other = broker.start_another().await;
    let there = other.with_token(&root.create_token("shop").await).await;
    until("the other broker knows the token", async || there.who_am_i().await.is_ok()).await;
    set(&root, "*", Limit::MessagesPerSecond, 1).await;
    set(&root, "bank", Limit::MessagesPerSecond, 1_000_000_000).await;
    publish(&shop, "web", &["m"; 100]).await.unwrap();
    let refused = publish(&shop, "web", &["m"]).await;
    assert_exhausted(refused, "RATE_EXCEEDED", "messages-per-second", 1);
    for _ in 0..3 {
        publish(&bank, "till", &["m"; 100]).await.unwrap();
    }
    // Each broker counts for itself.
    until("the other broker knows the quota", async || {
        publish(&there, "web", &["m"; 100]).await.is_err()
    })
    .await;
    unset(&root, "*", Limit::MessagesPerSecond).await.unwrap();
    publish(&shop, "web", &["m"]).await.unwrap();
    until("the other broker knows", async || publish(&there, "web", &["m"]).await.is_ok()).await;
    other.stop().await;
}

#[tokio::test]
async fn a_publish_stream_is_slowed_and_loses_nothing() {
    const MESSAGES: usize = 60;
    const PER_SECOND: usize = 20;
    let Shop { broker: _broker, root, shop, .. } = Shop::open().await;
    let mut stream = shop.publish_stream("orders", "web").await;
    set(&root, "shop", Limit::MessagesPerSecond, PER_SECOND as i64).await;
    let began = Instant::now();
    let mut offsets = Vec::new();
    for _ in 0..MESSAGES / 10 {
        for _ in 0..10 {
            stream.publish("orders", "web").await;
        }
        for _ in 0..10 {
            offsets.push(receipt(&mut stream).await);
        }
    }
    // The first second's are permitted at once.
    let least =
        Duration::from_millis(1_000 * (MESSAGES - PER_SECOND - 1) as u64 / PER_SECOND as u64);
    assert!(began.elapsed() >= least, "{:?}", began.elapsed());
    assert_eq!(offsets, (1..=MESSAGES as i64).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_slowed_stream_waits_for_its_rate_alone_and_for_a_changed_one() {
    let shop = Shop::open().await;
    let bank = bank(&shop).await;
    let Shop { broker, root, shop, .. } = shop;
    let mut slow = shop.publish_stream("orders", "web").await;
    let mut fast = bank.publish_stream("orders", "till").await;
    set(&root, "shop", Limit::MessagesPerSecond, 1).await;
    // Of the same principal, so that the stream owes it too.
    publish(&shop, "web", &["m"; 1_000]).await.unwrap();
    let before = stored(&broker.sql().await).await;
    slow.publish("orders", "web").await;
    for _ in 0..100 {
        fast.publish("orders", "till").await;
        receipt(&mut fast).await;
    }
    assert_eq!(stored(&broker.sql().await).await, before + 100, "the slow one waits");
    set(&root, "shop", Limit::MessagesPerSecond, 1_000).await;
    assert_eq!(receipt(&mut slow).await, before + 100);
}

#[tokio::test]
async fn a_slowed_stream_ends_when_its_token_is_revoked_and_stores_nothing() {
    let Shop { broker, root, .. } = Shop::open().await;
    let token = root.create_token("shop").await;
    let shop = broker.with_token(&token).await;
    let mut stream = shop.publish_stream("orders", "web").await;
    set(&root, "shop", Limit::MessagesPerSecond, 1).await;
    publish(&shop, "web", &["m"; 1_000]).await.unwrap();
    let before = stored(&broker.sql().await).await;
    stream.publish("orders", "web").await;
    root.revoke(id_of(&token)).await.unwrap();
    info(&stream.end().await, Code::Unauthenticated, "TOKEN_REVOKED");
    unset(&root, "shop", Limit::MessagesPerSecond).await.unwrap();
    assert_eq!(stored(&broker.sql().await).await, before);
}

async fn stored(sql: &tokio_postgres::Client) -> i64 {
    let heads = "select sum(next_offset)::bigint from trunkline.topic_head";
    sql.query_one(heads, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn a_principal_has_no_more_streams_than_its_limit() {
    let Shop { broker: _broker, root, shop, office } = Shop::open().await;
    root.grant("shop", Operation::Consume, "orders").await;
    shop.register_consumer("orders", "stock").await.unwrap();
    set(&root, "shop", Limit::Streams, 2).await;
    let consuming = shop.consume("orders", "stock").await;
    let waiting = shop.try_consume("orders", "stock").await.unwrap();
    let refused = shop.try_consume("orders", "stock").await;
    let (_, delay) = assert_exhausted(refused.map(drop), "TOO_MANY_STREAMS", "streams", 2);
    assert_eq!(delay, Some(Duration::from_secs(1)));
    let others = office.consume("orders", "billing").await;
    // Only streams that consume are counted.
    shop.publish_stream("orders", "web").await.publish("orders", "web").await;
    publish(&shop, "web", &["m"]).await.unwrap();
    drop(waiting);
    until("there is room for a stream", async || shop.try_consume("orders", "stock").await.is_ok())
        .await;
    drop((consuming, others));
}

#[tokio::test]
async fn a_principal_has_no_more_registrations_than_its_limit() {
    let Shop { broker: _broker, root, shop, .. } = Shop::open().await;
    root.create_topic("bills").await.unwrap();
    for operation in [Operation::Publish, Operation::Consume] {
        root.grant("shop", operation, "*").await;
    }
    set(&root, "shop", Limit::Producers, 2).await;
    set(&root, "shop", Limit::Consumers, 1).await;
    shop.register_producer("bills", "second", false).await.unwrap();
    for (topic, fence) in [("orders", false), ("bills", true)] {
        let refused = shop.register_producer(topic, "third", fence).await;
        let (metadata, delay) = assert_exhausted(refused, "TOO_MANY_PRODUCERS", "producers", 2);
        assert!(!metadata.contains_key("topic") && delay.is_none(), "{metadata:?}");
    }
    let taken = shop.register_producer("orders", "web", false).await;
    assert_refused(taken, Code::AlreadyExists, "PRODUCER_EXISTS");
    shop.register_producer("orders", "web", true).await.unwrap();
    let (topic, producer_id) = ("orders".to_owned(), "web".to_owned());
    let unregister = proto::UnregisterProducerRequest { topic, producer_id };
    shop.producers().unregister_producer(unregister).await.unwrap();
    shop.register_producer("orders", "third", false).await.unwrap();

    shop.register_consumer("orders", "stock").await.unwrap();
    let refused = shop.register_consumer("bills", "stock").await;
    assert_exhausted(refused, "TOO_MANY_CONSUMERS", "consumers", 1);
    let taken = shop.register_consumer("orders", "stock").await;
    assert_refused(taken, Code::AlreadyExists, "CONSUMER_EXISTS");
    set(&root, "shop", Limit::Consumers, 2).await;
    shop.register_consumer("bills", "stock").await.unwrap();
}

#[tokio::test]
async fn nobody_but_an_administrator_of_everything_assigns_more_than_the_receivers_limit() {
    let Shop { broker, root, shop, office } = Shop::open().await;
    let manager = broker.principal("manager", [(Operation::Admin, "orders")]).await;
    set(&root, "shop", Limit::Producers, 1).await;
    set(&root, "shop", Limit::Consumers, 1).await;
    let bank = broker.principal("bank", [(Operation::Publish, "orders")]).await;
    bank.register_producer("orders", "till", false).await.unwrap();
    office.register_consumer("orders", "stock").await.unwrap();
    let consumer = |id: &str| Registration::ConsumerId(id.to_owned());
    let producer = |id: &str| Registration::ProducerId(id.to_owned());
    manager.assign("orders", consumer("billing"), "shop").await.unwrap();
    let refused = manager.assign("orders", consumer("stock"), "shop").await;
    assert_exhausted(refused, "TOO_MANY_CONSUMERS", "consumers", 1);
    let refused = manager.assign("orders", producer("till"), "shop").await;
    assert_exhausted(refused, "TOO_MANY_PRODUCERS", "producers", 1);
    // It has this one already.
    manager.assign("orders", producer("web"), "shop").await.unwrap();
    let absent = manager.assign("orders", consumer("none"), "shop").await;
    assert_refused(absent, Code::NotFound, "CONSUMER_NOT_FOUND");
    root.assign("orders", consumer("stock"), "shop").await.unwrap();
    shop.publish("orders", "web", "a").await.unwrap();
}

#[tokio::test]
async fn a_principal_creates_no_more_topics_than_its_limit() {
    let Shop { broker: _broker, root, shop, .. } = Shop::open().await;
    root.grant("shop", Operation::Admin, "shop.*").await;
    set(&root, "shop", Limit::Topics, 2).await;
    for topic in ["shop.a", "shop.b"] {
        shop.create_topic(topic).await.unwrap();
    }
    let refused = shop.create_topic("shop.c").await;
    let (_, delay) = assert_exhausted(refused, "TOO_MANY_TOPICS", "topics", 2);
    assert_eq!(delay, None);
    let taken = shop.create_topic("shop.a").await;
    assert_refused(taken, Code::AlreadyExists, "TOPIC_EXISTS");
    // Who created a topic counts, not who may administer it.
    root.create_topic("shop.d").await.unwrap();
    let request = proto::DeleteTopicRequest { topic: "shop.b".to_owned() };
    shop.topics().delete_topic(request).await.unwrap();
    shop.create_topic("shop.c").await.unwrap();
}
