//! The `trunkline` command as a client: its output, and how it fails.

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    process::Command,
};

use crate::support::{TestBroker, Trunkline, orders::produce, soon};

/// Runs a command, and parses its standard output.
async fn parsed(broker: &TestBroker, arguments: &[&str]) -> Value {
    let ran = broker.run(arguments).await;
    assert_eq!(ran.code(), 0, "{ran:?}");
    serde_json::from_str(&ran.stdout).unwrap()
}

#[tokio::test]
async fn lists_and_descriptions_are_printed_in_json() {
    let broker = TestBroker::start().await;
    let create = ["topic", "create", "orders", "--label", "a=b", "--retention-messages", "7"];
    broker.run(&create).await.assert().success();
    produce(&broker, &[], "line\n").await.assert().success();
    let register = ["consumer", "register", "--topic", "orders", "billing"];
    broker.run(&register).await.assert().success();

    let topics = parsed(&broker, &["topic", "list", "--output", "json"]).await;
    let topic = &topics[0];
    assert_eq!((&topic["name"], &topic["head"]), (&json!("orders"), &json!(1)));
    assert_eq!((&topic["labels"], &topic["bytes"]), (&json!({"a": "b"}), &json!(4)));
    let retention = json!({
        "max_age_seconds": null, "max_bytes": null, "max_messages": 7, "keep_unread": false,
    });
    assert_eq!(topic["retention"], retention);
    assert!(topic["create_time"].as_str().unwrap().ends_with('Z'), "{topic}");
    assert_eq!(parsed(&broker, &["topic", "describe", "orders", "-o", "json"]).await, *topic);

    let producers = ["producer", "list", "--topic", "orders", "--output", "json"];
    let producers = parsed(&broker, &producers).await;
    // Registered with epoch 0, and fenced once by the producer that opened.
    let expected = (&json!("p"), &json!(1), &json!(0), &json!(0));
    let producer = &producers[0];
    assert_eq!(
        (
            &producer["producer_id"],
            &producer["epoch"],
            &producer["last_offset"],
            &producer["last_sequence"]
        ),
        expected
    );
    let describe = ["producer", "describe", "--topic", "orders", "p", "--output", "json"];
    assert_eq!(parsed(&broker, &describe).await, *producer);

    let consumers = ["consumer", "list", "--topic", "orders", "--output", "json"];
    let consumer = &parsed(&broker, &consumers).await[0];
    assert_eq!((&consumer["consumer_id"], &consumer["lag"]), (&json!("billing"), &json!(1)));
    let describe = ["consumer", "describe", "--topic", "orders", "billing", "--output", "json"];
    assert_eq!(parsed(&broker, &describe).await, *consumer);

    let described = broker.run(&["producer", "describe", "--topic", "orders", "p"]).await;
    assert!(described.stdout.contains("last sequence:   0"), "{described:?}");
    let nobody = broker.run(&["producer", "describe", "--topic", "orders", "q"]).await;
    assert_eq!(nobody.code(), 1, "{nobody:?}");
    broker.run(&["topic", "create", "empty"]).await.assert().success();
    let empty = parsed(&broker, &["consumer", "list", "--topic", "empty", "-o", "json"]).await;
    assert_eq!(empty, json!([]));
}

#[tokio::test]
async fn topic_tail_prints_the_newest_messages_and_follows_new_ones() {
    let broker = TestBroker::start().await;
    let lines: String = (0..20).map(|number| format!("{number}\n")).collect();
    produce(&broker, &[], &lines).await.assert().success();
    let tail = broker.run(&["topic", "tail", "orders", "-n", "3"]).await;
    tail.assert().success().stdout("17\n18\n19\n");
    let tail = broker.run(&["topic", "tail", "orders", "-n", "100", "-f", "%o "]).await;
    assert_eq!(tail.stdout.split_whitespace().count(), 20);

    let endpoint = &broker.endpoint;
    let mut following = Trunkline::spawn(&[
        "--endpoint",
        endpoint,
        "topic",
        "tail",
        "orders",
        "-n",
        "1",
        "--follow",
    ]);
    let mut line = async || soon("a line", following.stdout.next_line()).await.unwrap().unwrap();
    assert_eq!(line().await, "19");
    produce(&broker, &[], "new\n").await.assert().success();
    assert_eq!(line().await, "new");
    following.signal(nix::sys::signal::Signal::SIGINT);
    assert_eq!(following.wait().await.code(), Some(130));
    assert!(broker.no_consumers("orders").await, "no consumer is left behind");
}

#[tokio::test]
async fn completions_are_printed_for_shells() {
    for (shell, sign) in [
        ("bash", "_clap_complete_trunkline"),
        ("zsh", "#compdef trunkline"),
        ("fish", "complete --keep"),
    ] {
        let ran = Trunkline::run(&["completions", shell]).await;
        assert_eq!(ran.code(), 0, "{ran:?}");
        assert!(ran.stdout.contains(sign), "{shell}");
        assert!(ran.stdout.contains("TRUNKLINE_COMPLETE"));
    }
    assert_eq!(Trunkline::run(&["completions", "tcsh"]).await.code(), 2);
}

#[tokio::test]
async fn an_endpoint_without_a_broker_is_reported() {
    // Nothing listens.
    let nobody = Trunkline::run(&["--endpoint", "http://127.0.0.1:1", "topic", "list"]).await;
    assert!(nobody.stderr.contains("is a broker running there?"), "{nobody:?}");
    // A server that speaks another protocol, and one that is silent.
    for (answer, expected_text) in [
        (&b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"[..], "does not speak gRPC"),
        (b"", "does not answer"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let serving = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            socket.write_all(answer).await.unwrap();
            let _ = socket.read_to_end(&mut Vec::new()).await;
        });
        for command in [&["topic", "list"][..]] {
            let failed = Trunkline::run(&[&["--endpoint", &endpoint], command].concat()).await;
            assert_eq!((failed.code(), failed.stderr.lines().count()), (69, 1), "{failed:?}");
            assert!(failed.stderr.contains(expected_text), "{failed:?}");
            assert!(failed.stderr.contains(&endpoint), "{failed:?}");
        }
        serving.abort();
    }
    // A gRPC server with other services.
    let (_, health) = tonic_health::server::health_reporter();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    let server = tonic::transport::Server::builder().add_service(health);
    let serving = tokio::spawn(server.serve_with_incoming(incoming));
    let failed = Trunkline::run(&["--endpoint", &endpoint, "topic", "list"]).await;
    assert_eq!((failed.code(), failed.stderr.lines().count()), (69, 1), "{failed:?}");
    assert!(failed.stderr.contains("is not a Trunkline broker"), "{failed:?}");
    serving.abort();
}

#[tokio::test]
async fn every_command_ends_cleanly_when_its_reader_closes_the_pipe() {
    let broker = TestBroker::start().await;
    let lines: String = (0..50_000).map(|number| format!("{number}\n")).collect();
    produce(&broker, &[], &lines).await.assert().success();
    for command in [
        "topic read orders",
        "topic tail orders -n 50000",
        "topic read orders --json",
        "topic list",
        "topic describe orders",
        "completions bash",
    ] {
        let script = format!(
            "{} --endpoint {} {command} | head -n 1 >/dev/null; echo ${{PIPESTATUS[0]}}",
            env!("CARGO_BIN_EXE_trunkline"),
            broker.endpoint
        );
        let shell = Command::new("bash").args(["-c", &script]).output();
        let output = soon("the pipe ends", shell).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "0\n", "{command}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{command}");
    }
}
