//! `trunkline bench` on a slow database: requests in flight, and the end of a run.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{TestBroker, Trunkline};

/// A broker whose database needs this time to store a batch.
async fn slow_broker(seconds: f64) -> TestBroker {
    let broker = TestBroker::start().await;
    let trigger = format!(
        "create function slow() returns trigger language plpgsql as $$
         begin perform pg_sleep({seconds}); return null; end $$;
         create trigger slow after insert on trunkline.batch
             for each statement execute function slow()"
    );
    broker.sql().await.batch_execute(&trigger).await.unwrap();
    broker
}

async fn publish(broker: &TestBroker, arguments: &str) -> Value {
    let arguments: Vec<&str> = arguments.split_whitespace().collect();
    let on = ["--endpoint", &broker.endpoint, "bench", "publish"];
    let json = ["--output", "json", "--database-url", &broker.database.url];
    let arguments = [&on[..], &arguments, &json].concat();
    let report = Trunkline::run_patiently(&arguments, Duration::from_secs(40)).await;
    assert_eq!(report.code(), 0, "{report:?}");
    serde_json::from_str(&report.stdout).unwrap()
}

#[tokio::test]
async fn with_one_request_in_flight_the_next_one_waits_for_the_answer() {
    let broker = slow_broker(0.05).await;
    for mode in ["", "--unary"] {
        let load = format!("{mode} --messages 12 --batch 1 --producers 1 --in-flight 1");
        let report = publish(&broker, &load).await;
        // Requests that waited for the database together would share a batch.
        assert_eq!(report["database"]["batches"], 12, "{mode}: {report}");
        let published = &report["published"];
        let (p50, p999) =
            (&published["acknowledged_ms"]["p50"], &published["acknowledged_ms"]["p99.9"]);
        let seconds = published["seconds"].as_f64().unwrap();
        assert!(p50.as_f64().unwrap() >= 50.0, "{mode}: {published}");
        // As they run one after the other, their times add up to the whole run.
        assert!(p50.as_f64().unwrap() / 1_000.0 * 12.0 < seconds * 1.2, "{mode}: {published}");
        assert!(p999.as_f64().unwrap() / 1_000.0 <= seconds, "{mode}: {published}");
        assert_eq!(published["unanswered_requests"], 0, "{mode}: {published}");
    }
    // Four are in flight together, and share batches of three and four.
    let report = publish(&broker, "--messages 16 --batch 1 --producers 1 --in-flight 4").await;
    let batches = report["database"]["batches"].as_i64().unwrap();
    assert!((4..=10).contains(&batches), "{report}");
}

#[tokio::test]
async fn a_run_ends_on_time_even_if_the_database_cannot_keep_up() {
    let run = async |mode: &str| {
        let broker = slow_broker(2.0).await;
        let started = Instant::now();
        let load = format!("{mode} --duration 1s --producers 8 --batch 1000");
        let report = publish(&broker, &load).await;
        let published = &report["published"];
        let seconds = published["seconds"].as_f64().unwrap();
        // A busy machine may begin late.
        assert!((5.0..8.0).contains(&seconds), "{mode}: {published}");
        assert!(started.elapsed() < Duration::from_secs(25), "{mode}: {:?}", started.elapsed());
        // Rates count what was answered within the measured time.
        let messages = published["messages"].as_f64().unwrap();
        assert!(messages > 0.0, "{mode}: {published}");
        let rate = published["messages_per_second"].as_f64().unwrap();
        assert!((rate * seconds - messages).abs() < 1.0, "{mode}: {published}");
        assert!(published["unanswered_requests"].as_i64().unwrap() > 0, "{mode}: {published}");
    };
    // Concurrently, as each of them mostly waits.
    tokio::join!(run("--in-flight 8"), run("--unary --in-flight 8"), run("--library"));
}

#[tokio::test]
async fn a_rate_whose_interval_is_longer_than_the_run_does_not_prolong_it() {
    let broker = TestBroker::start().await;
    for mode in ["", "--unary", "--library"] {
        let load = format!("{mode} --duration 300ms --rate 0.05 --batch 1 --producers 1");
        let published = &publish(&broker, &load).await["published"];
        assert_eq!(published["requests"], 1, "{mode}: the first is due at once: {published}");
        assert!(published["seconds"].as_f64().unwrap() < 5.0, "{mode}: {published}");
    }
}
