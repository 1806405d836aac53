//! `trunkline bench` beside a slow database: what is in flight, and when it ends.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{TestBroker, Trunkline};

/// A broker whose database takes so long to store a batch.
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
    let found = Trunkline::run_patiently(&arguments, Duration::from_secs(40)).await;
    assert_eq!(found.code(), 0, "{found:?}");
    serde_json::from_str(&found.stdout).unwrap()
}

#[tokio::test]
async fn with_one_in_flight_the_next_request_waits_for_the_answer() {
    let broker = slow_broker(0.05).await;
    for way in ["", "--unary"] {
        let load = format!("{way} --messages 12 --batch 1 --producers 1 --in-flight 1");
        let found = publish(&broker, &load).await;
        // Requests that wait for the database together are stored together.
        assert_eq!(found["database"]["batches"], 12, "{way}: {found}");
        let published = &found["published"];
        let (p50, p999) =
            (&published["acknowledged_ms"]["p50"], &published["acknowledged_ms"]["p99.9"]);
        let seconds = published["seconds"].as_f64().unwrap();
        assert!(p50.as_f64().unwrap() >= 50.0, "{way}: {published}");
        // One after the other, they take as long as all.
        assert!(p50.as_f64().unwrap() / 1_000.0 * 12.0 < seconds * 1.2, "{way}: {published}");
        assert!(p999.as_f64().unwrap() / 1_000.0 <= seconds, "{way}: {published}");
        assert_eq!(published["unanswered_requests"], 0, "{way}: {published}");
    }
    // Four wait together, and are stored by threes and fours.
    let found = publish(&broker, "--messages 16 --batch 1 --producers 1 --in-flight 4").await;
    let batches = found["database"]["batches"].as_i64().unwrap();
    assert!((4..=10).contains(&batches), "{found}");
}

#[tokio::test]
async fn a_run_ends_in_time_though_the_database_does_not_keep_up() {
    let run = async |way: &str| {
        let broker = slow_broker(2.0).await;
        let began = Instant::now();
        let load = format!("{way} --duration 1s --producers 8 --batch 1000");
        let found = publish(&broker, &load).await;
        let published = &found["published"];
        let seconds = published["seconds"].as_f64().unwrap();
        assert!((5.9..8.0).contains(&seconds), "{way}: {published}");
        assert!(began.elapsed() < Duration::from_secs(25), "{way}: {:?}", began.elapsed());
        // Rates are of what was answered in the time that was measured.
        let messages = published["messages"].as_f64().unwrap();
        assert!(messages > 0.0, "{way}: {published}");
        let rate = published["messages_per_second"].as_f64().unwrap();
        assert!((rate * seconds - messages).abs() < 1.0, "{way}: {published}");
        assert!(published["unanswered_requests"].as_i64().unwrap() > 0, "{way}: {published}");
    };
    // At the same time, as each of them waits.
    tokio::join!(run("--in-flight 8"), run("--unary --in-flight 8"), run("--library"));
}

#[tokio::test]
async fn a_rate_that_is_slower_than_the_run_does_not_lengthen_it() {
    let broker = TestBroker::start().await;
    for way in ["", "--unary", "--library"] {
        let load = format!("{way} --duration 300ms --rate 0.05 --batch 1 --producers 1");
        let published = &publish(&broker, &load).await["published"];
        assert_eq!(published["requests"], 1, "{way}: the first is due at once: {published}");
        assert!(published["seconds"].as_f64().unwrap() < 5.0, "{way}: {published}");
    }
}
