//! `trunkline man`: prints the manual.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use clap::{Args, Command};
use clap_mangen::Man;

use super::{failure::Failure, output::print_line};

/// Print the manual page of this command.
#[derive(Args, Debug)]
pub(super) struct ManArgs {
    /// Write a page for this command and one for each subcommand into this folder instead, which is
    /// created if it does not exist.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(super) fn run(args: ManArgs, command: Command) -> Result<(), Failure> {
    if let Some(folder) = args.out {
        return write_all(&folder, command);
    }
    let mut page = Vec::new();
    Man::new(command).render(&mut page)?;
    Ok(io::stdout().write_all(&page)?)
}

fn write_all(folder: &Path, command: Command) -> Result<(), Failure> {
    let write = || {
        fs::create_dir_all(folder)?;
        clap_mangen::generate_to(command, folder)
    };
    let folder = folder.display();
    write()
        .map_err(|error| Failure::refused(format!("write manual pages to {folder}: {error}")))?;
    Ok(print_line(&mut io::stdout(), &format!("wrote the manual pages to {folder}"))?)
}
