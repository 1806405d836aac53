//! What does not hold up the outbox: transactions that stay open, locked heads, topics whose messages
//! cannot be stored.

use std::time::{Duration, Instant};

use crate::{
    sql_outbox::{create, outbox_is_empty},
    sql_publish::stored,
    support::{TestBroker, soon, until},
};

/// Ids were given to it before others that are moved first.
#[tokio::test]
async fn a_transaction_that_stays_open_holds_up_nobody_and_is_moved_when_it_ends() {
    let broker = TestBroker::start().await;
    let sql = broker.sql().await;
    create(&sql, &["orders"]).await;
    let long = broker.sql().await;
    long.batch_execute("begin; select trunkline.publish_later('orders', 'long ' || n) from generate_series(1, 3) n")
        .await
        .unwrap();
    for number in 0..50 {
        let text = format!("short {number}");
        sql.execute("select trunkline.publish_later('orders', $1::text)", &[&text]).await.unwrap();
        until("a later transaction is moved", async || {
            stored(&sql, "orders").await.len() == number + 1
        })
        .await;
    }
    long.batch_execute("select trunkline.publish_later('orders', 'long 4'); commit").await.unwrap();
    outbox_is_empty(&sql).await;
    let log = stored(&sql, "orders").await;
    assert_eq!(log[50..], ["long 1", "long 2", "long 3", "long 4"]);
    assert_eq!(log.len(), 54);
}

/// No pass looks at what it has published, or each would take a third of a second.
#[tokio::test]
async fn a_transaction_that_stays_open_with_very_many_messages_holds_up_nobody() {
    let broker = TestBroker::start().await;
    let sql = broker.sql().await;
    create(&sql, &["orders", "other"]).await;
    let long = broker.sql().await;
    let publish =
        "begin; select trunkline.publish_later_many('other', array_fill('x'::text, array[10000]))
        from generate_series(1, 30)";
    long.batch_execute(publish).await.unwrap();
    let publishes = async {
        for number in 0..150 {
            sql.execute("select trunkline.publish_later('orders', 'x')", &[]).await.unwrap();
            until("it is moved", async || stored(&sql, "orders").await.len() > number).await;
        }
    };
    soon("messages of others are moved meanwhile", publishes).await;
    long.batch_execute("rollback").await.unwrap();
}

/// A session that has published directly holds the head of its topic.
#[tokio::test]
async fn a_topic_whose_head_is_locked_holds_up_no_other_and_loses_nothing() {
    let broker = TestBroker::start().await;
    let sql = broker.sql().await;
    create(&sql, &["held", "free"]).await;
    let holder = broker.sql().await;
    holder
        .batch_execute("begin; select trunkline.publish('held', 'direct'); set local idle_in_transaction_session_timeout = 0")
        .await
        .unwrap();
    for number in 0..20 {
        sql.batch_execute(&format!(
            "select trunkline.publish_later('held', '{number}'); select trunkline.publish_later('free', '{number}')"
        ))
        .await
        .unwrap();
        until("the free topic has it", async || stored(&sql, "free").await.len() == number + 1)
            .await;
    }
    assert_eq!(stored(&sql, "held").await, [""; 0]);
    holder.batch_execute("commit").await.unwrap();
    outbox_is_empty(&sql).await;
    let expected: Vec<String> =
        ["direct".to_owned()].into_iter().chain((0..20).map(|number| number.to_string())).collect();
    assert_eq!(stored(&sql, "held").await, expected);
    // It is moved quickly again.
    let began = Instant::now();
    for number in 0..20 {
        sql.execute("select trunkline.publish_later('held', 'again')", &[]).await.unwrap();
        until("it is moved", async || stored(&sql, "held").await.len() == 22 + number).await;
    }
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

/// An operator's trigger refuses the messages of one topic.
#[tokio::test]
async fn a_topic_whose_messages_cannot_be_stored_holds_up_no_other() {
    let broker = TestBroker::start().await;
    let sql = broker.sql().await;
    create(&sql, &["refused", "free"]).await;
    sql.batch_execute(
        "create function refuse() returns trigger language plpgsql as
             $$ begin raise exception 'no'; end $$;
         create trigger refuse before insert on trunkline.batch for each row
         when (new.topic_id = 1) execute function refuse()",
    )
    .await
    .unwrap();
    for number in 0..10 {
        sql.batch_execute(&format!(
            "begin; select trunkline.publish_later('refused', '{number}');
             select trunkline.publish_later('free', '{number}'); commit"
        ))
        .await
        .unwrap();
        let moved = number + 1;
        until("the free topic has it", async || stored(&sql, "free").await.len() == moved).await;
    }
    sql.batch_execute("drop trigger refuse on trunkline.batch").await.unwrap();
    outbox_is_empty(&sql).await;
    let expected: Vec<String> = (0..10).map(|number| number.to_string()).collect();
    assert_eq!(stored(&sql, "refused").await, expected);
}

/// A producer of the same name is being registered in a transaction that stays open.
#[tokio::test]
async fn a_registration_that_is_not_committed_holds_up_no_other_topic() {
    let broker = TestBroker::start().await;
    let sql = broker.sql().await;
    create(&sql, &["held", "free"]).await;
    let holder = broker.sql().await;
    holder
        .batch_execute("begin; select trunkline.register_producer('held', 'sql.trunkline')")
        .await
        .unwrap();
    sql.batch_execute("select trunkline.publish_later('held', 'x')").await.unwrap();
    sql.batch_execute("select trunkline.publish_later('free', 'x')").await.unwrap();
    until("the free topic has it", async || stored(&sql, "free").await.len() == 1).await;
    holder.batch_execute("commit").await.unwrap();
    outbox_is_empty(&sql).await;
    assert_eq!(stored(&sql, "held").await, ["x"]);
}
