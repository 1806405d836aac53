//! The copies that brokers keep of tokens, grants and owners, when the database is not what it was.

use std::{sync::Arc, time::Duration};

use tonic::Code;
use trunkline::{
    access::{Access, Error, Patience, find_rule},
    broker::{Broker, Quotas},
    model::Allowance,
    storage::Storage,
};

use crate::support::{
    LIMITS, assert_refused, info,
    secured::{As, SecuredBroker},
    shop::Shop,
    soon, until,
};

const TAKE_AWAY: &str = "update trunkline.producer_topic set owner = 'rival'";

/// Waits until the broker knows that the producer `web` is not the shop's any more.
async fn is_taken_away(shop: &As) {
    until("the owner is known", async || shop.publish("orders", "web", "b").await.is_err()).await;
    let refused = shop.publish("orders", "web", "b").await;
    assert_refused(refused, Code::PermissionDenied, "NOT_OWNER");
}

/// As after a backup was restored into a server whose transactions have other numbers.
#[tokio::test]
async fn an_owner_that_changes_in_a_transaction_whose_number_was_anothers_is_noticed() {
    let Shop { broker, shop, .. } = Shop::open().await;
    shop.publish("orders", "web", "a").await.unwrap();
    let (one, other) = (broker.sql().await, broker.sql().await);
    for before in ["", "insert into trunkline.access_grant values ('x', 'read', 'x');"] {
        one.batch_execute("begin").await.unwrap();
        let number: i64 = one.query_one("select txid_current()", &[]).await.unwrap().get(0);
        let forge = "update trunkline.access_version set owners_changed_in = $1";
        other.execute(forge, &[&number]).await.unwrap();
        one.batch_execute(&format!("{before} {TAKE_AWAY}; commit")).await.unwrap();
        is_taken_away(&shop).await;
        let give_back = "update trunkline.producer_topic set owner = 'shop'";
        other.batch_execute(give_back).await.unwrap();
        until("it is given back", async || shop.publish("orders", "web", "a").await.is_ok()).await;
    }
}

#[tokio::test]
async fn the_owners_of_a_deleted_topic_change_the_version_once() {
    let Shop { broker, root, .. } = Shop::open().await;
    let sql = broker.sql().await;
    let version = async || -> i64 {
        sql.query_one("select version from trunkline.access_version", &[]).await.unwrap().get(0)
    };
    let before = version().await;
    let request = trunkline::proto::DeleteTopicRequest { topic: "orders".to_owned() };
    root.topics().delete_topic(request).await.unwrap();
    assert_eq!(version().await, before + 1);
}

/// As after a fail-over to a standby that lacked a change of an owner, and then made another one of
/// the same number, and more.
#[tokio::test]
async fn an_owner_that_changed_in_another_version_of_the_same_number_is_noticed() {
    let Shop { broker, shop, .. } = Shop::open().await;
    shop.publish("orders", "web", "a").await.unwrap();
    let sql = broker.sql().await;
    let other_history = format!(
        "begin;
         set local session_replication_role = replica;
         {TAKE_AWAY};
         update trunkline.access_version
         set version = version + 1, changed_at = clock_timestamp(),
             owners_changed_at = clock_timestamp();
         commit"
    );
    sql.batch_execute(&other_history).await.unwrap();
    is_taken_away(&shop).await;
}

/// As after a fail-over to a standby that lacked a registration, which somebody else made then: no
/// registration changes the version.
#[tokio::test]
async fn a_registration_that_a_fail_over_gave_to_somebody_else_is_noticed() {
    let Shop { broker, shop, .. } = Shop::open().await;
    let mut publishing = shop.publish_stream("orders", "web").await;
    let sql = broker.sql().await;
    let lost = format!("begin; set local session_replication_role = replica; {TAKE_AWAY}; commit");
    sql.batch_execute(&lost).await.unwrap();
    shop.publish("orders", "web", "by the copy").await.unwrap();
    sql.batch_execute(
        "select pg_terminate_backend(pid) from pg_stat_activity
         where datname = current_database() and pid <> pg_backend_pid()",
    )
    .await
    .unwrap();
    info(&publishing.end().await, Code::PermissionDenied, "NOT_OWNER");
    is_taken_away(&shop).await;
}

#[tokio::test]
async fn while_the_database_is_away_calls_are_refused_first_and_streams_end_later() {
    let usual = Patience::default();
    assert_eq!((usual.refuse_after.as_secs(), usual.end_after.as_secs()), (5, 60));
    let secured = SecuredBroker::start().await;
    let storage = Storage::open(&secured.database.url, None, LIMITS).await.unwrap();
    let broker = Broker::start(storage, LIMITS.writers, Quotas::default()).await.unwrap();
    let (refuse_after, end_after) = (Duration::from_secs(1), Duration::from_secs(5));
    let patience = Patience { refuse_after, end_after };
    let built_in = Allowance::default();
    let access = Access::required_with(broker.storage(), None, built_in, patience).await.unwrap();
    let access = Arc::new(access);
    let authenticate = async || {
        let header = format!("Bearer {}", secured.root);
        let headers = std::iter::once(header.as_bytes());
        access
            .authenticate(find_rule("/trunkline.v1.AccessService/WhoAmI").unwrap(), headers, None)
            .await
    };
    let caller = authenticate().await.unwrap().unwrap();
    let mut guard = access.guard(&caller);
    let sql = secured.sql().await;
    let lock = "begin; lock table trunkline.access_version in access exclusive mode";
    sql.batch_execute(lock).await.unwrap();
    let locked = tokio::time::Instant::now();
    let stream = tokio::spawn(async move { guard.ended().await });
    until("new calls are refused", async || authenticate().await.is_err()).await;
    assert!(matches!(authenticate().await.unwrap_err().error, Error::Unconfirmed));
    assert!(matches!(access.caller(Some(&caller)), Err(Error::Unconfirmed)));
    assert!(!stream.is_finished(), "streams go on for longer");
    let ended = soon("the stream ends", stream).await.unwrap();
    assert!(matches!(ended, Error::Unconfirmed), "{ended}");
    // The last answer may have been given just before the lock.
    assert!(locked.elapsed() > end_after - Duration::from_secs(2), "{:?}", locked.elapsed());
    sql.batch_execute("rollback").await.unwrap();
    until("calls are accepted again", async || authenticate().await.is_ok()).await;
    access.stop().await;
    broker.drain();
    broker.stop().await;
}
