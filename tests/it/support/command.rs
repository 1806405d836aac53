//! The `trunkline` command, run as a process.

use std::{
    io::Read as _,
    path::Path,
    process::{ExitStatus, Output, Stdio},
    time::Duration,
};

use assert_cmd::assert::{Assert, OutputAssertExt as _};
use nix::{
    pty::{OpenptyResult, openpty},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStderr, ChildStdout, Command},
};

use super::{DEADLINE, TestBroker, soon};

/// A running command; killed when dropped.
pub struct Trunkline {
    child: Child,
    pub stdout: Lines<BufReader<ChildStdout>>,
    pub stderr: Lines<BufReader<ChildStderr>>,
}

/// A command that has ended.
#[derive(Debug)]
pub struct Finished {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Finished {
    /// Starts assertions about the outcome.
    pub fn assert(self) -> Assert {
        let (status, stdout, stderr) = (self.status, self.stdout.into(), self.stderr.into());
        Output { status, stdout, stderr }.assert()
    }

    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or(-1)
    }
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trunkline"));
    for variable in [
        "DATABASE_URL",
        "TRUNKLINE_DATABASE_URL",
        "TRUNKLINE_ENDPOINT",
        "TRUNKLINE_CONTEXT",
        "TRUNKLINE_TOKEN",
        "TRUNKLINE_TOKEN_FILE",
        "TRUNKLINE_CA_FILE",
        "TRUNKLINE_CLIENT_CERT",
        "TRUNKLINE_CLIENT_KEY",
    ] {
        command.env_remove(variable);
    }
    // Several brokers run at once. A test of the HTTP port gives it an address.
    command.env("TRUNKLINE_HTTP", "off");
    // Keeps the contexts of the user who runs the tests out of them.
    command.env("XDG_CONFIG_HOME", "/nonexistent");
    // State files are named after a producer's registration, which no two tests share.
    command.env("XDG_STATE_HOME", env!("CARGO_TARGET_TMPDIR"));
    command.args(arguments).kill_on_drop(true);
    command
}

impl Trunkline {
    /// A command that is not started yet, to set more than its arguments.
    pub fn command(arguments: &[&str]) -> Command {
        command(arguments)
    }

    /// Runs a prepared command to its end.
    pub async fn finish(command: Command) -> Finished {
        finish(command, b"", DEADLINE).await
    }

    /// Runs a command to its end, with a configuration folder.
    pub async fn run_configured(config: &Path, arguments: &[&str]) -> Finished {
        let mut command = command(arguments);
        command.env("XDG_CONFIG_HOME", config);
        finish(command, b"", DEADLINE).await
    }

    /// Starts a command whose output is read line by line.
    pub fn spawn(arguments: &[&str]) -> Self {
        Self::spawn_command(command(arguments))
    }

    pub fn spawn_command(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        let stderr = BufReader::new(child.stderr.take().unwrap()).lines();
        Self { child, stdout, stderr }
    }

    /// The next log line that contains a text; skips others.
    pub async fn log_line(&mut self, text: &str) -> String {
        soon("a log line", async {
            loop {
                let line =
                    self.stderr.next_line().await.unwrap().expect("the log does not end yet");
                if line.contains(text) {
                    return line;
                }
            }
        })
        .await
    }

    /// The next line that it prints.
    pub async fn line(&mut self) -> String {
        soon("a line", self.stdout.next_line()).await.unwrap().expect("it goes on")
    }

    /// Starts a broker; returns it with its endpoint once it is ready.
    pub async fn serve(arguments: &[&str]) -> (Self, String) {
        Self::spawn(&[&["serve", "--log", "warn"], arguments].concat()).ready().await
    }

    /// Starts a broker with a limit on its open files.
    pub async fn serve_with_files(files: u32, arguments: &[&str]) -> (Self, String) {
        let broker = command(&[&["serve", "--log", "warn"], arguments].concat());
        let broker = broker.as_std();
        let mut limited = Command::new("sh");
        let script = format!("ulimit -n {files}; exec \"$0\" \"$@\"");
        limited.args(["-c", &script]).arg(broker.get_program()).args(broker.get_args());
        for (name, value) in broker.get_envs() {
            match value {
                Some(value) => limited.env(name, value),
                None => limited.env_remove(name),
            };
        }
        limited.kill_on_drop(true);
        Self::spawn_command(limited).ready().await
    }

