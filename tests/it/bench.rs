//! `trunkline bench` reports what the broker did.

use serde_json::Value;
use trunkline::proto::ListTopicsRequest;

use crate::support::{TestBroker, Trunkline};

/// Runs a benchmark; returns its report.
async fn bench(broker: &TestBroker, arguments: &str) -> Value {
    let arguments: Vec<&str> = arguments.split_whitespace().collect();
    let on = ["--endpoint", &broker.endpoint, "bench"];
    let json = ["--output", "json", "--database-url", &broker.database.url];
    let report = Trunkline::run(&[&on[..], &arguments, &json].concat()).await;
    assert_eq!(report.code(), 0, "{report:?}");
    serde_json::from_str(&report.stdout).unwrap()
}

async fn count_topics(broker: &TestBroker) -> usize {
    let topics = broker.topics().list_topics(ListTopicsRequest::default()).await.unwrap();
    topics.into_inner().topics.len()
}

#[track_caller]
fn assert_percentiles(times: &Value) {
    let times_in_order =
        ["p50", "p90", "p99", "p99.9", "max"].map(|name| times[name].as_f64().unwrap());
    assert!(times_in_order[0] > 0.0 && times_in_order.is_sorted(), "{times}");
}

#[tokio::test]
async fn publishing_reports_what_was_published_and_stored() {
    let broker = TestBroker::start().await;
    let load = "--messages 2500 --producers 3 --batch 100 --size 64 --topics 2 --payload random";
    let report = bench(&broker, &format!("publish {load} --keep")).await;
    assert_eq!((&report["kind"], &report["payload_bytes"]), (&"publish".into(), &64.into()));
    let published = &report["published"];
    assert_eq!((&published["messages"], &published["requests"]), (&2500.into(), &25.into()));
    assert_percentiles(&published["acknowledged_ms"]);
    let database = &report["database"];
    assert!(
        database["wal_bytes_per_message"].as_f64().unwrap() > 32.0,
        "random text does not compress: {database}"
    );
    assert!(database["disk_bytes_per_message"].as_f64().unwrap() > 0.0, "{database}");
    assert_eq!(database["batches"].as_i64().unwrap(), broker.batches().await);
    for cpu in ["broker_cpu_seconds", "postgres_cpu_seconds"] {
        assert!(report[cpu].is_number(), "{cpu}");
    }
    // The topics and their messages are kept.
    assert_eq!((count_topics(&broker).await, broker.stored().await), (2, 2500));
    let sql = broker.sql().await;
    let lengths = "select min(length(payload)), max(length(payload)) from trunkline.message";
    let lengths = sql.query_one(lengths, &[]).await.unwrap();
    assert_eq!((lengths.get(0), lengths.get(1)), (64, 64));
}

#[tokio::test]
async fn unary_calls_keep_to_the_rate() {
    let broker = TestBroker::start().await;
    let load = "--unary --messages 50 --rate 200 --producers 1 --in-flight 4 --batch 1";
    let report = bench(&broker, &format!("publish {load}")).await;
    assert_eq!(report["published"]["requests"], 50);
    assert!(report["published"]["seconds"].as_f64().unwrap() >= 0.2, "{report}");
    assert_eq!(count_topics(&broker).await, 0, "the topics of the run are deleted");
    let report = bench(&broker, "publish --library --messages 2000 --producers 2").await;
    assert_eq!(report["published"]["messages"], 2000);
}

#[tokio::test]
async fn every_consumer_gets_every_message() {
    let broker = TestBroker::start().await;
    let report = bench(&broker, "consume --messages 3000 --consumers 2").await;
    assert_eq!(
        (&report["stored_before"], &report["consumed"]["messages"]),
        (&3000.into(), &6000.into())
    );
    let once = bench(&broker, "consume --messages 3000 --commit at-most-once").await;
    assert_eq!(once["consumed"]["messages"], 3000);

    let report = bench(&broker, "both --messages 2000 --producers 2 --batch 50").await;
    assert_eq!(
        (&report["published"]["messages"], &report["consumed"]["messages"]),
        (&2000.into(), &2000.into())
    );
    assert_percentiles(&report["consumed"]["delivered_ms"]);

    let report = bench(&broker, "fanout --messages 500 --batch 50 --consumers 4 --topics 2").await;
    assert_eq!(report["consumed"]["consumers"], 4);
    assert_eq!(
        report["consumed"]["messages"], 1000,
        "two consumers for each topic, and half of the messages in each topic"
    );
}

#[tokio::test]
async fn workers_acknowledge_all_that_is_published_or_was_stored() {
    let broker = TestBroker::start().await;
    let report = bench(&broker, "work --messages 3000 --batch 50 --workers 3 --retried 50").await;
    assert_eq!(report["kind"], "work");
    assert_eq!(report["consumed"]["consumers"], 3);
    let stored = bench(&broker, "work --messages 3000 --stored --order in-order").await;
    assert_eq!(stored["stored_before"], 3000);
    assert_eq!(stored["consumed"]["messages"], 3000);
}

#[tokio::test]
async fn latency_is_measured_at_the_requested_rate() {
    let broker = TestBroker::start().await;
    let report = bench(&broker, "latency --rate 100 --duration 1s").await;
    let messages = report["published"]["messages"].as_u64().unwrap();
    assert!((50..=101).contains(&messages), "{messages}");
    assert_eq!(report["consumed"]["messages"], messages);
    assert_percentiles(&report["published"]["acknowledged_ms"]);
    assert_percentiles(&report["consumed"]["delivered_ms"]);
}

#[tokio::test]
async fn idle_streams_are_woken_by_a_message() {
    let broker = TestBroker::start().await;
    let report = bench(&broker, "idle --streams 30 --topics 3 --duration 100ms").await;
    let idle = &report["idle"];
    assert_eq!(idle["streams"], 30);
    assert_percentiles(&idle["woken_ms"]);
    assert!(idle["sessions"].as_u64().unwrap() > 3 && idle["broker_bytes"].is_number(), "{idle}");
    assert_eq!(count_topics(&broker).await, 0);
}

#[tokio::test]
async fn the_default_output_is_a_table_and_bad_options_are_refused() {
    let broker = TestBroker::start().await;
    let on = ["--endpoint", &broker.endpoint, "bench", "publish"];
    let ran = Trunkline::run(&[&on[..], &["--messages", "100", "--batch", "10"]].concat()).await;
    assert_eq!(ran.code(), 0, "{ran:?}");
    assert!(ran.stdout.contains("published:     100 messages in "), "{ran:?}");
    assert!(!ran.stdout.contains("database:"), "no database URL was given: {ran:?}");
    for bad in [&["--batch", "0"][..], &["--size", "31"], &["--producers", "0"], &["--rate", "0"]] {
        let ran = Trunkline::run(&[&on[..], bad].concat()).await;
        assert_eq!(ran.code(), 2, "{bad:?}: {ran:?}");
    }
    let no_database = ["--messages", "1", "--database-url", "postgresql://nobody@127.0.0.1:1/x"];
    let ran = Trunkline::run(&[&on[..], &no_database].concat()).await;
    assert_eq!((ran.code(), ran.stderr.lines().count()), (1, 1), "{ran:?}");
    assert_eq!(count_topics(&broker).await, 0, "nothing was started");
}
