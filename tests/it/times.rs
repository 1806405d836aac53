//! Times in requests are exact to the nanosecond.

use std::time::{Duration, SystemTime};

use prost_types::Timestamp;
use trunkline::{
    client::{Client, Commit, Start, Stop},
    proto::{self, Retention, register_consumer_request, seek_request, trim_topic_request::Before},
};

use crate::support::TestBroker;

/// A broker with three batches of one message each, at 123456, 123457 and 999999 microseconds after
/// a second; and that second.
async fn with_times() -> (TestBroker, i64) {
    let publishing = TestBroker::start().await;
    publishing.topic("orders").await;
    publishing.consumer("orders", "c").await;
    for message in ["a", "b", "c"] {
        publishing.publish("orders", [message]).await;
    }
    let second = 1_764_000_000;
    set_times(&publishing, second).await;
    // The broker that published knows when its last batch was stored: it would take the log for a
    // truncated one.
    let broker = publishing.start_another().await;
    publishing.stop().await;
    (broker, second)
}

async fn set_times(broker: &TestBroker, second: i64) {
    let sql = broker.sql().await;
    let set = "update trunkline.batch set published_at = to_timestamp($1::bigint)
        + (array[123456, 123457, 999999])[base_offset + 1] * interval '1 microsecond'";
    sql.execute(set, &[&second]).await.unwrap();
}

/// Nanoseconds after the second, and the offset of the first message that is not older.
const BOUNDS: [(i32, i64); 9] = [
    (0, 0),
    (123_456_000, 0),
    (123_456_001, 1),
    (123_456_999, 1),
    (123_457_000, 1),
    (123_457_001, 2),
    (999_999_000, 2),
    (999_999_001, 3),
    (999_999_999, 3),
];

#[tokio::test]
async fn every_call_is_exact_to_the_nanosecond() {
    let (broker, second) = with_times().await;
    // Also before 2000 and 1970, the epochs of PostgreSQL and of Unix, where counts are negative.
    for second in [second, 900_000_000, -1, -86_400, 0] {
        set_times(&broker, second).await;
        for (nanos, offset) in BOUNDS {
            let time = Timestamp { seconds: second, nanos };
            let time_text = format!("{second} s {nanos} ns");
            let sought = broker.seek("orders", "c", seek_request::Target::Time(time)).await;
            assert_eq!(sought.unwrap(), offset, "{time_text}");
            let read = proto::ReadMessagesRequest {
                topic: "orders".to_owned(),
                start: Some(proto::read_messages_request::Start::Time(time)),
                max_messages: 0,
            };
            let page = broker.topics().read_messages(read).await.unwrap().into_inner();
            let first = page.messages.first().map_or(3, |message| message.offset);
            assert_eq!(first, offset, "{time_text}");
            let register = proto::RegisterConsumerRequest {
                topic: "orders".to_owned(),
                consumer_id: format!("c{second}-{nanos}"),
                start: Some(register_consumer_request::Start::Time(time)),
                ..Default::default()
            };
            let registered = broker.consumers().register_consumer(register).await.unwrap();
            let position = registered.into_inner().consumer.unwrap().position;
            assert_eq!(position, offset, "{time_text}");
        }
    }
}

#[tokio::test]
async fn a_trim_is_exact_to_the_nanosecond() {
    let (broker, seconds) = with_times().await;
    for (nanos, offset) in BOUNDS {
        let before = Some(Before::Time(Timestamp { seconds, nanos }));
        let request = proto::TrimTopicRequest { topic: "orders".to_owned(), before };
        let trimmed = broker.topics().trim_topic(request).await.unwrap().into_inner();
        assert_eq!(trimmed.first_offset, offset, "{nanos} ns");
    }
}

