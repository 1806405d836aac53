//! `publish_later`: brokers move what was committed from the outbox into the log, once and in order.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use futures::future::join_all;
use tokio_postgres::Client;

use crate::{
    sql_publish::stored,
    support::{TestBroker, TestDatabase, connect, until},
};

pub async fn outbox_is_empty(sql: &Client) {
    until("the outbox is empty", async || {
        sql.query_one("select count(*) from trunkline.outbox", &[]).await.unwrap().get::<_, i64>(0)
            == 0
    })
    .await;
}

/// Creates topics.
pub async fn create(sql: &Client, topics: &[&str]) {
    for topic in topics {
        sql.execute("select trunkline.create_topic($1)", &[topic]).await.unwrap();
    }
}

/// Many clients publish in transactions of every kind: short, long, with savepoints, rolled back. Each
/// message says which transactions had ended before its own began, and the log must have those first.
#[tokio::test]
async fn what_is_committed_is_moved_once_and_transactions_that_follow_each_other_keep_their_order()
{
    const CLIENTS: i64 = 8;
    let database = Arc::new(TestDatabase::create().await);
    let brokers = [
        TestBroker::start_on(database.clone()).await,
        TestBroker::start_on(database.clone()).await,
    ];
    let sql = database.sql().await;
    create(&sql, &["one", "two"]).await;
    // Grows when a transaction has ended: a transaction that begins at a number follows all that ended
    // at a lower one.
    let clock = Arc::new(AtomicI64::new(0));
    let clients = (0..CLIENTS).map(|client| {
        let (database, clock) = (database.clone(), clock.clone());
        async move {
            let sql = database.sql().await;
            let mut random = fastrand::Rng::with_seed(client as u64);
            let mut committed: Vec<(String, i64, i64)> = Vec::new();
            for number in 0..60 {
                let began = clock.load(Ordering::SeqCst);
                let topic = if random.bool() { "one" } else { "two" };
                let publish = |what: &str| {
                    format!("select trunkline.publish_later('{topic}', '{client} {number} {what}')")
                };
                sql.batch_execute(&format!("begin; {}", publish("a"))).await.unwrap();
                if random.f32() < 0.3 {
                    let undone = publish("undone");
                    sql.batch_execute(&format!("savepoint s; {undone}; rollback to s"))
                        .await
                        .unwrap();
                }
                // Lets others begin and end meanwhile.
                for _ in 0..random.usize(0..12) {
                    sql.batch_execute("select 1").await.unwrap();
                }
                sql.batch_execute(&publish("b")).await.unwrap();
                if random.f32() < 0.2 {
                    sql.batch_execute("rollback").await.unwrap();
                    continue;
                }
                sql.batch_execute("commit").await.unwrap();
                let ended = clock.fetch_add(1, Ordering::SeqCst);
                committed.push((format!("{topic} {client} {number}"), began, ended));
            }
            committed
        }
    });
    let committed: Vec<(String, i64, i64)> =
        join_all(clients).await.into_iter().flatten().collect();
    outbox_is_empty(&sql).await;
    let mut seen = 0;
    for topic in ["one", "two"] {
        let log = stored(&sql, topic).await;
        let mut places: HashMap<String, Vec<usize>> = HashMap::new();
        for (place, text) in log.iter().enumerate() {
            let (transaction, what) = text.rsplit_once(' ').unwrap();
            assert_ne!(what, "undone");
            let places = places.entry(format!("{topic} {transaction}")).or_default();
            assert_eq!(what, if places.is_empty() { "a" } else { "b" }, "{text}");
            places.push(place);
        }
        let of_topic: Vec<_> =
            committed.iter().filter(|(name, ..)| name.starts_with(&format!("{topic} "))).collect();
        assert_eq!(places.len(), of_topic.len(), "what was rolled back is not in the log");
        for (name, ..) in &of_topic {
            assert_eq!(places[name.as_str()].len(), 2, "{name}");
        }
        for (later, began, _) in &of_topic {
            for (earlier, _, ended) in &of_topic {
                if ended < began {
                    assert!(
                        places[earlier][1] < places[later][0],
                        "{earlier} ended before {later} began"
                    );
                    seen += 1;
                }
            }
        }
    }
    assert!(seen > 1_000, "{seen} pairs followed each other");
    drop(brokers);
}

