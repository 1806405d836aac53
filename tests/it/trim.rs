//! Trimming topics on request.

use std::{sync::Arc, time::Duration};

use tonic::{Code, Status};
use trunkline::proto::{self, trim_topic_request::Before};

use crate::support::{TestBroker, assert_field, assert_refused, until};

async fn trim(broker: &TestBroker, topic: &str, before: Option<Before>) -> Result<i64, Status> {
    let request = proto::TrimTopicRequest { topic: topic.to_owned(), before };
    Ok(broker.topics().trim_topic(request).await?.into_inner().first_offset)
}

#[tokio::test]
async fn a_trim_is_exact_to_the_message() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    broker.publish("orders", ["a", "b", "c"]).await;
    broker.publish("orders", ["d"]).await;
    let second = {
        let sql = broker.sql().await;
        let time = "select max(published_at) from trunkline.batch";
        sql.query_one(time, &[]).await.unwrap().get::<_, std::time::SystemTime>(0)
    };
    assert_eq!(trim(&broker, "orders", Some(Before::Offset(0))).await.unwrap(), 0);
    assert_eq!(trim(&broker, "orders", Some(Before::Offset(2))).await.unwrap(), 2);
    assert_eq!(broker.read_payloads("orders").await, ["c", "d"]);
    // The log start offset never moves back.
    assert_eq!(trim(&broker, "orders", Some(Before::Offset(1))).await.unwrap(), 2);
    assert_eq!(trim(&broker, "orders", Some(Before::Time(second.into()))).await.unwrap(), 3);
    let later = second + Duration::from_secs(3_600);
    assert_eq!(trim(&broker, "orders", Some(Before::Time(later.into()))).await.unwrap(), 4);
    assert!(broker.read_payloads("orders").await.is_empty());
    until("the rows are deleted", async || broker.batches().await == 0).await;
    assert_eq!(broker.publish("orders", ["e"]).await, 4);
    assert_eq!(broker.read_payloads("orders").await, ["e"]);

    let beyond = trim(&broker, "orders", Some(Before::Offset(6))).await;
    let metadata = assert_refused(beyond, Code::OutOfRange, "OFFSET_OUT_OF_RANGE");
    assert_eq!((metadata["offset"].as_str(), metadata["head"].as_str()), ("6", "5"));
    assert_field(trim(&broker, "orders", None).await, "before", None);
    assert_field(trim(&broker, "orders", Some(Before::Offset(-1))).await, "offset", None);
    let no_time = prost_types::Timestamp { seconds: 0, nanos: -1 };
    assert_field(trim(&broker, "orders", Some(Before::Time(no_time))).await, "time", None);
    assert_field(trim(&broker, "a b", Some(Before::Offset(1))).await, "topic", None);
    let no_topic = trim(&broker, "nope", Some(Before::Offset(1))).await;
    assert_refused(no_topic, Code::NotFound, "TOPIC_NOT_FOUND");
}

#[tokio::test]
async fn trimming_many_batches_does_not_delay_publishes() {
    const BATCHES: i64 = 20_000;
    let broker = Arc::new(TestBroker::start().await);
    broker.topic("orders").await;
    let sql = broker.sql().await;
    sql.execute(
        "insert into trunkline.batch (topic_id, base_offset, count, bytes, payloads, producers,
             producer_counts, published_at)
         select id, n, 1, 1, array['x'::bytea], array['producer'], array[1], now()
         from trunkline.topic, generate_series(0, $1::bigint - 1) as n",
        &[&BATCHES],
    )
    .await
    .unwrap();
    sql.execute(
        "update trunkline.topic_head set next_offset = $1, bytes = $1, last_published_at = now()",
        &[&BATCHES],
    )
    .await
    .unwrap();
    let trimming = broker.clone();
    let trimming = tokio::spawn(async move { trimming.trim("orders", BATCHES).await });
    // A publish that waits half a second for the topic's row would be refused.
    let mut published = 0;
    while !trimming.is_finished() || published < 10 {
        broker.publish("orders", ["y"]).await;
        published += 1;
    }
    assert_eq!(trimming.await.unwrap(), BATCHES);
    until("the trimmed batches are deleted", async || broker.batches().await == published).await;
    assert_eq!(broker.get_topic("orders").await.bytes, published);
}

#[tokio::test]
async fn the_command_sets_limits_and_trims() {
    let broker = TestBroker::start().await;
    let run = async |arguments: &[&str]| broker.run(arguments).await;
    let created =
        run(&["topic", "create", "orders", "--retention-age", "7d", "--keep-unread"]).await;
    assert_eq!(created.code(), 0, "{created:?}");
    let described = run(&["topic", "describe", "orders"]).await;
    assert!(described.stdout.contains("1w; unread messages are kept"), "{described:?}");
    let updated = run(&[
        "topic",
        "update",
        "orders",
        "--retention-age",
        "forever",
        "--retention-bytes",
        "1GiB",
        "--keep-unread=false",
    ])
    .await;
    assert_eq!(updated.code(), 0, "{updated:?}");
    let described = run(&["topic", "describe", "orders"]).await;
    assert!(described.stdout.contains("kept:            1GiB\n"), "{described:?}");
    let nothing = run(&["topic", "update", "orders"]).await;
    assert_eq!((nothing.code(), nothing.stderr.lines().count()), (2, 1), "{nothing:?}");
    let bad = run(&["topic", "update", "orders", "--retention-age", "soon"]).await;
    assert_eq!(bad.code(), 2, "{bad:?}");

    broker.producer("orders", "producer").await;
    broker.publish("orders", ["a", "b", "c"]).await;
    let trimmed = run(&["topic", "trim", "orders", "--before", "2"]).await;
    assert_eq!(trimmed.code(), 0, "{trimmed:?}");
    assert!(trimmed.stdout.contains("begins at offset 2"), "{trimmed:?}");
    let late = run(&[
        "consume",
        "orders",
        "--consumer",
        "late",
        "--register",
        "--from",
        "2",
        "--until-caught-up",
    ])
    .await;
    assert_eq!((late.code(), late.stdout.as_str()), (0, "c\n"), "{late:?}");
    let trimmed = run(&["topic", "trim", "orders", "--before", "@1970-01-01T00:00:00Z"]).await;
    assert!(trimmed.stdout.contains("begins at offset 2"), "{trimmed:?}");
    let beyond = run(&["topic", "trim", "orders", "--before", "9"]).await;
    assert_eq!(beyond.code(), 1, "{beyond:?}");
}
