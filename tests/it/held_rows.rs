//! Rows that another database session locks do not delay consumers that do not need them.

use std::{
    pin::pin,
    time::{Duration, Instant},
};

use futures::future::join_all;
use tonic::Code;

use crate::support::{TestBroker, assert_refused, payload, soon, until};

/// The longest that calls which need none of the held rows may take: as long as the short attempts
/// of others, on a slow machine. Rows are held for longer.
pub const BOUND: Duration = Duration::from_secs(2);

/// A session that locks the rows of a topic's consumers until it is dropped.
async fn lock_consumers(broker: &TestBroker, topic: &str) -> tokio_postgres::Client {
    let sql = broker.sql().await;
    let lock = format!(
        "begin;
         select 1 from trunkline.consumer_topic
         where topic_id = (select id from trunkline.topic where name = '{topic}') for update"
    );
    sql.batch_execute(&lock).await.unwrap();
    sql
}

#[tokio::test]
async fn a_consumer_whose_row_is_locked_delays_no_other() {
    let broker = TestBroker::start().await;
    for topic in ["held", "free"] {
        broker.topic(topic).await;
        broker.consumer(topic, "billing").await;
    }
    let mut held = broker.consume("held", "billing").await;
    let mut free = broker.consume("free", "billing").await;
    held.attached().await;
    free.attached().await;
    let locking = lock_consumers(&broker, "held").await;
    broker.publish("held", ["first"]).await;
    // The time limit is much shorter than the lock lasts.
    let others = async {
        for number in 0..20 {
            let sent = format!("message {number}");
            broker.publish("free", [sent.as_str()]).await;
            assert_eq!(payload(&free.next_messages().await[0]), sent);
        }
    };
    tokio::time::timeout(Duration::from_secs(4), others).await.expect("the other consumer goes on");
    assert_eq!(broker.position("held", "billing").await, 0);
    locking.batch_execute("commit").await.unwrap();
    assert_eq!(held.payloads(1).await, ["first"]);
    assert_eq!(broker.position("held", "billing").await, 1);
}

#[tokio::test]
async fn a_row_that_is_locked_for_long_affects_only_its_own_consumer() {
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
    let locking = lock_consumers(&broker, "held").await;
    // A commit is not acknowledged unless it is known to be stored.
    let refused = soon("the answer to the commit", stream.commit(1)).await;
    assert_refused(refused, Code::Unavailable, "DATABASE_UNAVAILABLE");
    // Others can attach meanwhile, although all leases share one session.
    let attaching = async {
        broker.consumer("free", "another").await;
        broker.consume("free", "another").await.attached().await
    };
    tokio::time::timeout(Duration::from_secs(4), attaching)
        .await
        .expect("another consumer attaches");
    locking.batch_execute("commit").await.unwrap();
    assert_eq!(stream.commit(1).await.unwrap(), 1);
}

#[tokio::test]
async fn commits_that_share_a_statement_are_answered_as_if_each_were_alone() {
    let broker = TestBroker::start().await;
    broker.topic("held").await;
    broker.consumer("held", "billing").await;
    let mut stream = broker.consume_manually("held", "billing").await;
    broker.publish("held", ["a", "b", "c", "d", "e", "f"]).await;
    stream.messages(6).await;
    // Both wait for the row, in this order, and are stored together when it is free.
    let commit_both = async |first, second| {
        let locking = lock_consumers(&broker, "held").await;
        let mut first = pin!(stream.commit(first));
        let waits = "select exists (
            select from pg_stat_activity writer, pg_stat_activity locking
            where locking.pid = $1 and writer.datname = locking.datname
              and writer.application_name = 'trunkline position'
              and writer.query_start > locking.state_change)";
        let pid: i32 = locking.query_one("select pg_backend_pid()", &[]).await.unwrap().get(0);
        let sql = broker.sql().await;
        let waits = async || sql.query_one(waits, &[&pid]).await.unwrap().get(0);
        tokio::select! {
            _ = &mut first => panic!("answered while the row is locked"),
            () = until("the first commit waits", waits) => {}
        }
        let mut second = pin!(stream.commit(second));
        let queued = tokio::time::sleep(Duration::from_millis(300));
        tokio::select! {
            _ = &mut first => panic!("answered while the row is locked"),
            _ = &mut second => panic!("answered while the row is locked"),
            () = queued => {}
        }
        locking.batch_execute("commit").await.unwrap();
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

#[tokio::test]
async fn a_commit_behind_the_stored_position_is_refused_though_a_farther_one_comes_with_it() {
    const MESSAGES: usize = 200;
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    broker.consumer("orders", "billing").await;
    let mut stream = broker.consume_manually("orders", "billing").await;
    broker.publish("orders", ["message"; MESSAGES]).await;
    stream.messages(MESSAGES).await;
    stream.commit(2).await.unwrap();
    // Some of the pairs share a statement.
    for position in 3..=MESSAGES as i64 {
        let (behind, farther) = tokio::join!(stream.commit(1), stream.commit(position));
        assert_refused(behind, Code::OutOfRange, "COMMIT_BEHIND");
        assert_eq!(farther.unwrap(), position);
    }
}

/// Also under steady load, when another position always waits to be stored.
#[tokio::test]
async fn a_position_whose_row_is_released_is_stored_while_others_keep_moving() {
    let broker = TestBroker::start().await;
    broker.topic("held").await;
    broker.topic("free").await;
    broker.consumer("held", "billing").await;
    let mut stream = broker.consume_manually("held", "billing").await;
    broker.publish("held", ["first"]).await;
    stream.messages(1).await;
    let mut moving = Vec::new();
    for number in 0..4 {
        let consumer = format!("moving-{number}");
        broker.consumer("free", &consumer).await;
        let mut stream = broker.consume_manually("free", &consumer).await;
        stream.attached().await;
        moving.push(stream);
    }
    let holder = lock_consumers(&broker, "held").await;
    let keep_moving = join_all(moving.iter().map(async |stream| {
        loop {
            stream.commit(0).await.unwrap();
        }
    }));
    let released = async {
        let commit = stream.commit(1);
        let held = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            holder.batch_execute("commit").await.unwrap();
            Instant::now()
        };
        let (committed, released_at) = tokio::join!(commit, held);
        assert_eq!(committed.unwrap(), 1);
        released_at.elapsed()
    };
    let took = tokio::select! {
        took = soon("the answer to the commit", released) => took,
        _ = keep_moving => unreachable!("the others never stop"),
    };
    assert!(took < Duration::from_secs(1), "stored {took:?} after the row was released");
}

