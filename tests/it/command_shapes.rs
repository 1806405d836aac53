//! The arguments of the `trunkline` command have one shape: a topic, then what is registered on it.

use serde_json::{Value, json};

use crate::support::{Finished, TestBroker, orders::produce};

#[track_caller]
fn parsed(finished: &Finished) -> Value {
    assert_eq!(finished.code(), 0, "{finished:?}");
    serde_json::from_str(&finished.stdout).unwrap()
}

#[tokio::test]
async fn registrations_are_named_by_topic_and_id_or_as_before() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    for kind in ["consumer", "producer"] {
        let done = async |arguments: &[&str], line: &str| {
            let finished = broker.run(&[&[kind], arguments].concat()).await;
            assert_eq!((finished.code(), finished.stdout.trim_end()), (0, line), "{finished:?}");
        };
        let end = if kind == "consumer" { " at offset 0" } else { "" };
        for (id, arguments) in [
            ("a", &["register", "orders", "a"][..]),
            ("b", &["register", "--topic", "orders", "b"]),
        ] {
            done(arguments, &format!("registered {kind} {id} on topic orders{end}")).await;
        }
        let described = broker.run(&[kind, "describe", "orders", "a"]).await;
        let before = broker.run(&[kind, "describe", "a", "--topic", "orders"]).await;
        assert_eq!((described.code(), &described.stdout), (0, &before.stdout), "{described:?}");
        done(&["rm", "orders", "a"], &format!("unregistered {kind} a from topic orders")).await;
        let before = ["unregister", "--topic", "orders", "b"];
        done(&before, &format!("unregistered {kind} b from topic orders")).await;
        let generated = broker.run(&[kind, "register", "orders", "-o", "json"]).await;
        let id = format!("{kind}_id");
        assert!(parsed(&generated)[&id].as_str().unwrap().starts_with(kind), "{generated:?}");
        for incomplete in [
            &["describe", "orders"][..],
            &["unregister", "orders"],
            &["register"],
            &["assign", "orders", "a"],
            &["describe", "--topic", "orders"],
            &["describe", "orders", "a", "--topic", "orders"],
        ] {
            let refused = broker.run(&[&[kind], incomplete].concat()).await;
            assert_eq!(refused.code(), 2, "{kind} {incomplete:?}: {refused:?}");
        }
    }
    broker.run(&["consumer", "register", "orders", "c"]).await.assert().success();
    let sought = broker.run(&["consumer", "seek", "orders", "c", "--to", "latest"]).await;
    assert_eq!(sought.stdout, "consumer c on topic orders continues at offset 0\n");
}

#[tokio::test]
async fn lists_without_a_topic_span_all_topics() {
    let broker = TestBroker::start().await;
    for topic in ["orders", "bills"] {
        broker.topic(topic).await;
        broker.consumer(topic, "audit").await;
        broker.run(&["producer", "register", topic, "till"]).await.assert().success();
    }
    for kind in ["consumer", "producer"] {
        let all = broker.run(&[kind, "ls"]).await;
        let rows: Vec<Vec<&str>> =
            all.stdout.lines().map(|line| line.split_whitespace().take(2).collect()).collect();
        let id = if kind == "consumer" { "audit" } else { "till" };
        assert_eq!(rows[0], ["TOPIC", &kind.to_uppercase()], "{all:?}");
        let ids: Vec<_> = rows[1..].iter().filter(|row| row[1] == id).map(|row| row[0]).collect();
        assert_eq!(ids, ["bills", "orders"], "{all:?}");
        let objects = parsed(&broker.run(&[kind, "list", "-o", "json"]).await);
        let objects = objects.as_array().unwrap();
        assert_eq!(objects.len(), rows.len() - 1);
        assert!(objects.iter().is_sorted_by_key(|object| object["topic"].as_str()));
        // With a topic, the columns are those of before.
        let one = broker.run(&[kind, "list", "orders"]).await;
        let before = broker.run(&[kind, "list", "--topic", "orders"]).await;
        assert_eq!(one.stdout, before.stdout);
        assert!(one.stdout.starts_with(&kind.to_uppercase()), "{one:?}");
    }
}

