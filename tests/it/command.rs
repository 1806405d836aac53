//! The `trunkline` command, against a real broker.

use std::{fs, time::Duration};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::{TestBroker, Trunkline, soon, until};

#[tokio::test]
async fn the_command_manages_topics_producers_and_consumers() {
    let broker = TestBroker::start().await;
    let created = broker
        .run(&["topic", "create", "orders", "--description", "d", "--label", "team=sales"])
        .await;
    assert_eq!((created.code(), created.stdout.as_str()), (0, "created topic orders\n"));
    let described = broker.run(&["topic", "describe", "orders"]).await;
    assert!(described.stdout.contains("label:           team=sales"), "{described:?}");
    let registered = broker.run(&["producer", "register", "--topic", "orders", "p"]).await;
    assert_eq!(registered.stdout, "registered producer p on topic orders\n");
    let given = broker.run(&["producer", "register", "--topic", "orders"]).await;
    assert!(given.stdout.starts_with("registered producer producer-"), "{given:?}");
    let registered =
        broker.run(&["consumer", "register", "--topic", "orders", "c", "--from", "latest"]).await;
    assert_eq!(registered.stdout, "registered consumer c on topic orders at offset 0\n");

    let listed = broker.run(&["topic", "list"]).await;
    let lines: Vec<&str> = listed.stdout.lines().collect();
    assert!(lines[0].starts_with("NAME") && lines[1].starts_with("orders  0      0"), "{listed:?}");
    let listed = broker.run(&["producer", "list", "--topic", "orders"]).await;
    assert_eq!(listed.stdout.lines().count(), 3);
    let listed = broker.run(&["consumer", "list", "--topic", "orders"]).await;
    assert_eq!(listed.stdout.lines().count(), 2);
    let described = broker.run(&["consumer", "describe", "--topic", "orders", "c"]).await;
    assert!(described.stdout.contains("lag:            0"), "{described:?}");

    assert_eq!(broker.run(&["producer", "unregister", "--topic", "orders", "p"]).await.code(), 0);
    assert_eq!(broker.run(&["consumer", "unregister", "--topic", "orders", "c"]).await.code(), 0);
    assert_eq!(broker.run(&["topic", "delete", "orders"]).await.stdout, "deleted topic orders\n");
    assert_eq!(broker.run(&["topic", "list"]).await.stdout.lines().count(), 1);
}

#[tokio::test]
async fn a_refusal_is_one_line_and_an_exit_code() {
    let broker = TestBroker::start().await;
    let missing = broker.run(&["topic", "describe", "nope"]).await;
    assert_eq!(missing.code(), 1);
    assert_eq!(
        missing.stderr,
        "trunkline: topic nope does not exist (TOPIC_NOT_FOUND): `trunkline topic list` lists the topics\n"
    );
    let missing = broker.run(&["consume", "nope", "--consumer", "c"]).await;
    assert_eq!((missing.code(), missing.stderr.lines().count()), (1, 1), "{missing:?}");
    let stranger = broker.run(&["topic", "create", "a b"]).await;
    assert_eq!(stranger.code(), 1);
    assert!(stranger.stderr.contains("topic: holds ' '"), "{stranger:?}");
    let bad_start =
        broker.run(&["consumer", "register", "--topic", "t", "c", "--from", "@never"]).await;
    assert_eq!(bad_start.code(), 2, "{bad_start:?}");
    assert!(bad_start.stderr.contains("RFC 3339"), "{bad_start:?}");

    let nobody = Trunkline::run(&["--endpoint", "http://127.0.0.1:1", "topic", "list"]).await;
    assert_eq!((nobody.code(), nobody.stderr.lines().count()), (69, 1), "{nobody:?}");
    assert!(nobody.stderr.contains("http://127.0.0.1:1"), "{nobody:?}");
    let nonsense = Trunkline::run(&["--endpoint", "no host", "topic", "list"]).await;
    assert_eq!(nonsense.code(), 2, "{nonsense:?}");
}

