//! `trunkline consumer`: registers, describes, moves and assigns consumers, and says who is behind.

use std::io;

use clap::Subcommand;
use serde_json::json;

use super::{
    failure::Failure,
    lag::{self, LagArgs},
    output::{Table, describe, print_line},
    pages::for_each_page,
    registration::{
        self, AssignArgs, DescribeRegistrationArgs, ListRegistrationsArgs, NewRegistrationArgs,
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
    },
    /// Move a consumer's position anywhere in the log; its stream continues from there.
    Seek {
        #[command(flatten)]
        registration: RegistrationArgs,
        /// Where to continue: earliest, latest, an offset, or @TIME: RFC 3339 or an age (@15m).
        #[arg(long, value_name = "START", value_parser = start::parse)]
        to: Start,
    },
    /// Remove a consumer and its position.
    Unregister(RegistrationArgs),
    /// Give a consumer to a principal, who alone may use it then.
    Assign(AssignArgs),
    /// List a topic's consumers by id.
    List(ListRegistrationsArgs),
    /// Describe a consumer: its position, its lag, and who holds its lease.
    Describe(DescribeRegistrationArgs),
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
        ConsumerCommand::Register { registration: NewRegistrationArgs { topic, id }, from } => {
            let request = RegisterConsumerRequest {
                topic: topic.clone(),
                consumer_id: id.unwrap_or_default(),
                start: Some(from.into()),
            };
            let consumer = consumers.register_consumer(request).await?.into_inner().consumer;
            let Consumer { consumer_id: id, position, .. } = consumer.unwrap_or_default();
            print_line(
                &mut out,
                &format!("registered consumer {id} on topic {topic} at offset {position}"),
            )?;
        }
        ConsumerCommand::Seek { registration: RegistrationArgs { topic, id }, to } => {
            let request = SeekRequest {
                topic: topic.clone(),
                consumer_id: id.clone(),
                target: Some(to.into()),
            };
            let position = consumers.seek(request).await?.into_inner().position;
            print_line(
                &mut out,
                &format!("consumer {id} on topic {topic} continues at offset {position}"),
            )?;
        }
        ConsumerCommand::Unregister(RegistrationArgs { topic, id }) => {
            let request =
                UnregisterConsumerRequest { topic: topic.clone(), consumer_id: id.clone() };
            consumers.unregister_consumer(request).await?;
            print_line(&mut out, &format!("unregistered consumer {id} from topic {topic}"))?;
        }
        ConsumerCommand::Assign(assign) => {
            let registration = Registration::ConsumerId(assign.id.clone());
            registration::assign(client, "consumer", registration, assign).await?;
        }
        ConsumerCommand::List(ListRegistrationsArgs { topic, output }) => {
            let mut table =
                Table::new(&["CONSUMER", "POSITION", "HEAD", "LAG", "LAST ACTIVITY", "HOLDER"]);
            for_each_page(async |page_token| {
                let topic = topic.clone();
                let request = ListConsumersRequest { topic, page_token, ..Default::default() };
                let page = consumers.list_consumers(request).await?.into_inner();
                for consumer in page.consumers {
                    let object = object(&consumer);
                    table.row(
                        [
                            consumer.consumer_id,
                            consumer.position.to_string(),
                            consumer.head.to_string(),
                            consumer.lag.to_string(),
                            time(consumer.last_activity_time),
                            consumer.holder,
                        ],
                        object,
                    );
                }
                Ok(page.next_page_token)
            })
            .await?;
            table.print(&mut out, output)?;
        }
        ConsumerCommand::Describe(DescribeRegistrationArgs { registration, output }) => {
            let RegistrationArgs { topic, id } = registration;
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
