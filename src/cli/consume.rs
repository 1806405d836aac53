//! `trunkline consume`: prints messages, and commits those that have arrived.

use std::io;

use clap::Args;

use super::{
    created,
    failure::{Failure, print_notice},
    format::FormatArgs,
    printer::Printer,
    start, this_user,
};
use crate::client::{Client, Commit, Consumer, Error, Event, Message, Start, Stop};

/// Print messages, one a line, and wait for more.
#[derive(Args, Debug)]
pub(super) struct ConsumeArgs {
    /// The topic's name.
    topic: String,
    /// The consumer's id.
    #[arg(long, value_name = "ID")]
    consumer: String,
    /// Create the topic and register the consumer if they do not exist.
    #[arg(long)]
    register: bool,
    /// Where a newly registered consumer starts: earliest, latest, an offset, or @TIME: RFC 3339 or
    /// an age (@15m).
    #[arg(long, default_value = "earliest", value_name = "START", requires = "register", value_parser = start::parse)]
    from: Start,
    /// Stop after this many messages.
    #[arg(short = 'n', value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Stop when there is nothing left to read.
    #[arg(long, conflicts_with = "until_offset")]
    until_caught_up: bool,
    /// Stop when all messages before this offset have been printed.
    #[arg(long, value_name = "OFFSET", conflicts_with = "count", value_parser = clap::value_parser!(i64).range(0..))]
    until_offset: Option<i64>,
    /// Take the lease from its holder instead of waiting for it.
    #[arg(long)]
    take_over: bool,
    /// The name shown to others while this client holds the lease (default: USER@HOST, of this user
    /// and this machine).
    #[arg(long, value_name = "NAME")]
    client_name: Option<String>,
    #[command(flatten)]
    format: FormatArgs,
}

pub(super) async fn run(client: &Client, options: ConsumeArgs) -> Result<(), Failure> {
    let mut printer = Printer::open()?;
    let mut consumer = open(client, &options).await?;
    let ended = tokio::select! {
        ended = print_all(&mut consumer, &mut printer, &options) => ended,
        _ = tokio::signal::ctrl_c() => Err(Failure::interrupted()),
    };
    // Commits what has arrived, whatever the outcome.
    let close = async {
        commit(&consumer, printer.finish().await);
        consumer.close().await.map_err(Failure::from)
    };
    let closed = tokio::select! {
        closed = close => closed,
        _ = tokio::signal::ctrl_c() => Err(Failure::interrupted()),
    };
    ended.and(closed)
}

async fn open(client: &Client, options: &ConsumeArgs) -> Result<Consumer, Failure> {
    let stop = match (options.count, options.until_offset) {
        // With -n as well, printing ends when the first of both is reached.
        _ if options.until_caught_up => Some(Stop::CaughtUp),
        (Some(count), _) => Some(Stop::Messages(count)),
        (None, end) => end.map(Stop::Offset),
    };
    let mut consumer = client.consumer(&options.topic, &options.consumer, Commit::Manual);
    if options.register {
        created::ensure_topic(client, &options.topic).await?;
        created::ensure_consumer(client, &options.topic, &options.consumer, options.from).await?;
    }
    if options.take_over {
        consumer = consumer.take_over();
    }
    let name = options.client_name.clone().unwrap_or_else(this_user::client_name);
    consumer = consumer.client_name(name);
    if let Some(stop) = stop {
        consumer = consumer.stop(stop);
    }
    Ok(consumer.open().await?)
}

fn commit(consumer: &Consumer, arrived: Option<Message>) {
    if let Some(last) = arrived {
        consumer.commit(&last);
    }
}

async fn print_all(
    consumer: &mut Consumer,
    printer: &mut Printer,
    options: &ConsumeArgs,
) -> Result<(), Failure> {
    // Whether the last notice said that messages have to wait.
    let mut is_waiting = false;
    let mut left = options.count.unwrap_or(u64::MAX);
    loop {
        let event = tokio::select! {
            event = consumer.next_event() => event,
            () = printer.next_check() => {
                commit(consumer, printer.arrived());
                continue;
            }
            () = printer.reader_gone() => {
                return Err(io::Error::from(io::ErrorKind::BrokenPipe).into());
            }
        };
        let Some(event) = event else { return Ok(()) };
        match event? {
            Event::Attached { .. } => {
                if std::mem::take(&mut is_waiting) {
                    print_notice("attached");
                }
            }
            Event::Standby { holder } => {
                is_waiting = true;
                print_notice(&format!("waiting as standby: the lease is held by {holder}"));
            }
            Event::Messages(mut messages) => {
                messages.truncate(usize::try_from(left).unwrap_or(usize::MAX));
                left -= messages.len() as u64;
                let printed = printer.print(&options.topic, messages, &options.format);
                commit(consumer, printer.arrived());
                printed?;
                if left == 0 && options.until_caught_up {
                    return Ok(());
                }
            }
            Event::Repositioned { position } => {
                print_notice(&format!(
                    "a seek moved the position: continuing at offset {position}"
                ));
            }
            Event::Gap { from, to } => {
                print_notice(&format!("offsets {from} to {} are no longer kept", to - 1));
            }
            Event::CaughtUp => {}
            // A take-over is deliberate, so this consumer does not compete for the lease again.
            Event::Broken(error @ Error::Refused(_))
                if error.reason() == Some("LEASE_TAKEN_OVER") =>
            {
                return Err(error.into());
            }
            Event::Broken(error) => {
                if !std::mem::replace(&mut is_waiting, true) {
                    print_notice(&format!("lost the broker, trying again: {error}"));
                }
            }
        }
    }
}
