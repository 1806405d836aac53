//! Calls are not delayed by rows of other topics that another database session locks.

use std::time::{Duration, Instant};

use futures::future::join_all;
use tokio::task::JoinSet;
use tonic::Code;
use trunkline::{client::Client, proto};

use crate::{
    held_rows::BOUND,
    support::{LIMITS, PRODUCER, TestBroker, assert_refused, message, soon, until},
};

/// Makes one of the calls that need a row of a topic, its consumers or its producers.
async fn call_for_rows(client: Client, number: usize, name: &str) {
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
            let register = proto::RegisterConsumerRequest {
                topic: topic(),
                consumer_id,
                if_missing: true,
                ..Default::default()
            };
            drop(consumers.register_consumer(register).await);
        }
        3 => {
            let producer_id = PRODUCER.to_owned();
            let fence = proto::RegisterProducerRequest {
                topic: topic(),
                producer_id,
                fence: true,
                ..Default::default()
            };
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

async fn assert_calls_are_not_delayed_by(rows: &str) {
    let broker = TestBroker::start().await;
    for topic in ["held", "free"] {
        broker.topic(topic).await;
        broker.consumer(topic, "billing").await;
        broker.publish(topic, ["first"]).await;
    }
    let holder = broker.sql().await;
    holder.batch_execute(&format!("begin; {rows}")).await.unwrap();
    let mut calling = JoinSet::new();
    for number in 0..30 {
        let client = Client::connect(&broker.endpoint).await.unwrap();
        calling.spawn(async move {
            loop {
                call_for_rows(client.clone(), number, "held").await;
            }
        });
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let topic = || "free".to_owned();
    let (mut slowest, start) = ((Duration::ZERO, ""), Instant::now());
    let waits = "select count(*) from pg_stat_activity
        where datname = current_database() and application_name = 'trunkline query'
          and wait_event_type = 'Lock'";
    while start.elapsed() < Duration::from_secs(3) {
        let mut took = |what, since: Instant| slowest = slowest.max((since.elapsed(), what));
        let started = Instant::now();
        let get = proto::GetTopicRequest { topic: topic() };
        soon("a topic", broker.topics().get_topic(get)).await.unwrap();
        took("describe", started);
        let started = Instant::now();
        let (consumer_id, target) =
            ("billing".to_owned(), Some(proto::seek_request::Target::Offset(0)));
        let seek = proto::SeekRequest { topic: topic(), consumer_id, target };
        soon("a seek", broker.consumers().seek(seek)).await.unwrap();
        took("seek", started);
        let started = Instant::now();
        let (consumer_id, max_messages) = ("billing".to_owned(), 1);
        let pull = proto::PullRequest { topic: topic(), consumer_id, max_messages, wait: None };
        let pulled = soon("a pull", broker.consumers().pull(pull)).await.unwrap().into_inner();
        assert_eq!(pulled.messages.len(), 1);
        took("pull", started);
        let waiting: i64 = holder.query_one(waits, &[]).await.unwrap().get(0);
        assert!(waiting < LIMITS.queries as i64, "all sessions wait for rows");
    }
    assert!(slowest.0 < BOUND, "{slowest:?} beside held rows ({rows})");
    holder.batch_execute("rollback").await.unwrap();
    calling.shutdown().await;
    // No session is left waiting.
    let idle = async || holder.query_one(waits, &[]).await.unwrap().get::<_, i64>(0) == 0;
    until("no session waits for a row", idle).await;
}

const HELD: &str = "(select id from trunkline.topic where name = 'held')";

#[tokio::test]
async fn a_held_head_delays_no_calls_for_other_topics() {
    let head = "select 1 from trunkline.topic_head where topic_id =";
    assert_calls_are_not_delayed_by(&format!("{head} {HELD} for update")).await;
}

#[tokio::test]
async fn a_held_topic_delays_no_calls_for_other_topics() {
    let topic = "select 1 from trunkline.topic where name = 'held' for update";
    assert_calls_are_not_delayed_by(topic).await;
}

#[tokio::test]
async fn held_consumers_delay_no_calls_for_other_topics() {
    let consumers = "select 1 from trunkline.consumer_topic where topic_id =";
    assert_calls_are_not_delayed_by(&format!("{consumers} {HELD} for update")).await;
}

#[tokio::test]
async fn held_producers_delay_no_calls_for_other_topics() {
    let producers = "select 1 from trunkline.producer_topic where topic_id =";
    assert_calls_are_not_delayed_by(&format!("{producers} {HELD} for update")).await;
}

/// A statement waits for an uncommitted name as for a locked row.
#[tokio::test]
async fn a_topic_that_another_session_creates_delays_no_other_new_topic() {
    let broker = TestBroker::start().await;
    let holder = broker.sql().await;
    let creating = "begin; insert into trunkline.topic (name) values ('held')";
    holder.batch_execute(creating).await.unwrap();
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
            created.expect("another topic is created").unwrap();
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
async fn publishes_to_a_held_topic_delay_no_publish_to_another_topic() {
    let broker = TestBroker::start().await;
    // Some of these share the writer of the held topic, and sort before or after it.
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
                call_for_rows(client.clone(), 6, "held").await;
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
        let start = Instant::now();
        let mut published = 0;
        while start.elapsed() < Duration::from_secs(3) {
            broker.publish(topic, ["more"]).await;
            published += 1;
        }
        published
    }));
    let published = published.await;
    // Each publish may wait for two short attempts of the held topic.
    assert!(published.iter().all(|&published| published > 8), "{published:?} in 3 s");
    holder.batch_execute("rollback").await.unwrap();
    publishing.shutdown().await;
    broker.publish("held", ["at last"]).await;
}
