//! The `trunkline` command, against a real broker.

use std::{fs, time::Duration};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::{TestBroker, Trunkline, soon, until};

/// Runs the command against a broker.
macro_rules! on {
    ($broker:expr, $($argument:expr),+ $(,)?) => {
        Trunkline::run(&["--endpoint", &$broker.endpoint, $($argument),+]).await
    };
}

#[tokio::test]
async fn topics_producers_and_consumers_are_managed() {
    let broker = TestBroker::start().await;
    let created =
        on!(broker, "topic", "create", "orders", "--description", "d", "--label", "team=sales");
    assert_eq!((created.code(), created.stdout.as_str()), (0, "created topic orders\n"));
    let described = on!(broker, "topic", "describe", "orders");
    assert!(described.stdout.contains("label:           team=sales"), "{described:?}");
    let registered = on!(broker, "producer", "register", "--topic", "orders", "p");
    assert_eq!(registered.stdout, "registered producer p on topic orders\n");
    let given = on!(broker, "producer", "register", "--topic", "orders");
    assert!(given.stdout.starts_with("registered producer producer-"), "{given:?}");
    let registered =
        on!(broker, "consumer", "register", "--topic", "orders", "c", "--from", "latest");
    assert_eq!(registered.stdout, "registered consumer c on topic orders at offset 0\n");

    let listed = on!(broker, "topic", "list");
    let lines: Vec<&str> = listed.stdout.lines().collect();
    assert!(lines[0].starts_with("NAME") && lines[1].starts_with("orders  0      0"), "{listed:?}");
    let listed = on!(broker, "producer", "list", "--topic", "orders");
    assert_eq!(listed.stdout.lines().count(), 3);
    let listed = on!(broker, "consumer", "list", "--topic", "orders");
    assert_eq!(listed.stdout.lines().count(), 2);
    let described = on!(broker, "consumer", "describe", "--topic", "orders", "c");
    assert!(described.stdout.contains("lag:            0"), "{described:?}");

    assert_eq!(on!(broker, "producer", "unregister", "--topic", "orders", "p").code(), 0);
    assert_eq!(on!(broker, "consumer", "unregister", "--topic", "orders", "c").code(), 0);
    assert_eq!(on!(broker, "topic", "delete", "orders").stdout, "deleted topic orders\n");
    assert_eq!(on!(broker, "topic", "list").stdout.lines().count(), 1);
}

#[tokio::test]
async fn what_is_refused_is_one_clear_line_and_an_exit_code() {
    let broker = TestBroker::start().await;
    let missing = on!(broker, "topic", "describe", "nope");
    assert_eq!(missing.code(), 1);
    assert_eq!(
        missing.stderr,
        "trunkline: topic nope does not exist (TOPIC_NOT_FOUND): `trunkline topic list` lists the topics\n"
    );
    let missing = on!(broker, "consume", "nope", "--consumer", "c");
    assert_eq!((missing.code(), missing.stderr.lines().count()), (1, 1), "{missing:?}");
    let stranger = on!(broker, "topic", "create", "a b");
    assert_eq!(stranger.code(), 1);
    assert!(stranger.stderr.contains("topic: holds ' '"), "{stranger:?}");
    let bad_start = on!(broker, "consumer", "register", "--topic", "t", "c", "--from", "@never");
    assert_eq!(bad_start.code(), 2, "{bad_start:?}");
    assert!(bad_start.stderr.contains("RFC 3339"), "{bad_start:?}");

    let nobody = Trunkline::run(&["--endpoint", "http://127.0.0.1:1", "topic", "list"]).await;
    assert_eq!((nobody.code(), nobody.stderr.lines().count()), (69, 1), "{nobody:?}");
    assert!(nobody.stderr.contains("http://127.0.0.1:1"), "{nobody:?}");
    let nonsense = Trunkline::run(&["--endpoint", "nonsense", "topic", "list"]).await;
    assert_eq!(nonsense.code(), 2, "{nonsense:?}");
}

#[tokio::test]
async fn health_is_told_by_word_and_exit_code() {
    let broker = TestBroker::start().await;
    let healthy = on!(broker, "health");
    assert_eq!((healthy.code(), healthy.stdout.as_str()), (0, "SERVING\n"));
    let nobody = Trunkline::run(&["--endpoint", "http://127.0.0.1:1", "health"]).await;
    assert_eq!(nobody.code(), 69, "{nobody:?}");
}

