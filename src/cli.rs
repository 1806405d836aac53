//! The `trunkline` command.
//!
//! Exit codes: 0 done; 1 refused or failed; 2 used wrongly; 69 no broker to be reached; 130 ended
//! by Ctrl-C, with what was acknowledged or written out kept.

mod arguments;
mod bench;
mod consume;
mod consumer;
mod context;
mod endpoint;
mod escape;
mod failure;
mod format;
mod greeting;
mod health;
mod lines;
mod output;
mod pipe;
mod printer;
mod produce;
mod producer;
mod reading;
mod render;
mod retention;
mod start;
mod tail;
mod topic;

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use clap_complete::Shell;

use crate::{client::Client, server::options::ServeOptions};
pub use arguments::parse;
use endpoint::EndpointArgs;
use failure::Failure;

/// A streaming message broker that lives in PostgreSQL.
#[derive(Debug, Parser)]
#[command(
    version,
    about,
    propagate_version = true,
    after_help = "Exit codes: 0 done, 1 refused or failed, 2 used wrongly, 69 no broker (or, for \
                  serve, no database) to be reached, 130 ended by Ctrl-C."
)]
pub struct Cli {
    #[command(flatten)]
    endpoint: EndpointArgs,

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
    Topic(topic::TopicCommand),
    /// Register, list and describe those who may publish to a topic.
    #[command(subcommand)]
    Producer(producer::ProducerCommand),
    /// Register, list, describe and move those who read a topic.
    #[command(subcommand)]
    Consumer(consumer::ConsumerCommand),
    /// Publish lines, each a message.
    Produce(produce::Produce),
    /// Print messages, each a line, and go on as they come.
    Consume(consume::Consume),
    /// Say whether the broker serves.
    Health,
    /// Measure what the broker can do.
    #[command(subcommand)]
    Bench(Box<bench::BenchCommand>),
    /// Name brokers, and choose the one to talk to.
    #[command(subcommand)]
    Context(context::ContextCommand),
    /// Print what makes a shell complete this command.
    Completions {
        /// The shell.
        shell: Shell,
    },
}

/// Does what the command line says.
pub async fn run(cli: Cli) -> ExitCode {
    let outcome = match cli.command {
        Command::Serve(options) => return crate::server::serve(options).await,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut arguments::command(), "trunkline", &mut script);
            io::stdout().write_all(&script).map_err(Failure::from)
        }
        Command::Context(command) => context::run(command),
        command => run_on_broker(&cli.endpoint, command).await,
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

async fn run_on_broker(endpoint: &EndpointArgs, command: Command) -> Result<(), Failure> {
    let endpoint = endpoint.resolve()?;
    if let Command::Health = command {
        return health::check(&endpoint).await;
    }
    let client = Client::connect(&endpoint).await?;
    greeting::greet(&client, &endpoint).await?;
    match command {
        Command::Topic(command) => topic::run(&client, command).await,
        Command::Producer(command) => producer::run(&client, command).await,
        Command::Consumer(command) => consumer::run(&client, command).await,
        Command::Produce(produce) => produce::run(&client, produce).await,
        Command::Consume(consume) => consume::run(&client, consume).await,
        Command::Bench(command) => bench::run(&client, &endpoint, *command).await,
        Command::Serve(_) | Command::Health | Command::Context(_) | Command::Completions { .. } => {
            Ok(())
        }
    }
}

/// A name and a value, as a header or a label is given.
fn parse_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("it has the form NAME=VALUE".to_owned()),
    }
}

/// Pairs of a flag that may be given several times: each has a name of its own.
fn unique_pairs(
    flag: &str,
    pairs: &[(String, String)],
) -> Result<BTreeMap<String, String>, Failure> {
    let mut unique = BTreeMap::new();
    for (name, value) in pairs {
        if unique.insert(name.clone(), value.clone()).is_some() {
            return Err(Failure::usage(format!(
                "{flag} gives {name:?} twice: a name has one value"
            )));
        }
    }
    Ok(unique)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        arguments::command().debug_assert();
    }
}
