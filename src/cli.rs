//! The `trunkline` command.
//!
//! Exit codes: 0 success; 1 refused or failed; 2 usage error; 69 no broker is reachable; 130
//! interrupted by Ctrl-C, in which case everything acknowledged or printed so far is kept.

mod audit;
mod bench;
mod command_line;
mod consume;
mod consumer;
mod context;
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
mod lag;
mod lines;
mod name_value;
mod output;
mod pages;
mod pipe;
mod printer;
mod produce;
mod producer;
mod quota;
mod reading;
mod registration;
mod render;
mod retention;
mod start;
mod tail;
mod timestamp;
mod token;
mod top;
mod topic;
mod who_am_i;

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use command_line::Command;
pub use command_line::{Cli, parse};
use endpoint::EndpointArgs;
use failure::Failure;
use token::TokenCommand;

/// Runs the command.
pub async fn run(cli: Cli) -> ExitCode {
    let outcome = match cli.command {
        Command::Serve(options) => return crate::server::serve(*options).await,
        Command::Migrate(options) => return crate::server::migrate(options).await,
        Command::Token(TokenCommand::Bootstrap(options)) => {
            return crate::server::print_first_token(*options).await;
        }
        Command::Completions { shell } => {
            io::stdout().write_all(&command_line::completions(shell)).map_err(Failure::from)
        }
        Command::Context(command) => context::run(command, cli.endpoint.credentials.given()),
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
    let client = endpoint.connect().await?;
    greeting::greet(&client, &endpoint.url).await?;
    match command {
        Command::Topic(command) => topic::run(&client, command).await,
        Command::Producer(command) => producer::run(&client, command).await,
        Command::Consumer(command) => consumer::run(&client, command).await,
        Command::Produce(produce) => produce::run(&client, produce).await,
        Command::Consume(consume) => consume::run(&client, consume).await,
        Command::Token(command) => token::run(&client, command).await,
        Command::Grant(command) => grant::run(&client, command).await,
        Command::Audit(command) => audit::run(&client, command).await,
        Command::Top(top) => top::run(&client, &endpoint.url, top).await,
        Command::Quota(command) => quota::run(&client, command).await,
        Command::Whoami(options) => who_am_i::run(&client, options).await,
        Command::Bench(command) => bench::run(&client, &endpoint.url, *command).await,
        Command::Serve(_)
        | Command::Migrate(_)
        | Command::Health
        | Command::Context(_)
        | Command::Completions { .. } => Ok(()),
    }
}
