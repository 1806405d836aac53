//! `trunkline consumer`: registers, describes, moves and assigns consumers, and says who is behind.

use std::io;

use clap::Subcommand;
use serde_json::json;

use super::{
    all_topics::in_all_topics,
    failure::Failure,
    lag::{self, LagArgs},
    output::{OutputArgs, Table, confirm, describe},
    pages::for_each_page,
    registration::{
        self, AssignArgs, ListRegistrationsArgs, Names, NewRegistrationArgs, OneRegistrationArgs,
        RegistrationArgs,
    },
    start,
    timestamp::{json_time, time},
};
use crate::{
    client::{Client, Start},
    proto::{
        Consumer, GetConsumerRequest, ListConsumersRequest, RegisterConsumerRequest, SeekRequest,
        UnregisterConsumerRequest, assign_owner_request::Registration,
    },
};

/// Register, list, describe, move and assign consumers, and see which are behind.
#[derive(Debug, Subcommand)]
pub(super) enum ConsumerCommand {
    /// Give a consumer a position in a topic.
    Register {
        #[command(flatten)]
        registration: NewRegistrationArgs,
        /// Where to start: earliest, latest, an offset, or @TIME: RFC 3339 or an age (@15m).
        #[arg(long, default_value = "earliest", value_name = "START", value_parser = start::parse)]
        from: Start,
        /// If the id is registered already, succeed, and leave its position alone.
        #[arg(long)]
        if_missing: bool,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Move a consumer's position anywhere in the log; its stream continues from there.
    Seek {
        #[command(flatten)]
        registration: RegistrationArgs,
        /// Where to continue: earliest, latest, an offset, or @TIME: RFC 3339 or an age (@15m).
        #[arg(long, value_name = "START", value_parser = start::parse)]
        to: Start,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Remove a consumer and its position.
    #[command(visible_alias = "rm")]
    Unregister(OneRegistrationArgs),
    /// Give a consumer to a principal, who alone may use it then.
    Assign(AssignArgs),
    /// List the consumers of a topic, or of all topics.
    #[command(visible_alias = "ls")]
    List(ListRegistrationsArgs),
    /// Describe a consumer: its position, its lag, and who holds its lease.
    Describe(OneRegistrationArgs),
    /// List the consumers that are behind, those with the most messages left first.
    ///
    /// LAG is how many messages are left. BEHIND is how long ago the message at the consumer's
    /// position was stored, by the clock of this machine; "-" if it was removed or may not be read.
    Lag(LagArgs),
}

pub(super) async fn run(client: &Client, command: ConsumerCommand) -> Result<(), Failure> {
    let mut consumers = client.consumers();
    let mut out = io::stdout();
    match command {
        ConsumerCommand::Register { registration, from, if_missing, output } => {
            let Names { topic, id } = registration.names();
            let request = RegisterConsumerRequest {
                topic: topic.clone(),
                consumer_id: id,
                start: Some(from.into()),
                if_missing,
            };
            let registered = consumers.register_consumer(request).await?.into_inner();
            let consumer = registered.consumer.unwrap_or_default();
            let Consumer { consumer_id: id, position, .. } = &consumer;
            let line = match registered.existed {
                true => {
                    format!("consumer {id} is registered on topic {topic} at offset {position}")
                }
                false => format!("registered consumer {id} on topic {topic} at offset {position}"),
            };
            confirm(&mut out, output, &line, &object(&consumer))?;
        }
        ConsumerCommand::Seek { registration, to, output } => {
            let Names { topic, id } = registration.names();
            let request = SeekRequest {
                topic: topic.clone(),
                consumer_id: id.clone(),
                target: Some(to.into()),
            };
            let position = consumers.seek(request).await?.into_inner().position;
            let line = format!("consumer {id} on topic {topic} continues at offset {position}");
            let object = json!({ "topic": topic, "consumer_id": id, "position": position });
            confirm(&mut out, output, &line, &object)?;
        }
        ConsumerCommand::Unregister(OneRegistrationArgs { registration, output }) => {
            let Names { topic, id } = registration.names();
            let request =
                UnregisterConsumerRequest { topic: topic.clone(), consumer_id: id.clone() };
            consumers.unregister_consumer(request).await?;
            let line = format!("unregistered consumer {id} from topic {topic}");
            let object = json!({ "topic": topic, "consumer_id": id });
            confirm(&mut out, output, &line, &object)?;
        }
        ConsumerCommand::Assign(assign) => {
            registration::assign(client, "consumer", Registration::ConsumerId, assign).await?;
        }
        ConsumerCommand::List(args) => list(client, &args).await?,
        ConsumerCommand::Describe(OneRegistrationArgs { registration, output }) => {
            let Names { topic, id } = registration.names();
            let request = GetConsumerRequest { topic, consumer_id: id };
            let consumer = consumers.get_consumer(request).await?.into_inner().consumer;
            let consumer = consumer.unwrap_or_default();
            let lines = [
                ("consumer", consumer.consumer_id.clone()),
                ("topic", consumer.topic.clone()),
                ("owner", consumer.owner.clone()),
                ("position", consumer.position.to_string()),
                ("head", consumer.head.to_string()),
                ("lag", consumer.lag.to_string()),
                ("epoch", consumer.epoch.to_string()),
                ("holder", consumer.holder.clone()),
                ("registered", time(consumer.create_time)),
                ("last activity", time(consumer.last_activity_time)),
            ];
            describe(&mut out, output, &lines, &object(&consumer))?;
        }
        ConsumerCommand::Lag(args) => lag::run(client, args).await?,
    }
    Ok(())
}

async fn list(client: &Client, args: &ListRegistrationsArgs) -> Result<(), Failure> {
    let consumers = match args.topic() {
        Some(topic) => of_topic(client, topic.to_owned()).await?,
        None => in_all_topics(client, |topic| of_topic(client, topic)).await?,
    };
    let several = args.topic().is_none();
    let columns = ["CONSUMER", "POSITION", "HEAD", "LAG", "LAST ACTIVITY", "HOLDER"];
    let mut table = Table::of_topics(several, &columns);
    for consumer in consumers {
        let object = object(&consumer);
        let Consumer { topic, consumer_id, position, head, lag, holder, .. } = consumer;
        let activity = time(consumer.last_activity_time);
        let [position, head, lag] = [position, head, lag].map(|number| number.to_string());
        let cells = [consumer_id, position, head, lag, activity, holder];
        table.topic_row(several.then_some(&topic), cells, object);
    }
    Ok(table.print(&mut io::stdout(), args.output)?)
}

async fn of_topic(client: &Client, topic: String) -> Result<Vec<Consumer>, Failure> {
    let mut consumers = Vec::new();
    for_each_page(async |page_token| {
        let topic = topic.clone();
        let request = ListConsumersRequest { topic, page_token, ..Default::default() };
        let page = client.consumers().list_consumers(request).await?.into_inner();
        consumers.extend(page.consumers);
        Ok(page.next_page_token)
    })
    .await?;
    Ok(consumers)
}

fn object(consumer: &Consumer) -> serde_json::Value {
    json!({
        "topic": consumer.topic,
        "consumer_id": consumer.consumer_id,
        "owner": consumer.owner,
        "position": consumer.position,
        "head": consumer.head,
        "lag": consumer.lag,
        "epoch": consumer.epoch,
        "holder": consumer.holder,
        "create_time": json_time(consumer.create_time),
        "last_activity_time": json_time(consumer.last_activity_time),
    })
}
