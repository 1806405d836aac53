//! What the command says about names: what it created, and what may have been meant.

use crate::support::{TestBroker, Trunkline, shop::Shop, until};

#[tokio::test]
async fn what_register_creates_is_said_once() {
    let broker = TestBroker::start().await;
    let produce = ["produce", "orders", "--producer", "till", "--register"];
    let produced = broker.run_with_input(&produce, "line\n").await;
    let lines: Vec<_> = produced.stderr.lines().collect();
    let created =
        ["trunkline: created topic orders", "trunkline: registered producer till on topic orders"];
    assert_eq!((produced.code(), &lines[..2], lines.len()), (0, &created[..], 3), "{produced:?}");
    let produced = broker.run_with_input(&produce, "line\n").await;
    assert_eq!((produced.code(), produced.stderr.lines().count()), (0, 1), "{produced:?}");
    let consume = ["consume", "orders", "--consumer", "c", "--register", "--until-caught-up"];
    let consumed = broker.run(&consume).await;
    assert_eq!(consumed.stderr, "trunkline: registered consumer c on topic orders\n");
    assert_eq!(broker.run(&consume).await.stderr, "");
}

#[tokio::test]
async fn an_unknown_name_is_answered_with_the_nearest_one() {
    let broker = TestBroker::start().await;
    for topic in ["orders", "bills"] {
        broker.topic(topic).await;
    }
    broker.consumer("orders", "billing").await;
    broker.run(&["producer", "register", "orders", "till"]).await.assert().success();
    for (arguments, meant) in [
        (&["topic", "describe", "ordres"][..], "orders"),
        (&["pub", "order", "x"], "orders"),
        (&["consume", "orders", "--consumer", "biling"], "billing"),
        (&["consumer", "describe", "orders", "billig"], "billing"),
        (&["producer", "describe", "orders", "tilt"], "till"),
        (&["consumer", "list", "bill"], "bills"),
    ] {
        let refused = broker.run(arguments).await;
        assert_eq!((refused.code(), refused.stderr.lines().count()), (1, 1), "{refused:?}");
        let meant = format!("; did you mean {meant}?\n");
        assert!(refused.stderr.ends_with(&meant), "{arguments:?}: {refused:?}");
    }
    let refused = broker.run(&["topic", "describe", "payments"]).await;
    assert!(!refused.stderr.contains("did you mean"), "{refused:?}");
}

/// A name that the caller may not know of is not offered.
#[tokio::test]
async fn a_hidden_name_is_not_offered() {
    let Shop { broker, root, .. } = Shop::open().await;
    root.create_topic("secret").await.unwrap();
    let token = root.create_token("shop").await;
    for (topic, is_offered) in [("secrt", false), ("ordrs", true)] {
        let arguments = ["--endpoint", &broker.endpoint, "topic", "describe", topic];
        let mut command = Trunkline::command(&arguments);
        command.env("TRUNKLINE_TOKEN", &token);
        let refused = Trunkline::finish(command).await;
        assert_eq!(refused.code(), 1, "{refused:?}");
        assert_eq!(refused.stderr.contains("did you mean"), is_offered, "{refused:?}");
    }
}

#[tokio::test]
async fn a_consumer_that_is_taken_over_says_by_whom() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    broker.publish("orders", ["a"]).await;
    let consume = ["--endpoint", &broker.endpoint, "consume", "orders", "--consumer", "c"];
    let mut first = Trunkline::spawn(&[&consume[..], &["--register"]].concat());
    assert_eq!(first.line().await, "a");
    // Who gives no name is named after the user and the machine.
    until("the holder is shown", async || {
        let described = broker.run(&["consumer", "describe", "orders", "c", "-o", "json"]).await;
        let described: serde_json::Value = serde_json::from_str(&described.stdout).unwrap();
        described["holder"].as_str().unwrap().contains('@')
    })
    .await;
    let mut second = Trunkline::spawn(
        &[&consume[..], &["--take-over", "--client-name", "bob", "--from", "0", "--register"]]
            .concat(),
    );
    assert!(first.log_line("taken over").await.contains("was taken over by bob"));
    assert_eq!(first.wait().await.code(), Some(3));
    second.kill().await;
}

#[tokio::test]
async fn a_context_has_a_plain_name() {
    let folder = tempfile::tempdir().unwrap();
    let run = async |arguments: &[&str]| Trunkline::run_configured(folder.path(), arguments).await;
    for bad in ["a b", "-x", ".hidden", "a/b", "ü", &"x".repeat(65)] {
        let refused = run(&["context", "add", "--", bad, "localhost"]).await;
        assert_eq!(refused.code(), 2, "{bad}: {refused:?}");
        assert!(refused.stderr.contains("1 to 64 characters"), "{bad}: {refused:?}");
    }
    run(&["context", "add", "staging", "localhost"]).await.assert().success();
    let refused = run(&["context", "use", "stagin"]).await;
    assert!(refused.stderr.ends_with("; did you mean staging?\n"), "{refused:?}");
    run(&["context", "rm", "staging"]).await.assert().success();
}

/// With --if-missing, a command may be run at every start.
#[tokio::test]
async fn what_exists_is_no_failure_if_it_may() {
    let broker = TestBroker::start().await;
    for (arguments, made, found) in [
        (
            &["topic", "create", "orders", "--description", "sold"][..],
            "created topic orders",
            "topic orders exists",
        ),
        (
            &["producer", "register", "orders", "till"],
            "registered producer till on topic orders",
            "producer till is registered on topic orders",
        ),
        (
            &["consumer", "register", "orders", "kitchen"],
            "registered consumer kitchen on topic orders at offset 0",
            "consumer kitchen is registered on topic orders at offset 0",
        ),
    ] {
        let if_missing = [arguments, &["--if-missing"]].concat();
        for line in [made, found] {
            let output = broker.run(&if_missing).await;
            assert_eq!((output.code(), output.stdout.trim_end()), (0, line), "{output:?}");
        }
        assert_eq!(broker.run(arguments).await.code(), 1);
    }
    // Without limits, nothing is asked of the topic's retention; with one, it must be the same.
    let update = ["topic", "update", "orders", "--retention-messages", "5"];
    broker.run(&update).await.assert().success();
    let create = ["topic", "create", "orders", "--if-missing"];
    broker.run(&create).await.assert().success();
    let refused = broker.run(&[&create[..], &["--retention-messages", "6"]].concat()).await;
    assert_eq!(refused.code(), 1);
    assert!(refused.stderr.contains("with another retention"), "{refused:?}");
}
