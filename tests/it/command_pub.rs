//! `trunkline pub`: publishes what the command line gives.

use serde_json::{Value, json};

use crate::support::{TestBroker, Trunkline, shop::Shop, soon};

/// What `topic read` prints of a topic, as objects.
async fn read(broker: &TestBroker, topic: &str) -> Vec<Value> {
    let read = broker.run(&["topic", "read", topic, "--json"]).await;
    assert_eq!(read.code(), 0, "{read:?}");
    read.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn messages_are_published_in_order_with_a_key_and_headers() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    let arguments = ["pub", "orders", "one", "two words", "--key", "k", "--header", "a=b"];
    let published = broker.run(&arguments).await;
    assert_eq!(published.code(), 0, "{published:?}");
    assert_eq!(published.stdout, "published offset 0\npublished offset 1\n");
    // The second run registers nothing.
    let again = broker.run(&["pub", "orders", "three"]).await;
    let expected = (0, "published offset 2\n", "");
    assert_eq!((again.code(), &*again.stdout, &*again.stderr), expected);
    let messages = read(&broker, "orders").await;
    let payloads: Vec<_> = messages.iter().map(|message| &message["payload"]).collect();
    assert_eq!(payloads, ["one", "two words", "three"]);
    assert_eq!((&messages[1]["key"], &messages[1]["headers"]), (&json!("k"), &json!({"a": "b"})));
    assert_eq!(messages[2]["key"], Value::Null);
    let producer = messages[0]["producer"].as_str().unwrap();
    let created = format!("trunkline: registered producer {producer} on topic orders\n");
    assert_eq!(published.stderr, created);
}

#[tokio::test]
async fn a_hyphen_or_nothing_stands_for_the_lines_of_standard_input() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    let published = broker.run_with_input(&["pub", "orders", "first", "-", "last"], "a\nb").await;
    assert_eq!(published.stdout.lines().count(), 4, "{published:?}");
    broker.run_with_input(&["pub", "orders"], "c\n").await.assert().success();
    let payloads: Vec<_> =
        read(&broker, "orders").await.iter().map(|it| it["payload"].clone()).collect();
    assert_eq!(payloads, ["first", "a", "b", "last", "c"]);
    let many: String = (0..2_500).map(|number| format!("{number}\n")).collect();
    let published = broker.run_with_input(&["pub", "orders", "-"], &many).await;
    assert_eq!(published.stdout.lines().last(), Some("published offset 2504"), "{published:?}");
    let long = "x".repeat(1024 * 1024 + 1);
    let refused = broker.run_with_input(&["pub", "orders"], format!("ok\n{long}\n")).await;
    assert_eq!((refused.code(), refused.stderr.lines().count()), (1, 1), "{refused:?}");
    assert!(refused.stderr.contains("line 2 of standard input"), "{refused:?}");
}

#[tokio::test]
async fn a_line_is_published_before_the_next_one_comes() {
    use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    let mut command = Trunkline::command(&["--endpoint", &broker.endpoint, "pub", "orders"]);
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    let (mut input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut lines = BufReader::new(output).lines();
    for offset in 0..2 {
        input.write_all(b"line\n").await.unwrap();
        let line = soon("the answer", lines.next_line()).await.unwrap().unwrap();
        assert_eq!(line, format!("published offset {offset}"));
    }
    drop(input);
    assert!(soon("the end", child.wait()).await.unwrap().success());
}

#[tokio::test]
async fn a_topic_is_created_only_if_that_was_asked_for() {
    let broker = TestBroker::start().await;
    let refused = broker.run(&["pub", "orders", "one"]).await;
    assert_eq!((refused.code(), &*refused.stdout), (1, ""), "{refused:?}");
    assert!(refused.stderr.contains("TOPIC_NOT_FOUND"), "{refused:?}");
    let arguments = ["pub", "orders", "one", "--register", "--producer", "till", "-o", "json"];
    let published = broker.run(&arguments).await;
    assert_eq!(published.code(), 0, "{published:?}");
    let created =
        "trunkline: created topic orders\ntrunkline: registered producer till on topic orders\n";
    assert_eq!(published.stderr, created);
    let object: Value = serde_json::from_str(&published.stdout).unwrap();
    assert_eq!(object, json!({ "topic": "orders", "offset": 0, "producer_id": "till" }));
}

/// A producer that was fenced before has another epoch, and two runs do not fence each other.
#[tokio::test]
async fn a_run_fences_nobody() {
    let broker = TestBroker::start().await;
    let produce = ["produce", "orders", "--producer", "till", "--register"];
    for _ in 0..2 {
        broker.run_with_input(&produce, "line\n").await.assert().success();
    }
    let epoch = async || {
        let described = broker.run(&["producer", "describe", "orders", "till", "-o", "json"]).await;
        let described: Value = serde_json::from_str(&described.stdout).unwrap();
        described["epoch"].as_i64().unwrap()
    };
    let before = epoch().await;
    assert!(before > 0);
    let published = broker.run(&["pub", "orders", "one", "--producer", "till"]).await;
    assert_eq!(
        (published.code(), &*published.stdout),
        (0, "published offset 2\n"),
        "{published:?}"
    );
    assert_eq!(epoch().await, before);
}

#[tokio::test]
async fn a_caller_who_may_publish_registers_its_own_producer() {
    let Shop { broker, root, .. } = Shop::open().await;
    let token = root.create_token("shop").await;
    let mut command = Trunkline::command(&["--endpoint", &broker.endpoint, "pub", "orders", "one"]);
    command.env("TRUNKLINE_TOKEN", token);
    let published = Trunkline::finish(command).await;
    assert_eq!((published.code(), published.stderr.lines().count()), (0, 1), "{published:?}");
    assert!(published.stdout.starts_with("published offset "), "{published:?}");
}
