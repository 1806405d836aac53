//! Arguments that the commands for producers and for consumers share.

use clap::Args;

use super::output::OutputArgs;

/// A producer or consumer to register on a topic.
#[derive(Args, Debug)]
pub(super) struct NewRegistrationArgs {
    /// The topic's name.
    #[arg(long)]
    pub(super) topic: String,
    /// The id to register; if omitted, the broker creates one, and it is printed.
    pub(super) id: Option<String>,
}

/// A producer or consumer that is registered on a topic.
#[derive(Args, Debug)]
pub(super) struct RegistrationArgs {
    /// The topic's name.
    #[arg(long)]
    pub(super) topic: String,
    /// The registered id.
    pub(super) id: String,
}

/// The producers or consumers of a topic.
#[derive(Args, Debug)]
pub(super) struct ListRegistrationsArgs {
    /// The topic's name.
    #[arg(long)]
    pub(super) topic: String,
    #[command(flatten)]
    pub(super) output: OutputArgs,
}

/// A producer or consumer to describe.
#[derive(Args, Debug)]
pub(super) struct DescribeRegistrationArgs {
    #[command(flatten)]
    pub(super) registration: RegistrationArgs,
    #[command(flatten)]
    pub(super) output: OutputArgs,
}
