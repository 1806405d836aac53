//! Rows that another database session locks do not delay consumers that do not need them.

use std::{
    pin::pin,
    time::{Duration, Instant},
};

use futures::future::join_all;
use tokio::task::JoinSet;
use tonic::Code;
use trunkline::{client::Client, proto};

use crate::support::{LIMITS, PRODUCER, TestBroker, assert_refused, message, payload, soon, until};

/// The longest wait for what needs none of the held rows: others' short tries, on a slow machine.
/// Rows are held for longer.
const BOUND: Duration = Duration::from_secs(2);

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
async fn commits_that_share_a_statement_are_answered_as_if_each_had_come_alone() {
    let broker = TestBroker::start().await;
    broker.topic("held").await;
    broker.consumer("held", "billing").await;
    let mut stream = broker.consume_manually("held", "billing").await;
    broker.publish("held", ["a", "b", "c", "d", "e", "f"]).await;
    stream.messages(6).await;
    // Both wait for the row, in this order, and are written together when it is free.
    let commit_both = async |first, second| {
        let holder = lock_consumers(&broker, "held").await;
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

/// Also under steady load, where another move is always waiting to be written.
#[tokio::test]
async fn a_position_whose_row_is_let_go_is_stored_while_others_keep_moving() {
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
    let let_go = async {
        let commit = stream.commit(1);
        let held = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            holder.batch_execute("commit").await.unwrap();
            Instant::now()
        };
        let (committed, let_go_at) = tokio::join!(commit, held);
        assert_eq!(committed.unwrap(), 1);
        let_go_at.elapsed()
    };
    let took = tokio::select! {
        took = soon("the commit's answer", let_go) => took,
        _ = keep_moving => unreachable!("they move for ever"),
    };
    assert!(took < Duration::from_secs(1), "stored {took:?} after the row was let go");
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
        // After the two commits that wait.
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
async fn streams_that_open_on_held_rows_keep_no_other_from_its_lease() {
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
        _ = opening => unreachable!("they open for ever"),
    }
    holder.batch_execute("commit").await.unwrap();
    broker.consume("held", &consumers[0]).await.attaches().await;
}

/// Makes one of the calls that need rows of a topic, its consumers or its producers.
async fn ask_for_rows(client: Client, number: usize, name: &str) {
    let topic = || name.to_owned();
    let consumer_id = || "billing".to_owned();
    let (mut topics, mut consumers) = (client.topics(), client.consumers());
    let mut producers = client.producers();
    // Other tests check the outcome.
    match number % 10 {
        0 | 1 => {
            let target = Some(proto::seek_request::Target::Offset(0));
            let seek = proto::SeekRequest { topic: topic(), consumer_id: consumer_id(), target };
            drop(consumers.seek(seek).await);
        }
        2 => {
            let consumer_id = format!("new-{number}");
            let register =
                proto::RegisterConsumerRequest { topic: topic(), consumer_id, start: None };
            drop(consumers.register_consumer(register).await);
        }
        3 => {
            let producer_id = PRODUCER.to_owned();
            let fence = proto::RegisterProducerRequest { topic: topic(), producer_id, fence: true };
            drop(producers.register_producer(fence).await);
        }
        4 => {
            let description = "held".to_owned();
            let update =
                proto::UpdateTopicRequest { topic: topic(), description, ..Default::default() };
            drop(topics.update_topic(update).await);
        }
        5 => {
            let before = Some(proto::trim_topic_request::Before::Offset(0));
            drop(topics.trim_topic(proto::TrimTopicRequest { topic: topic(), before }).await);
        }
        6 => {
            let (producer_id, messages) = (PRODUCER.to_owned(), vec![message("more")]);
            let publish = proto::PublishRequest {
                topic: topic(),
                producer_id,
                messages,
                ..Default::default()
            };
            drop(producers.publish(publish).await);
        }
        7 => {
            let pull = proto::PullRequest {
                topic: topic(),
                consumer_id: consumer_id(),
                ..Default::default()
            };
            drop(consumers.pull(pull).await);
        }
        8 => {
            let unregister =
                proto::UnregisterConsumerRequest { topic: topic(), consumer_id: consumer_id() };
            drop(consumers.unregister_consumer(unregister).await);
        }
        _ => drop(topics.delete_topic(proto::DeleteTopicRequest { topic: topic() }).await),
    }
}

async fn calls_go_on_beside_held_rows(rows: &str) {
    let broker = TestBroker::start().await;
    for topic in ["held", "free"] {
        broker.topic(topic).await;
        broker.consumer(topic, "billing").await;
        broker.publish(topic, ["first"]).await;
    }
    let holder = broker.sql().await;
    holder.batch_execute(&format!("begin; {rows}")).await.unwrap();
    let mut asking = JoinSet::new();
    for number in 0..30 {
        let client = Client::connect(&broker.endpoint).await.unwrap();
        asking.spawn(async move {
            loop {
                ask_for_rows(client.clone(), number, "held").await;
            }
        });
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let topic = || "free".to_owned();
    let (mut slowest, began) = ((Duration::ZERO, ""), Instant::now());
    let waits = "select count(*) from pg_stat_activity
        where datname = current_database() and application_name = 'trunkline query'
          and wait_event_type = 'Lock'";
    while began.elapsed() < Duration::from_secs(3) {
        let mut took = |what, since: Instant| slowest = slowest.max((since.elapsed(), what));
        let asked = Instant::now();
        let get = proto::GetTopicRequest { topic: topic() };
        soon("a topic", broker.topics().get_topic(get)).await.unwrap();
        took("describe", asked);
        let asked = Instant::now();
        let (consumer_id, target) =
            ("billing".to_owned(), Some(proto::seek_request::Target::Offset(0)));
        let seek = proto::SeekRequest { topic: topic(), consumer_id, target };
        soon("a seek", broker.consumers().seek(seek)).await.unwrap();
        took("seek", asked);
        let asked = Instant::now();
        let (consumer_id, max_messages) = ("billing".to_owned(), 1);
        let pull = proto::PullRequest { topic: topic(), consumer_id, max_messages, wait: None };
        let pulled = soon("a pull", broker.consumers().pull(pull)).await.unwrap().into_inner();
        assert_eq!(pulled.messages.len(), 1);
        took("pull", asked);
        let waiting: i64 = holder.query_one(waits, &[]).await.unwrap().get(0);
        assert!(waiting < LIMITS.queries as i64, "all sessions wait for rows");
    }
    assert!(slowest.0 < BOUND, "{slowest:?} beside held rows ({rows})");
    holder.batch_execute("rollback").await.unwrap();
    asking.shutdown().await;
    // No session is left waiting.
    let idle = async || holder.query_one(waits, &[]).await.unwrap().get::<_, i64>(0) == 0;
    until("no session waits for a row", idle).await;
}

const HELD: &str = "(select id from trunkline.topic where name = 'held')";

#[tokio::test]
async fn calls_go_on_beside_a_held_head() {
    let head = "select 1 from trunkline.topic_head where topic_id =";
    calls_go_on_beside_held_rows(&format!("{head} {HELD} for update")).await;
}

#[tokio::test]
async fn calls_go_on_beside_a_held_topic() {
    let topic = "select 1 from trunkline.topic where name = 'held' for update";
    calls_go_on_beside_held_rows(topic).await;
}

#[tokio::test]
async fn calls_go_on_beside_held_consumers() {
    let consumers = "select 1 from trunkline.consumer_topic where topic_id =";
    calls_go_on_beside_held_rows(&format!("{consumers} {HELD} for update")).await;
}

#[tokio::test]
async fn calls_go_on_beside_held_producers() {
    let producers = "select 1 from trunkline.producer_topic where topic_id =";
    calls_go_on_beside_held_rows(&format!("{producers} {HELD} for update")).await;
}

/// A statement waits for an uncommitted name as it does for a row.
#[tokio::test]
async fn topics_are_made_beside_one_that_somebody_else_is_making() {
    let broker = TestBroker::start().await;
    let holder = broker.sql().await;
    let making = "begin; insert into trunkline.topic (name) values ('held')";
    holder.batch_execute(making).await.unwrap();
    let create = |topic: &str| {
        let request = proto::CreateTopicRequest { topic: topic.to_owned(), ..Default::default() };
        let mut topics = broker.topics();
        async move { topics.create_topic(request).await }
    };
    let held = join_all((0..12).map(|_| create("held")));
    let others = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        for number in 0..5 {
            let created = tokio::time::timeout(BOUND, create(&format!("free-{number}"))).await;
            created.expect("another topic is made").unwrap();
        }
        holder.batch_execute("rollback").await.unwrap();
    };
    let (outcomes, ()) = tokio::join!(held, others);
    let (created, refused): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
    assert_eq!(created.len(), 1);
    for refused in refused {
        assert_refused(refused, Code::AlreadyExists, "TOPIC_EXISTS");
    }
}

/// Publishes of several topics are stored together, by a few writers.
#[tokio::test]
async fn publishes_go_on_beside_those_to_a_held_topic() {
    let broker = TestBroker::start().await;
    // Some of them share the held topic's writer, and sort before or after it.
    let free = ["a-free", "b-free", "c-free", "x-free", "y-free", "z-free"];
    for topic in free.into_iter().chain(["held"]) {
        broker.topic(topic).await;
    }
    let holder = broker.sql().await;
    let hold =
        format!("begin; select 1 from trunkline.topic_head where topic_id = {HELD} for update");
    holder.batch_execute(&hold).await.unwrap();
    let mut publishing = JoinSet::new();
    for _ in 0..4 {
        let client = Client::connect(&broker.endpoint).await.unwrap();
        publishing.spawn(async move {
            loop {
                ask_for_rows(client.clone(), 6, "held").await;
            }
        });
    }
    // The first refusal tells the writer that the topic is locked.
    assert_refused(
        broker.try_publish("held", PRODUCER, ["no"]).await,
        Code::Unavailable,
        "TOPIC_BUSY",
    );
    let published = join_all(free.map(async |topic| {
        let began = Instant::now();
        let mut published = 0;
        while began.elapsed() < Duration::from_secs(3) {
            broker.publish(topic, ["more"]).await;
            published += 1;
        }
        published
    }));
    let published = published.await;
    // Each publish may wait for two short tries of the held topic.
    assert!(published.iter().all(|&published| published > 8), "{published:?} in 3 s");
    holder.batch_execute("rollback").await.unwrap();
    publishing.shutdown().await;
    broker.publish("held", ["at last"]).await;
}
