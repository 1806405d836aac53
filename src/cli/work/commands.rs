//! Runs a command for each message.

mod environment;
mod last_line;

use std::{collections::HashSet, io, pin::pin, process::Stdio, time::Duration};

use bytes::Bytes;
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use parking_lot::Mutex;
use tokio::{
    io::AsyncWriteExt as _,
    process::{Child, ChildStdin, Command},
    time::timeout,
};

use crate::{
    cli::failure::print_notice,
    client::{Job, Verdict},
};
use last_line::LastLine;

/// The exit code by which a command rejects its message: EX_DATAERR of sysexits.h.
const REJECTED: i32 = 65;

/// How long to read the standard error of a command that has ended, while something that it has started
/// holds it open.
const LAST_OUTPUT: Duration = Duration::from_millis(200);

/// A command, and its processes.
pub(super) struct Commands {
    topic: String,
    command: String,
    /// The process groups that run.
    running: Mutex<HashSet<i32>>,
}

impl Commands {
    pub(super) fn new(topic: String, command: String) -> Self {
        Self { topic, command, running: Mutex::default() }
    }

    /// Runs the command for a message; its exit code says what becomes of that.
    pub(super) async fn run(&self, job: &Job) -> Verdict {
        let (offset, attempt) = (job.offset, job.attempt());
        let verdict = self.try_run(job).await.unwrap_or_else(|error| {
            print_notice(&format!("offset {offset}: run the command: {error}"));
            Verdict::retry()
        });
        if let Verdict::Reject { reason } = &verdict {
            print_notice(&format!("offset {offset}, attempt {attempt}: rejected: {reason}"));
        }
        verdict
    }

    async fn try_run(&self, job: &Job) -> io::Result<Verdict> {
        let mut child = self.command(job).spawn()?;
        let _running = self.register(&child);
        let (stdin, stderr) = (child.stdin.take(), child.stderr.take());
        let mut last_line = LastLine::default();
        let status = {
            let mut feeding = pin!(feed(stdin, job.payload.clone()));
            let mut copying = pin!(last_line.copy(stderr));
            let (mut is_fed, mut is_copied) = (false, false);
            let status = loop {
                tokio::select! {
                    status = child.wait() => break status?,
                    () = &mut feeding, if !is_fed => is_fed = true,
                    () = &mut copying, if !is_copied => is_copied = true,
                }
            };
            if !is_copied {
                let _ = timeout(LAST_OUTPUT, &mut copying).await;
            }
            status
        };
        Ok(match status.code() {
            Some(0) => Verdict::Acknowledge,
            Some(REJECTED) => Verdict::reject(last_line.text()),
            _ => {
                let (offset, attempt) = (job.offset, job.attempt());
                print_notice(&format!(
                    "offset {offset}, attempt {attempt}: {status}: trying again"
                ));
                Verdict::retry()
            }
        })
    }

    /// The command has a process group of its own, so that Ctrl-C does not end it.
    fn command(&self, job: &Job) -> Command {
        let mut command = Command::new("sh");
        command
            .args(["-c", &self.command])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        environment::set(&mut command, &self.topic, job);
        command
    }

    fn register(&self, child: &Child) -> Running<'_> {
        // The id of a process is that of its group, and is known until it has been waited for.
        let group = child.id().and_then(|id| i32::try_from(id).ok()).unwrap_or(0);
        if group > 0 {
            self.running.lock().insert(group);
        }
        Running { commands: self, group }
    }

    /// How many processes run.
    pub(super) fn running(&self) -> usize {
        self.running.lock().len()
    }

    /// Asks all processes to end, with those that they have started.
    pub(super) fn terminate(&self) {
        self.signal(Signal::SIGTERM);
    }

    /// Ends those that are left.
    pub(super) fn kill(&self) {
        self.signal(Signal::SIGKILL);
    }

    fn signal(&self, signal: Signal) {
        for group in self.running.lock().iter() {
            // One that has just ended needs nothing.
            let _ = killpg(Pid::from_raw(*group), signal);
        }
    }
}

/// A process that runs.
struct Running<'a> {
    commands: &'a Commands,
    group: i32,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.commands.running.lock().remove(&self.group);
    }
}

/// Gives a command its input, which it need not read.
async fn feed(stdin: Option<ChildStdin>, payload: Bytes) {
    if let Some(mut stdin) = stdin {
        let _ = stdin.write_all(&payload).await;
    }
}
