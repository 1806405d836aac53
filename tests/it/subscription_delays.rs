//! Messages that shared subscriptions deliver at a later time.

use std::time::{Duration, SystemTime};

use prost_types::Timestamp;
use tonic::Status;
use trunkline::proto::{self, NewMessage, settlement::Verdict};

use crate::support::{
    PRODUCER, TestBroker, Trunkline, assert_field, soon, until,
    worker::{TestWorker, at_once, payloads, publish, with_jobs},
};

const HEADER: &str = "trunkline-deliver-at";

/// The limit that refusals name: 30 days.
const LIMIT: Option<u64> = Some(2_592_000);

fn in_seconds(seconds: u64) -> SystemTime {
    SystemTime::now() + Duration::from_secs(seconds)
}

fn delayed(payload: &str, time: SystemTime) -> NewMessage {
    NewMessage::new(payload.to_owned()).with_deliver_at(time)
}

async fn try_publish(broker: &TestBroker, messages: Vec<NewMessage>) -> Result<i64, Status> {
    let (topic, producer_id) = ("jobs".to_owned(), PRODUCER.to_owned());
    let request = proto::PublishRequest { topic, producer_id, messages, ..Default::default() };
    Ok(broker.producers().publish(request).await?.into_inner().first_offset)
}

async fn publish_all(broker: &TestBroker, messages: Vec<NewMessage>) {
    try_publish(broker, messages).await.unwrap();
}

/// Waits until so many messages are stored as ones that wait.
async fn stored(worker: &mut TestWorker, count: i64) {
    until("the messages that wait are stored", async || {
        worker.describe().await.retried_messages == count
    })
    .await;
}

#[tokio::test]
async fn a_message_comes_not_before_its_time_and_others_pass_it() {
    let (broker, mut worker) = with_jobs(0, at_once()).await;
    let time = in_seconds(3);
    let messages = vec![delayed("later", time), NewMessage::new("now")];
    publish_all(&broker, messages).await;
    let work = worker.receive(10).await;
    assert_eq!(payloads(&work), ["now"]);
    assert!(worker.receive_now(10).await.is_empty());
    assert_eq!(worker.acknowledge(&work).await, 1);
    assert_eq!(worker.describe().await.floor, 2);
    stored(&mut worker, 1).await;

    let later = worker.receive(10).await;
    assert!(SystemTime::now() >= time, "it came too early");
    assert_eq!((payloads(&later), later[0].attempt), (vec!["later"], 1));
    // Like any other, it can be released and retried.
    assert_eq!(worker.settle(&later, Verdict::Release(proto::Release {})).await, 1);
    let again = worker.receive(10).await;
    assert_eq!((payloads(&again), again[0].attempt), (vec!["later"], 1));
    assert_eq!(worker.acknowledge(&again).await, 1);
    stored(&mut worker, 0).await;
    assert!(worker.receive_now(10).await.is_empty());
}

#[tokio::test]
async fn a_stream_is_caught_up_while_messages_wait_and_gets_them_when_they_are_due() {
    let (broker, worker) = with_jobs(0, at_once()).await;
    let mut stream = worker.stream().await;
    stream.caught_up().await;
    let time = in_seconds(2);
    // A time that has passed is at once.
    let past = SystemTime::now() - Duration::from_secs(3_600);
    publish_all(&broker, vec![delayed("later", time), delayed("past", past)]).await;
    assert_eq!(payloads(&stream.work().await), ["past"]);
    assert_eq!(payloads(&stream.work().await), ["later"]);
    assert!(SystemTime::now() >= time, "it came too early");
    stream.close().await;
}