#[tokio::test]
async fn files_come_back_byte_for_byte() {
    let broker = TestBroker::start().await;
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (dir.path().join("first"), dir.path().join("second"));
    fs::write(&first, b"plain\n\n\xff\xfe not text \x00\r\nlast\n").unwrap();
    let long = [vec![b'y'; 1024 * 1024], b"\n".to_vec()].concat();
    fs::write(&second, &long).unwrap();
    let produced = on!(
        broker,
        "produce",
        "files",
        "--producer",
        "p",
        "--register",
        first.to_str().unwrap(),
        second.to_str().unwrap(),
    );
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
async fn standard_input_is_published_as_it_comes() {
    let broker = TestBroker::start().await;
    let arguments =
        ["--endpoint", &broker.endpoint, "produce", "t", "--producer", "p", "--register"];
    let produced = Trunkline::run_with_input(&arguments, b"one\ntwo without an end").await;
    assert_eq!(produced.code(), 0, "{produced:?}");
    let consumed =
        on!(broker, "consume", "t", "--consumer", "c", "--register", "--until-caught-up");
    assert_eq!(consumed.stdout, "one\ntwo without an end\n");
    let nothing = Trunkline::run_with_input(&arguments, b"").await;
    assert_eq!(nothing.code(), 0, "{nothing:?}");
    assert!(nothing.stderr.contains("no message was acknowledged"), "{nothing:?}");
}

#[tokio::test]
async fn a_line_over_the_limit_is_named_and_what_came_before_is_kept() {
    let broker = TestBroker::start().await;
    let input =
        [b"one\ntwo\n".to_vec(), vec![b'x'; 1024 * 1024 + 1], b"\nafter\n".to_vec()].concat();
    let arguments =
        ["--endpoint", &broker.endpoint, "produce", "t", "--producer", "p", "--register"];
    let produced = Trunkline::run_with_input(&arguments, &input).await;
    assert_eq!(produced.code(), 1, "{produced:?}");
    assert_eq!(produced.stderr.lines().count(), 1, "{produced:?}");
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
    let produced = on!(
        broker,
        "produce",
        "t",
        "--producer",
        "p",
        "--register",
        here.path().to_str().unwrap(),
        "/nowhere/log",
    );
    assert_eq!(produced.code(), 1, "{produced:?}");
    assert!(produced.stderr.contains("/nowhere/log"), "{produced:?}");
    assert_eq!(broker.stored().await, 0);
}

#[tokio::test]
async fn a_stranger_is_refused_with_the_reason() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    let arguments = ["--endpoint", &broker.endpoint, "produce", "orders", "--producer", "stranger"];
    let produced = Trunkline::run_with_input(&arguments, b"line\n").await;
    assert_eq!(produced.code(), 1, "{produced:?}");
    assert!(
        produced.stderr.contains("(PRODUCER_NOT_FOUND): `trunkline producer register`"),
        "{produced:?}"
    );
    assert_eq!(broker.stored().await, 0);
}

#[tokio::test]
async fn consume_ends_after_n_messages_and_commits_just_those() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    broker.publish("orders", ["a", "b", "c", "d"]).await;
    let consumed = on!(broker, "consume", "orders", "--consumer", "c", "--register", "-n", "3");
    assert_eq!((consumed.code(), consumed.stdout.as_str()), (0, "a\nb\nc\n"), "{consumed:?}");
    assert_eq!(broker.position("orders", "c").await, 3);
    let consumed = on!(broker, "consume", "orders", "--consumer", "c", "--json", "-n", "1");
    let told: Value = serde_json::from_str(&consumed.stdout).unwrap();
    assert_eq!((&told["offset"], &told["payload"]), (&Value::from(3), &Value::from("d")));
    assert_eq!(told["producer"], "producer");
    let late =
        on!(broker, "consume", "orders", "--consumer", "d", "--register", "--from", "2", "-n", "2");
    assert_eq!(late.stdout, "c\nd\n");
}

#[tokio::test]
async fn a_reader_that_has_had_enough_ends_consume_cleanly() {
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
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
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
async fn a_second_consume_waits_and_takes_over_when_the_first_is_killed() {
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
    let told = soon("it waits", second.stderr.next_line()).await.unwrap().unwrap();
    assert!(told.contains("waiting as standby"), "{told}");
    first.kill().await;
    let took_over = tokio::time::timeout(Duration::from_secs(2), second.stderr.next_line()).await;
    assert_eq!(took_over.expect("in 2 s").unwrap().as_deref(), Some("trunkline: attached"));
    broker.publish("orders", ["b"]).await;
    let line = soon("a line", second.stdout.next_line()).await.unwrap();
    assert_eq!(line.as_deref(), Some("b"));
}
