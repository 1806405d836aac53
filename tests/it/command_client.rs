//! The `trunkline` command as a client: what it reads and prints, and how it fails.

use std::{fs, process::Stdio, time::Duration};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    process::Command,
};

use crate::support::{Finished, TestBroker, Trunkline, soon, until};

async fn run(broker: &TestBroker, arguments: &[&str], input: &str) -> Finished {
    let arguments = [&["--endpoint", &broker.endpoint], arguments].concat();
    Trunkline::run_with_input(&arguments, input.as_bytes()).await
}

async fn produce(broker: &TestBroker, options: &[&str], input: &str) -> Finished {
    let produce = ["produce", "orders", "--producer", "p", "--register"];
    run(broker, &[&produce[..], options].concat(), input).await
}

async fn read(broker: &TestBroker, options: &[&str]) -> String {
    let read = run(broker, &[&["topic", "read", "orders"], options].concat(), "").await;
    assert_eq!(read.code(), 0, "{read:?}");
    read.stdout
}

async fn parsed(broker: &TestBroker, arguments: &[&str]) -> Value {
    let told = run(broker, arguments, "").await;
    assert_eq!(told.code(), 0, "{told:?}");
    serde_json::from_str(&told.stdout).unwrap()
}

#[tokio::test]
async fn lists_and_descriptions_are_told_in_json() {
    let broker = TestBroker::start().await;
    let create = ["topic", "create", "orders", "--label", "a=b", "--retention-messages", "7"];
    run(&broker, &create, "").await.assert().success();
    produce(&broker, &[], "line\n").await.assert().success();
    let register = ["consumer", "register", "--topic", "orders", "billing"];
    run(&broker, &register, "").await.assert().success();

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
    let expected = (&json!("p"), &json!(0), &json!(0), &json!(0));
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

    let described = run(&broker, &["producer", "describe", "--topic", "orders", "p"], "").await;
    assert!(described.stdout.contains("last sequence:   0"), "{described:?}");
    let nobody = run(&broker, &["producer", "describe", "--topic", "orders", "q"], "").await;
    assert_eq!(nobody.code(), 1, "{nobody:?}");
    run(&broker, &["topic", "create", "empty"], "").await.assert().success();
    let empty = parsed(&broker, &["consumer", "list", "--topic", "empty", "-o", "json"]).await;
    assert_eq!(empty, json!([]));
}

#[tokio::test]
async fn keys_and_headers_are_given_and_printed() {
    let broker = TestBroker::start().await;
    let options = ["--key-separator", ":", "--header", "a=b", "--header", "c=d=e"];
    produce(&broker, &options, "k1:v1\n:v:2\n").await.assert().success();
    let printed = read(&broker, &["-f", r"%o|%k|%h|%p|%P|%c\n"]).await;
    assert_eq!(printed, "0|k1|a=b,c=d=e|v1|p|orders\n1||a=b,c=d=e|v:2|p|orders\n");
    let with_time = read(&broker, &["-n", "1", "--format", r"%o %t %k %p\n"]).await;
    assert!(with_time.starts_with("0 20") && with_time.ends_with("Z k1 v1\n"), "{with_time}");

    let without = produce(&broker, &["--key-separator", "::"], "a::b\nno key\nc::d\n").await;
    assert_eq!(without.code(), 1, "{without:?}");
    let told = &without.stderr;
    assert!(told.contains("line 2 of -: contains no key separator \"::\""), "{told}");
    assert!(
        told.contains("1 messages acknowledged") && told.contains("up to line 1 of -"),
        "{told}"
    );
    for bad in [
        &["--header", "nothing"][..],
        &["--header", "=v"],
        &["--key-separator", ":", "--json"],
        &["--key-separator", ""],
    ] {
        assert_eq!(produce(&broker, bad, "").await.code(), 2, "{bad:?}");
    }
    for bad in [&["-f", "%z"][..], &["-f", "%p", "--json"]] {
        let arguments = [&["topic", "read", "orders"], bad].concat();
        assert_eq!(run(&broker, &arguments, "").await.code(), 2, "{bad:?}");
    }
}

