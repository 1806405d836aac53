//! The `trunkline` command.

use std::{io, process::ExitCode};

use clap::Parser as _;
use tokio::runtime::Runtime;
use trunkline::cli::{self, Cli};

fn main() -> io::Result<ExitCode> {
    let cli = Cli::parse();
    let runtime = Runtime::new()?;
    let exit_code = runtime.block_on(cli::run(cli));
    // A read from a terminal or a pipe that nothing more comes from would never end.
    runtime.shutdown_background();
    Ok(exit_code)
}
