//! `trunkline bench`: measures a broker from the outside.
//!
//! Each run creates topics of its own and deletes them at the end. It also reports what the broker
//! and PostgreSQL use during the run, where that can be seen: the database by its URL, the processes
//! if they run on this machine.

mod arguments;
mod consume;
mod environment;
mod idle;
mod latencies;
mod live;
mod meter;
mod pace;
mod payload;
#[cfg(target_os = "linux")]
mod process;
mod progress;
mod publish;
mod publishers;
mod report;
mod schedule;
mod topics;
mod work;

use std::sync::Arc;

use super::failure::Failure;
use crate::{client::Client, proto::LogEdge};
pub(super) use arguments::BenchCommand;
use arguments::{Amount, PublishArgs, ReadArgs, WorkArgs};
use consume::OpenConsumers;
use environment::Environment;
use live::LiveDisplay;
use meter::Meters;
use report::Report;
use topics::BenchTopics;
use work::OpenWorkers;

pub(super) async fn run(
    client: &Client,
    endpoint: &str,
    command: BenchCommand,
) -> Result<(), Failure> {
    tokio::select! {
        ended = measure(client, endpoint, command) => ended,
        _ = tokio::signal::ctrl_c() => Err(Failure::interrupted()),
    }
}

async fn measure(client: &Client, endpoint: &str, command: BenchCommand) -> Result<(), Failure> {
    let load = command.load().clone();
    let prefix = topics::prefix();
    let meters = Meters::open(endpoint, load.report.database_url.as_deref(), &prefix).await?;
    let topics = BenchTopics::create(client, &prefix, load.topics).await?;
    let live = Arc::new(LiveDisplay::default());
    let environment =
        Environment { client, topics: &topics, load: &load, meters: &meters, live: &live };
    let measured = live.show(run_kind(&environment, command)).await;
    // The measurements are printed even if the topics cannot be deleted.
    let deleted = if load.report.keep { Ok(()) } else { topics.delete(client).await };
    measured?.print(&load.report)?;
    deleted
}

async fn run_kind(environment: &Environment<'_>, command: BenchCommand) -> Result<Report, Failure> {
    match command {
        BenchCommand::Publish { publish, .. } => publish_only(environment, &publish).await,
        BenchCommand::Consume { read, messages, .. } => {
            consume_only(environment, &read, messages).await
        }
        BenchCommand::Both { publish, read, .. } => {
            let readers = Readers { args: &read, copies: 1 };
            publish_to(environment, "both", &publish, &readers).await
        }
        BenchCommand::Latency { rate, duration, warm_up, .. } => {
            let producers = environment.producers("warmer", 1).await?;
            let warming = PublishArgs::one_by_one(rate, Amount::lasting(warm_up));
            publish::run(environment, producers, &warming).await?;
            let publish = PublishArgs::one_by_one(rate, Amount::lasting(duration));
            let readers = Readers { args: &ReadArgs::by(1), copies: 1 };
            publish_to(environment, "latency", &publish, &readers).await
        }
        BenchCommand::Fanout { publish, consumers, .. } => {
            let copies = u64::from(consumers.div_ceil(environment.load.topics));
            let readers = Readers { args: &ReadArgs::by(consumers), copies };
            publish_to(environment, "fanout", &publish, &readers).await
        }
        BenchCommand::Work { publish, work, .. } => work_off(environment, &publish, &work).await,
        BenchCommand::Idle { streams, duration, .. } => {
            let outcome = idle::run(environment, streams, duration).await?;
            let mut report = Report::new("idle", environment.load);
            report.idle(&outcome);
            Ok(report)
        }
    }
}

async fn publish_only(
    environment: &Environment<'_>,
    args: &PublishArgs,
) -> Result<Report, Failure> {
    let producers = environment.producers("producer", args.producers).await?;
    let before = environment.meters.read().await?;
    let published = publish::run(environment, producers, args).await?;
    let mut report = Report::new("publish", environment.load);
    report.published(&published);
    report.costs(&before, &environment.meters.read().await?, published.messages);
    Ok(report)
}

async fn consume_only(
    environment: &Environment<'_>,
    args: &ReadArgs,
    messages: u64,
) -> Result<Report, Failure> {
    let publish = PublishArgs::fast(Amount::of(messages));
    let producers = environment.producers("producer", publish.producers).await?;
    let published = publish::run(environment, producers, &publish).await?;
    let consumers = environment.consumers(LogEdge::Earliest, args.consumers).await?;
    let before = environment.meters.read().await?;
    let open = OpenConsumers::open(environment, consumers, args).await?;
    let consumed = open.until_caught_up().await?;
    let mut report = Report::new("consume", environment.load);
    report.stored_before(published.messages);
    // How long the messages were stored says nothing about delivery.
    report.consumed(&consumed, None);
    report.costs(&before, &environment.meters.read().await?, consumed.messages);
    Ok(report)
}

/// Publishes to workers, or before they begin.
async fn work_off(
    environment: &Environment<'_>,
    publish: &PublishArgs,
    args: &WorkArgs,
) -> Result<Report, Failure> {
    let producers = environment.producers("producer", publish.producers).await?;
    let subscriptions = environment.topics.subscriptions(environment.client).await?;
    let mut report = Report::new("work", environment.load);
    let (before, published, worked) = match args.stored {
        true => {
            let published = publish::run(environment, producers, publish).await?;
            report.stored_before(published.messages);
            let before = environment.meters.read().await?;
            let open = OpenWorkers::open(environment, &subscriptions, args).await?;
            (before, published.messages, open.until_all(published.messages).await?)
        }
        false => {
            let before = environment.meters.read().await?;
            let open = OpenWorkers::open(environment, &subscriptions, args).await?;
            let published = publish::run(environment, producers, publish).await?;
            report.published(&published);
            (before, published.messages, open.until_all(published.messages).await?)
        }
    };
    report.consumed(&worked, (!args.stored).then_some(&worked.delivered));
    report.costs(&before, &environment.meters.read().await?, published);
    Ok(report)
}

/// Consumers that wait for messages.
struct Readers<'a> {
    args: &'a ReadArgs,
    /// The number of consumers that get each message.
    copies: u64,
}

/// Publishes to consumers that are reading already.
async fn publish_to(
    environment: &Environment<'_>,
    kind: &'static str,
    publish: &PublishArgs,
    readers: &Readers<'_>,
) -> Result<Report, Failure> {
    let producers = environment.producers("producer", publish.producers).await?;
    let consumers = environment.consumers(LogEdge::Latest, readers.args.consumers).await?;
    let before = environment.meters.read().await?;
    let open = OpenConsumers::open(environment, consumers, readers.args).await?;
    let published = publish::run(environment, producers, publish).await?;
    let consumed = open.until_all(published.messages * readers.copies).await?;
    let mut report = Report::new(kind, environment.load);
    report.published(&published);
    report.consumed(&consumed, Some(&consumed.delivered));
    report.costs(&before, &environment.meters.read().await?, published.messages);
    Ok(report)
}
