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
use tokio_util::sync::CancellationToken;

use super::notices::{Kind, Notices};
use crate::{
    cli::pipe::Pipe,
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
    notices: Notices,
    /// Standard output, which the commands share.
    output: Pipe,
    /// Cancelled once a message was given back as nobody reads that.
    unread: CancellationToken,
    /// The process groups that run.
    running: Mutex<HashSet<i32>>,
}

impl Commands {
    pub(super) fn new(topic: String, command: String, notices: Notices) -> io::Result<Self> {
        let output = Pipe::of_standard_output()?;
        let (unread, running) = (CancellationToken::new(), Mutex::default());
        Ok(Self { topic, command, notices, output, unread, running })
    }

    /// Runs the command for a message; its exit code says what becomes of that.
    pub(super) async fn run(&self, job: &Job) -> Verdict {
        // What it prints would be lost.
        if self.is_reader_gone() {
            return Verdict::Release;
        }
        let (offset, attempt) = (job.offset, job.attempt());
        let verdict = self.try_run(job).await.unwrap_or_else(|error| {
            let failed = format!("offset {offset}: run the command: {error}");
            self.notices.print(Kind::Failed, &failed);
            Verdict::retry()
        });
        if let Verdict::Reject { reason } = &verdict {
            let rejected = format!("offset {offset}, attempt {attempt}: rejected: {reason}");
            self.notices.print(Kind::Rejected, &rejected);
        }
        verdict
    }

    /// Waits until standard output has lost its reader.
    pub(super) async fn reader_gone(&self) {
        tokio::select! {
            () = self.output.reader_gone() => {}
            () = self.unread.cancelled() => {}
        }
    }

    /// Whether standard output has lost its reader. If so, the worker ends at once: it would get what it gives
    /// back again.
    fn is_reader_gone(&self) -> bool {
        let is_gone = self.output.is_reader_gone();
        if is_gone {
            self.unread.cancel();
        }
        is_gone
    }

    async fn try_run(&self, job: &Job) -> io::Result<Verdict> {
        let mut child = self.command(job).spawn()?;
        let _running = self.register(&child);
        let (stdin, stderr) = (child.stdin.take(), child.stderr.take());
        let mut last_line = LastLine::default();
        let status = {
            let mut feeding = pin!(feed(stdin, job.payload.clone()));
            let mut copying = pin!(last_line.copy(stderr, &self.notices));
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
            // The system ends a command that writes to nobody, whatever its message is.
            _ if self.is_reader_gone() => Verdict::Release,
            _ => {
                let (offset, attempt) = (job.offset, job.attempt());
                let failed = format!("offset {offset}, attempt {attempt}: {status}: trying again");
                self.notices.print(Kind::Failed, &failed);
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