#[tokio::test]
async fn the_next_owner_knows_when_a_message_is_due() {
    let (broker, mut worker) = with_jobs(0, at_once()).await;
    let time = in_seconds(3);
    publish_all(&broker, vec![delayed("later", time), delayed("much later", in_seconds(3_600))])
        .await;
    assert!(worker.receive_now(10).await.is_empty());
    stored(&mut worker, 2).await;
    let database = broker.database.clone();
    broker.stop().await;

    let broker = TestBroker::start_on(database).await;
    let mut worker = TestWorker::at(&broker.client, "jobs", "pool");
    assert_eq!(worker.describe().await.floor, 2);
    let work = worker.receive(10).await;
    assert!(SystemTime::now() >= time, "it came too early");
    assert_eq!((payloads(&work), work[0].attempt), (vec!["later"], 1));
    assert_eq!(worker.acknowledge(&work).await, 1);
    stored(&mut worker, 1).await;
    // A seek back looks at the messages again.
    let to_start = proto::seek_request::Target::Edge(proto::LogEdge::Earliest.into());
    broker.seek("jobs", "pool", to_start).await.unwrap();
    assert_eq!(payloads(&worker.receive(10).await), ["later"]);
    stored(&mut worker, 1).await;
}

#[tokio::test]
async fn readers_in_order_get_a_message_at_once_with_its_time() {
    let broker = TestBroker::start().await;
    broker.topic("jobs").await;
    broker.consumer("jobs", "reader").await;
    let time = SystemTime::UNIX_EPOCH + Duration::new(1_764_000_000, 1);
    let sent = delayed("past", time).with_header("kind", "job");
    publish_all(&broker, vec![sent, delayed("later", in_seconds(3_600))]).await;
    let pulled = broker.pull("jobs", "reader", 10).await.unwrap().messages;
    let headers = [("kind", "job"), (HEADER, "2025-11-24T16:00:00.001Z")];
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(pulled[0].headers, headers.into());
    let text = &pulled[1].headers[HEADER];
    assert!(text.len() == 24 && text.ends_with('Z'), "{text}");
}

#[tokio::test]
async fn a_header_that_the_publisher_sets_means_the_same() {
    let (broker, mut worker) = with_jobs(0, at_once()).await;
    let sql = broker.sql().await;
    let publish = "select trunkline.publish('jobs', 'later', headers =>
            jsonb_build_object('trunkline-deliver-at', now() + interval '3 seconds'))";
    // The database knows microseconds.
    let time = in_seconds(3) - Duration::from_millis(1);
    sql.batch_execute(publish).await.unwrap();
    let publish = "select trunkline.publish('jobs', 'at once', headers =>
            '{\"trunkline-deliver-at\": \"tomorrow\"}')";
    sql.batch_execute(publish).await.unwrap();
    assert_eq!(payloads(&worker.receive(10).await), ["at once"]);
    assert_eq!(payloads(&worker.receive(10).await), ["later"]);
    assert!(SystemTime::now() >= time, "it came too early");

    let headed = |value: &str| NewMessage::new("headed").with_header(HEADER, value);
    publish_all(&broker, vec![headed("2025-11-24T16:00:00Z")]).await;
    assert_eq!(payloads(&worker.receive(10).await), ["headed"]);
    for bad in ["", "tomorrow", "9999-12-31T00:00:00Z"] {
        let published = try_publish(&broker, vec![NewMessage::new("good"), headed(bad)]).await;
        assert_field(published, "messages[1].headers.trunkline-deliver-at", LIMIT);
    }
}

#[tokio::test]
async fn a_time_that_is_not_valid_is_refused() {
    let broker = TestBroker::start().await;
    broker.topic("jobs").await;
    let at = |seconds, nanos| NewMessage {
        deliver_at: Some(Timestamp { seconds, nanos }),
        ..NewMessage::new("bad")
    };
    let month = Timestamp::from(in_seconds(30 * 24 * 3_600)).seconds;
    for bad in [at(month + 60, 0), at(0, -1), at(0, 1_000_000_000), at(i64::MAX, 0)] {
        let published = try_publish(&broker, vec![NewMessage::new("good"), bad]).await;
        assert_field(published, "messages[1].deliver_at", LIMIT);
    }
    let both = at(0, 0).with_header(HEADER, "2025-11-24T16:00:00Z");
    assert_field(try_publish(&broker, vec![both]).await, "messages[0].deliver_at", None);
    // The header that it becomes counts.
    let full = (0..64).fold(at(0, 0), |message, name| message.with_header(name.to_string(), ""));
    assert_field(try_publish(&broker, vec![full]).await, "messages[0].headers", Some(64));
    assert_eq!(try_publish(&broker, vec![at(month - 60, 0), at(0, 0)]).await.unwrap(), 0);
}

