//! `trunkline work`: works on the messages of a subscription. It prints them, or runs a command for each.

mod commands;
mod notices;
mod printing;
mod signals;
mod working;

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use clap::Args;
use tokio_util::sync::CancellationToken;

use super::{failure::Failure, format::FormatArgs};
use crate::{
    client::{Client, Job, WorkerBuilder, WorkerNotice},
    proto::stalled::Limit,
};
use commands::Commands;
use notices::{Kind, Notices};
use printing::Printing;
use signals::Signals;
use working::Working;

/// How long commands have to end once a second signal has ended them.
const LAST_COMMANDS: Duration = Duration::from_secs(2);

/// Work on the messages of a subscription: print them, or run a command for each.
#[derive(Args, Debug)]
pub(super) struct WorkArgs {
    /// The topic's name.
    topic: String,
    /// The subscription's id.
    #[arg(long, value_name = "ID")]
    subscription: String,
    /// Stop after this many messages.
    #[arg(short = 'n', long = "max", value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Stop when nothing is left to deliver. Messages that wait for a retry, or that other workers have,
    /// are not waited for.
    #[arg(long)]
    until_caught_up: bool,
    /// Run this command with `sh -c` for each message, with the payload as its standard input.
    ///
    /// Its environment has TRUNKLINE_TOPIC, TRUNKLINE_OFFSET and TRUNKLINE_ATTEMPT; TRUNKLINE_KEY if the
    /// message has a key that is text of at most 64 KiB; and for each header TRUNKLINE_HEADER_NAME, with
    /// the header's name in capitals and "_" in place of "-" and ".". Headers of which two would have the
    /// same name, or with other characters in their names, are left out.
    ///
    /// Exit code 0 acknowledges the message. 65 parks it, with the last line of standard error as the
    /// reason. Any other has it delivered again.
    #[arg(long, value_name = "COMMAND", conflicts_with_all = ["json", "format"])]
    exec: Option<String>,
    /// How many commands run at a time.
    #[arg(long, value_name = "N", default_value_t = 1, requires = "exec", value_parser = clap::value_parser!(u16).range(1..=1_000))]
    workers: u16,
    #[command(flatten)]
    format: FormatArgs,
}

pub(super) async fn run(client: &Client, args: WorkArgs) -> Result<(), Failure> {
    let notices = Notices::start();
    let worked = work(client, args, &notices).await;
    // Before the failure is printed.
    notices.finish().await;
    worked
}

async fn work(client: &Client, args: WorkArgs, notices: &Notices) -> Result<(), Failure> {
    let WorkArgs { topic, subscription, count, until_caught_up, exec, workers, format } = args;
    let mut worker = client.worker(&topic, &subscription).stop_timeout(Duration::MAX);
    worker = with_notices(worker, notices.clone());
    if let Some(count) = count {
        worker = worker.max_messages(count);
    }
    if until_caught_up {
        worker = worker.until_caught_up();
    }
    let signals = Signals::new()?;
    match exec {
        Some(command) => {
            let commands = Arc::new(Commands::new(topic, command, notices.clone())?);
            // What waits for a command here could be with another worker.
            worker = limit(worker, usize::from(workers), count);
            execute(worker, commands, signals, notices).await
        }
        None => {
            worker = limit(worker, printing::AT_A_TIME, count);
            printing::run(worker, Printing::open(topic, format)?, signals).await
        }
    }
}

/// A worker that has at most so many messages, each with a handler.
fn limit(worker: WorkerBuilder, at_a_time: usize, count: Option<u64>) -> WorkerBuilder {
    let count = count.and_then(|count| usize::try_from(count).ok()).unwrap_or(usize::MAX);
    worker.concurrency(at_a_time).max_outstanding_messages(at_a_time.min(count))
}

/// A worker that says on standard error when it loses the broker, or has to wait.
fn with_notices(worker: WorkerBuilder, notices: Notices) -> WorkerBuilder {
    let is_lost = AtomicBool::new(false);
    worker.on_notice(move |notice| match notice {
        WorkerNotice::Broken(error) => {
            if !is_lost.swap(true, Ordering::Relaxed) {
                let lost = format!("lost the broker, trying again: {error}");
                notices.print(Kind::Connection, &lost);
            }
        }
        WorkerNotice::Attached => {
            if is_lost.swap(false, Ordering::Relaxed) {
                notices.print(Kind::Connection, "attached");
            }
        }
        WorkerNotice::Stalled(stalled) => match stalled.limit() {
            Limit::Outstanding => {
                let full = "messages wait: all workers together have as many as they may have";
                notices.print(Kind::Stalled, full);
            }
            Limit::OutstandingBytes => {
                let full = "messages wait: all workers together have as many bytes of them as they may have";
                notices.print(Kind::Stalled, full);
            }
            Limit::Retried => {
                let full = "new messages wait: too many wait to be delivered again";
                notices.print(Kind::Stalled, full);
            }
            // It goes on when it has settled something.
            Limit::WorkerMessages | Limit::WorkerBytes | Limit::Unspecified => {}
        },
    })
}

/// Runs a command for each message. A first signal waits for those that run, a second one ends them. So does the
/// end of whoever reads standard output.
async fn execute(
    worker: WorkerBuilder,
    commands: Arc<Commands>,
    mut signals: Signals,
    notices: &Notices,
) -> Result<(), Failure> {
    let stop = CancellationToken::new();
    let handler = {
        let commands = commands.clone();
        move |job: Job| {
            let commands = commands.clone();
            async move { commands.run(&job).await }
        }
    };
    let mut working = Working::start(worker, handler, &stop).await?;
    let (outcome, next_signal) = tokio::select! {
        worked = working.ended() => return worked,
        signal = signals.next() => (signal.outcome(), "a second signal"),
        () = commands.reader_gone() => {
            notices.print(Kind::End, "nobody reads standard output any more");
            (Err(io::Error::from(io::ErrorKind::BrokenPipe).into()), "a signal")
        }
    };
    stop.cancel();
    if commands.running() > 0 {
        let waiting = format!("waiting for the commands that run; {next_signal} ends them");
        notices.print(Kind::End, &waiting);
    }
    tokio::select! {
        worked = working.ended() => worked.and(outcome),
        _ = signals.next() => {
            commands.terminate();
            // What they write as they end must not break their pipes.
            let _ = tokio::time::timeout(LAST_COMMANDS, working.ended()).await;
            commands.kill();
            Err(Failure::interrupted())
        }
    }
}
