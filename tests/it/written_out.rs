//! A position moves behind what the reader of `consume` has had, and no farther.

use std::{fs::File, path::Path, process::Stdio};

use nix::sys::signal::Signal;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    process::Command,
};

use crate::support::{TestBroker, Trunkline, soon, until};

/// A broker with messages of about ten bytes, so many that a pipe does not hold them.
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

/// The bytes that a message of those takes.
const LINE: i64 = 10;

/// Runs a shell script in which `$CONSUME` consumes, and does not outlive the test.
async fn shell(broker: &TestBroker, script: &str) -> (String, String) {
    let consume = format!(
        "timeout 15 {} --endpoint {} consume orders --consumer c",
        env!("CARGO_BIN_EXE_trunkline"),
        broker.endpoint
    );
    let mut command = Command::new("bash");
    command.args(["-c", script]).env("CONSUME", consume).kill_on_drop(true);
    let output = soon("the script ends", command.output()).await.unwrap();
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

#[tokio::test]
async fn what_head_has_not_read_is_consumed_again() {
    let broker = with_messages(20_000).await;
    let (out, told) = shell(&broker, "$CONSUME | head -n 2; echo ${PIPESTATUS[0]}").await;
    assert_eq!((out.as_str(), told.as_str()), ("000000000\n000000001\n0\n", ""));
    let position = broker.position("orders", "c").await;
    // `head` reads some kilobytes at once.
    assert!((2..=32 * 1024 / LINE).contains(&position), "{position}");
    let (next, _) = shell(&broker, "$CONSUME -n 1").await;
    assert_eq!(next, format!("{position:09}\n"), "nothing is left out, nothing comes twice");
}

#[tokio::test]
async fn a_reader_that_goes_is_noticed_though_the_pipe_has_room() {
    // All of it fits into the pipe, so that no write fails.
    let broker = with_messages(4_000).await;
    let script = "$CONSUME | { head -c 20 >/dev/null; exec <&-; }; echo ${PIPESTATUS[0]}";
    let (out, told) = shell(&broker, script).await;
    assert_eq!((out.as_str(), told.as_str()), ("0\n", ""));
    let position = broker.position("orders", "c").await;
    assert!((2..4_000).contains(&position), "{position}");
    // Nor is it all committed at the end that was asked for.
    broker.consumer("orders", "d").await;
    let script = "${CONSUME/%c/d} --until-caught-up | head -n 1; echo ${PIPESTATUS[0]}";
    let (out, told) = shell(&broker, script).await;
    assert_eq!((out.as_str(), told.as_str()), ("000000000\n0\n", ""));
    let position = broker.position("orders", "d").await;
    assert!((1..4_000).contains(&position), "{position}");
}

#[tokio::test]
async fn the_same_holds_whatever_is_printed() {
    let broker = with_messages(20_000).await;
    // What prints nothing goes with what was printed before it.
    let (out, _) = shell(&broker, "$CONSUME --format %k --until-caught-up | cat").await;
    assert_eq!(out, "");
    assert_eq!(broker.position("orders", "c").await, 20_000, "they were printed, as nothing");
    broker.consumer("orders", "d").await;
    let (out, _) = shell(&broker, "${CONSUME/%c/d} --json | head -n 1").await;
    assert!(out.contains("\"offset\":0,"), "{out}");
    let position = broker.position("orders", "d").await;
    assert!((1..=400).contains(&position), "objects are larger: {position}");
}

#[tokio::test]
async fn a_slow_reader_has_the_position_behind_it() {
    let broker = with_messages(20_000).await;
    let arguments = ["--endpoint", &broker.endpoint, "consume", "orders", "--consumer", "c"];
    let mut command = Trunkline::command(&arguments);
    let mut consume =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut out = consume.stdout.take().unwrap();
    let mut some = [0; 100 * LINE as usize];
    soon("some lines", out.read_exact(&mut some)).await.unwrap();
    // The rest of the pipe is full, and nobody has read it.
    let rest = BufReader::with_capacity(LINE as usize, out);
    let position = broker.position("orders", "c").await;
    assert!(position <= 100, "{position}");
    let mut lines = rest.lines();
    for _ in 100..20_000 {
        soon("a line", lines.next_line()).await.unwrap().unwrap();
    }
    // Nothing more comes, and the last ones are committed all the same.
    until("all is committed", async || broker.position("orders", "c").await == 20_000).await;
    let id = consume.id().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(id as i32), Signal::SIGINT).unwrap();
    assert_eq!(soon("the end", consume.wait()).await.unwrap().code(), Some(130));
}

#[tokio::test]
async fn a_full_disk_is_an_error_and_moves_nothing() {
    let broker = with_messages(100).await;
    for command in [
        &["consume", "orders", "--consumer", "c"][..],
        &["consume", "orders", "--consumer", "c", "--until-caught-up"],
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
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            (output.status.code(), told.lines().count()),
            (Some(1), 1),
            "{command:?}: {told}"
        );
        assert!(told.contains("write to standard output: No space left"), "{command:?}: {told}");
    }
    assert_eq!(broker.position("orders", "c").await, 0);
}

/// A file system that is full in the middle of a message: what was cut off comes again.
#[tokio::test]
async fn a_file_that_may_grow_no_further_ends_with_the_position_at_its_last_whole_line() {
    let broker = with_messages(1_000).await;
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    // The shell counts in units of 1,024 bytes, and the limit is an error rather than a signal.
    let script = format!("trap '' XFSZ; ulimit -f 1; $CONSUME >{}; echo $?", out.display());
    let (code, told) = shell(&broker, &script).await;
    assert_eq!((code.as_str(), told.lines().count()), ("1\n", 1), "{told}");
    assert!(told.contains("write to standard output: File too large"), "{told}");
    assert_eq!(std::fs::read(&out).unwrap().len(), 1_024);
    assert_eq!(broker.position("orders", "c").await, 102);
}

#[tokio::test]
async fn a_reader_of_a_tail_that_goes_is_noticed_while_nothing_comes() {
    let broker = with_messages(5).await;
    let script = format!(
        "timeout 15 {} --endpoint {} topic tail orders --follow | head -n 1; echo ${{PIPESTATUS[0]}}",
        env!("CARGO_BIN_EXE_trunkline"),
        broker.endpoint
    );
    let (out, told) = shell(&broker, &script).await;
    assert_eq!((out.as_str(), told.as_str()), ("000000000\n0\n", ""));
}

#[tokio::test]
async fn a_reader_that_goes_is_noticed_while_a_page_is_waited_for() {
    let broker = with_messages(5).await;
    let mut sql = broker.sql().await;
    let locked = sql.transaction().await.unwrap();
    locked.batch_execute("lock table trunkline.batch").await.unwrap();
    let script = format!(
        "timeout 10 {} --endpoint {} topic read orders | true; echo ${{PIPESTATUS[0]}}",
        env!("CARGO_BIN_EXE_trunkline"),
        broker.endpoint
    );
    let (out, told) = shell(&broker, &script).await;
    assert_eq!((out.as_str(), told.as_str()), ("0\n", ""));
    locked.rollback().await.unwrap();
}
