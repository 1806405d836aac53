//! `trunkline top`: what moves, and who is behind.

use std::{
    io::{Read as _, Write as _},
    os::fd::OwnedFd,
    process::Stdio,
    sync::{Arc, Mutex},
};

use nix::pty::{OpenptyResult, Winsize, openpty};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::support::{TestBroker, Trunkline, soon, until};

/// A broker with two topics, one of which has a consumer that is behind.
async fn with_lag() -> TestBroker {
    let broker = TestBroker::with_five_messages().await;
    broker.topic("bills").await;
    until("the consumer is seen", async || {
        broker.run(&["top", "--once"]).await.stdout.contains("billing")
    })
    .await;
    broker
}

#[tokio::test]
async fn lists_are_printed_once() {
    let broker = with_lag().await;
    let finished = broker.run(&["top", "--once", "--topics-by", "head"]).await;
    assert_eq!((finished.code(), &*finished.stderr), (0, ""), "{finished:?}");
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let lines: Vec<_> = finished.stdout.lines().map(words).collect();
    assert!(finished.stdout.starts_with("2 topics, "), "{finished:?}");
    assert!(lines[1].is_empty());
    assert_eq!(lines[2], ["TOPIC", "MESSAGES/S", "HEAD", "SIZE", "PUBLISHED"]);
    assert_eq!((&*lines[3][0], &*lines[3][2]), ("orders", "5"));
    assert_eq!((&*lines[4][0], &*lines[4][2]), ("bills", "0"));
    assert!(lines[5].is_empty());
    let header = ["TOPIC", "CONSUMER", "LAG", "BEHIND", "MESSAGES/S", "IDLE", "HOLDER"];
    assert_eq!(lines[6], header);
    assert_eq!(lines[7][..3], ["orders", "billing", "5"]);
    assert_eq!(lines.len(), 8);

    let searched = broker.run(&["top", "BILL", "--once"]).await;
    assert!(searched.stdout.contains("bills") && !searched.stdout.contains("orders"));
}

#[tokio::test]
async fn json_has_the_whole_answer() {
    let broker = with_lag().await;
    let finished = broker.run(&["top", "--once", "-o", "json"]).await;
    let printed: Value = serde_json::from_str(&finished.stdout).unwrap();
    assert_eq!(printed["topic_count"], 2);
    assert_eq!(printed["consumers"][0]["lag"], 5);
    assert_eq!(printed["consumers"][0]["holder"], Value::Null);
    assert_eq!(printed["broker"]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!((&printed["problems"], &printed["incomplete"]), (&json!([]), &json!(false)));

    // A line for each interval, until it is interrupted.
    let arguments = ["--endpoint", &broker.endpoint, "top", "-o", "json", "--interval", "1s"];
    let mut top = Trunkline::spawn(&arguments);
    for _ in 0..2 {
        let line: Value = serde_json::from_str(&top.line().await).unwrap();
        assert_eq!(line["topic_count"], 2);
    }
    top.signal(nix::sys::signal::Signal::SIGINT);
    assert_eq!(top.wait().await.code(), Some(130));
}

#[tokio::test]
async fn what_cannot_be_shown_is_a_clear_error() {
    let broker = TestBroker::start().await;
    let finished = broker.run(&["top"]).await;
    assert_eq!(finished.code(), 2, "{finished:?}");
    assert!(finished.stderr.contains("not a terminal: --once"), "{finished:?}");
    let finished = broker.run(&["top", "--interval", "10ms"]).await;
    assert_eq!(finished.code(), 2, "{finished:?}");
    assert!(finished.stderr.contains("must be from 1s to 1h"), "{finished:?}");
    let finished = broker.run(&["top", &"a".repeat(256), "--once"]).await;
    assert_eq!(finished.code(), 1, "{finished:?}");
    assert!(finished.stderr.contains("topic_contains"), "{finished:?}");
    broker.database.close().await;
    until("the database is missed", async || broker.run(&["top", "--once"]).await.code() == 69)
        .await;
    broker.database.open().await;
}

#[tokio::test]
#[cfg_attr(not(has_script), ignore = "there is no util-linux on this machine to create a terminal")]
async fn a_terminal_is_drawn_upon_and_put_back() {
    let broker = with_lag().await;
    let size = Winsize { ws_row: 24, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
    let OpenptyResult { master, slave } = openpty(&size, None).unwrap();
    let before = nix::sys::termios::tcgetattr(&slave).unwrap();
    let duplicate = |fd: &OwnedFd| Stdio::from(fd.try_clone().unwrap());
    let mut top = {
        let command =
            Trunkline::command(&["--endpoint", &broker.endpoint, "top", "--interval", "1s"]);
        let command = command.as_std();
        // Otherwise the command would draw for the terminal that the tests were started from.
        let mut on_terminal = Command::new("setsid");
        on_terminal.args(["--ctty", "--wait"]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => on_terminal.env(name, value),
                None => on_terminal.env_remove(name),
            };
        }
        on_terminal.kill_on_drop(true);
        on_terminal.stdin(duplicate(&slave)).stdout(duplicate(&slave)).spawn().unwrap()
    };

    let mut keys = std::fs::File::from(master.try_clone().unwrap());
    let shown = Arc::new(Mutex::new(String::new()));
    let showing = shown.clone();
    // Processes of other tests may hold the terminal open for a while, which must not hold this one.
    std::thread::spawn(move || {
        let (mut master, mut part) = (std::fs::File::from(master), [0; 4096]);
        // Fails once nobody has the terminal open.
        while let Ok(count @ 1..) = master.read(&mut part) {
            showing.lock().unwrap().push_str(&String::from_utf8_lossy(&part[..count]));
        }
    });
    let shows = async |text: &str| {
        until(text, async || shown.lock().unwrap().contains(text)).await;
    };
    shows("billing").await;
    shows("MESSAGES/S*").await;
    keys.write_all(b"tt").unwrap();
    shows("SIZE*").await;
    keys.write_all(b"/bill").unwrap();
    shows("Enter keeps it").await;
    keys.write_all(b"\rq").unwrap();
    assert!(soon("the command's end", top.wait()).await.unwrap().success());
    // It leaves the alternate screen, and the terminal echoes again.
    shows("\u{1b}[?1049l").await;
    let after = nix::sys::termios::tcgetattr(&slave).unwrap();
    assert_eq!(before.local_flags, after.local_flags);
}