/// A transaction that waits for a row of another one follows it, although it has begun earlier.
#[tokio::test]
async fn transactions_that_conflict_before_they_publish_keep_their_order() {
    let broker = TestBroker::start().await;
    let sql = broker.sql().await;
    create(&sql, &["orders"]).await;
    sql.batch_execute(
        "create table stock (n integer); create table note (t text); insert into stock values (0)",
    )
    .await
    .unwrap();
    let (first, second) = (broker.sql().await, broker.sql().await);
    for round in 0..20 {
        // The second one has the lower number of a transaction.
        second.batch_execute("begin; insert into note values ('x')").await.unwrap();
        first.batch_execute("begin; update stock set n = n + 1").await.unwrap();
        let waits = second.batch_execute("update stock set n = n + 1");
        let publish = async {
            until("the second one waits", async || broker.waiting_for_locks().await > 0).await;
            let publish =
                format!("select trunkline.publish_later('orders', '{round} first'); commit");
            first.batch_execute(&publish).await.unwrap();
        };
        let (waited, ()) = tokio::join!(waits, publish);
        waited.unwrap();
        let publish = format!("select trunkline.publish_later('orders', '{round} second'); commit");
        second.batch_execute(&publish).await.unwrap();
    }
    outbox_is_empty(&sql).await;
    let expected = (0..20).flat_map(|round| [format!("{round} first"), format!("{round} second")]);
    assert_eq!(stored(&sql, "orders").await, expected.collect::<Vec<_>>());
}

/// More than one call moves, of transactions that were open when the pass before ended.
#[tokio::test]
async fn a_large_transaction_is_moved_in_parts_and_in_order() {
    let broker = TestBroker::start().await;
    let sql = broker.sql().await;
    create(&sql, &["orders", "other"]).await;
    let (large, other) = (broker.sql().await, broker.sql().await);
    large.batch_execute("begin").await.unwrap();
    for part in 0..5 {
        let publish = format!(
            "select trunkline.publish_later_many('orders',
                array(select ({part} * 5000 + n)::text from generate_series(0, 4999) n))"
        );
        large.batch_execute(&publish).await.unwrap();
        // Passes end while the large transaction is open.
        other.batch_execute("select trunkline.publish_later('other', 'x')").await.unwrap();
        let moved = part + 1;
        until("the other one is moved", async || stored(&sql, "other").await.len() == moved).await;
    }
    large.batch_execute("commit").await.unwrap();
    outbox_is_empty(&sql).await;
    let wrong = "select count(*) filter (where payload_text::bigint <> \"offset\"), count(*)
        from trunkline.message where topic = 'orders'";
    let row = sql.query_one(wrong, &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (0, 25_000));
}

#[tokio::test]
async fn large_messages_are_moved_in_batches_that_readers_can_hold() {
    let broker = TestBroker::start().await;
    let sql = broker.sql().await;
    create(&sql, &["orders"]).await;
    sql.batch_execute(
        "select trunkline.publish_later('orders', repeat(md5(n::text), 32000)) from generate_series(1, 24) n",
    )
    .await
    .unwrap();
    outbox_is_empty(&sql).await;
    let largest = "select max(bytes), sum(count)::bigint from trunkline.batch";
    let row = sql.query_one(largest, &[]).await.unwrap();
    assert!(row.get::<_, i32>(0) <= 6 * 1024 * 1024, "{}", row.get::<_, i32>(0));
    assert_eq!(row.get::<_, i64>(1), 24);
}

