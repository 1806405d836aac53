//! Rows that another session of the database holds: whoever does not need them goes on.

use std::{pin::pin, time::Duration};

use tonic::Code;

use crate::support::{TestBroker, assert_refused, payload, soon, until};

/// A session that holds a consumer's row until it is dropped.
async fn hold(broker: &TestBroker, topic: &str) -> tokio_postgres::Client {
    let sql = broker.sql().await;
    let hold = format!(
        "begin;
         select 1 from trunkline.consumer_topic
         where topic_id = (select id from trunkline.topic where name = '{topic}') for update"
    );
    sql.batch_execute(&hold).await.unwrap();
    sql
}

#[tokio::test]
async fn a_consumer_whose_row_is_held_holds_up_no_other() {
    let broker = TestBroker::start().await;
    for topic in ["held", "free"] {
        broker.topic(topic).await;
        broker.consumer(topic, "billing").await;
    }
    let mut held = broker.consume("held", "billing").await;
    let mut free = broker.consume("free", "billing").await;
    held.attached().await;
    free.attached().await;
    let holder = hold(&broker, "held").await;
    broker.publish("held", ["first"]).await;
    // Far less than the row is held.
    let going_on = async {
        for number in 0..20 {
            let sent = format!("message {number}");
            broker.publish("free", [sent.as_str()]).await;
            assert_eq!(payload(&free.batch().await[0]), sent);
        }
    };
    tokio::time::timeout(Duration::from_secs(4), going_on).await.expect("the other one goes on");
    assert_eq!(broker.position("held", "billing").await, 0);
    holder.batch_execute("commit").await.unwrap();
    assert_eq!(held.payloads(1).await, ["first"]);
    assert_eq!(broker.position("held", "billing").await, 1);
}

#[tokio::test]
async fn a_row_that_is_held_for_long_ends_only_its_own_consumer() {
    let broker = TestBroker::start().await;
    for topic in ["held", "free"] {
        broker.topic(topic).await;
        broker.consumer(topic, "billing").await;
    }
    let mut stream = broker.consume_manually("held", "billing").await;
    broker.publish("held", ["first"]).await;
    stream.messages(1).await;
    let mut free = broker.consume("free", "billing").await;
    free.attached().await;
    let holder = hold(&broker, "held").await;
    // What is not known to be stored is not acknowledged.
    let refused = soon("the commit's answer", stream.commit(1)).await;
    assert_refused(refused, Code::Unavailable, "DATABASE_UNAVAILABLE");
    // Others attach meanwhile, on the session that this one's lease is on.
    let attaching = async {
        broker.consumer("free", "another").await;
        broker.consume("free", "another").await.attached().await
    };
    tokio::time::timeout(Duration::from_secs(4), attaching).await.expect("another one attaches");
    holder.batch_execute("commit").await.unwrap();
    assert_eq!(stream.commit(1).await.unwrap(), 1);
}

#[tokio::test]
async fn commits_that_share_a_statement_are_answered_as_if_each_had_come_alone() {
    let broker = TestBroker::start().await;
    broker.topic("held").await;
    broker.consumer("held", "billing").await;
    let mut stream = broker.consume_manually("held", "billing").await;
    broker.publish("held", ["a", "b", "c", "d", "e", "f"]).await;
    stream.messages(6).await;
    // Both wait for the row, in this order, and are written together when it is free.
    let commit_both = async |first, second| {
        let holder = hold(&broker, "held").await;
        let mut first = pin!(stream.commit(first));
        let tried = "select exists (
            select from pg_stat_activity writer, pg_stat_activity holder
            where holder.pid = $1 and writer.datname = holder.datname
              and writer.application_name = 'trunkline position'
              and writer.query_start > holder.state_change)";
        let pid: i32 = holder.query_one("select pg_backend_pid()", &[]).await.unwrap().get(0);
        let sql = broker.sql().await;
        let tried = async || sql.query_one(tried, &[&pid]).await.unwrap().get(0);
        tokio::select! {
            _ = &mut first => panic!("the row is held"),
            () = until("the first one is tried", tried) => {}
        }
        let mut second = pin!(stream.commit(second));
        let queued = tokio::time::sleep(Duration::from_millis(300));
        tokio::select! {
            _ = &mut first => panic!("the row is held"),
            _ = &mut second => panic!("the row is held"),
            () = queued => {}
        }
        holder.batch_execute("commit").await.unwrap();
        soon("both answers", async { tokio::join!(first, second) }).await
    };
    let (farther, behind) = commit_both(3, 2).await;
    assert_eq!(farther.unwrap(), 3);
    let metadata = assert_refused(behind, Code::OutOfRange, "COMMIT_BEHIND");
    assert_eq!((metadata["asked"].as_str(), metadata["position"].as_str()), ("2", "3"));
    assert_eq!(broker.position("held", "billing").await, 3);

    let (behind, farther) = commit_both(4, 6).await;
    assert_eq!((behind.unwrap(), farther.unwrap()), (4, 6));
    let (first, again) = commit_both(6, 6).await;
    assert_eq!((first.unwrap(), again.unwrap()), (6, 6));
    assert_eq!(broker.position("held", "billing").await, 6);
}
