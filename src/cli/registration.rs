//! What the commands for producers and for consumers share.

use std::io;

use clap::Args;

use super::{
    failure::Failure,
    output::{OutputArgs, print_line},
};
use crate::{
    client::Client,
    proto::{AssignOwnerRequest, assign_owner_request::Registration},
};

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

/// A producer or consumer to give to a principal.
#[derive(Args, Debug)]
pub(super) struct AssignArgs {
    /// The topic's name.
    #[arg(long)]
    pub(super) topic: String,
    /// The registered id.
    pub(super) id: String,
    /// The new owner.
    principal: String,
}

/// Gives a producer or consumer, as `kind` calls it, to a principal.
pub(super) async fn assign(
    client: &Client,
    kind: &str,
    registration: Registration,
    AssignArgs { topic, id, principal }: AssignArgs,
) -> Result<(), Failure> {
    let request = AssignOwnerRequest {
        topic: topic.clone(),
        registration: Some(registration),
        principal: principal.clone(),
    };
    client.access().assign_owner(request).await?;
    print_line(&mut io::stdout(), &format!("{kind} {id} on topic {topic} belongs to {principal}"))?;
    Ok(())
}