/// A producer is checked when a message is published, and what was accepted is not lost.
#[tokio::test]
async fn what_was_accepted_is_moved_although_its_producer_is_gone() {
    let broker = TestBroker::start().await;
    let sql = broker.sql().await;
    create(&sql, &["orders"]).await;
    sql.batch_execute("select trunkline.register_producer('orders', 'till')").await.unwrap();
    sql.batch_execute("begin").await.unwrap();
    for _ in 0..2 {
        let publish = "select trunkline.publish_later('orders', 'x', producer => 'till')";
        sql.batch_execute(publish).await.unwrap();
    }
    let request = trunkline::proto::UnregisterProducerRequest {
        topic: "orders".to_owned(),
        producer_id: "till".to_owned(),
    };
    broker.producers().unregister_producer(request).await.unwrap();
    sql.batch_execute("commit").await.unwrap();
    outbox_is_empty(&sql).await;
    assert_eq!(stored(&sql, "orders").await, ["x", "x"]);
    let by = "select distinct producer_id from trunkline.message";
    assert_eq!(sql.query_one(by, &[]).await.unwrap().get::<_, &str>(0), "till");
}

#[tokio::test]
async fn keys_headers_and_producers_survive_the_move() {
    let broker = TestBroker::start().await;
    let sql = broker.sql().await;
    create(&sql, &["orders"]).await;
    sql.batch_execute(
        r#"select trunkline.register_producer('orders', 'till');
           begin;
           select trunkline.publish_later('orders', 'a', 'k', '{"h": "v"}', 'till');
           select trunkline.publish_later('orders', 'b');
           select trunkline.publish_later_many('orders', array['c', 'd'], array[null, 'k'],
                                               array['{}', '{"x": "y"}']::jsonb[], 'till');
           select trunkline.publish_later('orders', '\x00'::bytea, '\x01'::bytea);
           select trunkline.publish_later('orders', '{"a": 1}'::jsonb);
           commit"#,
    )
    .await
    .unwrap();
    outbox_is_empty(&sql).await;
    let rows = "select payload_text, key_text, headers::text, producer_id from trunkline.read('orders') order by \"offset\"";
    let rows: Vec<String> = sql
        .query(rows, &[])
        .await
        .unwrap()
        .iter()
        .map(|row| {
            (0..4)
                .map(|column| row.get::<_, Option<&str>>(column).unwrap_or("-"))
                .collect::<Vec<_>>()
                .join("|")
        })
        .collect();
    assert_eq!(
        rows,
        [
            r#"a|k|{"h": "v"}|till"#,
            "b|-|-|sql.trunkline",
            "c|-|-|till",
            r#"d|k|{"x": "y"}|till"#,
            "-|\u{1}|-|sql.trunkline",
            r#"{"a": 1}|-|-|sql.trunkline"#
        ]
    );
    let last = "select last_offset from trunkline.producers order by producer";
    let last: Vec<i64> = sql.query(last, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    assert_eq!(last, [5, 3]);
}

/// As after a restore: the numbers of transactions are those of another server.
#[tokio::test]
async fn rows_of_another_cluster_are_moved_at_the_next_start() {
    let database = Arc::new(TestDatabase::create().await);
    let sql = database.sql().await;
    create(&sql, &["orders"]).await;
    sql.batch_execute(
        "select trunkline.publish_later('orders', n::text) from generate_series(0, 9) n;
         update trunkline.outbox set transaction = case
             when id % 3 = 0 then '3' when id % 3 = 1 then '99999999999'
             else pg_current_xact_id() end",
    )
    .await
    .unwrap();
    let broker = TestBroker::start_on(database.clone()).await;
    outbox_is_empty(&sql).await;
    let expected: Vec<String> = (0..10).map(|number| number.to_string()).collect();
    assert_eq!(stored(&sql, "orders").await, expected);
    broker.stop().await;
}

/// The lease of moving goes with the session that holds it.
#[tokio::test]
async fn another_broker_goes_on_when_one_loses_its_session() {
    let database = Arc::new(TestDatabase::create().await);
    let brokers = [
        TestBroker::start_on(database.clone()).await,
        TestBroker::start_on(database.clone()).await,
    ];
    let sql = database.sql().await;
    create(&sql, &["orders"]).await;
    let publisher = connect(&database.url).await;
    let publish = async {
        for number in 0..300 {
            let text = number.to_string();
            publisher
                .execute("select trunkline.publish_later('orders', $1::text)", &[&text])
                .await
                .unwrap();
        }
    };
    let disturb = async {
        for _ in 0..3 {
            until("both have their sessions", async || {
                let sessions = "select count(*) from pg_stat_activity
                    where datname = current_database() and application_name = 'trunkline lease'";
                sql.query_one(sessions, &[]).await.unwrap().get::<_, i64>(0) == 2
            })
            .await;
            brokers[0].end_sessions("trunkline lease").await;
            brokers[0].end_sessions("trunkline query").await;
        }
    };
    tokio::join!(publish, disturb);
    outbox_is_empty(&sql).await;
    let expected: Vec<String> = (0..300).map(|number| number.to_string()).collect();
    assert_eq!(stored(&sql, "orders").await, expected);
}

/// An operator removes messages that wait.
#[tokio::test]
async fn messages_that_are_deleted_from_the_outbox_leave_no_gap() {
    let broker = TestBroker::start().await;
    let sql = broker.sql().await;
    create(&sql, &["orders"]).await;
    sql.batch_execute("select trunkline.publish('orders', 'first')").await.unwrap();
    let (holder, operator) = (broker.sql().await, broker.sql().await);
    holder.batch_execute("begin").await.unwrap();
    for keyed in ["null", "'k'"] {
        let head = stored(&sql, "orders").await.len();
        holder
            .batch_execute("rollback; begin; select from trunkline.topic_head for update")
            .await
            .unwrap();
        sql.batch_execute(&format!(
            "select trunkline.publish_later('orders', n::text, {keyed}) from generate_series(1, 3) n"
        ))
        .await
        .unwrap();
        operator.batch_execute("delete from trunkline.outbox where payload = '2'").await.unwrap();
        holder.batch_execute("commit").await.unwrap();
        outbox_is_empty(&sql).await;
        assert_eq!(stored(&sql, "orders").await[head..], ["1", "3"]);
        let damaged = "select count(*) from trunkline.batch where count <> cardinality(payloads)
            or count <> (select sum(c) from unnest(producer_counts) c)";
        assert_eq!(sql.query_one(damaged, &[]).await.unwrap().get::<_, i64>(0), 0);
    }
}

/// It does not walk over rows that were moved before, and wait for a vacuum. What a restored dump notes
/// is of another server.
#[tokio::test]
async fn a_broker_that_takes_over_goes_on_from_the_last_pass_that_was_noted() {
    let database = Arc::new(TestDatabase::create().await);
    let sql = database.sql().await;
    create(&sql, &["orders"]).await;
    let broker = TestBroker::start_on(database.clone()).await;
    sql.batch_execute("select trunkline.publish_later('orders', 'a')").await.unwrap();
    let noted = "select count(*) from trunkline.outbox_pass where newest_id > 0";
    until("the pass is noted", async || {
        sql.query_one(noted, &[]).await.unwrap().get::<_, i64>(0) == 1
    })
    .await;
    broker.stop().await;
    // Only a pass over the whole outbox finds this row.
    sql.batch_execute(
        "insert into trunkline.outbox (transaction, id, topic_id, producer_id, register_for, payload, bytes)
         overriding system value
         select '3', 1, topic_id, 'old', '', 'old', 3 from trunkline.topic_head",
    )
    .await
    .unwrap();
    let broker = TestBroker::start_on(database.clone()).await;
    sql.batch_execute("select trunkline.publish_later('orders', 'b')").await.unwrap();
    until("the new one is moved", async || stored(&sql, "orders").await.len() > 1).await;
    assert_eq!(stored(&sql, "orders").await, ["a", "b"]);
    broker.stop().await;
    sql.batch_execute("update trunkline.outbox_pass set newest_id = newest_id").await.unwrap();
    let broker = TestBroker::start_on(database.clone()).await;
    outbox_is_empty(&sql).await;
    assert_eq!(stored(&sql, "orders").await, ["a", "b", "old"]);
    broker.stop().await;
}
