//! A run's own PostgreSQL server, which can be killed, restarted, starved and failed over.
//!
//! It is a child of this process without pg_ctl in between, and ends with its run.

use std::{
    fs::{self, File, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use nix::{
    sys::{
        signal::{Signal, kill},
        wait::{Id, WaitPidFlag, waitid},
    },
    unistd::Pid,
};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio_postgres::NoTls;
use trunkline::embedded::{Account, Binaries};

use crate::{
    support::{DEADLINE, free_port, holds_within, until},
    tmpfs::Tmpfs,
};

/// The superuser, and the database of the brokers.
pub const USER: &str = "trunkline";
const DATABASE: &str = "postgres";

/// The settings of all servers.
const SETTINGS: [&str; 8] = [
    "listen_addresses=127.0.0.1",
    "shared_buffers=64MB",
    "max_connections=60",
    "max_locks_per_transaction=64",
    "restart_after_crash=on",
    "log_min_messages=warning",
    // A standby that waits says for whom.
    "log_recovery_conflict_waits=on",
    "wal_level=replica",
];

/// Settings for a small disk: as little write-ahead log as possible.
const SMALL: [&str; 2] = ["max_wal_size=32MB", "min_wal_size=8MB"];
const SMALL_SEGMENTS: &str = "--wal-segsize=1";

pub struct Postgres {
    binaries: Binaries,
    account: Account,
    /// Holds everything; removed at the end.
    dir: TempDir,
    /// Holds the write-ahead log, if that has its own disk.
    wal: Option<TempDir>,
    pgdata: PathBuf,
    port: u16,
    settings: Vec<String>,
    child: Option<Child>,
}

impl Postgres {
    /// Starts a new server with additional settings, such as `max_connections=20`.
    pub async fn start(settings: &[&str]) -> Self {
        Self::new(tempdir(), settings).create(&[]).await
    }

    /// Starts a new server on a small disk.
    pub async fn start_on(disk: &Tmpfs, settings: &[&str]) -> Self {
        let settings = [&SMALL[..], settings].concat();
        Self::new(disk.tempdir(), &settings).create(&[SMALL_SEGMENTS]).await
    }

    /// Starts a new server with its write-ahead log on a small disk, and that of its standbys, too.
    pub async fn start_with_wal_on(disk: &Tmpfs, settings: &[&str]) -> Self {
        // A new standby still needs the log from the end of its copy on.
        let settings = [&SMALL[..], &["wal_keep_size=128MB"], settings].concat();
        let mut postgres = Self::new(tempdir(), &settings);
        postgres.put_wal_on(disk.path());
        postgres.create(&[SMALL_SEGMENTS]).await
    }

    fn put_wal_on(&mut self, disk: &Path) {
        let dir = tempfile::Builder::new().prefix("wal-").tempdir_in(disk).unwrap();
        self.account.give(dir.path()).unwrap();
        self.wal = Some(dir);
    }

    /// The option of initdb and pg_basebackup for the disk of the write-ahead log.
    fn waldir(&self) -> Option<String> {
        self.wal.as_ref().map(|dir| format!("--waldir={}", dir.path().join("wal").display()))
    }

    /// Creates the files, with additional options of initdb, and starts the server.
    async fn create(mut self, initdb: &[&str]) -> Self {
        let mut make = self.account.command(&self.binaries.initdb());
        make.args([
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
            "--username",
            USER,
        ])
        .args(initdb)
        .args(self.waldir())
        .arg("-D")
        .arg(&self.pgdata);
        run(make).await;
        // Brokers connect from various loopback addresses.
        let access = "host all,replication all 127.0.0.0/8 trust\n";
        append(&self.pgdata.join("pg_hba.conf"), access);
        self.start_again().await;
        self
    }

    /// Starts a standby of this server under a name; prints why and returns `None` if there is no
    /// pg_basebackup beside the server.
    pub async fn start_standby(&self, name: &str) -> Option<Self> {
        let mut standby = Self::new(tempdir(), &[]);
        standby.settings.clone_from(&self.settings);
        if let Some(disk) = self.wal.as_ref().and_then(|wal| wal.path().parent()) {
            standby.put_wal_on(disk);
        }
        let program = self.binaries.postgres().with_file_name("pg_basebackup");
        if !program.exists() {
            crate::support::print_always(&format!(
                "skipped: no standby can be created, as there is no {}",
                program.display()
            ));
            return None;
        }
        let mut copy = standby.account.command(&program);
        let primary =
            format!("host=127.0.0.1 port={} user={USER} application_name={name}", self.port);
        copy.args([
            "--write-recovery-conf",
            "--checkpoint=fast",
            "--no-sync",
            "--dbname",
            &primary,
        ])
        .args(standby.waldir())
        .arg("-D")
        .arg(&standby.pgdata);
        run(copy).await;
        standby.start_again().await;
        Some(standby)
    }

    fn new(dir: TempDir, settings: &[&str]) -> Self {
        let account = Account::for_server(dir.path()).unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o700)).unwrap();
        account.give(dir.path()).unwrap();
        let pgdata = dir.path().join("data");
        let chosen = std::env::var_os("TRUNKLINE_POSTGRES_BIN").map(PathBuf::from);
        let binaries = Binaries::find(chosen.as_deref(), &pgdata).unwrap();
        let settings = SETTINGS.iter().chain(settings).map(|one| (*one).to_owned()).collect();
        let port = free_port();
        Self { binaries, account, dir, wal: None, pgdata, port, settings, child: None }
    }

    /// Starts the server again, and waits until it is ready.
    pub async fn start_again(&mut self) {
        self.spawn();
        self.until_ready().await;
    }

    /// Waits until the server is ready, and starts it again if it has exited.
    pub async fn recovers(&mut self) {
        until("PostgreSQL recovers", async || {
            if self.has_ended() {
                self.spawn();
            }
            self.responds().await
        })
        .await;
    }

    fn spawn(&mut self) {
        let log = File::options().create(true).append(true).open(self.log()).unwrap();
        let mut command = self.account.command(&self.binaries.postgres());
        command
            .arg("-D")
            .arg(&self.pgdata)
            .args(["-p", &self.port.to_string()])
            .args(["-c", &format!("unix_socket_directories={}", self.dir.path().display())]);
        for setting in &self.settings {
            command.args(["-c", setting]);
        }
        let child = command
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        self.child = Some(child);
    }

    /// Makes commits wait for the standby with a name.
    pub async fn make_synchronous(&self, standby: &str) {
        let sql = self.sql().await;
        let wait = format!("alter system set synchronous_standby_names = '{standby}'");
        sql.batch_execute(&wait).await.unwrap();
        sql.batch_execute("select pg_reload_conf()").await.unwrap();
        let state =
            "select sync_state = 'sync' from pg_stat_replication where application_name = $1";
        until("the standby is synchronous", async || {
            sql.query_opt(state, &[&standby]).await.unwrap().is_some_and(|row| row.get(0))
        })
        .await;
    }

    /// Promotes a standby.
    pub async fn promote(&self) {
        let sql = self.sql().await;
        // It is not the call that waits. What is left to replay may remove rows that the snapshot of
        // such a call could still see, and then waits for the call, for 30 s.
        sql.query_one("select pg_promote(false)", &[]).await.unwrap();
        let promoted = holds_within(DEADLINE, async || {
            let row = sql.query_one("select not pg_is_in_recovery()", &[]).await;
            row.is_ok_and(|row| row.get(0))
        });
        if !promoted.await {
            let log = fs::read_to_string(self.log()).unwrap_or_default();
            panic!("the standby was not promoted within {DEADLINE:?}; its log:\n{log}");
        }
    }

    /// Waits until the server answers.
    pub async fn until_ready(&self) {
        until("PostgreSQL answers", async || self.responds().await).await;
    }

    async fn responds(&self) -> bool {
        match self.try_connect().await {
            Ok(sql) => sql.simple_query("select 1").await.is_ok(),
            Err(_) => false,
        }
    }

    /// Opens a session directly to the server.
    pub async fn sql(&self) -> tokio_postgres::Client {
        self.try_connect().await.unwrap()
    }

    pub async fn try_connect(&self) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
        connect(&self.url()).await
    }

    /// Ends the server at once like a crash; what was not flushed is lost.
    pub async fn stop_immediately(&mut self) {
        self.stop(Signal::SIGQUIT).await;
    }

    /// Kills the postmaster with SIGKILL; its processes notice and exit.
    pub async fn kill(&mut self) {
        self.stop(Signal::SIGKILL).await;
        // Otherwise the next start could find the socket of a process that has not noticed yet.
        let port = self.port;
        let socket = self.dir.path().join(format!(".s.PGSQL.{port}"));
        let _ = fs::remove_file(socket);
    }

    /// Kills all processes at once, as when the machine loses power. A process that outlived the
    /// postmaster for a moment could show a commit that still waits for a standby.
    pub async fn lose_power(&mut self) {
        self.signal_all(Signal::SIGKILL);
        self.stop(Signal::SIGKILL).await;
    }

    /// Sends a signal to the postmaster and all its processes.
    pub fn signal_all(&self, signal: Signal) {
        let postmaster = self.id();
        for process in children(postmaster).into_iter().chain([postmaster]) {
            // The process may have ended meanwhile.
            let _ = kill(Pid::from_raw(process), signal);
        }
    }

    async fn stop(&mut self, signal: Signal) {
        let mut child = self.child.take().expect("the server runs");
        kill(Pid::from_raw(child.id().unwrap() as i32), signal).unwrap();
        crate::support::soon("PostgreSQL ends", child.wait()).await.unwrap();
    }

    /// Whether the server has exited by itself.
    pub fn has_ended(&mut self) -> bool {
        let Some(child) = &mut self.child else { return true };
        child.try_wait().unwrap().is_some()
    }

    /// The process id of the postmaster.
    pub fn id(&self) -> i32 {
        self.child.as_ref().and_then(Child::id).expect("the server runs") as i32
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self) -> String {
        url_at(self.port)
    }

    /// The path of the server's log.
    pub fn log(&self) -> PathBuf {
        self.dir.path().join("postgres.log")
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // A failed run may have left the server suspended.
        if self.child.as_ref().and_then(Child::id).is_some() {
            self.signal_all(Signal::SIGCONT);
            let id = Pid::from_raw(self.id());
            let _ = kill(id, Signal::SIGQUIT);
            // The files are removed next, so the server must have ended.
            let _ = waitid(Id::Pid(id), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT);
        }
    }
}

