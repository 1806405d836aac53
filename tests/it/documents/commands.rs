//! The shell blocks of the documents are run from top to bottom, each page beside a broker of its
//! own. What lies elsewhere for a test than for a reader (the broker, the databases) is put in.

use std::{fs, path::Path, process::Output, time::Duration};

use tempfile::TempDir;
use tokio::process::Command;

use super::blocks;
use crate::support::{Document, TestBroker, TestDatabase, http::HttpBroker, root, soon};

/// The pages whose commands are run here.
pub(super) const DOCUMENTS: [&str; 9] = [
    "README.md",
    "docs/tour.md",
    "docs/operations.md",
    "docs/metrics.md",
    "docs/performance.md",
    "docs/roles.md",
    "docs/shipping.md",
    "docs/subscriptions.md",
    "docs/tracing.md",
];

/// How long a command that goes on until it is stopped is watched.
const WATCHED: Duration = Duration::from_secs(3);

/// The exit code of `timeout` if its command still ran.
const STILL_RAN: i32 = 124;

/// The commands of a block, without its comments.
pub(super) fn of(block: &str) -> Vec<String> {
    let lines = block.lines().map(|line| line.split("  #").next().unwrap_or_default().trim());
    lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect()
}

#[tokio::test]
async fn the_commands_of_the_readme_run() {
    assert_eq!(Reader::new().await.follow("README.md").await, 8);
}

#[tokio::test]
#[cfg_attr(not(has_pg_dump), ignore = "psql is not on this machine")]
async fn the_commands_of_the_tour_run() {
    assert_eq!(Reader::new().await.follow("docs/tour.md").await, 32);
}

#[tokio::test]
#[cfg_attr(not(has_pg_dump), ignore = "pg_dump and pg_restore are not on this machine")]
async fn the_commands_of_operations_run_and_restore_a_backup() {
    let reader = Reader::new().await;
    for command in [
        "seq 3 | trunkline produce orders --producer shop --register",
        "trunkline consume orders --consumer billing --register -n 1",
    ] {
        let output = soon(command, reader.run(command)).await;
        assert!(output.status.success(), "{command}: {output:?}");
    }
    assert_eq!(reader.follow("docs/operations.md").await, 10);
    let restored = "select (select count(*) from trunkline.message),
                           (select position from trunkline.consumers where consumer = 'billing')";
    let row = reader.another.sql().await.query_one(restored, &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (3, 1));
}

#[tokio::test]
async fn the_queries_of_operations_run() {
    let broker = TestBroker::with_five_messages().await;
    let sql = broker.sql().await;
    let mut queries = 0;
    for block in Document::read("docs/operations.md").blocks_in("sql") {
        let names = [("TOPIC", "orders"), ("FIRST", "1"), ("END", "4")];
        let block = names.iter().fold(block, |block, (there, here)| block.replace(there, here));
        for query in block.split_terminator(";\n") {
            let rows =
                sql.query(query, &[]).await.unwrap_or_else(|error| panic!("{query}: {error}"));
            let finds_something = query.contains("lag_messages") || query.contains("payload_text");
            assert!(!finds_something || !rows.is_empty(), "{query}");
            queries += 1;
        }
    }
    assert_eq!(queries, 8);
}

#[tokio::test]
async fn the_commands_of_metrics_run() {
    let mut reader = Reader::new().await;
    let broker = HttpBroker::start_on(reader.broker.database.clone(), &[]).await;
    broker.calls.topic("orders").await;
    broker.calls.consumer("orders", "billing").await;
    reader.http = broker.http.clone();
    assert_eq!(reader.follow("docs/metrics.md").await, 4);
}

#[tokio::test]
async fn the_commands_of_performance_run() {
    assert_eq!(Reader::new().await.follow("docs/performance.md").await, 2);
}

#[tokio::test]
async fn the_commands_of_roles_run() {
    assert_eq!(Reader::new().await.follow("docs/roles.md").await, 3);
}

#[tokio::test]
async fn the_commands_of_shipping_run() {
    let reader = Reader::new().await;
    assert_eq!(reader.follow("docs/shipping.md").await, 9);
    let read = "select count(*) from trunkline.message";
    let stored: i64 = reader.broker.sql().await.query_one(read, &[]).await.unwrap().get(0);
    // Three lines on each of two topics, and two of app.log.
    assert_eq!(stored, 8);
}