#[tokio::test]
async fn what_consume_prints_in_json_produce_reads() {
    let broker = TestBroker::start().await;
    let input = concat!(
        r#"{"payload":"grüße","key":"k","headers":{"a":"b"}}"#,
        "\n",
        r#"{"payload":{"base64":"/wD+"},"key":{"base64":"/w=="}}"#,
        "\n{\"payload\":\"\"}\n"
    );
    produce(&broker, &["--json"], input).await.assert().success();
    let consume = ["consume", "orders", "--consumer", "c", "--register", "--json"];
    let consume = [&consume[..], &["--until-caught-up"]].concat();
    let printed = run(&broker, &consume, "").await;
    assert_eq!(printed.code(), 0, "{printed:?}");
    produce(&broker, &["--json"], &printed.stdout).await.assert().success();
    let all = read(&broker, &["--json"]).await;
    let all: Vec<Value> = all.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(all.len(), 6);
    for (first, second) in all[..3].iter().zip(&all[3..]) {
        for field in ["payload", "key", "headers"] {
            assert_eq!(first[field], second[field]);
        }
    }
    assert_eq!(all[4]["payload"], json!({ "base64": "/wD+" }));
    let bad = produce(&broker, &["--json"], "{\"payload\":\"\"}\n{\"payload\": 7}\n").await;
    assert_eq!(bad.code(), 1, "{bad:?}");
    let told =
        "line 2, column 13, of -: read JSON: invalid type: integer `7`, expected a string or";
    assert!(bad.stderr.contains(told), "{bad:?}");
    assert_eq!(bad.stderr.lines().count(), 1, "{bad:?}");
}

#[tokio::test]
async fn requests_hold_as_many_lines_as_they_are_told_to() {
    let broker = TestBroker::start().await;
    let lines: String = (0..100).map(|number| format!("{number}\n")).collect();
    produce(&broker, &["--batch", "10"], &lines).await.assert().success();
    assert_eq!(read(&broker, &[]).await, lines);
    let bad = produce(&broker, &["--batch", "10001"], &lines).await;
    assert_eq!((bad.code(), bad.stderr.lines().count()), (2, 1), "{bad:?}");
    assert!(bad.stderr.contains("--batch must be 1 to 10,000"), "{bad:?}");
}

#[tokio::test]
async fn the_same_file_given_again_is_not_stored_twice() {
    let broker = TestBroker::start().await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("log");
    fs::write(&file, "one\ntwo\n").unwrap();
    let options = ["--resume", file.to_str().unwrap()];
    produce(&broker, &options, "").await.assert().success();
    // It has grown meanwhile.
    fs::write(&file, "one\ntwo\nthree\nfour\n").unwrap();
    let again = produce(&broker, &options, "").await;
    assert!(again.stderr.contains("2 messages acknowledged"), "{again:?}");
    assert!(again.stderr.contains("up to line 4 of "), "{again:?}");
    assert_eq!(read(&broker, &[]).await, "one\ntwo\nthree\nfour\n");
    let nothing = produce(&broker, &options, "").await;
    let told = &nothing.stderr;
    assert!(told.contains("4 lines were published before; no message was acknowledged"), "{told}");
}

#[tokio::test]
async fn the_newest_messages_are_shown_and_what_comes() {
    let broker = TestBroker::start().await;
    let lines: String = (0..20).map(|number| format!("{number}\n")).collect();
    produce(&broker, &[], &lines).await.assert().success();
    let tail = run(&broker, &["topic", "tail", "orders", "-n", "3"], "").await;
    tail.assert().success().stdout("17\n18\n19\n");
    let tail = run(&broker, &["topic", "tail", "orders", "-n", "100", "-f", "%o "], "").await;
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
    assert!(broker.no_consumers("orders").await, "nothing is left behind");
}

#[tokio::test]
async fn shells_are_told_how_to_complete() {
    for (shell, sign) in
        [("bash", "complete -F"), ("zsh", "#compdef trunkline"), ("fish", "complete -c trunkline")]
    {
        let told = Trunkline::run(&["completions", shell]).await;
        assert_eq!(told.code(), 0, "{told:?}");
        assert!(told.stdout.contains(sign), "{shell}");
        assert!(told.stdout.contains("produce") && told.stdout.contains("until-caught-up"));
    }
    assert_eq!(Trunkline::run(&["completions", "tcsh"]).await.code(), 2);
}

