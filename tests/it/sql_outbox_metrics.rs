//! What metrics show of the outbox.

use std::sync::Arc;

use crate::{
    metrics::metrics_until,
    support::{
        TestDatabase,
        http::{HttpBroker, Metrics},
    },
};

const WAITING: &str = "trunkline_outbox_messages";
const OLDEST: &str = "trunkline_outbox_oldest_message_age_seconds";
const BLOCKED: &str = "trunkline_outbox_blocked_topics";
const MOVED: &str = "trunkline_outbox_moved_messages_total";

/// A session that is no broker's has the right to move them.
#[tokio::test]
async fn messages_that_nobody_moves_out_of_the_outbox_are_shown() {
    let database = Arc::new(TestDatabase::create().await);
    let (holder, sql) = (database.sql().await, database.sql().await);
    let lock = "select pg_advisory_lock(x'7472756e6b72656c'::bigint)";
    holder.batch_execute(lock).await.unwrap();
    let broker = HttpBroker::start_on(database, &[]).await;
    sql.batch_execute("select trunkline.create_topic('orders')").await.unwrap();
    let metrics = broker.metrics().await;
    assert_eq!((metrics.value(WAITING), metrics.value(OLDEST)), (0.0, 0.0));
    let publish = "select trunkline.publish_later('orders', n::text) from generate_series(1, 3) n";
    sql.batch_execute(publish).await.unwrap();
    let waits = |metrics: &Metrics| metrics.get(WAITING) == Some(3.0);
    let first = metrics_until("three messages wait", &broker, waits).await.value(OLDEST);
    assert!(first > 0.0, "{first}");
    let ages = |metrics: &Metrics| metrics.get(OLDEST) > Some(first);
    let metrics = metrics_until("they get older", &broker, ages).await;
    assert_eq!((metrics.value(WAITING), metrics.value(MOVED)), (3.0, 0.0));
    drop(holder);
    let moved =
        |metrics: &Metrics| metrics.get(WAITING) == Some(0.0) && metrics.get(MOVED) == Some(3.0);
    let metrics = metrics_until("they are moved", &broker, moved).await;
    assert_eq!((metrics.value(OLDEST), metrics.value(BLOCKED)), (0.0, 0.0));
}

/// Messages with greater ids were moved before the transaction was committed.
#[tokio::test]
async fn messages_of_a_blocked_topic_are_shown_also_of_a_transaction_that_was_open_for_long() {
    let broker = HttpBroker::start(&[]).await;
    let (sql, long) = (broker.calls.sql().await, broker.calls.sql().await);
    for topic in ["refused", "free"] {
        sql.execute("select trunkline.create_topic($1)", &[&topic]).await.unwrap();
    }
    sql.batch_execute(
        "create function refuse() returns trigger language plpgsql as
             $$ begin raise exception 'no'; end $$;
         create trigger refuse before insert on trunkline.batch for each row
         when (new.topic_id = 1) execute function refuse()",
    )
    .await
    .unwrap();
    let publish =
        "begin; select trunkline.publish_later('refused', 'x') from generate_series(1, 2)";
    long.batch_execute(publish).await.unwrap();
    sql.batch_execute("select trunkline.publish_later('free', 'x')").await.unwrap();
    let moved =
        |metrics: &Metrics| metrics.get(WAITING) == Some(0.0) && metrics.get(MOVED) == Some(1.0);
    metrics_until("the free topic has its message", &broker, moved).await;
    long.batch_execute("commit").await.unwrap();
    let blocked =
        |metrics: &Metrics| metrics.get(WAITING) == Some(2.0) && metrics.get(BLOCKED) == Some(1.0);
    let metrics = metrics_until("two messages are left", &broker, blocked).await;
    assert!(metrics.value(OLDEST) > 0.0);
    sql.batch_execute("drop trigger refuse on trunkline.batch").await.unwrap();
    let moved =
        |metrics: &Metrics| metrics.get(WAITING) == Some(0.0) && metrics.get(BLOCKED) == Some(0.0);
    let metrics = metrics_until("all are moved", &broker, moved).await;
    assert_eq!((metrics.value(OLDEST), metrics.value(MOVED)), (0.0, 3.0));
}
