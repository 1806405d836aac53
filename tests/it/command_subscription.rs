//! `trunkline subscription`.

use serde_json::{Value, json};

use crate::support::{
    Finished, TestBroker,
    worker::{TestWorker, reject},
};

#[track_caller]
fn parsed(finished: &Finished) -> Value {
    assert_eq!(finished.code(), 0, "{finished:?}");
    serde_json::from_str(&finished.stdout).unwrap()
}

/// A broker with ten messages in the topic `orders`, and the subscription `billing`.
async fn with_messages() -> TestBroker {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    let payloads = (0..10).map(|number| format!("m{number}"));
    broker.try_publish("orders", "producer", payloads).await.unwrap();
    broker.run(&["subscription", "create", "orders", "billing"]).await.assert().success();
    broker
}

#[tokio::test]
async fn subscriptions_are_created_listed_described_and_deleted() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    broker.topic("bills").await;
    broker.consumer("orders", "no-subscription").await;
    let done = async |arguments: &[&str], line: &str| {
        let finished = broker.run(&[&["subscription"], arguments].concat()).await;
        assert_eq!((finished.code(), finished.stdout.trim_end()), (0, line), "{finished:?}");
    };
    let created = "created subscription billing on topic orders at offset 0";
    let flags = ["--max-deliveries", "5", "--filter", "headers:kind"];
    done(&[&["create", "orders", "billing"][..], &flags].concat(), created).await;
    let again = ["create", "orders", "billing", "--if-missing", "--max-deliveries", "6"];
    done(&again, "subscription billing exists on topic orders at offset 0").await;
    let refused = broker.run(&["subscription", "create", "orders", "billing"]).await;
    assert_eq!((refused.code(), refused.stderr.lines().count()), (1, 1), "{refused:?}");
    done(
        &["create", "bills", "audit", "--from", "latest"],
        "created subscription audit on topic bills at offset 0",
    )
    .await;
    let described = broker.run(&["subscription", "describe", "orders", "billing"]).await;
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let lines: Vec<String> = described.stdout.lines().map(words).collect();
    for line in [
        "subscription: billing",
        "topic: orders",
        "retried: 0",
        "unacknowledged: 0",
        "workers: 0",
        "ack deadline: 30s",
        "min backoff: 1s",
        "max backoff: 1m",
        "parks after: 5 deliveries",
        "filter: headers:kind",
    ] {
        assert!(lines.iter().any(|it| it == line), "{line}: {described:?}");
    }
    let listed = broker.run(&["subscription", "ls"]).await;
    let rows: Vec<Vec<&str>> =
        listed.stdout.lines().map(|line| line.split_whitespace().take(5).collect()).collect();
    assert_eq!(
        rows,
        [
            ["TOPIC", "SUBSCRIPTION", "FLOOR", "HEAD", "RETRIED"],
            ["bills", "audit", "0", "0", "0"],
            ["orders", "billing", "0", "0", "0"],
        ]
    );
    let listed = parsed(&broker.run(&["subscription", "list", "orders", "-o", "json"]).await);
    let one = ["subscription", "describe", "orders", "billing", "-o", "json"];
    let mut described = parsed(&broker.run(&one).await);
    for (field, value) in [
        ("unacknowledged_messages", json!(0)),
        ("oldest_unacknowledged_time", json!(null)),
        ("lost_messages", json!(0)),
        ("workers", json!(0)),
        ("outstanding_messages", json!(0)),
        ("outstanding_bytes", json!(0)),
        ("stalled_by", json!(null)),
    ] {
        // A list does not say how each of them stands.
        assert_eq!(described.as_object_mut().unwrap().remove(field), Some(value), "{field}");
    }
    assert_eq!(listed, json!([described]));
    let expected = json!({
        "ack_deadline_seconds": 30.0, "min_backoff_seconds": 1.0, "max_backoff_seconds": 60.0,
        "max_deliveries": 5, "filter": "headers:kind", "dead_letter_topic": "",
        "exactly_once": false,
        "max_outstanding_messages": 0, "max_outstanding_bytes": 0,
    });
    assert_eq!(listed[0]["policy"], expected);
    done(&["rm", "orders", "billing"], "deleted subscription billing from topic orders").await;
    let gone = broker.run(&["subscription", "describe", "orders", "billing"]).await;
    assert_eq!(gone.code(), 1, "{gone:?}");
    assert!(gone.stderr.contains("trunkline subscription create"), "{gone:?}");
    let alone = broker.run(&["subscription", "describe", "orders", "no-subscription"]).await;
    assert_eq!(alone.code(), 1, "{alone:?}");
    assert!(alone.stderr.contains("NOT_A_SUBSCRIPTION"), "{alone:?}");
}

