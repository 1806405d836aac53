//! One PostgreSQL server for the whole test run, and a database for each test.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use tokio::sync::OnceCell;
use tokio_postgres::NoTls;
use trunkline::{
    embedded::{EmbeddedPostgres, USER},
    storage::{self, Limits, Storage},
};

pub const LIMITS: Limits = Limits { writers: 2, queries: 4 };

const TEMPLATE: &str = "trunkline_template";

static CLUSTER: OnceCell<EmbeddedPostgres> = OnceCell::const_new();
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A test's own database.
pub struct TestDatabase {
    pub name: String,
    pub url: String,
    /// The folder of the server's Unix socket.
    pub socket_dir: PathBuf,
    pub user: String,
}

impl TestDatabase {
    /// A database with the current schema.
    pub async fn create() -> Self {
        Self::create_like(TEMPLATE).await
    }

    /// A database without the schema.
    pub async fn create_empty() -> Self {
        Self::create_like("template0").await
    }

    /// A database with a given encoding, without the schema.
    pub async fn create_encoded(encoding: &str) -> Self {
        Self::create_like(&format!("template0 encoding '{encoding}' lc_collate 'C' lc_ctype 'C'"))
            .await
    }

    async fn create_like(template: &str) -> Self {
        let cluster = CLUSTER.get_or_init(start).await;
        let name = format!("test_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let sql = connect(&cluster.url("postgres")).await;
        sql.batch_execute(&format!("create database {name} template {template}")).await.unwrap();
        let socket_dir = cluster.socket_dir().to_owned();
        Self { url: cluster.url(&name), name, socket_dir, user: USER.to_owned() }
    }

    /// Ends all sessions, and admits no new ones until [`Self::open`].
    pub async fn close(&self) {
        let sql = self.of_server().await;
        let close = format!("alter database {} allow_connections false", self.name);
        sql.batch_execute(&close).await.unwrap();
        let end = "select pg_terminate_backend(pid) from pg_stat_activity where datname = $1";
        sql.query(end, &[&self.name]).await.unwrap();
    }

    pub async fn open(&self) {
        let open = format!("alter database {} allow_connections true", self.name);
        self.of_server().await.batch_execute(&open).await.unwrap();
    }

    /// A session with another database of the server.
    async fn of_server(&self) -> tokio_postgres::Client {
        connect(&CLUSTER.get().unwrap().url("postgres")).await
    }

    /// The database `postgres` of a server of a test's own.
    pub fn of(server: &EmbeddedPostgres) -> Self {
        Self {
            name: "postgres".to_owned(),
            socket_dir: server.socket_dir().to_owned(),
            user: USER.to_owned(),
            url: server.url("postgres"),
        }
    }

    /// Opens a session for the test.
    pub async fn sql(&self) -> tokio_postgres::Client {
        connect(&self.url).await
    }
}

/// Opens a session, which lasts until its client is dropped.
pub async fn connect(url: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Starts a server of a test's own with the schema and with settings, such as `wal_level = logical`.
pub async fn start_server(folder: &Path, settings: &[&str]) -> EmbeddedPostgres {
    let server = EmbeddedPostgres::start(folder).await.unwrap();
    let sql = connect(&server.url("postgres")).await;
    for setting in settings.iter().chain(&["fsync = off"]) {
        sql.batch_execute(&format!("alter system set {setting}")).await.unwrap();
    }
    server.stop().await.unwrap();
    let server = EmbeddedPostgres::start(folder).await.unwrap();
    storage::migrate(&server.url("postgres")).await.unwrap();
    server
}

async fn start() -> EmbeddedPostgres {
    let dir = tempfile::Builder::new().prefix("trunkline-tests-").tempdir().unwrap().keep();
    let cluster = EmbeddedPostgres::start(&dir).await.unwrap();
    stop_when_this_process_ends(dir);
    let sql = connect(&cluster.url("postgres")).await;
    // What is written survives a killed process without it, and no test turns off the machine.
    sql.batch_execute("alter system set fsync = off").await.unwrap();
    sql.batch_execute("select pg_reload_conf()").await.unwrap();
    sql.batch_execute(&format!("create database {TEMPLATE}")).await.unwrap();
    Storage::open(&cluster.url(TEMPLATE), None, LIMITS).await.unwrap().close();
    // PostgreSQL does not clone a database while sessions are connected to it.
    super::until("the template's sessions end", async || {
        let count = "select count(*) from pg_stat_activity where datname = $1";
        sql.query_one(count, &[&TEMPLATE]).await.unwrap().get::<_, i64>(0) == 0
    })
    .await;
    cluster
}

/// Stops the server when the test process ends, however it ends. None of our code runs then, so
/// a shell waits until the pipe that only this process holds is closed, and then kills the server.
fn stop_when_this_process_ends(dir: PathBuf) {
    let script = r#"
        trap '' INT TERM HUP
        read -r nothing
        kill -QUIT "$(head -n 1 "$1/postgres/postmaster.pid")"
        while kill -0 "$(head -n 1 "$1/postgres/postmaster.pid" 2>/dev/null)" 2>/dev/null; do
            sleep 0.05
        done
        rm -rf "$1"
    "#;
    let watcher = Command::new("sh")
        .args(["-c", script, "sh"])
        .arg(&dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // Never dropped, so that the pipe stays open until the process ends.
    std::mem::forget(watcher);
}
