//! `consume` commits no further than its output was read.

use std::{fs::File, path::Path, process::Stdio};

use nix::sys::signal::Signal;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    process::Command,
};

use crate::support::{TestBroker, Trunkline, soon, until};

/// A broker with a number of messages, each printed as a line of [`LINE`] bytes.
async fn with_messages(count: usize) -> TestBroker {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    broker.consumer("orders", "c").await;
    for first in (0..count).step_by(10_000) {
        let messages: Vec<String> =
            (first..count.min(first + 10_000)).map(|number| format!("{number:09}")).collect();
        broker.try_publish("orders", "producer", messages).await.unwrap();
    }
    broker
}

/// The bytes of a printed line.
const LINE: i64 = 10;

struct ScriptOutput {
    stdout: String,
    stderr: String,
}

/// Runs a shell script in which `$CONSUME` is the command, with a timeout so that it does not
/// outlive the test.
async fn shell(broker: &TestBroker, script: &str) -> ScriptOutput {
    let consume = format!(
        "timeout 15 {} --endpoint {} consume orders --consumer c",
        env!("CARGO_BIN_EXE_trunkline"),
        broker.endpoint
    );
    let mut command = Command::new("bash");
    command.args(["-c", script]).env("CONSUME", consume).kill_on_drop(true);
    let output = soon("the script ends", command.output()).await.unwrap();
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    ScriptOutput { stdout: text(&output.stdout), stderr: text(&output.stderr) }
}

#[tokio::test]
async fn lines_that_head_did_not_read_are_consumed_again() {
    let broker = with_messages(20_000).await;
    let output = shell(&broker, "$CONSUME | head -n 2; echo ${PIPESTATUS[0]}").await;
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("000000000\n000000001\n0\n", ""));
    let position = broker.position("orders", "c").await;
    // `head` reads some kilobytes at once.
    assert!((2..=32 * 1024 / LINE).contains(&position), "{position}");
    let next = shell(&broker, "$CONSUME -n 1").await.stdout;
    assert_eq!(next, format!("{position:09}\n"), "no message is skipped or repeated");
}

#[tokio::test]
async fn a_reader_that_closes_the_pipe_is_noticed_although_the_pipe_has_room() {
    // Everything fits into the pipe, so that no write fails.
    let broker = with_messages(4_000).await;
    let script = "$CONSUME | { head -c 20 >/dev/null; exec <&-; }; echo ${PIPESTATUS[0]}";
    let output = shell(&broker, script).await;
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("0\n", ""));
    let position = broker.position("orders", "c").await;
    assert!((2..4_000).contains(&position), "{position}");
    // A stop condition does not commit unread messages, either.
    broker.consumer("orders", "d").await;
    let script = "${CONSUME/%c/d} --until-caught-up | head -n 1; echo ${PIPESTATUS[0]}";
    let output = shell(&broker, script).await;
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("000000000\n0\n", ""));
    let position = broker.position("orders", "d").await;
    assert!((1..4_000).contains(&position), "{position}");
}

#[tokio::test]
async fn other_formats_commit_no_further_than_they_were_read() {
    let broker = with_messages(20_000).await;
    // A message that prints nothing is committed with the ones before it.
    let stdout = shell(&broker, "$CONSUME --format %k --until-caught-up | cat").await.stdout;
    assert_eq!(stdout, "");
    assert_eq!(broker.position("orders", "c").await, 20_000, "every message prints nothing");
    broker.consumer("orders", "d").await;
    let stdout = shell(&broker, "${CONSUME/%c/d} --json | head -n 1").await.stdout;
    assert!(stdout.contains("\"offset\":0,"), "{stdout}");
    let position = broker.position("orders", "d").await;
    assert!((1..=400).contains(&position), "JSON objects are larger: {position}");
}

