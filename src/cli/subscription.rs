//! `trunkline subscription`: creates, describes, changes, moves and deletes subscriptions, and says what
//! becomes of parked messages.

mod parked;
mod policy;
mod standing;

use std::io;

use clap::Subcommand;
use prost_types::FieldMask;
use serde_json::{Value, json};

use super::{
    all_topics::in_all_topics,
    confirmation,
    failure::Failure,
    output::{OutputArgs, Table, confirm, describe},
    pages::for_each_page,
    plural::count,
    registration::{
        ListRegistrationsArgs, Names, NewRegistrationArgs, OneRegistrationArgs, RegistrationArgs,
    },
    start,
    timestamp::{json_time, time},
};
use crate::{
    client::{Client, Start},
    proto::{
        CreateSubscriptionRequest, DeleteSubscriptionRequest, GetSubscriptionRequest,
        ListSubscriptionsRequest, SeekSubscriptionRequest, Subscription, UpdateSubscriptionRequest,
    },
};
use parked::{DiscardArgs, SelectedArgs};
use policy::{PolicyArgs, PolicyUpdate};

/// Create, list, describe, change, move and delete subscriptions, and see what is parked.
#[derive(Debug, Subcommand)]
pub(super) enum SubscriptionCommand {
    /// Create a subscription: a consumer whose messages many workers share.
    Create {
        #[command(flatten)]
        registration: NewRegistrationArgs,
        /// Where to start: earliest, latest, an offset, or @TIME: RFC 3339 or an age (@15m).
        #[arg(long, default_value = "earliest", value_name = "START", value_parser = start::parse)]
        from: Start,
        #[command(flatten)]
        policy: PolicyArgs,
        /// If it exists already, succeed, and leave it as it is.
        #[arg(long)]
        if_missing: bool,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// List the subscriptions of a topic, or of all topics.
    ///
    /// All messages before FLOOR are acknowledged, retried, parked or removed. RETRIED is how many are
    /// kept to be delivered again, PARKED how many are not delivered any more.
    #[command(visible_alias = "ls")]
    List(ListRegistrationsArgs),
    /// Describe a subscription: how far it is, what is left to do, who works on it, and how it delivers.
    ///
    /// UNACKNOWLEDGED is how many messages of the log are left to do, without parked ones, and LOST how many
    /// were removed before they were acknowledged. WORKERS wait for messages or have some; OUTSTANDING is
    /// how many they have.
    Describe(OneRegistrationArgs),
    /// Change how a subscription delivers messages; anything not given stays as it is.
    ///
    /// Workers keep the messages that they have, and their deadlines.
    Update {
        #[command(flatten)]
        registration: RegistrationArgs,
        #[command(flatten)]
        policy: PolicyArgs,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Move a subscription anywhere in the log: all messages from there on are delivered again.
    ///
    /// What lies before counts as acknowledged, and what waits to be delivered again is forgotten. Parked
    /// messages stay parked.
    Seek {
        #[command(flatten)]
        registration: RegistrationArgs,
        /// Where to continue: earliest, latest, an offset, or @TIME: RFC 3339 or an age (@15m).
        #[arg(long, value_name = "START", value_parser = start::parse)]
        to: Start,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Delete a subscription, and what it knows of its messages.
    ///
    /// On a terminal, it asks first.
    #[command(visible_alias = "rm")]
    Delete {
        #[command(flatten)]
        registration: RegistrationArgs,
        /// Do not ask.
        #[arg(short, long)]
        yes: bool,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// List the messages that are parked: those that are not delivered any more.
    Parked(OneRegistrationArgs),
    /// Deliver parked messages again, at once and as if for the first time.
    Replay(SelectedArgs),
    /// Acknowledge parked messages, which are then forgotten. They stay in the topic's log.
    ///
    /// On a terminal, it asks first.
    Discard(DiscardArgs),
}

pub(super) async fn run(client: &Client, command: SubscriptionCommand) -> Result<(), Failure> {
    let mut subscriptions = client.subscriptions();
    let mut out = io::stdout();
    match command {
        SubscriptionCommand::Create { registration, from, policy, if_missing, output } => {
            let Names { topic, id } = registration.names();
            let request = CreateSubscriptionRequest {
                topic: topic.clone(),
                subscription_id: id,
                policy: Some(policy.into_update().policy),
                start: Some(from.into()),
                if_missing,
            };
            let created = subscriptions.create_subscription(request).await?.into_inner();
            let subscription = created.subscription.unwrap_or_default();
            let Subscription { subscription_id: id, floor, .. } = &subscription;
            let line = match created.existed {
                true => format!("subscription {id} exists on topic {topic} at offset {floor}"),
                false => format!("created subscription {id} on topic {topic} at offset {floor}"),
            };
            confirm(&mut out, output, &line, &object(&subscription))?;
        }
        SubscriptionCommand::List(args) => list(client, &args).await?,
        SubscriptionCommand::Describe(OneRegistrationArgs { registration, output }) => {
            let subscription = get(client, registration.names()).await?;
            let policy = policy::describe(&subscription.policy.clone().unwrap_or_default());
            let mut lines = vec![
                ("subscription", subscription.subscription_id.clone()),
                ("topic", subscription.topic.clone()),
                ("owner", subscription.owner.clone()),
                ("floor", subscription.floor.to_string()),
                ("head", subscription.head.to_string()),
                ("retried", subscription.retried_messages.to_string()),
                ("parked", subscription.parked_messages.to_string()),
            ];
            lines.extend(standing::describe(&subscription));
            lines.extend(policy);
            lines.push(("created", time(subscription.create_time)));
            let object = standing::added_to(object(&subscription), &subscription);
            describe(&mut out, output, &lines, &object)?;
        }
        SubscriptionCommand::Update { registration, policy, output } => {
            let Names { topic, id } = registration.names();
            let PolicyUpdate { policy, paths } = policy.into_update();
            if paths.is_empty() {
                return Err(Failure::usage("nothing to change; --help lists what can be changed"));
            }
            let request = UpdateSubscriptionRequest {
                topic: topic.clone(),
                subscription_id: id.clone(),
                policy: Some(policy),
                update_mask: Some(FieldMask { paths }),
            };
            let updated = subscriptions.update_subscription(request).await?.into_inner();
            let line = format!("changed subscription {id} on topic {topic}");
            let object = object(&updated.subscription.unwrap_or_default());
            confirm(&mut out, output, &line, &object)?;
        }
        SubscriptionCommand::Seek { registration, to, output } => {
            let Names { topic, id } = registration.names();
            let (target, subscription_id) = (Some(to.into()), id.clone());
            let request = SeekSubscriptionRequest { topic: topic.clone(), subscription_id, target };
            let floor = subscriptions.seek_subscription(request).await?.into_inner().floor;
            let line = format!("subscription {id} on topic {topic} continues at offset {floor}");
            let object = json!({ "topic": topic, "subscription_id": id, "position": floor });
            confirm(&mut out, output, &line, &object)?;
        }
        SubscriptionCommand::Delete { registration, yes, output } => {
            let names = registration.names();
            if !yes && confirmation::is_possible() {
                confirmation::ask(&question(client, names.clone()).await?)?;
            }
            let Names { topic, id } = names;
            let request =
                DeleteSubscriptionRequest { topic: topic.clone(), subscription_id: id.clone() };
            subscriptions.delete_subscription(request).await?;
            let line = format!("deleted subscription {id} from topic {topic}");
            let object = json!({ "topic": topic, "subscription_id": id });
            confirm(&mut out, output, &line, &object)?;
        }
        SubscriptionCommand::Parked(OneRegistrationArgs { registration, output }) => {
            parked::list(client, registration.names(), output).await?;
        }
        SubscriptionCommand::Replay(selected) => parked::replay(client, selected).await?,
        SubscriptionCommand::Discard(args) => parked::discard(client, args).await?,
    }
    Ok(())
}

async fn get(client: &Client, Names { topic, id }: Names) -> Result<Subscription, Failure> {
    let request = GetSubscriptionRequest { topic, subscription_id: id };
    let got = client.subscriptions().get_subscription(request).await?.into_inner();
    Ok(got.subscription.unwrap_or_default())
}

/// What to ask before a subscription is deleted.
async fn question(client: &Client, names: Names) -> Result<String, Failure> {
    let Subscription { topic, subscription_id, retried_messages, parked_messages, .. } =
        get(client, names).await?;
    let retried = count(retried_messages.unsigned_abs(), "message");
    let parked = parked_messages.unsigned_abs();
    Ok(format!(
        "delete subscription {subscription_id} of topic {topic}, with {retried} to deliver again and \
         {parked} parked?"
    ))
}

async fn list(client: &Client, args: &ListRegistrationsArgs) -> Result<(), Failure> {
    let subscriptions = match args.topic() {
        Some(topic) => of_topic(client, topic.to_owned()).await?,
        None => in_all_topics(client, |topic| of_topic(client, topic)).await?,
    };
    let several = args.topic().is_none();
    let columns = ["SUBSCRIPTION", "FLOOR", "HEAD", "RETRIED", "PARKED", "CREATED"];
    let mut table = Table::of_topics(several, &columns);
    for subscription in subscriptions {
        let object = object(&subscription);
        let Subscription { topic, subscription_id, floor, head, .. } = subscription;
        let (retried, parked) = (subscription.retried_messages, subscription.parked_messages);
        let [floor, head, retried, parked] =
            [floor, head, retried, parked].map(|number| number.to_string());
        let created = time(subscription.create_time);
        let cells = [subscription_id, floor, head, retried, parked, created];
        table.topic_row(several.then_some(&topic), cells, object);
    }
    Ok(table.print(&mut io::stdout(), args.output)?)
}

async fn of_topic(client: &Client, topic: String) -> Result<Vec<Subscription>, Failure> {
    let mut subscriptions = Vec::new();
    for_each_page(async |page_token| {
        let topic = topic.clone();
        let request = ListSubscriptionsRequest { topic, page_token, ..Default::default() };
        let page = client.subscriptions().list_subscriptions(request).await?.into_inner();
        subscriptions.extend(page.subscriptions);
        Ok(page.next_page_token)
    })
    .await?;
    Ok(subscriptions)
}

fn object(subscription: &Subscription) -> Value {
    json!({
        "topic": subscription.topic,
        "subscription_id": subscription.subscription_id,
        "owner": subscription.owner,
        "floor": subscription.floor,
        "head": subscription.head,
        "retried_messages": subscription.retried_messages,
        "parked_messages": subscription.parked_messages,
        "policy": policy::object(&subscription.policy.clone().unwrap_or_default()),
        "create_time": json_time(subscription.create_time),
    })
}
