//! The arguments of `trunkline bench`.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::{super::output::OutputArgs, payload::Payload};
use crate::client::Commit;

/// Measure the performance of a broker.
#[derive(Debug, Subcommand)]
pub(in super::super) enum BenchCommand {
    /// Publish, and measure the rate and the time to acknowledgement.
    Publish {
        #[command(flatten)]
        load: LoadArgs,
        #[command(flatten)]
        publish: PublishArgs,
    },
    /// Publish messages first, then measure how fast consumers catch up.
    Consume {
        #[command(flatten)]
        load: LoadArgs,
        #[command(flatten)]
        read: ReadArgs,
        /// The total number of messages to publish first.
        #[arg(long, value_name = "N", default_value_t = 2_000_000)]
        messages: u64,
    },
    /// Publish and consume at the same time.
    Both {
        #[command(flatten)]
        load: LoadArgs,
        #[command(flatten)]
        publish: PublishArgs,
        #[command(flatten)]
        read: ReadArgs,
    },
    /// Publish at a fixed rate, and measure the time to delivery.
    Latency {
        #[command(flatten)]
        load: LoadArgs,
        /// Messages per second in total.
        #[arg(long, value_name = "N", default_value = "1000", value_parser = parse_rate)]
        rate: f64,
        /// How long to publish.
        #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = humantime::parse_duration)]
        duration: Duration,
        /// How long to publish before measuring: the first messages are slow, as statements are
        /// planned and files are created for them.
        #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = humantime::parse_duration)]
        warm_up: Duration,
    },
    /// Publish to consumers that each get every message, and measure the deliveries.
    Fanout {
        #[command(flatten)]
        load: LoadArgs,
        #[command(flatten)]
        publish: PublishArgs,
        /// The number of consumers, each with a position of its own.
        #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        consumers: u32,
    },
    /// Publish to workers that share the messages of a subscription, and acknowledge each by itself.
    Work {
        #[command(flatten)]
        load: LoadArgs,
        #[command(flatten)]
        publish: PublishArgs,
        #[command(flatten)]
        work: WorkArgs,
    },
    /// Open idle streams, and measure their cost and the time to deliver a message to all of them.
    Idle {
        #[command(flatten)]
        load: LoadArgs,
        /// The number of streams to open.
        #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        streams: u32,
        /// How long to leave them idle.
        #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = humantime::parse_duration)]
        duration: Duration,
    },
}

impl BenchCommand {
    pub(super) fn load(&self) -> &LoadArgs {
        match self {
            Self::Publish { load, .. }
            | Self::Consume { load, .. }
            | Self::Both { load, .. }
            | Self::Latency { load, .. }
            | Self::Fanout { load, .. }
            | Self::Work { load, .. }
            | Self::Idle { load, .. } => load,
        }
    }
}

/// The topics and messages of a run, and how to report it.
#[derive(Args, Clone, Debug)]
pub(in super::super) struct LoadArgs {
    /// The number of topics, over which producers and consumers are spread.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(super) topics: u32,
    /// The size of a message's payload in bytes, at least 32.
    #[arg(long, value_name = "BYTES", default_value_t = 100, value_parser = clap::value_parser!(u32).range(32..=1_048_576))]
    pub(super) size: u32,
    /// What payloads consist of: lines like a log's, random text, or one repeated letter.
    #[arg(long, value_enum, default_value_t)]
    pub(super) payload: Payload,
    #[command(flatten)]
    pub(super) report: ReportArgs,
}

/// How to report a run.
#[derive(Args, Clone, Debug)]
pub(in super::super) struct ReportArgs {
    #[command(flatten)]
    pub(super) output: OutputArgs,
    /// The URL of the broker's database, to report what PostgreSQL uses: WAL, disk, transactions
    /// and, on this machine, CPU.
    #[arg(long, env = "TRUNKLINE_DATABASE_URL", value_name = "URL", hide_env_values = true)]
    pub(super) database_url: Option<String>,
    /// Keep the run's topics, which are deleted otherwise.
    #[arg(long)]
    pub(super) keep: bool,
}