#[tokio::test]
async fn only_what_is_given_is_changed() {
    let broker = with_messages().await;
    let update = async |arguments: &[&str]| {
        let update = ["subscription", "update", "orders", "billing", "-o", "json"];
        broker.run(&[&update[..], arguments].concat()).await
    };
    let first = ["--ack-deadline", "90s", "--max-deliveries", "3"];
    assert_eq!(parsed(&update(&first).await)["policy"]["ack_deadline_seconds"], 90.0);
    let second = [
        ["--min-backoff", "500ms", "--max-backoff", "2h", "--max-deliveries", "0"].as_slice(),
        &["--exactly-once", "--max-outstanding-messages", "500"],
    ]
    .concat();
    let expected = json!({
        "ack_deadline_seconds": 90.0, "min_backoff_seconds": 0.5, "max_backoff_seconds": 7200.0,
        "max_deliveries": null, "filter": "", "dead_letter_topic": "",
        "exactly_once": true,
        "max_outstanding_messages": 500, "max_outstanding_bytes": 0,
    });
    assert_eq!(parsed(&update(&second).await)["policy"], expected);
    for filter in ["-headers:thumbnail", ""] {
        let updated = parsed(&update(&["--filter", filter]).await);
        assert_eq!(updated["policy"]["filter"], filter);
    }
    let nothing = update(&[]).await;
    assert_eq!((nothing.code(), nothing.stderr.lines().count()), (2, 1), "{nothing:?}");
    for wrong in [["--ack-deadline", "1ms"], ["--max-backoff", "100ms"]] {
        let refused = update(&wrong).await;
        assert_eq!((refused.code(), refused.stderr.lines().count()), (1, 1), "{refused:?}");
    }
    assert_eq!(update(&["--max-deliveries", "1001"]).await.code(), 2);
}

#[tokio::test]
async fn a_seek_moves_a_subscription() {
    let broker = with_messages().await;
    let seek = ["subscription", "seek", "orders", "billing", "--to"];
    let sought = broker.run(&[&seek[..], &["latest"]].concat()).await;
    assert_eq!(sought.stdout, "subscription billing on topic orders continues at offset 10\n");
    let sought = parsed(&broker.run(&[&seek[..], &["4", "-o", "json"]].concat()).await);
    let expected = json!({ "topic": "orders", "subscription_id": "billing", "position": 4 });
    assert_eq!(sought, expected);
    let mut worker = TestWorker::at(&broker.client, "orders", "billing");
    assert_eq!(worker.receive(1).await[0].offset, 4);
}

#[tokio::test]
async fn parked_messages_are_listed_replayed_and_discarded() {
    let broker = with_messages().await;
    let mut worker = TestWorker::at(&broker.client, "orders", "billing");
    let work = worker.receive(10).await;
    assert_eq!(worker.settle(&work, reject("not\nan order")).await, 10);
    let parked = async || {
        let parked = ["subscription", "parked", "orders", "billing"];
        let parked = parsed(&broker.run(&[&parked[..], &["-o", "json"]].concat()).await);
        parked.as_array().unwrap().clone()
    };
    let listed = parked().await;
    assert_eq!(listed.len(), 10);
    assert_eq!((&listed[3]["offset"], &listed[3]["attempts"]), (&json!(3), &json!(1)));
    assert_eq!(listed[3]["reason"], "not\nan order");
    assert!(listed[3]["park_time"].as_str().unwrap().ends_with('Z'));
    let table = broker.run(&["subscription", "parked", "orders", "billing"]).await;
    let row = table.stdout.lines().nth(1).unwrap();
    assert!(row.starts_with("0 ") && row.ends_with("not\\nan order"), "{table:?}");

    let replay = ["subscription", "replay", "orders", "billing"];
    let replayed = broker.run(&[&replay[..], &["1", "3-5", "77"]].concat()).await;
    let line = "replayed 4 messages of subscription billing on topic orders\n";
    assert_eq!((replayed.code(), &*replayed.stdout), (0, line), "{replayed:?}");
    let mut again = Vec::new();
    while again.len() < 4 {
        again.extend(worker.receive(10).await);
    }
    let offsets: Vec<_> = again.iter().map(|work| (work.offset, work.attempt)).collect();
    assert_eq!(offsets, [(1, 1), (3, 1), (4, 1), (5, 1)]);
    assert_eq!(worker.acknowledge(&again).await, 4);

    let discard = ["subscription", "discard", "orders", "billing", "-o", "json"];
    let discarded = parsed(&broker.run(&[&discard[..], &["0"]].concat()).await);
    let object = |name: &str, number| json!({ "topic": "orders", "subscription_id": "billing", name: number });
    assert_eq!(discarded, object("discarded", 1));
    let left: Vec<i64> =
        parked().await.iter().map(|parked| parked["offset"].as_i64().unwrap()).collect();
    assert_eq!(left, [2, 6, 7, 8, 9]);
    let discarded = parsed(&broker.run(&[&discard[..], &["--all"]].concat()).await);
    assert_eq!(discarded, object("discarded", 5));
    let replayed = broker.run(&[&replay[..], &["--all", "-o", "json"]].concat()).await;
    assert_eq!(parsed(&replayed), object("replayed", 0));
    for wrong in [&[][..], &["--all", "1"], &["29-20"], &["x"]] {
        assert_eq!(broker.run(&[&replay[..], wrong].concat()).await.code(), 2, "{wrong:?}");
    }
}
