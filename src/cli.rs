//! The `trunkline` command.

use clap::{Parser, Subcommand};

use crate::server::options::ServeOptions;

/// A streaming message broker that lives in PostgreSQL.
#[derive(Debug, Parser)]
#[command(version, about)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the command can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a broker.
    Serve(ServeOptions),
}
