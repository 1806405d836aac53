//! The `trunkline` command.
//!
//! Exit codes: 0 done; 1 refused or failed; 2 used wrongly; 69 no broker to be reached; 130 ended
//! by Ctrl-C, with what was acknowledged or written out kept.

mod catalog;
mod consume;
mod failure;
mod health;
mod lines;
mod produce;
mod render;
mod retention;
mod start;
mod table;

use std::{ffi::OsString, process::ExitCode, time::Duration};

use clap::{Args, Parser, Subcommand};

use crate::{client::Client, server::options::ServeOptions};
use failure::Failure;
use start::StartAt;

/// A streaming message broker that lives in PostgreSQL.
#[derive(Debug, Parser)]
#[command(version, about, propagate_version = true)]
pub struct Cli {
    /// Where the broker listens.
    #[arg(
        long,
        global = true,
        env = "TRUNKLINE_ENDPOINT",
        value_name = "URL",
        default_value = "http://127.0.0.1:50051"
    )]
    endpoint: String,

    #[command(subcommand)]
    command: Command,
}

/// What the command can do.
#[derive(Debug, Subcommand)]
enum Command {
    /// Run a broker.
    Serve(ServeOptions),
    /// Create, list, describe, change, trim, read and delete topics.
    #[command(subcommand)]
    Topic(TopicCommand),
    /// Register and list those who may publish to a topic.
    #[command(subcommand)]
    Producer(ProducerCommand),
    /// Register, list, describe and move those who read a topic.
    #[command(subcommand)]
    Consumer(ConsumerCommand),
    /// Publish lines, each a message.
    Produce(Produce),
    /// Print messages, each a line, and go on as they come.
    Consume(Consume),
    /// Say whether the broker serves.
    Health,
}

#[derive(Debug, Subcommand)]
enum TopicCommand {
    /// Create an empty topic.
    Create {
        /// The new topic's name.
        name: String,
        /// Free text for people.
        #[arg(long, default_value = "")]
        description: String,
        /// A name and a value for tools; may be given several times.
        #[arg(long = "label", value_name = "NAME=VALUE", value_parser = parse_label)]
        labels: Vec<(String, String)>,
        #[command(flatten)]
        retention: RetentionArgs,
    },
    /// List topics by name.
    List,
    /// Describe a topic.
    Describe {
        /// The topic's name.
        name: String,
    },
    /// Change a topic: what is not named stays.
    Update {
        /// The topic's name.
        name: String,
        /// Free text for people.
        #[arg(long)]
        description: Option<String>,
        /// A name and a value for tools, in place of all labels of before; may be given several
        /// times.
        #[arg(long = "label", value_name = "NAME=VALUE", value_parser = parse_label)]
        labels: Vec<(String, String)>,
        #[command(flatten)]
        retention: RetentionArgs,
    },
    /// Remove a topic's oldest messages.
    Trim {
        /// The topic's name.
        name: String,
        /// Remove all before this offset, or stored before @TIME as RFC 3339 or as an age (@15m).
        #[arg(long, value_name = "OFFSET|@TIME")]
        before: StartAt,
    },
    /// Print messages without a consumer: nothing moves.
    Read {
        /// The topic's name.
        name: String,
        /// Where to start: earliest, latest, an offset, or @TIME as RFC 3339 or as an age (@15m).
        #[arg(long, default_value = "earliest", value_name = "START")]
        from: StartAt,
        /// End after so many messages; at the head at the latest.
        #[arg(short = 'n', value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        count: Option<u64>,
        /// Print each message as a JSON object with offset, key, headers, time, producer and
        /// payload.
        #[arg(long)]
        json: bool,
    },
    /// Delete a topic with its messages, registrations and positions.
    Delete {
        /// The topic's name.
        name: String,
    },
}

/// How long a topic keeps its messages.
#[derive(Args, Debug)]
struct RetentionArgs {
    /// How old a message may get, such as 7d or 12h; "forever" lifts the limit.
    #[arg(long, value_name = "AGE", value_parser = retention::parse_age)]
    retention_age: Option<retention::Limit<Duration>>,
    /// How much is kept, such as 10GiB; "forever" lifts the limit.
    #[arg(long, value_name = "SIZE", value_parser = retention::parse_size)]
    retention_bytes: Option<retention::Limit<i64>>,
    /// How many messages are kept; "forever" lifts the limit.
    #[arg(long, value_name = "N", value_parser = retention::parse_count)]
    retention_messages: Option<retention::Limit<i64>>,
    /// Keep what the slowest consumer has not read, whatever the limits say.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    keep_unread: Option<bool>,
}

