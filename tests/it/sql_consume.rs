//! Positions in a transaction of one's own: `commit_position`, `receive`, `seek`, and what tells about
//! consumers and topics.

use std::sync::Arc;

use tokio_postgres::Client;
use tonic::Code;
use trunkline::proto::seek_request::Target;

use crate::{
    sql_publish::{refusal, refused},
    support::{TestBroker, TestDatabase, connect, soon, until},
};

async fn received(sql: &Client, limit: i32) -> Vec<String> {
    let receive = "select payload_text from trunkline.receive('orders', 'billing', $1)";
    let rows = sql.query(receive, &[&limit]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn a_position_moves_with_the_transaction_that_commits_it() {
    let broker = TestBroker::with_five_messages().await;
    let sql = broker.sql().await;
    let mut stream = broker.consume_manually("orders", "billing").await;
    let epoch = stream.attaches().await.epoch;
    stream.payloads(5).await;
    let commit = format!("select trunkline.commit_position('orders', 'billing', 3, {epoch})");
    sql.batch_execute(&format!("begin; {commit}; rollback")).await.unwrap();
    assert_eq!(broker.position("orders", "billing").await, 0);
    sql.batch_execute(&format!("begin; {commit}; {commit}; commit")).await.unwrap();
    assert_eq!(broker.position("orders", "billing").await, 3);
    // The stream goes on, and its own commits follow those of SQL.
    assert_eq!(stream.commit(5).await.unwrap(), 5);
    let behind = refused(&sql, &commit).await;
    assert_eq!(behind, ("TL113".to_owned(), "COMMIT_BEHIND".to_owned()));
}

#[tokio::test]
async fn a_commit_of_an_earlier_epoch_is_refused_after_a_take_over_and_after_a_seek() {
    let broker = TestBroker::with_five_messages().await;
    let sql = broker.sql().await;
    let lost = ("TL112".to_owned(), "LEASE_LOST".to_owned());
    let mut first = broker.consume_manually("orders", "billing").await;
    let epoch = first.attaches().await.epoch;
    first.payloads(5).await;
    let mut second = broker.take_over("orders", "billing", "ann").await;
    let later = second.attaches().await.epoch;
    let commit =
        |epoch: i64| format!("select trunkline.commit_position('orders', 'billing', 2, {epoch})");
    assert_eq!(refused(&sql, &commit(epoch)).await, lost);
    sql.batch_execute(&commit(later)).await.unwrap();
    for seek in ["grpc", "sql"] {
        second.payloads(2).await;
        let epoch = second.epoch;
        match seek {
            "grpc" => drop(broker.seek("orders", "billing", Target::Offset(1)).await.unwrap()),
            _ => sql.batch_execute("select trunkline.seek('orders', 'billing', 1)").await.unwrap(),
        }
        assert_eq!(refused(&sql, &commit(epoch)).await, lost);
        assert_eq!(second.repositioned().await.position, 1, "the stream goes on from there");
    }
    sql.batch_execute(&commit(second.epoch)).await.unwrap();
    assert_eq!(broker.position("orders", "billing").await, 2);
}

/// A take-over that comes while a transaction has committed the position finds it.
#[tokio::test]
async fn a_take_over_waits_for_a_transaction_that_has_moved_the_position() {
    let broker = TestBroker::with_five_messages().await;
    let sql = broker.sql().await;
    let mut first = broker.consume_manually("orders", "billing").await;
    let epoch = first.attaches().await.epoch;
    first.payloads(5).await;
    let commit =
        format!("begin; select trunkline.commit_position('orders', 'billing', 4, {epoch})");
    sql.batch_execute(&commit).await.unwrap();
    let mut second = broker.take_over("orders", "billing", "ann").await;
    let end = async {
        until("the take-over waits", async || broker.waiting_for_locks().await > 0).await;
        sql.batch_execute("commit").await.unwrap();
    };
    let (attached, ()) = tokio::join!(second.attaches(), end);
    assert_eq!(attached.position, 4);
    assert_eq!(second.payloads(1).await, ["e"]);
}

/// The stream of a consumer with a limit in flight goes on after each commit from SQL, and not only
/// with the next poll of the leases: it would be at the deadline after 20 messages.
#[tokio::test]
async fn a_commit_frees_what_a_stream_may_have_in_flight() {
    let broker = TestBroker::with_five_messages().await;
    broker.publish("orders", ["more"; 200]).await;
    let sql = broker.sql().await;
    let mut stream = broker
        .open(trunkline::proto::ConsumeRequest {
            commit_mode: trunkline::proto::CommitMode::Manual.into(),
            max_in_flight: 1,
            ..TestBroker::request("orders", "billing")
        })
        .await;
    let epoch = stream.attaches().await.epoch;
    let mut position = 0;
    let commits = async {
        while position < 205 {
            position += stream.next_messages().await.len() as i64;
            let commit = format!(
                "select trunkline.commit_position('orders', 'billing', {position}, {epoch})"
            );
            sql.batch_execute(&commit).await.unwrap();
        }
    };
    soon("each commit lets the next message follow", commits).await;
    assert_eq!(broker.position("orders", "billing").await, 205);
}

#[tokio::test]
async fn receive_takes_messages_and_is_rolled_back_with_its_transaction() {
    let broker = TestBroker::with_five_messages().await;
    let sql = broker.sql().await;
    sql.batch_execute("begin").await.unwrap();
    assert_eq!(received(&sql, 2).await, ["a", "b"]);
    assert_eq!(received(&sql, 2).await, ["c", "d"]);
    sql.batch_execute("rollback").await.unwrap();
    assert_eq!(broker.position("orders", "billing").await, 0);
    sql.batch_execute("begin").await.unwrap();
    assert_eq!(received(&sql, 3).await, ["a", "b", "c"]);
    sql.batch_execute("commit").await.unwrap();
    assert_eq!(broker.position("orders", "billing").await, 3);
    assert_eq!(received(&sql, 100).await, ["d", "e"]);
    assert_eq!(received(&sql, 100).await, [""; 0]);
    // A stream that opens afterwards begins where it ended, in a later epoch.
    broker.publish("orders", ["f"]).await;
    let mut stream = broker.consume("orders", "billing").await;
    assert_eq!(stream.attaches().await.epoch, 3);
    assert_eq!(stream.payloads(1).await, ["f"]);
}

#[tokio::test]
async fn receive_skips_what_was_removed_and_takes_no_more_than_16_mib() {
    let broker = TestBroker::with_five_messages().await;
    let sql = broker.sql().await;
    broker.trim("orders", 3).await;
    assert_eq!(received(&sql, 1).await, ["d"]);
    sql.batch_execute(
        "select trunkline.publish('orders', repeat('x', 1000000)) from generate_series(1, 20)",
    )
    .await
    .unwrap();
    assert_eq!(received(&sql, 100).await.len(), 18);
    assert_eq!(received(&sql, 100).await.len(), 3);
}

#[tokio::test]
async fn those_who_receive_as_one_consumer_take_turns() {
    let database = Arc::new(TestDatabase::create().await);
    let broker = TestBroker::start_on(database.clone()).await;
    broker.topic("orders").await;
    broker.consumer("orders", "billing").await;
    let sql = broker.sql().await;
    sql.batch_execute(
        "create table result (n bigint);
         select trunkline.publish_many('orders', array(select n::text from generate_series(0, 199) n))",
    )
    .await
    .unwrap();
    let workers = (0..4).map(|worker| {
        let database = database.clone();
        async move {
            let sql = connect(&database.url).await;
            loop {
                sql.batch_execute("begin").await.unwrap();
                let batch = received(&sql, 7).await;
                for text in &batch {
                    let n: i64 = text.parse().unwrap();
                    sql.execute("insert into result values ($1)", &[&n]).await.unwrap();
                }
                // Every third transaction is rolled back, and what it took is taken again.
                match batch.first() {
                    None => return sql.batch_execute("commit").await.unwrap(),
                    Some(first)
                        if first.parse::<i64>().unwrap() % 3 == worker % 3 && worker > 0 =>
                    {
                        sql.batch_execute("rollback").await.unwrap();
                        sql.batch_execute("select 1").await.unwrap();
                    }
                    Some(_) => sql.batch_execute("commit").await.unwrap(),
                }
            }
        }
    });
    soon("all are received", futures::future::join_all(workers)).await;
    let result = "select count(*), count(distinct n), min(n), max(n) from result";
    let row = sql.query_one(result, &[]).await.unwrap();
    assert_eq!((row.get(0), row.get(1), row.get(2), row.get(3)), (200i64, 200i64, 0i64, 199i64));
}

#[tokio::test]
async fn receive_does_not_take_the_messages_of_an_open_stream() {
    let broker = TestBroker::with_five_messages().await;
    let sql = broker.sql().await;
    let mut stream = broker.consume_manually("orders", "billing").await;
    stream.attaches().await;
    let error = sql.query("select trunkline.receive('orders', 'billing')", &[]).await.unwrap_err();
    assert_eq!(refusal(&error), ("TL111".to_owned(), "LEASE_HELD".to_owned()));
    drop(stream);
    broker.all_leases_are_free().await;
    // Nor does a stream begin while a transaction has messages.
    sql.batch_execute("begin").await.unwrap();
    assert_eq!(received(&sql, 2).await, ["a", "b"]);
    let on_busy = trunkline::proto::OnBusy::Fail.into();
    let mut refused = broker
        .open(trunkline::proto::ConsumeRequest {
            on_busy,
            ..TestBroker::request("orders", "billing")
        })
        .await;
    assert_eq!(refused.try_next().await.unwrap_err().code(), Code::FailedPrecondition);
    let mut waiting = broker.consume("orders", "billing").await;
    waiting.standby().await;
    sql.batch_execute("commit").await.unwrap();
    waiting.attaches().await;
    assert_eq!(waiting.payloads(3).await, ["c", "d", "e"]);
}

#[tokio::test]
async fn a_seek_goes_to_an_offset_a_time_or_an_end() {
    let broker = TestBroker::with_five_messages().await;
    let sql = broker.sql().await;
    for (arguments, position) in [
        ("3", 3i64),
        ("to_time => (select published_at from trunkline.message_at('orders', 2))", 2),
        ("to_time => now() + interval '1 hour'", 5),
        ("latest => true", 5),
        ("earliest => true", 0),
    ] {
        let seek = format!("select trunkline.seek('orders', 'billing', {arguments})");
        assert_eq!(
            sql.query_one(&seek, &[]).await.unwrap().get::<_, i64>(0),
            position,
            "{arguments}"
        );
        assert_eq!(broker.position("orders", "billing").await, position, "{arguments}");
        let name = format!("at-{position}");
        let register = format!(
            "select trunkline.register_consumer('orders', '{name}', {}, if_missing => true)",
            arguments.replace("to_", "from_").replace("earliest => true", "latest => false")
        );
        assert_eq!(sql.query_one(&register, &[]).await.unwrap().get::<_, i64>(0), position);
    }
    // A variable that is null by mistake.
    for places in ["null", "null, null, null, null", "1, earliest => true", "1, latest => true"] {
        let seek = format!("select trunkline.seek('orders', 'billing', {places})");
        let invalid = ("TL101".to_owned(), "INVALID_FIELD".to_owned());
        assert_eq!(refused(&sql, &seek).await, invalid, "{places}");
    }
}

#[tokio::test]
async fn topics_and_consumers_are_described() {
    let broker = TestBroker::with_five_messages().await;
    let sql = broker.sql().await;
    let mut stream = broker.take_over("orders", "billing", "ann").await;
    stream.attaches().await;
    stream.payloads(5).await;
    stream.commit(2).await.unwrap();
    let row = sql
        .query_one("select * from trunkline.consumer_info('orders', 'billing')", &[])
        .await
        .unwrap();
    assert_eq!((row.get::<_, i64>("position"), row.get::<_, i64>("lag_messages")), (2, 3));
    assert_eq!((row.get::<_, &str>("holder"), row.get::<_, i64>("epoch")), ("ann", stream.epoch));
    assert!(row.get::<_, f64>("lag_seconds") >= 0.0);
    assert!((0.0..60.0).contains(&row.get::<_, f64>("idle_seconds")));
    let row = sql
        .query_one("select head, messages, first_offset from trunkline.topic_info('orders')", &[]);
    let row = row.await.unwrap();
    assert_eq!((row.get(0), row.get(1), row.get(2)), (5i64, 5i64, 0i64));
}
