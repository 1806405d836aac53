//! What the commands for producers, for consumers and for subscriptions share.

use std::io;

use clap::Args;
use serde_json::json;

use super::{
    failure::Failure,
    output::{OutputArgs, confirm},
};
use crate::{
    client::Client,
    proto::{AssignOwnerRequest, assign_owner_request::Registration},
};

/// A producer, consumer or subscription, and its topic.
#[derive(Clone)]
pub(super) struct Names {
    pub(super) topic: String,
    pub(super) id: String,
}

/// A producer or consumer to register on a topic: `TOPIC [ID]`, or `--topic TOPIC [ID]`.
#[derive(Args, Debug)]
pub(super) struct NewRegistrationArgs {
    /// The topic's name.
    #[arg(value_name = "TOPIC", required_unless_present = "topic")]
    first: Option<String>,
    /// The id to register; if omitted, the broker creates one, and it is printed.
    #[arg(value_name = "ID", conflicts_with = "topic")]
    second: Option<String>,
    #[arg(long, value_name = "TOPIC", hide = true)]
    topic: Option<String>,
}

impl NewRegistrationArgs {
    /// The id is empty if the broker is to create one.
    pub(super) fn names(self) -> Names {
        let Self { first, second, topic } = self;
        let (topic, id) = match topic {
            Some(topic) => (Some(topic), first),
            None => (first, second),
        };
        Names { topic: topic.unwrap_or_default(), id: id.unwrap_or_default() }
    }
}

/// A producer or consumer that is registered on a topic: `TOPIC ID`, or `--topic TOPIC ID`.
#[derive(Args, Debug)]
pub(super) struct RegistrationArgs {
    /// The topic's name.
    #[arg(value_name = "TOPIC")]
    first: String,
    /// The registered id.
    #[arg(value_name = "ID", required_unless_present = "topic", conflicts_with = "topic")]
    second: Option<String>,
    #[arg(long, value_name = "TOPIC", hide = true)]
    topic: Option<String>,
}

impl RegistrationArgs {
    pub(super) fn names(self) -> Names {
        let Self { first, second, topic } = self;
        match topic {
            Some(topic) => Names { topic, id: first },
            None => Names { topic: first, id: second.unwrap_or_default() },
        }
    }
}

/// The producers or consumers of a topic, or of all topics.
#[derive(Args, Debug)]
pub(super) struct ListRegistrationsArgs {
    /// The topic's name; all topics if omitted.
    #[arg(value_name = "TOPIC")]
    first: Option<String>,
    #[arg(long, value_name = "TOPIC", hide = true, conflicts_with = "first")]
    topic: Option<String>,
    #[command(flatten)]
    pub(super) output: OutputArgs,
}

impl ListRegistrationsArgs {
    /// The topic, if one is given.
    pub(super) fn topic(&self) -> Option<&str> {
        self.first.as_deref().or(self.topic.as_deref())
    }
}

/// A producer or consumer to describe or to remove.
#[derive(Args, Debug)]
pub(super) struct OneRegistrationArgs {
    #[command(flatten)]
    pub(super) registration: RegistrationArgs,
    #[command(flatten)]
    pub(super) output: OutputArgs,
}

/// A producer or consumer to give to a principal: `TOPIC ID PRINCIPAL`, or
/// `--topic TOPIC ID PRINCIPAL`.
#[derive(Args, Debug)]
pub(super) struct AssignArgs {
    /// The topic's name.
    #[arg(value_name = "TOPIC")]
    first: String,
    /// The registered id.
    #[arg(value_name = "ID")]
    second: String,
    /// The new owner.
    #[arg(value_name = "PRINCIPAL", required_unless_present = "topic", conflicts_with = "topic")]
    third: Option<String>,
    #[arg(long, value_name = "TOPIC", hide = true)]
    topic: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
}

/// Gives a producer or consumer, as `kind` calls it, to a principal.
pub(super) async fn assign(
    client: &Client,
    kind: &str,
    registration: fn(String) -> Registration,
    AssignArgs { first, second, third, topic, output }: AssignArgs,
) -> Result<(), Failure> {
    let (topic, id, principal) = match topic {
        Some(topic) => (topic, first, second),
        None => (first, second, third.unwrap_or_default()),
    };
    let request = AssignOwnerRequest {
        topic: topic.clone(),
        registration: Some(registration(id.clone())),
        principal: principal.clone(),
    };
    client.access().assign_owner(request).await?;
    let line = format!("{kind} {id} on topic {topic} belongs to {principal}");
    let object = json!({ "topic": topic, format!("{kind}_id"): id, "owner": principal });
    Ok(confirm(&mut io::stdout(), output, &line, &object)?)
}