#[tokio::test]
async fn health_is_reported_by_word_and_exit_code() {
    let broker = TestBroker::start().await;
    let healthy = broker.run(&["health"]).await;
    assert_eq!((healthy.code(), healthy.stdout.as_str()), (0, "SERVING\n"));
    let nobody = Trunkline::run(&["--endpoint", "http://127.0.0.1:1", "health"]).await;
    assert_eq!(nobody.code(), 69, "{nobody:?}");
}

#[tokio::test]
async fn files_are_consumed_byte_for_byte() {
    let broker = TestBroker::start().await;
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (dir.path().join("first"), dir.path().join("second"));
    fs::write(&first, b"plain\n\n\xff\xfe not text \x00\r\nlast\n").unwrap();
    let long = [vec![b'y'; 1024 * 1024], b"\n".to_vec()].concat();
    fs::write(&second, &long).unwrap();
    let produced = broker
        .run(&[
            "produce",
            "files",
            "--producer",
            "p",
            "--register",
            first.to_str().unwrap(),
            second.to_str().unwrap(),
        ])
        .await;
    assert_eq!(produced.code(), 0, "{produced:?}");
    assert!(produced.stderr.contains("5 messages acknowledged"), "{produced:?}");
    assert!(produced.stderr.contains("last offset 4"), "{produced:?}");
    let out = dir.path().join("out");
    let status = Trunkline::run_into(
        &[
            "--endpoint",
            &broker.endpoint,
            "consume",
            "files",
            "--consumer",
            "c",
            "--register",
            "--until-caught-up",
        ],
        &out,
    )
    .await;
    assert!(status.success());
    let expected = [fs::read(&first).unwrap(), fs::read(&second).unwrap()].concat();
    assert!(fs::read(&out).unwrap() == expected);
    assert_eq!(broker.position("files", "c").await, 5);
}

#[tokio::test]
async fn standard_input_is_published() {
    let broker = TestBroker::start().await;
    let arguments = ["produce", "t", "--producer", "p", "--register"];
    let produced = broker.run_with_input(&arguments, "one\ntwo without an end").await;
    assert_eq!(produced.code(), 0, "{produced:?}");
    let consumed =
        broker.run(&["consume", "t", "--consumer", "c", "--register", "--until-caught-up"]).await;
    assert_eq!(consumed.stdout, "one\ntwo without an end\n");
    let nothing = broker.run_with_input(&arguments, "").await;
    assert_eq!(nothing.code(), 0, "{nothing:?}");
    assert!(nothing.stderr.contains("no message was acknowledged"), "{nothing:?}");
}

#[tokio::test]
async fn a_line_over_the_limit_is_named_and_earlier_lines_are_kept() {
    let broker = TestBroker::start().await;
    let input =
        [b"one\ntwo\n".to_vec(), vec![b'x'; 1024 * 1024 + 1], b"\nafter\n".to_vec()].concat();
    let arguments = ["produce", "t", "--producer", "p", "--register"];
    let produced = broker.run_with_input(&arguments, &input).await;
    assert_eq!(produced.code(), 1, "{produced:?}");
    // The topic, the producer and the failure.
    assert_eq!(produced.stderr.lines().count(), 3, "{produced:?}");
    assert!(
        produced.stderr.contains("line 3 of - is longer than the limit of 1048576"),
        "{produced:?}"
    );
    assert!(produced.stderr.contains("2 messages acknowledged"), "{produced:?}");
    assert!(produced.stderr.contains("up to line 2 of -"), "{produced:?}");
    assert_eq!(broker.stored().await, 2);
}

#[tokio::test]
async fn a_missing_file_is_named_before_anything_is_sent() {
    let broker = TestBroker::start().await;
    let here = tempfile::NamedTempFile::new().unwrap();
    fs::write(here.path(), "line\n").unwrap();
    let produced = broker
        .run(&[
            "produce",
            "t",
            "--producer",
            "p",
            "--register",
            here.path().to_str().unwrap(),
            "/nowhere/log",
        ])
        .await;
    assert_eq!(produced.code(), 1, "{produced:?}");
    assert!(produced.stderr.contains("/nowhere/log"), "{produced:?}");
    assert_eq!(broker.stored().await, 0);
}