#[tokio::test]
async fn commits_of_other_consumers_do_not_wait_for_a_held_row() {
    let broker = TestBroker::start().await;
    broker.topic("held").await;
    broker.topic("free").await;
    broker.publish("held", ["first"]).await;
    broker.publish("free", ["first"]).await;
    let mut streams = Vec::new();
    for (topic, consumer) in [("held", "one"), ("held", "two"), ("free", "one"), ("free", "two")] {
        broker.consumer(topic, consumer).await;
        let mut stream = broker.consume_manually(topic, consumer).await;
        stream.messages(1).await;
        streams.push(stream);
    }
    let sql = broker.sql().await;
    sql.batch_execute(
        "begin;
         select 1 from trunkline.consumer_topic
         where topic_id = (select id from trunkline.topic where name = 'held')
           and consumer_id = 'one' for update",
    )
    .await
    .unwrap();
    let (held, free) = streams.split_first().unwrap();
    let others = async {
        // By then the other two commits wait.
        tokio::time::sleep(Duration::from_millis(20)).await;
        for stream in free {
            let committed = tokio::time::timeout(BOUND, stream.commit(1)).await;
            assert_eq!(committed.expect("another consumer's commit is stored").unwrap(), 1);
        }
        sql.batch_execute("commit").await.unwrap();
    };
    let (first, second, ()) = tokio::join!(held.commit(1), held.commit(1), others);
    assert_eq!(first.unwrap(), 1);
    assert_eq!(second.unwrap(), 1);
}

/// All leases of a broker share one session.
#[tokio::test]
async fn streams_that_wait_for_held_rows_delay_no_other_lease() {
    let broker = TestBroker::start().await;
    broker.topic("held").await;
    broker.topic("free").await;
    let consumers: Vec<String> = (0..12).map(|number| format!("consumer-{number}")).collect();
    for consumer in &consumers {
        broker.consumer("held", consumer).await;
    }
    broker.consumer("free", "billing").await;
    let holder = lock_consumers(&broker, "held").await;
    let opening = join_all(consumers.iter().map(async |consumer| {
        loop {
            let status = broker.consume("held", consumer).await.ended().await;
            assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        }
    }));
    let others = async {
        let waits = "select count(*) from pg_stat_activity
            where datname = current_database() and application_name = 'trunkline lease'
              and wait_event_type = 'Lock'";
        tokio::time::sleep(Duration::from_millis(100)).await;
        for _ in 0..10 {
            let attaching = async { broker.consume("free", "billing").await.attaches().await };
            tokio::time::timeout(BOUND, attaching).await.expect("another consumer attaches");
            let waiting: i64 = holder.query_one(waits, &[]).await.unwrap().get(0);
            assert_eq!(waiting, 0, "the session of all leases waits for a row");
        }
    };
    tokio::select! {
        () = others => {}
        _ = opening => unreachable!("the streams never stop opening"),
    }
    holder.batch_execute("commit").await.unwrap();
    broker.consume("held", &consumers[0]).await.attaches().await;
}
