//! `trunkline topic tail`: the newest messages, without a consumer.

use std::time::Duration;

use clap::Args;
use tokio::time::MissedTickBehavior;

use super::{
    failure::{Failure, say},
    format::FormatArgs,
    reading,
};
use crate::client::{Client, Start};

/// How often a topic is asked for what has come.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Print the newest messages without a consumer, and those that come, if asked to.
#[derive(Args, Debug)]
pub(super) struct Tail {
    /// The topic's name.
    name: String,
    /// How many of the newest messages to print.
    #[arg(short = 'n', value_name = "N", default_value_t = 10)]
    count: u32,
    /// Go on with what comes, until Ctrl-C.
    #[arg(short = 'F', long)]
    follow: bool,
    #[command(flatten)]
    format: FormatArgs,
}

pub(super) async fn run(client: &Client, tail: Tail) -> Result<(), Failure> {
    tokio::select! {
        ended = reading::while_read(print(client, &tail)) => ended,
        _ = tokio::signal::ctrl_c() => Err(Failure::interrupted()),
    }
}

async fn print(client: &Client, tail: &Tail) -> Result<(), Failure> {
    let Tail { name, count, follow, format } = tail;
    let mut client = client.clone();
    let topic = reading::topic(&client, name).await?;
    let first = topic.first_offset.max(topic.head - i64::from(*count));
    let mut next = Start::Offset(first);
    let mut left = u64::try_from(topic.head - first).unwrap_or(0);
    let mut lost = false;
    // Asking needs no registration, and leaves nothing behind however this ends.
    let mut poll = tokio::time::interval(POLL_INTERVAL);
    poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        match reading::print(&client, name, &mut next, &mut left, format).await {
            Ok(()) if !follow => return Ok(()),
            Ok(()) => (left, lost) = (u64::MAX, false),
            // Retention has gone past: what is left comes next.
            Err(failure) if failure.reason() == Some("OFFSET_OUT_OF_RANGE") => {
                next = Start::Earliest;
            }
            Err(failure) if *follow && failure.is_unavailable() => {
                if !std::mem::replace(&mut lost, true) {
                    say("lost the broker, trying again");
                }
                // There may be another one.
                client = client.another().await.unwrap_or(client);
            }
            Err(failure) => return Err(failure),
        }
        poll.tick().await;
    }
}
