//! Retention: what topics keep, and how limits are changed.

use prost_types::FieldMask;
use tonic::{Code, Status};
use trunkline::proto::{self, Retention, trim_topic_request::Before};

use crate::support::{TestBroker, assert_field, assert_refused, until};

#[tokio::test]
async fn a_topic_keeps_its_maximum_of_messages() {
    let broker = TestBroker::start().await;
    broker
        .topic_with_retention("orders", Retention { max_messages: 4, ..Default::default() })
        .await;
    broker.publish("orders", ["a", "b", "c"]).await;
    broker.publish("orders", ["d", "e", "f"]).await;
    broker.publish("orders", ["g"]).await;
    // Exact to the message, also within a batch.
    broker.log_starts_at("orders", 3).await;
    assert_eq!(broker.read_payloads("orders").await, ["d", "e", "f", "g"]);
    broker.publish("orders", ["h"]).await;
    broker.log_starts_at("orders", 4).await;
    assert_eq!(broker.read_payloads("orders").await, ["e", "f", "g", "h"]);
    let sql = broker.sql().await;
    let view = "select min(\"offset\"), count(*) from trunkline.message";
    let row = sql.query_one(view, &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (4, 4));
    until("the first batch is deleted", async || broker.batches().await == 3).await;
    let described = broker.get_topic("orders").await;
    assert_eq!((described.head, described.retention.unwrap().max_messages), (8, 4));
}

#[tokio::test]
async fn a_topic_keeps_its_maximum_of_bytes() {
    let broker = TestBroker::start().await;
    broker
        .topic_with_retention("orders", Retention { max_bytes: 2_500, ..Default::default() })
        .await;
    let kilobyte = "x".repeat(1_000);
    for _ in 0..6 {
        broker.publish("orders", [kilobyte.as_str()]).await;
    }
    broker.log_starts_at("orders", 3).await;
    // It keeps whole messages that together reach the limit.
    assert_eq!(broker.get_topic("orders").await.bytes, 3_000);
    until("the rows are deleted", async || broker.batches().await == 3).await;
}

#[tokio::test]
async fn a_topic_keeps_messages_up_to_their_maximum_age() {
    let broker = TestBroker::start().await;
    let max_age = Some(prost_types::Duration { seconds: 3_600, nanos: 0 });
    broker.topic_with_retention("orders", Retention { max_age, ..Default::default() }).await;
    broker.publish("orders", ["a", "b"]).await;
    broker.publish("orders", ["c"]).await;
    let sql = broker.sql().await;
    sql.batch_execute(
        "update trunkline.batch set published_at = now() - interval '61 minutes'
         where base_offset = 0",
    )
    .await
    .unwrap();
    broker.log_starts_at("orders", 2).await;
    assert_eq!(broker.read_payloads("orders").await, ["c"]);
    // The last message expires as well, and offsets continue.
    sql.batch_execute("update trunkline.batch set published_at = now() - interval '61 minutes'")
        .await
        .unwrap();
    broker.log_starts_at("orders", 3).await;
    assert_eq!(broker.get_topic("orders").await.bytes, 0);
    assert_eq!(broker.publish("orders", ["d"]).await, 3);
}

#[tokio::test]
async fn keep_unread_keeps_what_the_slowest_consumer_has_not_read() {
    let broker = TestBroker::start().await;
    let retention = Retention { max_messages: 2, keep_unread: true, ..Default::default() };
    broker.topic_with_retention("orders", retention).await;
    broker.consumer("orders", "slow").await;
    broker.consumer("orders", "fast").await;
    broker.publish("orders", ["a", "b", "c", "d", "e", "f"]).await;
    broker.pull("orders", "fast", 6).await.unwrap();
    broker.pull("orders", "slow", 3).await.unwrap();
    broker.log_starts_at("orders", 3).await;
    broker.pull("orders", "slow", 3).await.unwrap();
    broker.log_starts_at("orders", 4).await;
    // A consumer that is unregistered no longer keeps messages.
    broker.consumer("orders", "never").await;
    broker.publish("orders", ["g", "h"]).await;
    let (topic, consumer_id) = ("orders".to_owned(), "never".to_owned());
    let request = proto::UnregisterConsumerRequest { topic, consumer_id };
    broker.pull("orders", "fast", 2).await.unwrap();
    broker.pull("orders", "slow", 2).await.unwrap();
    assert_eq!(broker.get_topic("orders").await.first_offset, 4);
    broker.consumers().unregister_consumer(request).await.unwrap();
    broker.log_starts_at("orders", 6).await;
}