#[derive(Debug, Subcommand)]
enum ProducerCommand {
    /// Allow a producer to publish to a topic.
    Register {
        /// The topic's name.
        #[arg(long)]
        topic: String,
        /// The id to register; without one, a new one is made and printed.
        id: Option<String>,
        /// Register it again if it is registered, and shut its older instances out.
        #[arg(long)]
        fence: bool,
    },
    /// Take the right to publish away.
    Unregister {
        /// The topic's name.
        #[arg(long)]
        topic: String,
        /// The id that was registered.
        id: String,
    },
    /// List a topic's producers by id.
    List {
        /// The topic's name.
        #[arg(long)]
        topic: String,
    },
}

#[derive(Debug, Subcommand)]
enum ConsumerCommand {
    /// Give a consumer a position in a topic.
    Register {
        /// The topic's name.
        #[arg(long)]
        topic: String,
        /// The id to register; without one, a new one is made and printed.
        id: Option<String>,
        /// Where to start: earliest, latest, an offset, or @TIME as RFC 3339 or as an age (@15m).
        #[arg(long, default_value = "earliest", value_name = "START")]
        from: StartAt,
    },
    /// Move a consumer's position anywhere in the log; a stream of it goes on from there.
    Seek {
        /// The topic's name.
        #[arg(long)]
        topic: String,
        /// The consumer's id.
        id: String,
        /// Where to go on: earliest, latest, an offset, or @TIME as RFC 3339 or as an age (@15m).
        #[arg(long, value_name = "START")]
        to: StartAt,
    },
    /// Forget a consumer and its position.
    Unregister {
        /// The topic's name.
        #[arg(long)]
        topic: String,
        /// The id that was registered.
        id: String,
    },
    /// List a topic's consumers by id.
    List {
        /// The topic's name.
        #[arg(long)]
        topic: String,
    },
    /// Describe a consumer: where it stands, how far behind, who holds it.
    Describe {
        /// The topic's name.
        #[arg(long)]
        topic: String,
        /// The consumer's id.
        id: String,
    },
}

/// Publish lines, each a message.
#[derive(Args, Debug)]
struct Produce {
    /// The topic's name.
    topic: String,
    /// The producer's id.
    #[arg(long, value_name = "ID")]
    producer: String,
    /// Create the topic if it is missing, and register the producer if it is not.
    #[arg(long)]
    register: bool,
    /// Register the producer, again if it is registered, and shut its older instances out.
    #[arg(long)]
    fence: bool,
    /// The epoch that `producer register --fence` gave to this instance.
    #[arg(long, value_name = "N", default_value_t = 0, conflicts_with = "fence", value_parser = clap::value_parser!(i64).range(0..))]
    epoch: i64,
    /// Files to publish, one after the other; - is standard input.
    #[arg(default_value = "-", value_name = "FILE")]
    files: Vec<OsString>,
}

/// Print messages, each a line, and go on as they come.
#[derive(Args, Debug)]
struct Consume {
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
    #[arg(long, default_value = "earliest", value_name = "START", requires = "register")]
    from: StartAt,
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
    /// Print each message as a JSON object with offset, key, headers, time, producer and payload.
    #[arg(long)]
    json: bool,
}

/// Does what the command line says.
pub async fn run(cli: Cli) -> ExitCode {
    let outcome = match cli.command {
        Command::Serve(options) => return crate::server::serve(options).await,
        Command::Health => health::check(&cli.endpoint).await,
        command => run_on_broker(&cli.endpoint, command).await,
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

async fn run_on_broker(endpoint: &str, command: Command) -> Result<(), Failure> {
    let client = Client::connect(endpoint).await?;
    match command {
        Command::Topic(command) => catalog::topic(&client, command).await,
        Command::Producer(command) => catalog::producer(&client, command).await,
        Command::Consumer(command) => catalog::consumer(&client, command).await,
        Command::Produce(produce) => produce::run(&client, produce).await,
        Command::Consume(consume) => consume::run(client, consume).await,
        Command::Serve(_) | Command::Health => Ok(()),
    }
}

fn parse_label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => Err("a label has the form NAME=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