#[tokio::test]
async fn contexts_name_brokers() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    let dir = tempfile::tempdir().unwrap();
    let run = async |arguments: &[&str]| Trunkline::run_configured(dir.path(), arguments).await;
    run(&["context", "list"]).await.assert().success().stdout("  NAME  ENDPOINT\n");
    run(&["context", "add", "here", &broker.endpoint]).await.assert().success();
    run(&["context", "add", "nowhere", "http://127.0.0.1:1"]).await.assert().success();
    // The first one is in use.
    let listed = run(&["topic", "list", "-o", "json"]).await;
    assert!(listed.stdout.contains("\"orders\""), "{listed:?}");
    let contexts = run(&["context", "list", "-o", "json"]).await;
    let contexts: Value = serde_json::from_str(&contexts.stdout).unwrap();
    let expected = json!([
        { "name": "here", "endpoint": broker.endpoint, "in_use": true },
        { "name": "nowhere", "endpoint": "http://127.0.0.1:1", "in_use": false },
    ]);
    assert_eq!(contexts, expected);
    run(&["context", "use", "nowhere"]).await.assert().success();
    assert_eq!(run(&["topic", "list"]).await.code(), 69);
    // What the command line says goes before.
    run(&["topic", "list", "--context", "here"]).await.assert().success();
    run(&["topic", "list", "--endpoint", &broker.endpoint]).await.assert().success();
    let with_variable = async |variable: &str, value: &str, arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trunkline"));
        command.env("XDG_CONFIG_HOME", dir.path()).env_remove("TRUNKLINE_ENDPOINT");
        let command = command.env_remove("TRUNKLINE_CONTEXT").env(variable, value).args(arguments);
        soon("the end", command.output()).await.unwrap().status.code()
    };
    let list = ["topic", "list"];
    assert_eq!(with_variable("TRUNKLINE_CONTEXT", "here", &list).await, Some(0));
    assert_eq!(with_variable("TRUNKLINE_ENDPOINT", &broker.endpoint, &list).await, Some(0));
    let list = ["topic", "list", "--context", "here"];
    assert_eq!(with_variable("TRUNKLINE_ENDPOINT", "http://127.0.0.1:1", &list).await, Some(0));
    let list = ["topic", "list", "--endpoint", &broker.endpoint];
    assert_eq!(with_variable("TRUNKLINE_CONTEXT", "nowhere", &list).await, Some(0));
    let bad = run(&["context", "add", "bad", "nonsense"]).await;
    assert_eq!((bad.code(), bad.stderr.lines().count()), (2, 1), "{bad:?}");
    let both = run(&["topic", "list", "--endpoint", "x", "--context", "here"]).await;
    assert_eq!(both.code(), 2, "{both:?}");
    run(&["context", "remove", "nowhere"]).await.assert().success();
    for unknown in [
        &["context", "use", "nowhere"][..],
        &["context", "remove", "nowhere"],
        &["topic", "list", "--context", "nowhere"],
    ] {
        let told = run(unknown).await;
        assert_eq!((told.code(), told.stderr.lines().count()), (2, 1), "{told:?}");
        assert!(told.stderr.contains("there is no context nowhere"), "{told:?}");
    }
    fs::write(dir.path().join("trunkline/config.toml"), "contexts = 7").unwrap();
    let broken = run(&["topic", "list"]).await;
    assert_eq!((broken.code(), broken.stderr.lines().count()), (1, 1), "{broken:?}");
    assert!(broken.stderr.contains("config.toml"), "{broken:?}");
}