#[tokio::test]
async fn what_a_filter_leaves_out_is_not_delayed() {
    let filter = "headers.kind = \"order\"".to_owned();
    let policy = proto::DeliveryPolicy { filter, ..at_once() };
    let (broker, mut worker) = with_jobs(0, policy).await;
    let time = in_seconds(3_600);
    let kind = |message: NewMessage, kind| message.with_header("kind", kind);
    let messages = vec![
        kind(delayed("late offer", time), "offer"),
        kind(delayed("late order", time), "order"),
        kind(NewMessage::new("offer"), "offer"),
        kind(NewMessage::new("order"), "order"),
    ];
    publish_all(&broker, messages).await;
    let work = worker.receive(10).await;
    assert_eq!(payloads(&work), ["order"]);
    assert_eq!(worker.acknowledge(&work).await, 1);
    assert_eq!(worker.describe().await.floor, 4);
    stored(&mut worker, 1).await;
}

#[tokio::test]
async fn many_messages_wait_at_once_and_those_behind_them_are_delivered() {
    let (broker, mut worker) = with_jobs(0, at_once()).await;
    let time = in_seconds(3_600);
    for _ in 0..3 {
        publish_all(&broker, vec![delayed("later", time); 10_000]).await;
    }
    publish(&broker, 1).await;
    let work = worker.receive(1).await;
    assert_eq!((payloads(&work), work[0].offset), (vec!["m0"], 30_000));
    assert_eq!(worker.acknowledge(&work).await, 1);
    assert_eq!(worker.describe().await.floor, 30_001);
    stored(&mut worker, 30_000).await;
}

#[tokio::test]
async fn the_command_publishes_messages_for_later() {
    let broker = TestBroker::start().await;
    let produce = ["produce", "jobs", "--producer", "till", "--register"];
    let with = |options: &[&'static str]| [&produce[..], options].concat();
    let before = SystemTime::now();
    let produced = broker.run_with_input(&with(&["--delay", "2s"]), "later\n").await;
    assert_eq!(produced.code(), 0, "{produced:?}");
    let past = ["--deliver-at", "2025-11-24T18:00:00+02:00"];
    let produced = broker.run_with_input(&with(&past), "past\n").await;
    assert_eq!(produced.code(), 0, "{produced:?}");
    let read = broker.run(&["topic", "read", "jobs", "--format", r"%p %h\n"]).await;
    assert!(read.stdout.contains("past trunkline-deliver-at=2025-11-24T16:00:00.000Z"), "{read:?}");

    let mut worker = TestWorker::subscribe(&broker, "jobs", "pool", at_once()).await;
    let work = worker.receive_all(2).await;
    let mut received = payloads(&work);
    received.sort_unstable();
    assert_eq!(received, ["later", "past"]);
    assert!(before.elapsed().unwrap() >= Duration::from_secs(2), "it came too early");

    for bad in [
        &["--delay", "31days"][..],
        &["--delay", "soon"],
        &["--deliver-at", "2h"],
        &["--deliver-at", "9999-12-31T00:00:00Z"],
        &["--deliver-at", "2026-01-01T00:00:00Z", "--delay", "1s"],
        &["--deliver-at", "2026-01-01T00:00:00Z", "--header", "trunkline-deliver-at=x"],
        &["--header", "trunkline-deliver-at=x"],
    ] {
        let refused = broker.run_with_input(&with(bad), "x\n").await;
        assert_eq!(refused.code(), 2, "{bad:?}: {refused:?}");
    }
    let help = soon("the help", Trunkline::run(&["produce", "--help"])).await;
    assert!(help.stdout.contains("30 days"), "{help:?}");
}
