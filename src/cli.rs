//! The `trunkline` command.
//!
//! Exit codes: 0 success; 1 refused or failed; 2 usage error; 3 another instance of the producer
//! or consumer has taken over; 69 no broker is reachable; 130 interrupted by Ctrl-C, in which case
//! everything acknowledged or printed so far is kept.

mod all_topics;
mod audit;
mod bench;
mod command_line;
mod completion;
mod confirmation;
mod consume;
mod consumer;
mod context;
mod copy;
mod created;
mod credentials;
mod empty_values;
mod endpoint;
mod escape;
mod failure;
mod format;
#[cfg(fuzzing)]
pub mod fuzzing;
mod grant;
mod greeting;
mod health;
mod help;
#[cfg(test)]
mod help_tests;
mod lag;
mod lines;
mod man;
mod name_value;
mod notices;
mod output;
mod pages;
mod pipe;
mod plural;
mod printer;
mod produce;
mod producer;
mod publish;
mod quota;
mod readers;
mod reading;
mod registration;
mod render;
mod retention;
mod start;
mod subscription;
mod suggestion;
mod tail;
mod this_user;
mod timestamp;
mod token;
mod top;
mod topic;
mod who_am_i;
mod work;

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use clap_complete::Shell;

use crate::client::Client;
use command_line::Command;
pub use command_line::{Cli, parse};
use endpoint::EndpointArgs;
use failure::Failure;
use token::TokenCommand;

/// Answers a shell that asks how to complete a command line, and exits; returns if none does.
pub fn answer_shell() {
    completion::answer_shell(command_line::command);
}

/// Runs the command.
pub async fn run(cli: Cli) -> ExitCode {
    let outcome = match cli.command {
        Command::Serve(options) => return crate::server::serve(*options).await,
        Command::Migrate(options) => return crate::server::migrate(options).await,
        Command::Token(TokenCommand::Bootstrap(options)) => {
            return crate::server::print_first_token(*options).await;
        }
        Command::Completions { shell } => print_completions(shell),
        Command::Man(args) => man::run(args, command_line::command()),
        Command::Context(command) => context::run(command, cli.endpoint.credentials.given()),
        command => run_on_broker(&cli.endpoint, command).await,
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn print_completions(shell: Shell) -> Result<(), Failure> {
    Ok(io::stdout().write_all(&completion::script(shell)?)?)
}

async fn run_on_broker(endpoint: &EndpointArgs, command: Command) -> Result<(), Failure> {
    let endpoint = endpoint.resolve()?;
    if let Command::Health(output) = command {
        return health::check(&endpoint, output).await;
    }
    let client = endpoint.connect().await?;
    greeting::greet(&client, &endpoint.url).await?;
    match call(&client, &endpoint.url, command).await {
        Err(failure) => Err(suggestion::suggest(&client, failure).await),
        done => done,
    }
}

async fn call(client: &Client, url: &str, command: Command) -> Result<(), Failure> {
    match command {
        Command::Topic(command) => topic::run(client, command).await,
        Command::Producer(command) => producer::run(client, command).await,
        Command::Consumer(command) => consumer::run(client, command).await,
        Command::Subscription(command) => subscription::run(client, command).await,
        Command::Lag(lag) => lag::run(client, lag).await,
        Command::Tail(tail) => tail::run(client, tail).await,
        Command::Pub(publish) => publish::run(client, publish).await,
        Command::Produce(produce) => produce::run(client, *produce).await,
        Command::Consume(consume) => consume::run(client, consume).await,
        Command::Work(work) => work::run(client, work).await,
        Command::Token(command) => token::run(client, command).await,
        Command::Grant(command) => grant::run(client, command).await,
        Command::Audit(command) => audit::run(client, command).await,
        Command::Top(top) => top::run(client, url, top).await,
        Command::Quota(command) => quota::run(client, command).await,
        Command::Whoami(options) => who_am_i::run(client, options).await,
        Command::Bench(command) => bench::run(client, url, *command).await,
        Command::Serve(_)
        | Command::Migrate(_)
        | Command::Health(_)
        | Command::Context(_)
        | Command::Man(_)
        | Command::Completions { .. } => Ok(()),
    }
}