#[tokio::test]
async fn what_is_no_broker_is_told_so() {
    // Nobody there.
    let nobody = Trunkline::run(&["--endpoint", "http://127.0.0.1:1", "topic", "list"]).await;
    assert!(nobody.stderr.contains("is a broker running there?"), "{nobody:?}");
    // Somebody who speaks something else, and somebody who is silent.
    for (answer, told) in [
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
            assert!(failed.stderr.contains(told), "{failed:?}");
            assert!(failed.stderr.contains(&endpoint), "{failed:?}");
        }
        serving.abort();
    }
    // Somebody who speaks gRPC, but not this.
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
async fn files_that_cannot_be_read_are_named() {
    let broker = TestBroker::start().await;
    let dir = tempfile::tempdir().unwrap();
    for (path, problem) in
        [(dir.path().join("missing"), "No such file"), (dir.path().to_owned(), "it is a folder")]
    {
        let failed = produce(&broker, &[path.to_str().unwrap()], "").await;
        assert_eq!((failed.code(), failed.stderr.lines().count()), (1, 1), "{failed:?}");
        let named = failed.stderr.contains(path.to_str().unwrap());
        assert!(named && failed.stderr.contains(problem), "{failed:?}");
    }
}

#[tokio::test]
async fn a_reader_that_has_had_enough_ends_every_printing_command_cleanly() {
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

#[tokio::test]
async fn produce_survives_a_broker_that_comes_back_and_tells_of_one_that_does_not() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    let mut command = Command::new(env!("CARGO_BIN_EXE_trunkline"));
    command.args(["--endpoint", &broker.endpoint, "produce", "orders", "--producer", "producer"]);
    command.args(["--retry-for", "1s"]).kill_on_drop(true);
    let mut produce = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = produce.stdin.take().unwrap();
    stdin.write_all(b"one\ntwo\n").await.unwrap();
    until("two lines are stored", async || broker.stored().await == 2).await;
    // What is under way is lost; the lines are stored once all the same.
    broker.end_sessions("trunkline writer").await;
    stdin.write_all(b"three\n").await.unwrap();
    until("the third line is stored", async || broker.stored().await == 3).await;
    let database = broker.database.clone();
    broker.stop().await;
    stdin.write_all(b"four\n").await.unwrap();
    let ended = soon("produce gives up", produce.wait_with_output()).await.unwrap();
    assert_eq!(ended.status.code(), Some(69), "{ended:?}");
    let told = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(told.lines().count(), 1, "{told}");
    assert!(told.contains("3 messages acknowledged"), "{told}");
    assert!(told.contains("up to line 3 of -, last offset 2"), "{told}");
    drop(stdin);
    let stored = "select count(*) from trunkline.message";
    assert_eq!(database.sql().await.query_one(stored, &[]).await.unwrap().get::<_, i64>(0), 3);
}

/// Runs a command on a terminal of its own, as `script` makes one.
fn on_a_terminal(command: &str) -> Command {
    let mut script = Command::new("script");
    script.args(["--quiet", "--flush", "--return", "--command", command, "/dev/null"]);
    script.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
    script
}

#[tokio::test]
#[cfg_attr(
    not(has_script),
    ignore = "there is no `script` on this machine to make a terminal with"
)]
async fn a_long_produce_shows_its_progress_on_a_terminal() {
    let broker = TestBroker::start().await;
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let command = format!(
        "{} --endpoint {} produce orders --producer p --register {}",
        env!("CARGO_BIN_EXE_trunkline"),
        broker.endpoint,
        pipe.display()
    );
    let mut produce = on_a_terminal(&command).spawn().unwrap();
    let mut shown = produce.stdout.take().unwrap();
    // Opened for both: to wait for a reader would block this process if none came.
    let mut options = tokio::fs::OpenOptions::new();
    let mut lines = options.read(true).write(true).open(&pipe).await.unwrap();
    let writing = async {
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        loop {
            tick.tick().await;
            lines.write_all(b"a line\n").await.unwrap();
        }
    };
    let mut printed = Vec::new();
    let showing = async {
        while !String::from_utf8_lossy(&printed).contains(" messages acknowledged, ") {
            assert!(shown.read_buf(&mut printed).await.unwrap() > 0, "it ended");
        }
    };
    let seen = async {
        tokio::select! {
            () = showing => {}
            () = writing => {}
        }
    };
    soon("the progress is shown", seen).await;
    drop(lines);
    soon("the rest", shown.read_to_end(&mut printed)).await.unwrap();
    let printed = String::from_utf8_lossy(&printed);
    assert!(printed.contains("messages acknowledged in "), "{printed}");
    assert!(soon("the end", produce.wait()).await.unwrap().success());
}
