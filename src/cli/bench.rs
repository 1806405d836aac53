//! `trunkline bench`: what a broker can do, measured from the outside.
//!
//! Each run makes topics of its own and deletes them at the end. What the broker and PostgreSQL
//! take for it is told where they can be seen: the database by its URL, the processes where they
//! run on this machine.

mod consume;
mod histogram;
mod idle;
mod live;
mod meter;
mod pace;
mod payload;
mod publish;
mod report;
mod topics;

use std::{sync::Arc, time::Duration};

use clap::{Args, Subcommand};

use super::failure::Failure;
use crate::{client::Client, proto::LogEdge};
use consume::Reading;
use live::Live;
use meter::Meters;
use payload::Payload;
use publish::{Amount, Publishing};
use report::{Report, ReportArgs};
use topics::Topics;

/// Measure what the broker can do.
#[derive(Debug, Subcommand)]
pub(super) enum BenchCommand {
    /// Publish, and measure the rate and how long acknowledgements take.
    Publish(PublishArgs),
    /// Publish some messages first, then measure how fast consumers catch up.
    Consume(ConsumeArgs),
    /// Publish and consume at the same time.
    Both(BothArgs),
    /// Publish at a fixed rate, and measure the time to delivery.
    Latency(LatencyArgs),
    /// Publish to consumers that each get every message, and measure the deliveries.
    Fanout(FanoutArgs),
    /// Open streams that wait, and measure what they cost and how long a message takes to all.
    Idle(IdleArgs),
}

/// What is published, and by how many.
#[derive(Args, Clone, Debug)]
pub(super) struct LoadArgs {
    /// Topics, over which producers and consumers are spread.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    topics: u32,
    /// Bytes of a message's payload, from 32.
    #[arg(long, value_name = "BYTES", default_value_t = 100, value_parser = clap::value_parser!(u32).range(32..=1_048_576))]
    size: u32,
    /// What the payload is made of: lines like a log's, random text or one and the same letter.
    #[arg(long, value_enum, default_value_t)]
    payload: Payload,
    #[command(flatten)]
    report: ReportArgs,
}

#[derive(Args, Clone, Debug)]
pub(super) struct PublishArgs {
    #[command(flatten)]
    load: LoadArgs,
    #[command(flatten)]
    publishing: Publishing,
    #[command(flatten)]
    amount: Amount,
}

#[derive(Args, Clone, Debug)]
pub(super) struct ConsumeArgs {
    #[command(flatten)]
    load: LoadArgs,
    #[command(flatten)]
    reading: Reading,
    /// Messages to publish first, in all.
    #[arg(long, value_name = "N", default_value_t = 2_000_000)]
    messages: u64,
}

#[derive(Args, Clone, Debug)]
pub(super) struct BothArgs {
    #[command(flatten)]
    load: LoadArgs,
    #[command(flatten)]
    publishing: Publishing,
    #[command(flatten)]
    amount: Amount,
    #[command(flatten)]
    reading: Reading,
}

#[derive(Args, Clone, Debug)]
pub(super) struct LatencyArgs {
    #[command(flatten)]
    load: LoadArgs,
    /// Messages a second, in all.
    #[arg(long, value_name = "N", default_value = "1000", value_parser = publish::parse_rate)]
    rate: f64,
    /// How long to publish.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// How long to publish before that, unmeasured: the first messages wait for statements to be
    /// planned and for files to be made.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = humantime::parse_duration)]
    warm_up: Duration,
}

#[derive(Args, Clone, Debug)]
pub(super) struct FanoutArgs {
    #[command(flatten)]
    load: LoadArgs,
    #[command(flatten)]
    publishing: Publishing,
    #[command(flatten)]
    amount: Amount,
    /// Consumers, each with a position of its own.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    consumers: u32,
}

#[derive(Args, Clone, Debug)]
pub(super) struct IdleArgs {
    #[command(flatten)]
    load: LoadArgs,
    /// Streams to open.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    streams: u32,
    /// How long to let them wait.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = humantime::parse_duration)]
    duration: Duration,
}

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
    let topics = Topics::create(client, &prefix, load.topics).await?;
    let live = Arc::new(Live::default());
    let bench = Bench { client, topics: &topics, load: &load, meters: &meters, live: &live };
    let measured = live.show(bench.run(command)).await;
    // Kept or not, or to be deleted by hand, what was measured is told.
    let deleted = if load.report.keep { Ok(()) } else { topics.delete(client).await };
    measured?.print(&load.report)?;
    deleted
}

