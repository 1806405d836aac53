//! The `trunkline` command.

use std::process::ExitCode;

use clap::Parser as _;
use trunkline::{
    cli::{Cli, Command},
    server,
};

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command {
        Command::Serve(options) => server::serve(options).await,
    }
}
