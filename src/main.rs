//! The `trunkline` command.

use std::{io, process::ExitCode};

use tokio::runtime::Runtime;
use trunkline::cli;

fn main() -> io::Result<ExitCode> {
    let cli = cli::parse();
    keep_memory();
    let runtime = Runtime::new()?;
    let exit_code = runtime.block_on(cli::run(cli));
    // A read from a terminal or a pipe that nothing more comes from would never end.
    runtime.shutdown_background();
    Ok(exit_code)
}

/// Frames and batches of a megabyte come and go all the time. glibc gives free memory back to the
/// system beyond twice the largest block that it ever took from there, and then takes it again,
/// zeroed page by page: measured, a third of what a broker did while it read a log. A large block
/// taken once, which no page is touched of, moves that bound out of the way: after a peak some tens of
/// megabytes stay for each of glibc's arenas. Elsewhere it does nothing.
fn keep_memory() {
    /// The bound never goes beyond twice 32 MiB.
    const LARGEST: usize = 31 * 1024 * 1024;
    drop(std::hint::black_box(Vec::<u8>::with_capacity(LARGEST)));
}
