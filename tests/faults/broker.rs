//! Brokers, run as processes.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

use crate::support::{free_port, soon};

/// A broker that can be killed, stopped and restarted at the same address.
pub struct Broker {
    pub name: String,
    port: u16,
    url: String,
    log: PathBuf,
    environment: Vec<(String, String)>,
    child: Option<Child>,
}

impl Broker {
    /// Starts a broker on a database with environment variables, and writes its log to a folder.
    pub async fn start(name: &str, url: &str, dir: &Path, environment: &[(&str, &str)]) -> Self {
        let log = dir.join(format!("{name}.log"));
        // The log of an earlier run must not count.
        let _ = fs::remove_file(&log);
        let pairs = environment.iter().map(|(key, value)| ((*key).into(), (*value).into()));
        let mut broker = Self {
            name: name.to_owned(),
            port: free_port(),
            url: url.to_owned(),
            log,
            environment: pairs.collect(),
            child: None,
        };
        broker.start_again().await;
        broker
    }

    /// Restarts the broker at the same address, and waits until it is ready.
    pub async fn start_again(&mut self) {
        self.spawn();
        let stdout = self.child.as_mut().unwrap().stdout.take().unwrap();
        let line = soon("the broker is ready", BufReader::new(stdout).lines().next_line()).await;
        let line =
            line.unwrap().unwrap_or_else(|| panic!("{} ended: {}", self.name, self.log_text()));
        assert!(line.starts_with("listening on "), "{line}");
    }

    fn spawn(&mut self) {
        let log = File::options().create(true).append(true).open(&self.log).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_trunkline"));
        for variable in ["DATABASE_URL", "TRUNKLINE_DATABASE_URL"] {
            command.env_remove(variable);
        }
        let child = command
            .args(["serve", "--listen", &format!("127.0.0.1:{}", self.port)])
            .args(["--database-url", &self.url, "--query-connections", "4"])
            .args(["--log", "info,tokio_postgres=warn,refinery_core=warn"])
            .env("TRUNKLINE_HTTP", "off")
            .envs(self.environment.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        self.child = Some(child);
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn endpoint(&self) -> String {
        let is_encrypted = self.environment.iter().any(|(name, _)| name == "TRUNKLINE_TLS_CERT");
        let scheme = if is_encrypted { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    pub fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// Kills the broker with SIGKILL, and waits until it has ended.
    pub async fn kill(&mut self) {
        self.child.take().expect("the broker runs").kill().await.unwrap();
    }

    /// Stops the broker with SIGTERM; it must exit with success within 10 s.
    pub async fn try_stop(&mut self) -> Result<(), String> {
        self.signal(Signal::SIGTERM);
        self.has_stopped().await
    }

    /// Waits until the broker has exited with success, after SIGTERM.
    pub async fn has_stopped(&mut self) -> Result<(), String> {
        let mut child = self.child.take().expect("the broker runs");
        match tokio::time::timeout(Duration::from_secs(10), child.wait()).await {
            Ok(status) if status.as_ref().is_ok_and(ExitStatus::success) => Ok(()),
            Ok(status) => Err(format!("stopped with {status:?}")),
            Err(_) => Err("did not stop within 10 s".to_owned()),
        }
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.id()), signal).unwrap();
    }

    /// The id of the process.
    pub fn id(&self) -> i32 {
        self.child.as_ref().and_then(Child::id).expect("the broker runs") as i32
    }

    /// The resident memory, in MiB.
    pub fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
    }

    /// The log so far.
    pub fn log_text(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}
