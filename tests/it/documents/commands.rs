//! The shell blocks of the documents are run from top to bottom, each page beside a broker of its
//! own. What lies elsewhere for a test than for a reader (the broker, the databases) is put in.

use std::{fs, path::Path, process::Output, time::Duration};

use tokio::process::Command;

use super::blocks;
use crate::support::{Document, TestBroker, TestDatabase, root, soon};

/// The pages whose commands are run here.
pub(super) const DOCUMENTS: [&str; 5] =
    ["README.md", "docs/tour.md", "docs/operations.md", "docs/performance.md", "docs/roles.md"];

/// How long a command that goes on until it is stopped is watched.
const WATCHED: Duration = Duration::from_secs(3);

/// The exit code of `timeout` where its command still ran.
const STILL_RAN: i32 = 124;

/// The commands of a block, without what is said of them.
pub(super) fn of(block: &str) -> Vec<String> {
    let lines = block.lines().map(|line| line.split("  # ").next().unwrap_or_default());
    let lines = lines.map(|line| line.split("   #").next().unwrap_or_default().trim());
    lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect()
}

#[tokio::test]
async fn the_commands_of_the_readme_run() {
    assert_eq!(run("README.md").await, 8);
}

#[tokio::test]
#[cfg_attr(not(has_pg_dump), ignore = "psql is not on this machine")]
async fn the_commands_of_the_tour_run() {
    assert_eq!(run("docs/tour.md").await, 25);
}

#[tokio::test]
#[cfg_attr(not(has_pg_dump), ignore = "pg_dump and pg_restore are not on this machine")]
async fn the_commands_of_operations_run() {
    assert_eq!(run("docs/operations.md").await, 5);
}

#[tokio::test]
async fn the_commands_of_performance_run() {
    assert_eq!(run("docs/performance.md").await, 2);
}

#[tokio::test]
async fn the_commands_of_roles_run() {
    assert_eq!(run("docs/roles.md").await, 1);
}

/// Runs the commands of a page; how many there were.
async fn run(page: &str) -> usize {
    let broker = TestBroker::start().await;
    let another = TestDatabase::create_empty().await;
    let folder = tempfile::tempdir().unwrap();
    fs::copy(root().join("README.md"), folder.path().join("README.md")).unwrap();
    fs::write(folder.path().join("app.log"), "one\ntwo\n").unwrap();
    let commands: Vec<String> =
        Document::read(page).blocks_in("sh").iter().flat_map(|block| of(block)).collect();
    let commands: Vec<_> =
        commands.into_iter().filter(|it| blocks::not_run(it).is_none()).collect();
    for command in &commands {
        let is_endless = goes_on(command);
        let script = put_in(command, &broker, &another);
        let output =
            soon(command, shell(&script, is_endless, &broker, &another, folder.path())).await;
        let expected = if is_endless { STILL_RAN } else { 0 };
        assert_eq!(output.status.code(), Some(expected), "{page}: {command}\n{output:?}");
        if command.contains("trunkline serve") {
            let printed = String::from_utf8_lossy(&output.stdout);
            assert!(printed.starts_with("listening on "), "{page}: {command}\n{output:?}");
        }
    }
    commands.len()
}

/// Whether a command goes on until it is stopped.
fn goes_on(command: &str) -> bool {
    let has = |text| command.contains(text);
    has("trunkline serve")
        || has("tail -f ")
        || has(" -F")
        || has("trunkline consume ") && !has(" -n ") && !has(" --until-")
}

/// A command with what is in another place here.
fn put_in(command: &str, broker: &TestBroker, another: &TestDatabase) -> String {
    [
        ("http://127.0.0.1:50051", broker.endpoint.as_str()),
        ("host=$PWD/trunkline-data/run user=trunkline dbname=trunkline", &broker.database.url),
        ("postgresql://me:secret@db.example/mine", &another.url),
        ("postgresql://trunkline_owner:secret@db.example/mine", &another.url),
        ("trunkline serve ", "trunkline serve --listen 127.0.0.1:0 --log warn "),
        // Long enough to measure something.
        ("--duration 10s", "--duration 1s"),
    ]
    .iter()
    .fold(command.to_owned(), |command, (there, here)| command.replace(there, here))
}

async fn shell(
    script: &str,
    is_endless: bool,
    broker: &TestBroker,
    another: &TestDatabase,
    folder: &Path,
) -> Output {
    let mut command = match is_endless {
        // It interrupts what the script has started as well.
        true => {
            let mut command = Command::new("timeout");
            command.args(["--signal=INT", &WATCHED.as_secs().to_string(), "bash"]);
            command
        }
        false => Command::new("bash"),
    };
    let program = Path::new(env!("CARGO_BIN_EXE_trunkline")).parent().unwrap();
    let path = std::env::var("PATH").unwrap();
    command
        .args(["-euo", "pipefail", "-c", script])
        .current_dir(folder)
        .env_remove("TRUNKLINE_DATABASE_URL")
        .env_remove("TRUNKLINE_CONTEXT")
        .env("PATH", format!("{}:{path}", program.display()))
        .env("TRUNKLINE_ENDPOINT", &broker.endpoint)
        .env("XDG_CONFIG_HOME", folder.join("config"))
        .env("XDG_STATE_HOME", folder.join("state"))
        .env("DATABASE_URL", &broker.database.url)
        .env("NEW_DATABASE_URL", &another.url)
        .kill_on_drop(true);
    command.output().await.unwrap()
}
