//! The `trunkline` command.

use std::{io, process::ExitCode};

use tokio::runtime::Runtime;
use trunkline::cli;

fn main() -> io::Result<ExitCode> {
    cli::answer_shell();
    let cli = cli::parse();
    keep_memory();
    let runtime = Runtime::new()?;
    let exit_code = runtime.block_on(cli::run(cli));
    // Does not wait for blocking reads, as one from a terminal or a quiet pipe might never end.
    runtime.shutdown_background();
    Ok(exit_code)
}

/// Makes glibc keep freed memory for frames and batches, which allocate about a megabyte at a time.
///
/// glibc returns free memory to the system beyond twice the largest block that it has ever mapped, and
/// then gets it back zeroed, page by page: measured, a third of a broker's work while it read a log.
/// Mapping a large block once, without touching its pages, raises that threshold. After a peak, some
/// tens of megabytes then stay allocated in each of glibc's arenas. With other allocators this has no
/// effect.
fn keep_memory() {
    /// glibc caps the threshold at twice 32 MiB.
    const LARGEST: usize = 31 * 1024 * 1024;
    drop(std::hint::black_box(Vec::<u8>::with_capacity(LARGEST)));
}
