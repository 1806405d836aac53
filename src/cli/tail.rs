//! `trunkline topic tail`: prints the newest messages without a consumer.

use std::time::Duration;

use clap::Args;
use tokio::time::MissedTickBehavior;

use super::{
    failure::{Failure, print_notice},
    format::FormatArgs,
    reading::{self, PageReader},
};
use crate::client::{Client, Start};

/// How often to ask a topic for new messages.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Print the newest messages without a consumer, and optionally those that follow.
#[derive(Args, Debug)]
pub(super) struct TailArgs {
    /// The topic's name.
    name: String,
    /// The number of newest messages to print.
    #[arg(short = 'n', value_name = "N", default_value_t = 10)]
    count: u32,
    /// Also print new messages as they arrive, until Ctrl-C.
    #[arg(short = 'F', long)]
    follow: bool,
    #[command(flatten)]
    format: FormatArgs,
}

pub(super) async fn run(client: &Client, tail: TailArgs) -> Result<(), Failure> {
    tokio::select! {
        ended = reading::while_read(print(client, &tail)) => ended,
        _ = tokio::signal::ctrl_c() => Err(Failure::interrupted()),
    }
}

async fn print(client: &Client, tail: &TailArgs) -> Result<(), Failure> {
    let TailArgs { name, count, follow, format } = tail;
    let mut client = client.clone();
    let topic = reading::topic(&client, name).await?;
    let first = topic.first_offset.max(topic.head - i64::from(*count));
    let left = u64::try_from(topic.head - first).unwrap_or(0);
    let mut reader = PageReader { topic: name, format, from: Start::Offset(first), left };
    let mut has_lost_broker = false;
    // Polling needs no registration, so it leaves nothing behind, whatever the outcome.
    let mut poll = tokio::time::interval(POLL_INTERVAL);
    poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        match reader.print(&client).await {
            Ok(()) if !follow => return Ok(()),
            Ok(()) => {
                reader.left = u64::MAX;
                has_lost_broker = false;
            }
            // Retention has removed the next messages: continue with the first one that is left.
            Err(failure) if failure.reason() == Some("OFFSET_OUT_OF_RANGE") => {
                reader.from = Start::Earliest;
            }
            Err(failure) if *follow && failure.is_unavailable() => {
                if !std::mem::replace(&mut has_lost_broker, true) {
                    print_notice("lost the broker, trying again");
                }
                // Another broker of the endpoint may be reachable.
                client = client.another().await.unwrap_or(client);
            }
            Err(failure) => return Err(failure),
        }
        poll.tick().await;
    }
}
