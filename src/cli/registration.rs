//! Arguments that the commands for producers and for consumers share.

use clap::Args;

use super::output::OutputArgs;

/// A producer or consumer to register on a topic.
#[derive(Args, Debug)]
pub(super) struct NewRegistration {
    /// The topic's name.
    #[arg(long)]
    pub(super) topic: String,
    /// The id to register; if omitted, the broker creates one, and it is printed.
    pub(super) id: Option<String>,
}

/// A producer or consumer that is registered on a topic.
#[derive(Args, Debug)]
pub(super) struct Registration {
    /// The topic's name.
    #[arg(long)]
    pub(super) topic: String,
    /// The registered id.
    pub(super) id: String,
}

/// The producers or consumers of a topic.
#[derive(Args, Debug)]
pub(super) struct ListRegistrations {
    /// The topic's name.
    #[arg(long)]
    pub(super) topic: String,
    #[command(flatten)]
    pub(super) output: OutputArgs,
}