#[tokio::test]
async fn the_library_passes_times_exact_to_the_nanosecond() {
    let (broker, second) = with_times().await;
    let client = Client::connect(&broker.endpoint).await.unwrap();
    let time = SystemTime::UNIX_EPOCH + Duration::new(second as u64, 123_456_001);
    let consumer = client.consumer("orders", "late", Commit::Auto).register_at(Start::Time(time));
    let mut consumer = consumer.stop(Stop::CaughtUp).open().await.unwrap();
    let mut offsets = Vec::new();
    while let Some(event) = consumer.next_event().await {
        if let trunkline::client::Event::Messages(messages) = event.unwrap() {
            offsets.extend(messages.iter().map(|message| message.offset));
        }
    }
    assert_eq!(offsets, [1, 2]);
}

#[tokio::test]
async fn the_command_accepts_every_form_of_rfc_3339_wherever_it_accepts_a_time() {
    let (broker, _) = with_times().await;
    let run = async |arguments: &[&str]| broker.run(arguments).await;
    // The time of the second message: 2025-11-24T16:00:00.123457Z.
    for time in [
        "@2025-11-24T16:00:00.123457Z",
        "@2025-11-24t16:00:00.123456001z",
        "@2025-11-24 16:00:00.123457-00:00",
        "@2025-11-24T18:00:00.1234560001+02:00",
        "@2025-11-24T10:30:00.123457000000-05:30",
    ] {
        let read = run(&["topic", "read", "orders", "--from", time]).await;
        assert_eq!((read.code(), read.stdout.as_str()), (0, "b\nc\n"), "{time}: {read:?}");
        let sought = run(&["consumer", "seek", "--topic", "orders", "c", "--to", time]).await;
        assert!(sought.stdout.ends_with("at offset 1\n"), "{time}: {sought:?}");
        run(&["consumer", "unregister", "--topic", "orders", "d"]).await;
        let register = ["consumer", "register", "--topic", "orders", "d", "--from", time];
        let registered = run(&register).await;
        assert!(registered.stdout.ends_with("at offset 1\n"), "{time}: {registered:?}");
        let id = format!("consumer-{}", time.len());
        let consume =
            ["consume", "orders", "--consumer", &id, "--register", "--from", time, "-n", "1"];
        let consumed = run(&consume).await;
        assert_eq!(consumed.stdout, "b\n", "{time}: {consumed:?}");
    }
    let old = run(&["topic", "read", "orders", "--from", "@1969-12-31T23:59:59.5+00:01"]).await;
    assert_eq!(old.stdout, "a\nb\nc\n", "{old:?}");
    let trimmed =
        run(&["topic", "trim", "orders", "--before", "@2025-11-24T18:00:00.123456001+02:00"]).await;
    assert!(trimmed.stdout.ends_with("begins at offset 1\n"), "{trimmed:?}");
    let too_old = run(&["topic", "read", "orders", "--from", "@0000-01-01T00:00:00Z"]).await;
    assert_eq!((too_old.code(), too_old.stderr.lines().count()), (1, 1), "{too_old:?}");
    assert!(too_old.stderr.contains("years 1 to 9999"), "{too_old:?}");
    for bad in ["@2025-11-24", "@2025-11-24T16:00:00+0200", "@16:00", "@"] {
        let refused = run(&["topic", "read", "orders", "--from", bad]).await;
        assert_eq!(refused.code(), 2, "{refused:?}");
        assert!(refused.stderr.contains("RFC 3339"), "{refused:?}");
    }
}

#[tokio::test]
async fn a_retention_age_is_rounded_up() {
    let broker = TestBroker::start().await;
    let max_age = Some(prost_types::Duration { seconds: 3_600, nanos: 1 });
    let request = proto::CreateTopicRequest {
        topic: "orders".to_owned(),
        retention: Some(Retention { max_age, ..Default::default() }),
        ..Default::default()
    };
    broker.topics().create_topic(request).await.unwrap();
    let sql = broker.sql().await;
    let kept = sql.query_one("select retention_age_ms from trunkline.topic", &[]).await.unwrap();
    assert_eq!(kept.get::<_, i64>(0), 3_600_001);
}
