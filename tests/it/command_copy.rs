//! `trunkline topic copy`, and how `topic delete` asks.

use std::{
    fs::File,
    io::{Read as _, Write as _},
};

use nix::pty::{OpenptyResult, openpty};
use serde_json::Value;

use crate::support::{TestBroker, Trunkline, orders::produce, soon};

async fn read(broker: &TestBroker, topic: &str) -> Vec<Value> {
    let read = broker.run(&["topic", "read", topic, "--json"]).await;
    assert_eq!(read.code(), 0, "{read:?}");
    read.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn a_copy_has_the_keys_payloads_and_headers_in_order() {
    let broker = TestBroker::start().await;
    let lines: String = (0..3_000).map(|number| format!("k{number}:{number}\n")).collect();
    let flags = ["--key-separator", ":", "--header", "a=b"];
    produce(&broker, &flags, &lines).await.assert().success();
    broker.trim("orders", 10).await;
    let copied = broker.run(&["topic", "copy", "orders", "archive"]).await;
    assert_eq!(copied.code(), 0, "{copied:?}");
    assert_eq!(copied.stdout, "copied 2990 messages from topic orders to topic archive\n");
    let said = "trunkline: created topic archive\n\
                trunkline: registered producer copy on topic archive\n\
                trunkline: the copies have the time of copying, and offsets of their own\n";
    assert_eq!(copied.stderr, said);
    let (source, target) = (read(&broker, "orders").await, read(&broker, "archive").await);
    assert_eq!(target.len(), 2_990);
    for (offset, (from, to)) in source.iter().zip(&target).enumerate() {
        for field in ["key", "payload", "headers"] {
            assert_eq!(from[field], to[field]);
        }
        assert_eq!((&to["offset"], &to["producer"]), (&offset.into(), &"copy".into()));
    }
}

#[tokio::test]
async fn a_topic_with_messages_is_no_target() {
    let broker = TestBroker::start().await;
    produce(&broker, &[], "one\n").await.assert().success();
    broker.topic("archive").await;
    let copied = broker.run(&["topic", "cp", "orders", "archive"]).await;
    assert_eq!(copied.stdout, "copied 1 message from topic orders to topic archive\n");
    let refused = broker.run(&["topic", "cp", "orders", "archive"]).await;
    assert_eq!((refused.code(), &*refused.stdout), (1, ""), "{refused:?}");
    assert!(refused.stderr.contains("topic archive has 1 message:"), "{refused:?}");
    let itself = broker.run(&["topic", "cp", "orders", "orders"]).await;
    assert_eq!(itself.code(), 1, "{itself:?}");
    let missing = broker.run(&["topic", "cp", "nope", "other"]).await;
    assert!(missing.stderr.contains("topic nope does not exist"), "{missing:?}");
    let other = broker.run(&["topic", "describe", "other"]).await;
    assert_eq!(other.code(), 1, "a refused copy creates nothing: {other:?}");
}

/// Runs a command on a terminal whose user types an answer; returns its success and what it showed.
async fn on_terminal(broker: &TestBroker, arguments: &[&str], answer: &str) -> (bool, String) {
    let OpenptyResult { master, slave } = openpty(None, None).unwrap();
    let mut master = File::from(master);
    let arguments = [&["--endpoint", &broker.endpoint], arguments].concat();
    let mut command = Trunkline::command(&arguments);
    let copy = || std::process::Stdio::from(slave.try_clone().unwrap());
    let mut child = command.stdin(copy()).stdout(copy()).stderr(copy()).spawn().unwrap();
    drop((command, slave));
    master.write_all(answer.as_bytes()).unwrap();
    let reading = tokio::task::spawn_blocking(move || {
        let mut shown = Vec::new();
        // Fails once nobody has the terminal open, after everything was read.
        let _ = master.read_to_end(&mut shown);
        String::from_utf8_lossy(&shown).into_owned()
    });
    let status = soon("the command's end", child.wait()).await.unwrap();
    (status.success(), soon("the terminal's end", reading).await.unwrap())
}

#[tokio::test]
async fn deleting_asks_on_a_terminal() {
    let broker = TestBroker::start().await;
    produce(&broker, &[], "one\n").await.assert().success();
    for answer in ["\n", "n\n", "what\n"] {
        let (is_done, shown) = on_terminal(&broker, &["topic", "delete", "orders"], answer).await;
        assert!(!is_done && shown.contains("delete topic orders with 1 message? [y/N]"), "{shown}");
    }
    broker.run(&["topic", "describe", "orders"]).await.assert().success();
    let (is_done, shown) = on_terminal(&broker, &["topic", "delete", "orders"], "yes\n").await;
    assert!(is_done && shown.contains("deleted topic orders"), "{shown}");
    broker.topic("bills").await;
    let (is_done, shown) = on_terminal(&broker, &["topic", "rm", "bills", "--yes"], "").await;
    assert!(is_done && !shown.contains("[y/N]"), "{shown}");
}