#[tokio::test]
async fn the_commands_of_subscriptions_run() {
    assert_eq!(Reader::new().await.follow("docs/subscriptions.md").await, 26);
}

#[tokio::test]
async fn the_commands_of_tracing_run() {
    assert_eq!(Reader::new().await.follow("docs/tracing.md").await, 1);
}

/// Somebody who does what a page says.
struct Reader {
    broker: TestBroker,
    /// A database without the schema.
    another: TestDatabase,
    /// Where a broker serves HTTP.
    http: String,
    folder: TempDir,
}

impl Reader {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::copy(root().join("README.md"), folder.path().join("README.md")).unwrap();
        fs::write(folder.path().join("app.log"), "one\ntwo\n").unwrap();
        let (broker, another) = (TestBroker::start().await, TestDatabase::create_empty().await);
        Self { broker, another, http: String::new(), folder }
    }

    /// Runs the commands of a page; returns how many there were.
    async fn follow(&self, page: &str) -> usize {
        let blocks = Document::read(page).blocks_in("sh");
        let commands = blocks.iter().flat_map(|block| of(block));
        // clients/grpcurl/test runs those of grpcurl.
        let commands = commands.filter(|it| !it.starts_with("grpcurl "));
        let commands: Vec<_> = commands.filter(|it| blocks::not_run(it).is_none()).collect();
        for command in &commands {
            let expected = if goes_on(command) { STILL_RAN } else { 0 };
            let output = soon(command, self.run(command)).await;
            assert_eq!(output.status.code(), Some(expected), "{page}: {command}\n{output:?}");
            if command.contains("trunkline serve") {
                let printed = String::from_utf8_lossy(&output.stdout);
                assert!(printed.starts_with("listening on "), "{page}: {command}\n{output:?}");
            }
        }
        commands.len()
    }

    async fn run(&self, command: &str) -> Output {
        let mut shell = match goes_on(command) {
            // It interrupts what the shell has started as well.
            true => {
                let mut shell = Command::new("timeout");
                shell.args(["--signal=INT", &WATCHED.as_secs().to_string(), "bash"]);
                shell
            }
            false => Command::new("bash"),
        };
        let program = Path::new(env!("CARGO_BIN_EXE_trunkline")).parent().unwrap();
        let path = std::env::var("PATH").unwrap();
        let folder = self.folder.path();
        shell
            .args(["-euo", "pipefail", "-c", &self.put_in(command)])
            .current_dir(folder)
            .env_remove("TRUNKLINE_DATABASE_URL")
            .env_remove("TRUNKLINE_CONTEXT")
            .env("PATH", format!("{}:{path}", program.display()))
            .env("TRUNKLINE_ENDPOINT", &self.broker.endpoint)
            .env("TRUNKLINE_HTTP", "off")
            .env("XDG_CONFIG_HOME", folder.join("config"))
            .env("XDG_STATE_HOME", folder.join("state"))
            .env("DATABASE_URL", &self.broker.database.url)
            .env("NEW_DATABASE_URL", &self.another.url)
            .kill_on_drop(true);
        shell.output().await.unwrap()
    }

    /// A command with what is in another place here.
    fn put_in(&self, command: &str) -> String {
        let (here, another) = (&self.broker.database.url, &self.another.url);
        [
            ("http://127.0.0.1:50051", &*self.broker.endpoint),
            ("127.0.0.1:8080", &*self.http),
            ("TOPIC CONSUMER", "orders billing"),
            ("read TOPIC --from POSITION", "read orders --from 0"),
            ("host=$PWD/trunkline-data/run user=trunkline dbname=trunkline", here),
            ("postgresql://me:secret@db.example/mine", another),
            ("postgresql://trunkline_owner:secret@db.example/mine", another),
            ("trunkline serve ", "trunkline serve --listen 127.0.0.1:0 --log warn "),
            // Long enough to measure something.
            ("--duration 10s", "--duration 1s"),
        ]
        .iter()
        .fold(command.to_owned(), |command, (there, here)| command.replace(there, here))
    }
}

/// Whether a command goes on until it is stopped.
fn goes_on(command: &str) -> bool {
    let has = |text| command.contains(text);
    has("trunkline serve")
        || has("tail -f ")
        || has(" -F")
        || has(" --follow ") && !has(" --exit-at-end ")
        || has("trunkline consume ") && !has(" -n ") && !has(" --until-")
        || has("trunkline work ") && !has(" --max ") && !has(" --until-")
}
