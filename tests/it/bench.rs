//! `trunkline bench`: what it counts is what the broker did.

use serde_json::Value;
use trunkline::proto::ListTopicsRequest;

use crate::support::{TestBroker, Trunkline};

/// Runs a measurement of some kind, and returns what it found.
async fn bench(broker: &TestBroker, arguments: &str) -> Value {
    let arguments: Vec<&str> = arguments.split_whitespace().collect();
    let on = ["--endpoint", &broker.endpoint, "bench"];
    let json = ["--output", "json", "--database-url", &broker.database.url];
    let found = Trunkline::run(&[&on[..], &arguments, &json].concat()).await;
    assert_eq!(found.code(), 0, "{found:?}");
    serde_json::from_str(&found.stdout).unwrap()
}

async fn topics(broker: &TestBroker) -> usize {
    let topics = broker.topics().list_topics(ListTopicsRequest::default()).await.unwrap();
    topics.into_inner().topics.len()
}

#[track_caller]
fn assert_in_order(times: &Value) {
    let at = ["p50", "p90", "p99", "p99.9", "max"].map(|name| times[name].as_f64().unwrap());
    assert!(at[0] > 0.0 && at.is_sorted(), "{times}");
}

#[tokio::test]
async fn publishing_is_counted() {
    let broker = TestBroker::start().await;
    let load = "--messages 2500 --producers 3 --batch 100 --size 64 --topics 2 --payload random";
    let found = bench(&broker, &format!("publish {load} --keep")).await;
    assert_eq!((&found["kind"], &found["payload_bytes"]), (&"publish".into(), &64.into()));
    let published = &found["published"];
    assert_eq!((&published["messages"], &published["requests"]), (&2500.into(), &25.into()));
    assert_in_order(&published["acknowledged_ms"]);
    let database = &found["database"];
    assert!(database["wal_bytes_per_message"].as_f64().unwrap() > 32.0, "random text: {database}");
    assert!(database["disk_bytes_per_message"].as_f64().unwrap() > 0.0, "{database}");
    assert_eq!(database["batches"].as_i64().unwrap(), broker.batches().await);
    for cpu in ["broker_cpu_seconds", "postgres_cpu_seconds"] {
        assert!(found[cpu].is_number(), "{cpu}");
    }
    // They were kept.
    assert_eq!((topics(&broker).await, broker.stored().await), (2, 2500));
    let sql = broker.sql().await;
    let lengths = "select min(length(payload)), max(length(payload)) from trunkline.message";
    let lengths = sql.query_one(lengths, &[]).await.unwrap();
    assert_eq!((lengths.get(0), lengths.get(1)), (64, 64));
}

#[tokio::test]
async fn unary_calls_at_a_rate_take_as_long_as_they_must() {
    let broker = TestBroker::start().await;
    let load = "--unary --messages 50 --rate 200 --producers 1 --in-flight 4 --batch 1";
    let found = bench(&broker, &format!("publish {load}")).await;
    assert_eq!(found["published"]["requests"], 50);
    assert!(found["published"]["seconds"].as_f64().unwrap() >= 0.2, "{found}");
    assert_eq!(topics(&broker).await, 0, "the run's topics are deleted");
    let found = bench(&broker, "publish --library --messages 2000 --producers 2").await;
    assert_eq!(found["published"]["messages"], 2000);
}

#[tokio::test]
async fn every_consumer_gets_everything() {
    let broker = TestBroker::start().await;
    let found = bench(&broker, "consume --messages 3000 --consumers 2").await;
    assert_eq!(
        (&found["stored_before"], &found["consumed"]["messages"]),
        (&3000.into(), &6000.into())
    );
    let once = bench(&broker, "consume --messages 3000 --commit at-most-once").await;
    assert_eq!(once["consumed"]["messages"], 3000);

    let found = bench(&broker, "both --messages 2000 --producers 2 --batch 50").await;
    assert_eq!(
        (&found["published"]["messages"], &found["consumed"]["messages"]),
        (&2000.into(), &2000.into())
    );
    assert_in_order(&found["consumed"]["delivered_ms"]);

    let found = bench(&broker, "fanout --messages 500 --batch 50 --consumers 4 --topics 2").await;
    assert_eq!(found["consumed"]["consumers"], 4);
    assert_eq!(found["consumed"]["messages"], 1000, "two of a topic, each of which has half");
}

#[tokio::test]
async fn latency_is_measured_at_a_rate() {
    let broker = TestBroker::start().await;
    let found = bench(&broker, "latency --rate 100 --duration 1s").await;
    let messages = found["published"]["messages"].as_u64().unwrap();
    assert!((50..=101).contains(&messages), "{messages}");
    assert_eq!(found["consumed"]["messages"], messages);
    assert_in_order(&found["published"]["acknowledged_ms"]);
    assert_in_order(&found["consumed"]["delivered_ms"]);
}

#[tokio::test]
async fn idle_streams_are_woken() {
    let broker = TestBroker::start().await;
    let found = bench(&broker, "idle --streams 30 --topics 3 --duration 100ms").await;
    let idle = &found["idle"];
    assert_eq!(idle["streams"], 30);
    assert_in_order(&idle["woken_ms"]);
    assert!(idle["sessions"].as_u64().unwrap() > 3 && idle["broker_bytes"].is_number(), "{idle}");
    assert_eq!(topics(&broker).await, 0);
}

#[tokio::test]
async fn a_table_is_for_people_and_nonsense_is_refused() {
    let broker = TestBroker::start().await;
    let on = ["--endpoint", &broker.endpoint, "bench", "publish"];
    let told = Trunkline::run(&[&on[..], &["--messages", "100", "--batch", "10"]].concat()).await;
    assert_eq!(told.code(), 0, "{told:?}");
    assert!(told.stdout.contains("published:     100 messages in "), "{told:?}");
    assert!(!told.stdout.contains("database:"), "nobody named one: {told:?}");
    for bad in [&["--batch", "0"][..], &["--size", "31"], &["--producers", "0"], &["--rate", "0"]] {
        let told = Trunkline::run(&[&on[..], bad].concat()).await;
        assert_eq!(told.code(), 2, "{bad:?}: {told:?}");
    }
    let nowhere = ["--messages", "1", "--database-url", "postgresql://nobody@127.0.0.1:1/x"];
    let told = Trunkline::run(&[&on[..], &nowhere].concat()).await;
    assert_eq!((told.code(), told.stderr.lines().count()), (1, 1), "{told:?}");
    assert_eq!(topics(&broker).await, 0, "nothing was begun");
}
