//! Publishing within a transaction of one's own: `publish`, `publish_many`, `publish_at_commit`.

use std::time::{Duration, Instant};

use tokio_postgres::Client;

use crate::{
    sql_outbox::outbox_is_empty,
    support::{Pooler, TestBroker, TestDatabase, connect, payload, soon, until},
};

/// The code and the reason of a refusal.
pub fn refusal(error: &tokio_postgres::Error) -> (String, String) {
    let error = error.as_db_error().unwrap_or_else(|| panic!("{error}"));
    let detail: serde_json::Value = serde_json::from_str(error.detail().unwrap()).unwrap();
    (error.code().code().to_owned(), detail["reason"].as_str().unwrap().to_owned())
}

/// A refusal of a statement.
pub async fn refused(sql: &Client, statement: &str) -> (String, String) {
    match sql.batch_execute(statement).await {
        Ok(()) => panic!("{statement} was not refused"),
        Err(error) => refusal(&error),
    }
}

/// The payloads of a topic, as text.
pub async fn stored(sql: &Client, topic: &str) -> Vec<String> {
    let read = "select payload_text from trunkline.read($1, \"limit\" => null) order by \"offset\"";
    sql.query(read, &[&topic]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

async fn topic() -> (TestBroker, Client) {
    let broker = TestBroker::start().await;
    let sql = broker.sql().await;
    sql.batch_execute("select trunkline.create_topic('orders')").await.unwrap();
    broker.consumer("orders", "billing").await;
    (broker, sql)
}

#[tokio::test]
async fn a_message_and_a_row_are_committed_together_or_not_at_all() {
    let (broker, mut sql) = topic().await;
    sql.batch_execute("create table sale (id integer primary key)").await.unwrap();
    let mut stream = broker.consume("orders", "billing").await;
    for way in ["publish", "publish_at_commit", "publish_later"] {
        let publish = format!("select trunkline.{way}('orders', $1::text, key => $2)");
        for (id, commits) in [(1, true), (2, false), (3, true)] {
            let transaction = sql.transaction().await.unwrap();
            transaction.execute("insert into sale values ($1)", &[&id]).await.unwrap();
            let text = format!("{way} {id}");
            transaction.execute(&publish, &[&text, &id.to_string()]).await.unwrap();
            match commits {
                true => transaction.commit().await.unwrap(),
                false => transaction.rollback().await.unwrap(),
            }
        }
        let received = stream.messages(2).await;
        assert_eq!(
            received.iter().map(payload).collect::<Vec<_>>(),
            [format!("{way} 1"), format!("{way} 3")]
        );
        assert_eq!(received[1].key.as_deref(), Some(&b"3"[..]));
        sql.batch_execute("delete from sale").await.unwrap();
    }
    let offsets = "select array_agg(\"offset\" order by \"offset\") from trunkline.message";
    let offsets: Vec<i64> = sql.query_one(offsets, &[]).await.unwrap().get(0);
    assert_eq!(offsets, [0, 1, 2, 3, 4, 5], "no gap is left by what was rolled back");
}

#[tokio::test]
async fn what_a_savepoint_undoes_is_not_published() {
    let (_broker, sql) = topic().await;
    for way in ["publish", "publish_at_commit", "publish_later"] {
        sql.batch_execute(&format!(
            "begin;
             select trunkline.{way}('orders', '{way} a');
             savepoint one;
             select trunkline.{way}('orders', 'undone');
             savepoint two;
             select trunkline.{way}('orders', 'undone as well');
             rollback to one;
             select trunkline.{way}('orders', '{way} b');
             commit"
        ))
        .await
        .unwrap();
    }
    until("all are in the log", async || stored(&sql, "orders").await.len() == 6).await;
    let expected = ["publish", "publish_at_commit", "publish_later"]
        .iter()
        .flat_map(|way| [format!("{way} a"), format!("{way} b")]);
    assert_eq!(stored(&sql, "orders").await, expected.collect::<Vec<_>>());
}

#[tokio::test]
async fn every_type_of_payload_is_stored_as_bytes() {
    let (broker, sql) = topic().await;
    sql.batch_execute(
        r#"select trunkline.publish('orders', '\x00ff'::bytea, '\x01', '{"a": "b"}');
           select trunkline.publish('orders', 'Grüße', 'ключ');
           select trunkline.publish('orders', '{"a":1}'::jsonb, 'k');
           select trunkline.publish('orders', '{"a" :1, "n": "\u0000"}'::json, 'k');
           select trunkline.publish('orders', '', headers => '{}');
           select trunkline.publish_many('orders', array['a', 'b'], array['k', null],
                                         array['{"h": "1"}', '{}']::jsonb[]);
           select trunkline.publish_many('orders', array['\x00', '\x01']::bytea[]);
           select trunkline.publish_many('orders', array['1', '2']::jsonb[]);
           select trunkline.publish_many('orders', array['[1]']::json[])"#,
    )
    .await
    .unwrap();
    let mut stream = broker.consume("orders", "billing").await;
    let messages = stream.messages(12).await;
    let payloads: Vec<&[u8]> = messages.iter().map(|message| &message.payload[..]).collect();
    let expected: [&[u8]; 12] = [
        b"\x00\xff",
        "Grüße".as_bytes(),
        br#"{"a": 1}"#,
        br#"{"a" :1, "n": "\u0000"}"#,
        b"",
        b"a",
        b"b",
        b"\x00",
        b"\x01",
        b"1",
        b"2",
        b"[1]",
    ];
    assert_eq!(payloads, expected);
    let keys: Vec<Option<&[u8]>> =
        messages[..7].iter().map(|message| message.key.as_deref()).collect();
    let key = |key: &'static str| Some(key.as_bytes());
    assert_eq!(keys, [key("\u{1}"), key("ключ"), key("k"), key("k"), None, key("k"), None]);
    let headers: Vec<usize> = messages.iter().map(|message| message.headers.len()).collect();
    assert_eq!(headers, [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    assert_eq!(messages[0].headers["a"], "b");
    assert!(messages.iter().all(|message| message.producer_id == "sql.trunkline"));
}

/// Locks heads in the order of their names, however they were published to.
#[tokio::test]
async fn transactions_that_publish_to_topics_in_any_order_at_commit_do_not_deadlock() {
    let (broker, sql) = topic().await;
    for topic in ["a", "b", "c"] {
        broker.topic(topic).await;
    }
    let url = broker.database.url.clone();
    let clients = (0..4).map(|client| {
        let url = url.clone();
        async move {
            let sql = connect(&url).await;
            let topics = if client % 2 == 0 { ["a", "b", "c"] } else { ["c", "b", "a"] };
            for number in 0..25 {
                let publishes: String = topics
                    .iter()
                    .map(|topic| {
                        format!(
                            "select trunkline.publish_at_commit('{topic}', '{client} {number}');"
                        )
                    })
                    .collect();
                sql.batch_execute(&format!("begin; {publishes} commit")).await.unwrap();
            }
        }
    });
    futures::future::join_all(clients).await;
    for topic in ["a", "b", "c"] {
        let stored = stored(&sql, topic).await;
        assert_eq!(stored.len(), 100);
        for client in 0..4 {
            let own = stored.iter().filter(|text| text.starts_with(&format!("{client} ")));
            let expected: Vec<_> = (0..25).map(|number| format!("{client} {number}")).collect();
            assert!(own.eq(expected.iter()), "{topic}: {stored:?}");
        }
    }
    let left = "select count(*) from trunkline.staged_message";
    assert_eq!(sql.query_one(left, &[]).await.unwrap().get::<_, i64>(0), 0);
}

/// The head is locked for the commit alone, so a long transaction holds up nobody.
#[tokio::test]
async fn a_long_transaction_that_publishes_at_commit_holds_up_nobody() {
    let (broker, sql) = topic().await;
    broker.producer("orders", "gateway").await;
    sql.batch_execute("begin; select trunkline.publish_at_commit('orders', 'first called')")
        .await
        .unwrap();
    broker.try_publish("orders", "gateway", ["second called"]).await.unwrap();
    sql.batch_execute("commit").await.unwrap();
    assert_eq!(stored(&sql, "orders").await, ["second called", "first called"]);
    // What comes after an immediate check is appended at once.
    sql.batch_execute("begin; set constraints all immediate; select trunkline.publish_at_commit('orders', 'third')")
        .await
        .unwrap();
    assert_eq!(stored(&sql, "orders").await.len(), 3);
    sql.batch_execute("rollback").await.unwrap();
    assert_eq!(stored(&sql, "orders").await.len(), 2);
}

#[tokio::test]
async fn many_messages_at_commit_keep_their_order_and_their_producers() {
    let (_broker, sql) = topic().await;
    sql.batch_execute(
        "select trunkline.register_producer('orders', 'till');
         begin;
         select trunkline.publish_at_commit('orders', n::text, key => case when n % 3 = 0 then 'k' end,
             producer => case when n % 1000 < 500 then 'till' end)
         from generate_series(0, 10499) n;
         commit",
    )
    .await
    .unwrap();
    let wrong = "select count(*) filter (where payload_text::bigint <> \"offset\"
                          or key_text is distinct from case when \"offset\" % 3 = 0 then 'k' end
                          or producer_id <> case when \"offset\" % 1000 < 500 then 'till' else 'sql.trunkline' end),
                        count(*)
                 from trunkline.message";
    let row = sql.query_one(wrong, &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (0, 10_500));
    let last = "select producer, last_offset from trunkline.producers order by producer";
    let rows = sql.query(last, &[]).await.unwrap();
    let last: Vec<(String, i64)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(last, [("sql.trunkline".to_owned(), 9_999), ("till".to_owned(), 10_499)]);
    let batches: Vec<i32> = {
        let rows =
            sql.query("select count from trunkline.batch order by base_offset", &[]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    };
    assert_eq!(batches, [10_000, 500]);
}

/// Waits for an open stream, whose broker is not notified of each transaction.
#[tokio::test]
async fn a_stream_receives_each_message_soon_although_few_are_notified() {
    let (broker, sql) = topic().await;
    let mut stream = broker.consume("orders", "billing").await;
    stream.attaches().await;
    let began = Instant::now();
    for way in ["publish", "publish_later"] {
        for number in 0..40 {
            let text = format!("{way} {number}");
            sql.execute(&format!("select trunkline.{way}('orders', $1::text)"), &[&text])
                .await
                .unwrap();
            assert_eq!(stream.payloads(1).await, [text]);
        }
    }
    // The poll of each second alone would take 80 s.
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_direct_publish_limits_how_long_its_transaction_may_be_idle() {
    let (broker, sql) = topic().await;
    let limit = async |sql: &Client| -> String {
        sql.query_one("show idle_in_transaction_session_timeout", &[]).await.unwrap().get(0)
    };
    sql.batch_execute("begin; select trunkline.publish('orders', 'a')").await.unwrap();
    assert_eq!(limit(&sql).await, "5s");
    sql.batch_execute("commit").await.unwrap();
    assert_eq!(limit(&sql).await, "0");
    sql.batch_execute("set idle_in_transaction_session_timeout = '2s'; begin; select trunkline.publish('orders', 'b')")
        .await
        .unwrap();
    assert_eq!(limit(&sql).await, "2s", "a shorter limit stays");
    sql.batch_execute("commit; begin; select trunkline.publish_later('orders', 'c')")
        .await
        .unwrap();
    sql.batch_execute("set local idle_in_transaction_session_timeout = 0").await.unwrap();
    assert_eq!(limit(&sql).await, "0", "publish_later sets none");
    sql.batch_execute("rollback").await.unwrap();

    // A session that is forgotten in the middle of a transaction frees the topic.
    let forgotten = broker.sql().await;
    forgotten.batch_execute("begin; select trunkline.publish('orders', 'never')").await.unwrap();
    broker.producer("orders", "gateway").await;
    soon("a publish succeeds", async {
        while broker.try_publish("orders", "gateway", ["x"]).await.is_err() {}
    })
    .await;
    assert_eq!(stored(&sql, "orders").await, ["a", "b", "x"]);
}

#[tokio::test]
async fn a_transaction_that_keeps_its_snapshot_is_told_why_it_fails() {
    let (broker, sql) = topic().await;
    broker.producer("orders", "gateway").await;
    for level in ["repeatable read", "serializable"] {
        for (way, ends) in [("publish", "select"), ("publish_at_commit", "commit")] {
            sql.batch_execute(&format!("begin isolation level {level}; select 1")).await.unwrap();
            broker.try_publish("orders", "gateway", ["meanwhile"]).await.unwrap();
            let statement = format!("select trunkline.{way}('orders', 'x')");
            if ends == "commit" {
                sql.batch_execute(&statement).await.unwrap();
            }
            let last = if ends == "commit" { "commit" } else { statement.as_str() };
            let error = sql.batch_execute(last).await.unwrap_err();
            assert_eq!(
                refusal(&error),
                ("40001".to_owned(), "TOPIC_BUSY".to_owned()),
                "{level} {way}"
            );
            let error = error.as_db_error().unwrap();
            assert_eq!(
                error.message(),
                format!(
                    "topic orders was published to since this {level} transaction began; nothing was stored"
                )
            );
            assert!(error.hint().unwrap().contains("publish_later"));
            sql.batch_execute("rollback").await.unwrap();
        }
        // Nothing conflicts with the way that the hint names.
        sql.batch_execute(&format!("begin isolation level {level}; select 1")).await.unwrap();
        broker.try_publish("orders", "gateway", ["meanwhile"]).await.unwrap();
        sql.batch_execute("select trunkline.publish_later('orders', 'later'); commit")
            .await
            .unwrap();
    }
    until("both are in the log", async || {
        stored(&sql, "orders").await.iter().filter(|text| *text == "later").count() == 2
    })
    .await;
}

#[tokio::test]
async fn a_topic_that_is_deleted_meanwhile_fails_the_transaction() {
    let (broker, sql) = topic().await;
    let not_found = ("TL102".to_owned(), "TOPIC_NOT_FOUND".to_owned());
    sql.batch_execute("begin; select trunkline.publish_at_commit('orders', 'x')").await.unwrap();
    broker.delete_topic("orders").await;
    assert_eq!(refused(&sql, "commit").await, not_found);

    // A direct publish holds the head, so the deletion waits for it.
    sql.batch_execute("select trunkline.create_topic('orders')").await.unwrap();
    sql.batch_execute("begin; select trunkline.publish('orders', 'x')").await.unwrap();
    let deletion = broker.delete_topic("orders");
    let commit = async {
        until("the deletion waits", async || broker.waiting_for_locks().await > 0).await;
        sql.batch_execute("commit").await.unwrap();
    };
    tokio::join!(deletion, commit);
    assert_eq!(refused(&sql, "select trunkline.publish('orders', 'x')").await, not_found);

    // A message of publish_later is deleted with its topic, as if it had been in the log.
    sql.batch_execute("select trunkline.create_topic('orders')").await.unwrap();
    sql.batch_execute("begin; select trunkline.publish_later('orders', 'x')").await.unwrap();
    broker.delete_topic("orders").await;
    sql.batch_execute("commit").await.unwrap();
    outbox_is_empty(&sql).await;
}

#[tokio::test]
#[cfg_attr(not(has_pgbouncer), ignore = "PgBouncer is not on this machine")]
async fn every_way_works_behind_a_pooler_in_transaction_mode() {
    let database = std::sync::Arc::new(TestDatabase::create().await);
    let pooler = Pooler::start(&database, 3, true).await;
    let broker = TestBroker::start_on(database.clone()).await;
    let sql = connect(&pooler.url(&database)).await;
    sql.simple_query("select trunkline.create_topic('orders')").await.unwrap();
    broker.consumer("orders", "billing").await;
    let mut stream = broker.consume("orders", "billing").await;
    for way in ["publish", "publish_at_commit", "publish_later"] {
        sql.simple_query(&format!("begin; select trunkline.{way}('orders', '{way}'); commit"))
            .await
            .unwrap();
        assert_eq!(stream.payloads(1).await, [way]);
    }
    // The limit for idle transactions was that of the transaction alone.
    let limit = sql.simple_query("show idle_in_transaction_session_timeout").await.unwrap();
    let shown = limit.iter().find_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    assert_eq!(shown, Some("0"));
}