#[tokio::test]
async fn a_producer_that_is_not_registered_is_refused() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    let arguments = ["produce", "orders", "--producer", "stranger"];
    let produced = broker.run_with_input(&arguments, "line\n").await;
    assert_eq!(produced.code(), 1, "{produced:?}");
    assert!(
        produced.stderr.contains("(PRODUCER_NOT_FOUND): `trunkline producer register`"),
        "{produced:?}"
    );
    assert_eq!(broker.stored().await, 0);
}

#[tokio::test]
async fn consume_ends_after_n_messages_and_commits_only_those() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    broker.publish("orders", ["a", "b", "c", "d"]).await;
    let consumed =
        broker.run(&["consume", "orders", "--consumer", "c", "--register", "-n", "3"]).await;
    assert_eq!((consumed.code(), consumed.stdout.as_str()), (0, "a\nb\nc\n"), "{consumed:?}");
    assert_eq!(broker.position("orders", "c").await, 3);
    let consumed = broker.run(&["consume", "orders", "--consumer", "c", "--json", "-n", "1"]).await;
    let message: Value = serde_json::from_str(&consumed.stdout).unwrap();
    assert_eq!((&message["offset"], &message["payload"]), (&Value::from(3), &Value::from("d")));
    assert_eq!(message["producer"], "producer");
    let late = broker
        .run(&["consume", "orders", "--consumer", "d", "--register", "--from", "2", "-n", "2"])
        .await;
    assert_eq!(late.stdout, "c\nd\n");
}

#[tokio::test]
async fn consume_ends_cleanly_when_its_reader_closes_the_pipe() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    let many: Vec<String> = (0..5_000).map(|n| format!("line {n}")).collect();
    for _ in 0..20 {
        broker.try_publish("orders", "producer", many.clone()).await.unwrap();
    }
    let script = format!(
        "{} --endpoint {} consume orders --consumer c --register | head -n 1; echo ${{PIPESTATUS[0]}}",
        env!("CARGO_BIN_EXE_trunkline"),
        broker.endpoint
    );
    let shell = tokio::process::Command::new("bash").args(["-c", &script]).output();
    let output = soon("the pipe ends", shell).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "line 0\n0\n");
    let said = "trunkline: registered consumer c on topic orders\n";
    assert_eq!(String::from_utf8_lossy(&output.stderr), said);
}

#[tokio::test]
async fn ctrl_c_commits_what_was_written() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    broker.publish("orders", ["a", "b"]).await;
    let arguments =
        ["--endpoint", &broker.endpoint, "consume", "orders", "--consumer", "c", "--register"];
    let mut consume = Trunkline::spawn(&arguments);
    for expected in ["a", "b"] {
        let line = soon("a line", consume.stdout.next_line()).await.unwrap();
        assert_eq!(line.as_deref(), Some(expected));
    }
    consume.signal(Signal::SIGINT);
    assert_eq!(consume.wait().await.code(), Some(130));
    assert_eq!(broker.position("orders", "c").await, 2);
}

#[tokio::test]
async fn a_second_consume_waits_and_gets_the_lease_when_the_first_is_killed() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    broker.publish("orders", ["a"]).await;
    let arguments =
        ["--endpoint", &broker.endpoint, "consume", "orders", "--consumer", "c", "--register"];
    let mut first = Trunkline::spawn(&arguments);
    let line = soon("a line", first.stdout.next_line()).await.unwrap();
    assert_eq!(line.as_deref(), Some("a"));
    until("the first line is committed", async || broker.position("orders", "c").await == 1).await;
    let mut second = Trunkline::spawn(&arguments);
    let line = soon("the second one waits", second.stderr.next_line()).await.unwrap().unwrap();
    assert!(line.contains("waiting as standby"), "{line}");
    first.kill().await;
    let attached = tokio::time::timeout(Duration::from_secs(2), second.stderr.next_line()).await;
    assert_eq!(
        attached.expect("attached within 2 s").unwrap().as_deref(),
        Some("trunkline: attached")
    );
    broker.publish("orders", ["b"]).await;
    let line = soon("a line", second.stdout.next_line()).await.unwrap();
    assert_eq!(line.as_deref(), Some("b"));
}