    /// Starts a broker with a log filter.
    pub async fn serve_with_log(log: &str, arguments: &[&str]) -> (Self, String) {
        Self::spawn(&[&["serve", "--log", log], arguments].concat()).ready().await
    }

    pub(super) async fn ready(self) -> (Self, String) {
        let mut broker = self;
        let line = soon("the ready line", broker.stdout.next_line()).await.unwrap();
        let line = match line {
            Some(line) => line,
            None => panic!("no ready line, but {:?}", broker.stderr.next_line().await),
        };
        let address = line.strip_prefix("listening on ").unwrap();
        let endpoint = format!("http://{address}");
        (broker, endpoint)
    }

    /// Runs a command to its end.
    pub async fn run(arguments: &[&str]) -> Finished {
        Self::run_with_input(arguments, b"").await
    }

    /// Runs a command that may take longer than the usual deadline.
    pub async fn run_patiently(arguments: &[&str], patience: Duration) -> Finished {
        finish(command(arguments), b"", patience).await
    }

    /// Runs a command to its end, with its standard input.
    pub async fn run_with_input(arguments: &[&str], input: &[u8]) -> Finished {
        finish(command(arguments), input, DEADLINE).await
    }

    /// Runs a command to its end, with its standard output in a file.
    pub async fn run_into(arguments: &[&str], path: &Path) -> ExitStatus {
        let out = std::fs::File::create(path).unwrap();
        let mut child = command(arguments).stdin(Stdio::null()).stdout(out).spawn().unwrap();
        soon("the command's end", child.wait()).await.unwrap()
    }

    /// Runs a command to its end on a terminal; returns what the terminal was sent.
    pub async fn run_on_terminal(arguments: &[&str]) -> Vec<u8> {
        let OpenptyResult { master, slave } = openpty(None, None).unwrap();
        let mut command = command(arguments);
        let mut child = command.stdin(Stdio::null()).stdout(slave).spawn().unwrap();
        // It holds the terminal open as well.
        drop(command);
        let reading = tokio::task::spawn_blocking(move || {
            let mut sent = Vec::new();
            // Fails once nobody has the terminal open, after everything was read.
            let _ = std::fs::File::from(master).read_to_end(&mut sent);
            sent
        });
        let status = soon("the command's end", child.wait()).await.unwrap();
        let sent = soon("the terminal's end", reading).await.unwrap();
        assert!(status.success(), "{status}: {}", String::from_utf8_lossy(&sent));
        sent
    }

    pub fn pid(&self) -> u32 {
        self.child.id().expect("the process runs")
    }

    pub fn signal(&self, signal: Signal) {
        let id = self.child.id().expect("the process runs");
        kill(Pid::from_raw(id as i32), signal).unwrap();
    }

    /// Kills the process with SIGKILL, and waits until it has ended.
    pub async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    pub async fn wait(&mut self) -> ExitStatus {
        soon("the process's end", self.child.wait()).await.unwrap()
    }
}

impl TestBroker {
    /// Runs a command against this broker to its end.
    pub async fn run(&self, arguments: &[&str]) -> Finished {
        self.run_with_input(arguments, "").await
    }

    /// Runs a command against this broker to its end, with its standard input.
    pub async fn run_with_input(&self, arguments: &[&str], input: impl AsRef<[u8]>) -> Finished {
        let arguments = [&["--endpoint", &self.endpoint], arguments].concat();
        Trunkline::run_with_input(&arguments, input.as_ref()).await
    }
}

async fn finish(mut command: Command, input: &[u8], patience: Duration) -> Finished {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writing = tokio::spawn(async move {
        // The command may end before it has read all of its input.
        let _ = stdin.write_all(&input).await;
    });
    let output = tokio::time::timeout(patience, child.wait_with_output()).await;
    let output = output.expect("the command ends in time").unwrap();
    writing.await.unwrap();
    Finished {
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
