//! `trunkline produce`: its input, its progress, retries and errors.

use std::{fs, process::Stdio, time::Duration};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    process::Command,
};

use crate::support::{
    TestBroker,
    orders::{produce, read},
    soon, until,
};

#[tokio::test]
async fn keys_and_headers_are_published_and_printed() {
    let broker = TestBroker::start().await;
    let options = ["--key-separator", ":", "--header", "a=b", "--header", "c=d=e"];
    produce(&broker, &options, "k1:v1\n:v:2\n").await.assert().success();
    let printed = read(&broker, &["-f", r"%o|%k|%h|%p|%P|%c\n"]).await;
    assert_eq!(printed, "0|k1|a=b,c=d=e|v1|p|orders\n1||a=b,c=d=e|v:2|p|orders\n");
    let with_time = read(&broker, &["-n", "1", "--format", r"%o %t %k %p\n"]).await;
    assert!(with_time.starts_with("0 20") && with_time.ends_with("Z k1 v1\n"), "{with_time}");

    let without = produce(&broker, &["--key-separator", "::"], "a::b\nno key\nc::d\n").await;
    assert_eq!(without.code(), 1, "{without:?}");
    let stderr = &without.stderr;
    assert!(stderr.contains("line 2 of -: contains no key separator \"::\""), "{stderr}");
    assert!(
        stderr.contains("1 message acknowledged") && stderr.contains("up to line 1 of -"),
        "{stderr}"
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
        assert_eq!(broker.run(&arguments).await.code(), 2, "{bad:?}");
    }
}

#[tokio::test]
async fn produce_reads_the_json_that_consume_prints() {
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
    let printed = broker.run(&consume).await;
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
    let expected =
        "line 2, column 13, of -: read JSON: invalid type: integer `7`, expected a string or";
    assert!(bad.stderr.contains(expected), "{bad:?}");
    assert_eq!(bad.stderr.lines().count(), 1, "{bad:?}");
}

#[tokio::test]
async fn the_batch_option_is_checked_and_loses_no_line() {
    let broker = TestBroker::start().await;
    let lines: String = (0..100).map(|number| format!("{number}\n")).collect();
    produce(&broker, &["--batch", "10"], &lines).await.assert().success();
    assert_eq!(read(&broker, &[]).await, lines);
    let bad = produce(&broker, &["--batch", "10001"], &lines).await;
    assert_eq!((bad.code(), bad.stderr.lines().count()), (2, 1), "{bad:?}");
    assert!(bad.stderr.contains("--batch must be 1 to 10,000"), "{bad:?}");
}

#[tokio::test]
async fn resuming_the_same_file_stores_no_line_twice() {
    let broker = TestBroker::start().await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("log");
    fs::write(&file, "one\ntwo\n").unwrap();
    let options = ["--resume", file.to_str().unwrap()];
    produce(&broker, &options, "").await.assert().success();
    // The file has grown.
    fs::write(&file, "one\ntwo\nthree\nfour\n").unwrap();
    let again = produce(&broker, &options, "").await;
    assert!(again.stderr.contains("2 messages acknowledged"), "{again:?}");
    assert!(again.stderr.contains("up to line 4 of "), "{again:?}");
    assert_eq!(read(&broker, &[]).await, "one\ntwo\nthree\nfour\n");
    let nothing = produce(&broker, &options, "").await;
    let stderr = &nothing.stderr;
    assert!(stderr.contains("4 lines published before; no message was acknowledged"), "{stderr}");
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
async fn produce_survives_a_lost_session_and_gives_up_a_broker_that_is_gone() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    let mut command = Command::new(env!("CARGO_BIN_EXE_trunkline"));
    command.args(["--endpoint", &broker.endpoint, "produce", "orders", "--producer", "producer"]);
    command.args(["--retry-for", "1s"]).kill_on_drop(true);
    let mut produce = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = produce.stdin.take().unwrap();
    stdin.write_all(b"one\ntwo\n").await.unwrap();
    until("two lines are stored", async || broker.stored().await == 2).await;
    // Requests in flight fail, but every line is stored exactly once.
    broker.end_sessions("trunkline writer").await;
    stdin.write_all(b"three\n").await.unwrap();
    until("the third line is stored", async || broker.stored().await == 3).await;
    let database = broker.database.clone();
    broker.stop().await;
    stdin.write_all(b"four\n").await.unwrap();
    let ended = soon("produce gives up", produce.wait_with_output()).await.unwrap();
    assert_eq!(ended.status.code(), Some(69), "{ended:?}");
    let stderr = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.contains("3 messages acknowledged"), "{stderr}");
    assert!(stderr.contains("up to line 3 of -, last offset 2"), "{stderr}");
    drop(stdin);
    let stored = "select count(*) from trunkline.message";
    assert_eq!(database.sql().await.query_one(stored, &[]).await.unwrap().get::<_, i64>(0), 3);
}

/// A command in a pseudo-terminal that `script` creates.
fn on_a_terminal(command: &str) -> Command {
    let mut script = Command::new("script");
    script.args(["--quiet", "--flush", "--return", "--command", command, "/dev/null"]);
    script.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
    script
}

#[tokio::test]
#[cfg_attr(not(has_script), ignore = "there is no `script` on this machine to create a terminal")]
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
    // Opened for reading, too, so that opening does not block until there is a reader.
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
            assert!(shown.read_buf(&mut printed).await.unwrap() > 0, "the command ended");
        }
    };
    let progress = async {
        tokio::select! {
            () = showing => {}
            () = writing => {}
        }
    };
    soon("the progress is shown", progress).await;
    drop(lines);
    soon("the rest of the output", shown.read_to_end(&mut printed)).await.unwrap();
    let printed = String::from_utf8_lossy(&printed);
    assert!(printed.contains("messages acknowledged in "), "{printed}");
    assert!(soon("the end", produce.wait()).await.unwrap().success());
}
