//! The `trunkline` command.

use std::process::ExitCode;

use clap::Parser as _;
use trunkline::cli::{self, Cli};

#[tokio::main]
async fn main() -> ExitCode {
    cli::run(Cli::parse()).await
}
