//! `produce --follow` with many files.

use std::os::unix::fs::MetadataExt as _;

use tokio::process::Command;

use crate::support::{Shipper, Trunkline, until};

const FILES: usize = 1_000;

/// Less than a tenth of the files: a shipper must not read or keep them all at once.
const MAX_OPEN: usize = 100;

/// The most memory that a shipper may need for them, in KiB.
const MAX_MEMORY: u64 = 200 * 1024;

/// 1,000 files of 400 KB each, of which most cannot be open at the same time.
#[tokio::test]
async fn a_thousand_files_are_followed_with_few_open_files_and_little_memory() {
    let shipper = Shipper::start().await;
    let text = format!("{}\n", "x".repeat(99));
    for number in 0..FILES {
        shipper.log(&format!("app{number}.log"), text.repeat(10));
    }
    // A large file does not hold the others up.
    shipper.log("app0.log", text.repeat(100_000));
    let mut run = limited(&shipper, MAX_OPEN);
    let last = |round: &str| format!("{round} {}\n", FILES - 1);
    let total = 100_000 + FILES * 10;
    until("all is stored", async || shipper.broker.stored().await as usize == total).await;
    assert!(run.open_files() <= MAX_OPEN, "{} files are open", run.open_files());
    for number in 0..FILES {
        shipper.log(&format!("app{number}.log"), last("grown"));
    }
    until("growth is stored", async || shipper.broker.stored().await as usize == total + FILES)
        .await;
    assert!(run.open_files() <= MAX_OPEN, "{} files are open", run.open_files());
    let peak = run.peak_memory();
    println!("the peak of memory is {peak} KiB");
    assert!(peak < MAX_MEMORY, "{peak} KiB");
    let state = std::fs::metadata(shipper.path("follow.state")).unwrap();
    assert_eq!(state.mode() & 0o777, 0o600);
    assert!(state.len() < 64 * 1024 * 1024, "the state has {} bytes", state.len());
    run.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(run.wait().await.code(), Some(0));
}

/// Starts to follow with a limit on open files.
fn limited(shipper: &Shipper, files: usize) -> Trunkline {
    let words = ["--follow", "--poll-interval", "200ms", "--state", "follow.state", "*.log"];
    let arguments = shipper.arguments(&words);
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let command = Trunkline::command(&arguments);
    let command = command.as_std();
    let mut limited = Command::new("sh");
    let script = format!("ulimit -n {files}; exec \"$0\" \"$@\"");
    limited.args(["-c", &script]).arg(command.get_program()).args(command.get_args());
    limited.kill_on_drop(true);
    Trunkline::spawn_command(limited)
}