#[tokio::test]
async fn topics_show_their_size_and_their_consumers() {
    let broker = TestBroker::start().await;
    produce(&broker, &[], "one\ntwo\n").await.assert().success();
    broker.topic("empty").await;
    for id in ["fast", "slow"] {
        broker.consumer("orders", id).await;
    }
    broker.pull("orders", "fast", 1).await.unwrap();
    let listed = broker.run(&["topic", "ls"]).await;
    let cells = |line: &str| {
        let cells = line.split("  ").map(str::trim).filter(|cell| !cell.is_empty());
        cells.map(str::to_owned).collect::<Vec<_>>()
    };
    let rows: Vec<_> = listed.stdout.lines().map(cells).collect();
    assert_eq!(rows[0][4..], ["SIZE", "CONSUMERS", "GREATEST LAG"], "{listed:?}");
    assert_eq!(rows[1][4..], ["0 B", "0", "-"], "{listed:?}");
    assert_eq!(rows[2][4..], ["6 B", "2", "2"], "{listed:?}");
    let described = broker.run(&["topic", "describe", "orders"]).await;
    for line in ["size:            6 B", "consumers:       2", "greatest lag:    2"] {
        assert!(described.stdout.contains(line), "{described:?}");
    }
    let described = parsed(&broker.run(&["topic", "describe", "empty", "-o", "json"]).await);
    let expected = (&json!(0), &json!(0), &Value::Null);
    assert_eq!(
        (&described["bytes"], &described["consumers"], &described["greatest_lag"]),
        expected
    );
}

/// Beyond 100 topics, one overview says what there is.
#[tokio::test]
async fn many_topics_take_a_bounded_number_of_calls() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    broker.publish("orders", ["a", "b"]).await;
    broker.consumer("orders", "slow").await;
    for number in 0..101 {
        broker.topic(&format!("topic-{number:03}")).await;
    }
    crate::support::until("the overview has the consumer", async || {
        let listed = broker.run(&["topic", "list", "-o", "json"]).await;
        let topics = parsed(&listed);
        let topics = topics.as_array().unwrap().clone();
        assert_eq!(topics.len(), 102);
        let orders = topics.iter().find(|topic| topic["name"] == "orders").unwrap();
        let other = topics.iter().find(|topic| topic["name"] == "topic-000").unwrap();
        let known = (&other["consumers"], &other["greatest_lag"]) == (&json!(0), &Value::Null);
        (&orders["consumers"], &orders["greatest_lag"]) == (&json!(1), &json!(2)) && known
    })
    .await;
}

#[tokio::test]
async fn confirmations_are_objects_on_request() {
    let broker = TestBroker::start().await;
    let run = async |arguments: &[&str]| {
        parsed(&broker.run(&[arguments, &["--output", "json"]].concat()).await)
    };
    assert_eq!(run(&["topic", "create", "orders"]).await["name"], "orders");
    assert_eq!(run(&["topic", "update", "orders", "--description", "d"]).await["description"], "d");
    let trimmed = run(&["topic", "trim", "orders", "--before", "latest"]).await;
    assert_eq!(trimmed, json!({ "topic": "orders", "first_offset": 0 }));
    assert_eq!(run(&["consumer", "register", "orders", "c"]).await["position"], 0);
    let sought = run(&["consumer", "seek", "orders", "c", "--to", "earliest"]).await;
    assert_eq!(sought, json!({ "topic": "orders", "consumer_id": "c", "position": 0 }));
    assert_eq!(run(&["producer", "register", "orders", "p"]).await["producer_id"], "p");
    let removed = run(&["producer", "unregister", "orders", "p"]).await;
    assert_eq!(removed, json!({ "topic": "orders", "producer_id": "p" }));
    assert_eq!(run(&["health"]).await, json!({ "status": "SERVING", "polling": false }));
    assert_eq!(run(&["topic", "delete", "orders"]).await, json!({ "topic": "orders" }));
}

#[tokio::test]
async fn aliases_are_those_of_other_commands() {
    let broker = TestBroker::start().await;
    produce(&broker, &[], "one\ntwo\n").await.assert().success();
    let tail = broker.run(&["tail", "orders", "-n", "1"]).await;
    assert_eq!((tail.code(), &*tail.stdout), (0, "two\n"), "{tail:?}");
    let sub = ["sub", "orders", "--consumer", "c", "--register", "--until-caught-up"];
    assert_eq!(broker.run(&sub).await.stdout, "one\ntwo\n");
    assert_eq!(broker.run(&["topic", "rm", "orders"]).await.stdout, "deleted topic orders\n");
}

#[tokio::test]
async fn a_count_and_catching_up_end_whichever_comes_first() {
    let broker = TestBroker::start().await;
    produce(&broker, &[], "a\nb\nc\n").await.assert().success();
    let consume = async |count: &str| {
        let arguments = ["consume", "orders", "--consumer", "c", "--register", "-n", count];
        broker.run(&[&arguments[..], &["--until-caught-up"]].concat()).await
    };
    let first = consume("2").await;
    assert_eq!((first.code(), &*first.stdout), (0, "a\nb\n"), "{first:?}");
    assert_eq!(broker.position("orders", "c").await, 2);
    let rest = consume("2").await;
    assert_eq!((rest.code(), &*rest.stdout), (0, "c\n"), "{rest:?}");
    assert_eq!(broker.position("orders", "c").await, 3);
}
