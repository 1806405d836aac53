//! `trunkline consume`: prints messages, and commits only those that have arrived.

use std::io;

use clap::Args;

use super::{
    failure::{Failure, say},
    format::FormatArgs,
    printer::Printer,
    start,
};
use crate::client::{Client, Commit, Consumer, Error, Event, Message, Start, Stop};

/// Print messages, each a line, and go on as they come.
#[derive(Args, Debug)]
pub(super) struct Consume {
    /// The topic's name.
    topic: String,
    /// The consumer's id.
    #[arg(long, value_name = "ID")]
    consumer: String,
    /// Create the topic if it is missing, and register the consumer if it is not.
    #[arg(long)]
    register: bool,
    /// Where a consumer that is registered now starts: earliest, latest, an offset, or @TIME as
    /// RFC 3339 or as an age (@15m).
    #[arg(long, default_value = "earliest", value_name = "START", requires = "register", value_parser = start::parse)]
    from: Start,
    /// End after so many messages.
    #[arg(short = 'n', value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End when nothing is left to read.
    #[arg(long, conflicts_with_all = ["count", "until_offset"])]
    until_caught_up: bool,
    /// End when all messages before this offset are printed.
    #[arg(long, value_name = "OFFSET", conflicts_with = "count", value_parser = clap::value_parser!(i64).range(0..))]
    until_offset: Option<i64>,
    /// Take the lease from whoever holds it, rather than waiting for it.
    #[arg(long)]
    take_over: bool,
    /// What others are told of who holds the lease.
    #[arg(long, value_name = "NAME")]
    client_name: Option<String>,
    #[command(flatten)]
    format: FormatArgs,
}

pub(super) async fn run(client: &Client, options: Consume) -> Result<(), Failure> {
    let mut printer = Printer::open()?;
    let mut consumer = open(client, &options).await?;
    let ended = tokio::select! {
        ended = print_all(&mut consumer, &mut printer, &options) => ended,
        _ = tokio::signal::ctrl_c() => Err(Failure::interrupted()),
    };
    // However it ended, what has arrived is committed.
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

async fn open(client: &Client, options: &Consume) -> Result<Consumer, Failure> {
    let stop = match (options.count, options.until_offset) {
        (Some(count), _) => Some(Stop::Messages(count)),
        (None, Some(end)) => Some(Stop::Offset(end)),
        (None, None) => options.until_caught_up.then_some(Stop::CaughtUp),
    };
    let mut consumer = client.consumer(&options.topic, &options.consumer, Commit::Manual);
    if options.register {
        client.ensure_topic(&options.topic).await?;
        consumer = consumer.register_at(options.from);
    }
    if options.take_over {
        consumer = consumer.take_over();
    }
    if let Some(name) = &options.client_name {
        consumer = consumer.client_name(name);
    }
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
    options: &Consume,
) -> Result<(), Failure> {
    let mut waiting = false;
    loop {
        let event = tokio::select! {
            event = consumer.next_event() => event,
            () = printer.look_again() => {
                commit(consumer, printer.arrived());
                continue;
            }
            () = printer.reader_gone() => return Err(io::Error::from(io::ErrorKind::BrokenPipe).into()),
        };
        let Some(event) = event else { return Ok(()) };
        match event? {
            Event::Attached { .. } => {
                if std::mem::take(&mut waiting) {
                    say("attached");
                }
            }
            Event::Standby { holder } => {
                waiting = true;
                say(&format!("waiting as standby: the lease is held by {holder}"));
            }
            Event::Messages(messages) => {
                let printed = printer.print(&options.topic, messages, &options.format);
                commit(consumer, printer.arrived());
                printed?;
            }
            Event::Repositioned { position } => {
                say(&format!("a seek moved the position: going on at offset {position}"));
            }
            Event::Gap { from, to } => {
                say(&format!("offsets {from} to {} are not kept any more", to - 1));
            }
            Event::CaughtUp => {}
            // Whoever took the lease did so on purpose: this one has had its turn.
            Event::Broken(error @ Error::Refused(_))
                if error.reason() == Some("LEASE_TAKEN_OVER") =>
            {
                return Err(error.into());
            }
            Event::Broken(error) => {
                if !std::mem::replace(&mut waiting, true) {
                    say(&format!("lost the broker, trying again: {error}"));
                }
            }
        }
    }
}