/// How to publish.
#[derive(Args, Clone, Debug)]
pub(in super::super) struct PublishArgs {
    /// The number of producers, each with a stream of its own.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(super) producers: u32,
    /// Messages per request.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(super) batch: u32,
    /// How many requests of a producer may be unanswered: with 1, it sends the next one when the
    /// last one is answered.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(super) in_flight: u32,
    /// Messages per second in total; by default, as many as possible.
    #[arg(long, value_name = "N", value_parser = parse_rate)]
    pub(super) rate: Option<f64>,
    /// Publish with unary calls instead of streams.
    #[arg(long)]
    pub(super) unary: bool,
    /// Pass messages one at a time to the client library, which batches them itself.
    #[arg(long, conflicts_with_all = ["unary", "in_flight"])]
    pub(super) library: bool,
    #[command(flatten)]
    pub(super) amount: Amount,
}

/// How much to publish.
#[derive(Args, Clone, Debug)]
pub(in super::super) struct Amount {
    /// How long to publish; unanswered requests are then awaited for at most 5 s.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = humantime::parse_duration)]
    pub(super) duration: Duration,
    /// The total number of messages to publish, instead of a duration.
    #[arg(long, value_name = "N")]
    pub(super) messages: Option<u64>,
}

impl Amount {
    pub(super) fn of(messages: u64) -> Self {
        Self { duration: Duration::ZERO, messages: Some(messages) }
    }

    pub(super) fn lasting(duration: Duration) -> Self {
        Self { duration, messages: None }
    }
}

impl PublishArgs {
    /// As fast as possible.
    pub(super) fn fast(amount: Amount) -> Self {
        Self {
            producers: 8,
            batch: 1_000,
            in_flight: 8,
            rate: None,
            unary: false,
            library: false,
            amount,
        }
    }

    /// One message a request, at a rate.
    pub(super) fn one_by_one(rate: f64, amount: Amount) -> Self {
        let (producers, batch, in_flight) = (1, 1, 256);
        Self { producers, batch, in_flight, rate: Some(rate), ..Self::fast(amount) }
    }

    /// A description for people.
    pub(super) fn describe(&self) -> String {
        let Self { producers, batch, in_flight, unary, .. } = self;
        if self.library {
            return format!("{producers} producers of the client library, a message at a time");
        }
        let how = if *unary { "unary" } else { "streams" };
        format!("{producers} producers, {how}, {batch} a request, {in_flight} in flight each")
    }
}

fn parse_rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if rate > 0.0 && f64::is_finite(rate) => Ok(rate),
        _ => Err("give a number of messages per second, more than 0".to_owned()),
    }
}

/// How workers work.
#[derive(Args, Clone, Debug)]
pub(in super::super) struct WorkArgs {
    /// The number of workers, each with a stream of its own; each topic has one subscription.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(super) workers: u32,
    /// The order in which a worker acknowledges the messages that it has.
    #[arg(long, value_enum, default_value_t)]
    pub(super) order: AckOrder,
    /// How many messages a worker can have.
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(super) outstanding: u32,
    /// How many acknowledgements a request has at most.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(super) settle_batch: u32,
    /// Ask for another delivery, at once, of one of so many messages, at least 2; of none by default.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    pub(super) retried: Option<u32>,
    /// Publish everything first, and measure the workers alone.
    #[arg(long)]
    pub(super) stored: bool,
}

/// The order in which a worker acknowledges messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(in super::super) enum AckOrder {
    /// In any order.
    #[default]
    Random,
    /// As they come.
    InOrder,
}

/// How to consume.
#[derive(Args, Clone, Debug)]
pub(in super::super) struct ReadArgs {
    /// The number of consumers, each with a position of its own: each gets all messages of its
    /// topic.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(super) consumers: u32,
    /// When positions move.
    #[arg(long, value_enum, default_value_t)]
    commit: CommitArg,
}

/// When positions move.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum CommitArg {
    /// When the consumer commits: at least once.
    #[default]
    Manual,
    /// Before messages are handed out: at most once.
    AtMostOnce,
}

impl ReadArgs {
    /// Consumers that commit what they have read.
    pub(super) fn by(consumers: u32) -> Self {
        Self { consumers, commit: CommitArg::Manual }
    }

    pub(super) fn commit(&self) -> Commit {
        match self.commit {
            CommitArg::Manual => Commit::Manual,
            CommitArg::AtMostOnce => Commit::AtMostOnce,
        }
    }
}