/// A URL of the brokers' database at a local port of the server or a proxy.
pub fn url_at(port: u16) -> String {
    url_of("127.0.0.1", port)
}

/// A URL with other hosts, of which the first one that answers is used.
pub fn url_of(hosts: &str, port: u16) -> String {
    let hosts: Vec<String> = hosts.split(',').map(|host| format!("{host}:{port}")).collect();
    format!("postgresql://{USER}@{}/{DATABASE}", hosts.join(","))
}

/// Opens a session, which lasts until its client is dropped.
pub async fn connect(url: &str) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
    let mut config: tokio_postgres::Config = url.parse()?;
    config.connect_timeout(Duration::from_secs(2)).application_name("faults");
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

fn tempdir() -> TempDir {
    tempfile::Builder::new().prefix("trunkline-faults-").tempdir().unwrap()
}

fn append(path: &Path, text: &str) {
    use std::io::Write as _;
    let mut file = File::options().append(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

/// The child processes of a process.
fn children(parent: i32) -> Vec<i32> {
    let path = format!("/proc/{parent}/task/{parent}/children");
    let text = fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace().filter_map(|id| id.parse().ok()).collect()
}

async fn run(mut command: Command) {
    let output = command.current_dir("/").stdin(Stdio::null()).output().await.unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