#[tokio::test]
async fn the_position_follows_a_slow_reader() {
    let broker = with_messages(20_000).await;
    let arguments = ["--endpoint", &broker.endpoint, "consume", "orders", "--consumer", "c"];
    let mut command = Trunkline::command(&arguments);
    let mut consume =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut out = consume.stdout.take().unwrap();
    let mut some = [0; 100 * LINE as usize];
    soon("some lines", out.read_exact(&mut some)).await.unwrap();
    // The pipe is full of lines that were not read.
    let rest = BufReader::with_capacity(LINE as usize, out);
    let position = broker.position("orders", "c").await;
    assert!(position <= 100, "{position}");
    let mut lines = rest.lines();
    for _ in 100..20_000 {
        soon("a line", lines.next_line()).await.unwrap().unwrap();
    }
    // The last messages are committed although no more follow.
    until("every message is committed", async || broker.position("orders", "c").await == 20_000)
        .await;
    let id = consume.id().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(id as i32), Signal::SIGINT).unwrap();
    assert_eq!(soon("the end", consume.wait()).await.unwrap().code(), Some(130));
}

#[tokio::test]
async fn a_full_disk_is_an_error_and_commits_nothing() {
    let broker = with_messages(100).await;
    // Another consumer for each command, as the lease of the one before may not be free yet.
    broker.consumer("orders", "d").await;
    for command in [
        &["consume", "orders", "--consumer", "c"][..],
        &["consume", "orders", "--consumer", "d", "--until-caught-up"],
        &["topic", "read", "orders"],
        &["topic", "tail", "orders"],
        &["topic", "tail", "orders", "--follow"],
        &["topic", "list"],
        &["topic", "list", "-o", "json"],
        &["topic", "describe", "orders"],
    ] {
        let full = File::options().write(true).open(Path::new("/dev/full")).unwrap();
        let arguments = [&["--endpoint", &broker.endpoint], command].concat();
        let mut process = Trunkline::command(&arguments);
        process.stdin(Stdio::null()).stdout(full).stderr(Stdio::piped());
        let output = soon("the end", process.spawn().unwrap().wait_with_output()).await.unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            (output.status.code(), stderr.lines().count()),
            (Some(1), 1),
            "{command:?}: {stderr}"
        );
        let expected = "write to standard output: No space left";
        assert!(stderr.contains(expected), "{command:?}: {stderr}");
    }
    assert_eq!(broker.position("orders", "c").await, 0);
}

/// As when a file system is full in the middle of a message, which then comes again.
#[tokio::test]
async fn at_a_file_size_limit_the_position_is_after_the_last_complete_line() {
    let broker = with_messages(1_000).await;
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    // The unit of `ulimit -f` is 1,024 bytes; ignoring the signal makes the limit an error.
    let script = format!("trap '' XFSZ; ulimit -f 1; $CONSUME >{}; echo $?", out.display());
    let ScriptOutput { stdout: code, stderr } = shell(&broker, &script).await;
    assert_eq!((code.as_str(), stderr.lines().count()), ("1\n", 1), "{stderr}");
    assert!(stderr.contains("write to standard output: File too large"), "{stderr}");
    assert_eq!(std::fs::read(&out).unwrap().len(), 1_024);
    assert_eq!(broker.position("orders", "c").await, 102);
}

#[tokio::test]
async fn topic_tail_notices_that_its_reader_closes_the_pipe_while_no_message_comes() {
    let broker = with_messages(5).await;
    let script = format!(
        "timeout 15 {} --endpoint {} topic tail orders --follow | head -n 1; echo ${{PIPESTATUS[0]}}",
        env!("CARGO_BIN_EXE_trunkline"),
        broker.endpoint
    );
    let output = shell(&broker, &script).await;
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("000000000\n0\n", ""));
}

#[tokio::test]
async fn topic_read_notices_that_its_reader_closes_the_pipe_while_it_waits_for_a_page() {
    let broker = with_messages(5).await;
    let mut sql = broker.sql().await;
    let locked = sql.transaction().await.unwrap();
    locked.batch_execute("lock table trunkline.batch").await.unwrap();
    let script = format!(
        "timeout 10 {} --endpoint {} topic read orders | true; echo ${{PIPESTATUS[0]}}",
        env!("CARGO_BIN_EXE_trunkline"),
        broker.endpoint
    );
    let output = shell(&broker, &script).await;
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("0\n", ""));
    locked.rollback().await.unwrap();
}