/// The oldest batch is needed to reach the limit, so it stays although all have read it.
#[tokio::test]
async fn messages_within_the_limits_are_kept_although_every_consumer_has_read_them() {
    let broker = TestBroker::start().await;
    let retention = Retention { max_bytes: 1_000, keep_unread: true, ..Default::default() };
    broker.topic_with_retention("orders", retention).await;
    broker.topic_with_retention("bills", Retention { max_messages: 1, ..Default::default() }).await;
    broker.consumer("orders", "reader").await;
    let payload = "x".repeat(400);
    for _ in 0..3 {
        broker.publish("orders", [payload.as_str()]).await;
    }
    assert_eq!(broker.pull("orders", "reader", 3).await.unwrap().position, 3);
    // Two rounds of another topic show that retention has checked this topic in between.
    for start in [1, 2] {
        broker.publish("bills", ["x"]).await;
        if start == 1 {
            broker.publish("bills", ["x"]).await;
        }
        broker.log_starts_at("bills", start).await;
    }
    assert_eq!(broker.get_topic("orders").await.first_offset, 0);
    broker.publish("orders", [payload.as_str()]).await;
    broker.log_starts_at("orders", 1).await;
}

#[tokio::test]
async fn a_locked_topic_does_not_keep_others_from_expiring() {
    let broker = TestBroker::start().await;
    for name in ["bills", "orders"] {
        broker
            .topic_with_retention(name, Retention { max_messages: 1, ..Default::default() })
            .await;
    }
    let mut sql = broker.sql().await;
    let locking = sql.transaction().await.unwrap();
    let lock = "select from trunkline.topic_head h join trunkline.topic t on t.id = topic_id
        where name = 'bills' for update of h";
    broker.publish("bills", ["a", "b"]).await;
    locking.query(lock, &[]).await.unwrap();
    broker.publish("orders", ["a", "b"]).await;
    broker.log_starts_at("orders", 1).await;
    let before = Some(Before::Offset(2));
    let trim = proto::TrimTopicRequest { topic: "bills".to_owned(), before };
    assert_refused(broker.topics().trim_topic(trim).await, Code::Unavailable, "TOPIC_BUSY");
    locking.rollback().await.unwrap();
    broker.log_starts_at("bills", 1).await;
}

#[tokio::test]
async fn limits_can_be_changed_one_by_one_and_lifted() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    broker.publish("orders", ["a", "b", "c"]).await;
    assert_eq!(broker.get_topic("orders").await.retention, None);
    let update = async |retention: Retention, paths: &[&str]| {
        let paths = paths.iter().map(|path| path.to_string()).collect();
        let request = proto::UpdateTopicRequest {
            topic: "orders".to_owned(),
            retention: Some(retention),
            update_mask: Some(FieldMask { paths }),
            ..Default::default()
        };
        let updated = broker.topics().update_topic(request).await?.into_inner();
        Ok::<_, Status>(updated.topic.unwrap().retention)
    };
    let bytes = Retention { max_bytes: 1 << 30, ..Default::default() };
    assert_eq!(update(bytes, &["retention"]).await.unwrap(), Some(bytes));
    let both =
        update(Retention { max_messages: 1, ..Default::default() }, &["retention.max_messages"]);
    assert_eq!(both.await.unwrap(), Some(Retention { max_messages: 1, ..bytes }));
    broker.log_starts_at("orders", 2).await;
    let lifted = update(Retention::default(), &["retention"]).await.unwrap();
    assert_eq!(lifted, None);

    let bad = update(Retention { max_bytes: -1, ..Default::default() }, &["retention"]).await;
    assert_field(bad, "retention.max_bytes", None);
    let bad = update(Retention { max_messages: -1, ..Default::default() }, &["retention"]).await;
    assert_field(bad, "retention.max_messages", None);
    let bad = update(Retention::default(), &["retention.colour"]).await;
    assert_field(bad, "update_mask", None);
    for seconds in [0, -1, i64::MAX] {
        let max_age = Some(prost_types::Duration { seconds, nanos: 0 });
        let bad = update(Retention { max_age, ..Default::default() }, &["retention"]).await;
        assert_field(bad, "retention.max_age", Some(100 * 365 * 24 * 3_600));
    }
    let bad = proto::CreateTopicRequest {
        topic: "bad".to_owned(),
        retention: Some(Retention { max_bytes: -1, ..Default::default() }),
        ..Default::default()
    };
    assert_field(broker.topics().create_topic(bad).await, "retention.max_bytes", None);
}

#[tokio::test]
async fn one_broker_at_a_time_runs_the_retention_and_another_replaces_it() {
    let first = TestBroker::start().await;
    let second = first.start_another().await;
    first.topic_with_retention("orders", Retention { max_messages: 1, ..Default::default() }).await;
    first.publish("orders", ["a", "b"]).await;
    second.log_starts_at("orders", 1).await;
    let sql = second.sql().await;
    // The lock of the relay has one key as well.
    let locks = "select count(*) from pg_locks
        where locktype = 'advisory' and objsubid = 1 and granted
          and (classid::bigint << 32) + objid::bigint = x'7472756e6b726574'::bigint
          and database = (select oid from pg_database where datname = current_database())";
    assert_eq!(sql.query_one(locks, &[]).await.unwrap().get::<_, i64>(0), 1);
    first.stop().await;
    second.publish("orders", ["c", "d"]).await;
    second.log_starts_at("orders", 3).await;
    // After its session was lost, it continues with a new one.
    second.end_sessions("trunkline lease").await;
    second.publish("orders", ["e"]).await;
    second.log_starts_at("orders", 4).await;
}