impl BenchCommand {
    fn load(&self) -> &LoadArgs {
        match self {
            Self::Publish(args) => &args.load,
            Self::Consume(args) => &args.load,
            Self::Both(args) => &args.load,
            Self::Latency(args) => &args.load,
            Self::Fanout(args) => &args.load,
            Self::Idle(args) => &args.load,
        }
    }
}

/// What all kinds of runs need.
struct Bench<'a> {
    client: &'a Client,
    topics: &'a Topics,
    load: &'a LoadArgs,
    meters: &'a Meters,
    live: &'a Arc<Live>,
}

impl Bench<'_> {
    async fn run(&self, command: BenchCommand) -> Result<Report, Failure> {
        match command {
            BenchCommand::Publish(args) => self.publish(&args).await,
            BenchCommand::Consume(args) => self.consume(&args).await,
            BenchCommand::Both(args) => {
                self.both(&args.publishing, &args.amount, &args.reading, 1, "both").await
            }
            BenchCommand::Latency(args) => {
                let publishing = Publishing::one_by_one(args.rate);
                let warming = self.topics.producers(self.client, "warmer", 1).await?;
                let warm_up = Amount::lasting(args.warm_up);
                publish::run(self, warming, &publishing, &warm_up).await?;
                let amount = Amount::lasting(args.duration);
                self.both(&publishing, &amount, &Reading::default(), 1, "latency").await
            }
            BenchCommand::Fanout(args) => {
                let reading = Reading::by(args.consumers);
                let copies = u64::from(args.consumers.div_ceil(self.load.topics));
                self.both(&args.publishing, &args.amount, &reading, copies, "fanout").await
            }
            BenchCommand::Idle(args) => idle::run(self, args.streams, args.duration).await,
        }
    }

    async fn publish(&self, args: &PublishArgs) -> Result<Report, Failure> {
        let producers =
            self.topics.producers(self.client, "producer", args.publishing.producers).await?;
        let before = self.meters.read().await?;
        let published = publish::run(self, producers, &args.publishing, &args.amount).await?;
        let mut report = Report::new("publish", self.load);
        report.published(&published);
        report.costs(&before, &self.meters.read().await?, published.messages);
        Ok(report)
    }

    async fn consume(&self, args: &ConsumeArgs) -> Result<Report, Failure> {
        let publishing = Publishing::default();
        let producers =
            self.topics.producers(self.client, "producer", publishing.producers).await?;
        let amount = Amount::of(args.messages);
        let published = publish::run(self, producers, &publishing, &amount).await?;
        let consumers =
            self.topics.consumers(self.client, LogEdge::Earliest, args.reading.consumers).await?;
        let before = self.meters.read().await?;
        let opened = consume::open(self, consumers, &args.reading).await?;
        let consumed = opened.until_caught_up().await?;
        let mut report = Report::new("consume", self.load);
        report.filled(published.messages);
        report.consumed(&consumed, false);
        report.costs(&before, &self.meters.read().await?, consumed.messages);
        Ok(report)
    }

    /// Publishes to consumers that are there, of which so many get each message.
    async fn both(
        &self,
        publishing: &Publishing,
        amount: &Amount,
        reading: &Reading,
        copies: u64,
        kind: &'static str,
    ) -> Result<Report, Failure> {
        let producers =
            self.topics.producers(self.client, "producer", publishing.producers).await?;
        let consumers =
            self.topics.consumers(self.client, LogEdge::Latest, reading.consumers).await?;
        let before = self.meters.read().await?;
        let opened = consume::open(self, consumers, reading).await?;
        let published = publish::run(self, producers, publishing, amount).await?;
        let consumed = opened.until_all(published.messages * copies).await?;
        let mut report = Report::new(kind, self.load);
        report.published(&published);
        report.consumed(&consumed, true);
        report.costs(&before, &self.meters.read().await?, published.messages);
        Ok(report)
    }
}
