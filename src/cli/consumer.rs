//! `trunkline consumer`: those who read a topic.

use std::io;

use clap::Subcommand;
use serde_json::json;

use super::{
    failure::Failure,
    output::{Output, Table, describe, tell},
    render::{json_time, time},
    start,
};
use crate::{
    client::{Client, Start},
    proto::{
        Consumer, GetConsumerRequest, ListConsumersRequest, RegisterConsumerRequest, SeekRequest,
        UnregisterConsumerRequest,
    },
};

/// Register, list, describe and move those who read a topic.
#[derive(Debug, Subcommand)]
pub(super) enum ConsumerCommand {
    /// Give a consumer a position in a topic.
    Register {
        /// The topic's name.
        #[arg(long)]
        topic: String,
        /// The id to register; without one, a new one is made and printed.
        id: Option<String>,
        /// Where to start: earliest, latest, an offset, or @TIME as RFC 3339 or as an age (@15m).
        #[arg(long, default_value = "earliest", value_name = "START", value_parser = start::parse)]
        from: Start,
    },
    /// Move a consumer's position anywhere in the log; a stream of it goes on from there.
    Seek {
        /// The topic's name.
        #[arg(long)]
        topic: String,
        /// The consumer's id.
        id: String,
        /// Where to go on: earliest, latest, an offset, or @TIME as RFC 3339 or as an age (@15m).
        #[arg(long, value_name = "START", value_parser = start::parse)]
        to: Start,
    },
    /// Forget a consumer and its position.
    Unregister {
        /// The topic's name.
        #[arg(long)]
        topic: String,
        /// The id that was registered.
        id: String,
    },
    /// List a topic's consumers by id.
    List {
        /// The topic's name.
        #[arg(long)]
        topic: String,
        /// How to print.
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// Describe a consumer: where it stands, how far behind, who holds it.
    Describe {
        /// The topic's name.
        #[arg(long)]
        topic: String,
        /// The consumer's id.
        id: String,
        /// How to print.
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
}

pub(super) async fn run(client: &Client, command: ConsumerCommand) -> Result<(), Failure> {
    let mut consumers = client.consumers();
    let mut out = io::stdout();
    match command {
        ConsumerCommand::Register { topic, id, from } => {
            let request = RegisterConsumerRequest {
                topic: topic.clone(),
                consumer_id: id.unwrap_or_default(),
                start: Some(from.into()),
            };
            let consumer = consumers.register_consumer(request).await?.into_inner().consumer;
            let Consumer { consumer_id: id, position, .. } = consumer.unwrap_or_default();
            tell(
                &mut out,
                &format!("registered consumer {id} on topic {topic} at offset {position}"),
            )?;
        }
        ConsumerCommand::Seek { topic, id, to } => {
            let request = SeekRequest {
                topic: topic.clone(),
                consumer_id: id.clone(),
                target: Some(to.into()),
            };
            let position = consumers.seek(request).await?.into_inner().position;
            tell(
                &mut out,
                &format!("consumer {id} on topic {topic} goes on at offset {position}"),
            )?;
        }
        ConsumerCommand::Unregister { topic, id } => {
            let (of_topic, consumer_id) = (topic.clone(), id.clone());
            let request = UnregisterConsumerRequest { topic: of_topic, consumer_id };
            consumers.unregister_consumer(request).await?;
            tell(&mut out, &format!("unregistered consumer {id} from topic {topic}"))?;
        }
        ConsumerCommand::List { topic, output } => {
            let mut table =
                Table::new(&["CONSUMER", "POSITION", "HEAD", "LAG", "LAST ACTIVITY", "HOLDER"]);
            let mut request = ListConsumersRequest { topic, ..Default::default() };
            loop {
                let page = consumers.list_consumers(request.clone()).await?.into_inner();
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
                request.page_token = page.next_page_token;
                if request.page_token.is_empty() {
                    break;
                }
            }
            table.print(&mut out, output)?;
        }
        ConsumerCommand::Describe { topic, id, output } => {
            let request = GetConsumerRequest { topic, consumer_id: id };
            let consumer = consumers.get_consumer(request).await?.into_inner().consumer;
            let consumer = consumer.unwrap_or_default();
            let lines = [
                ("consumer", consumer.consumer_id.clone()),
                ("topic", consumer.topic.clone()),
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
    }
    Ok(())
}

fn object(consumer: &Consumer) -> serde_json::Value {
    json!({
        "topic": consumer.topic,
        "consumer_id": consumer.consumer_id,
        "position": consumer.position,
        "head": consumer.head,
        "lag": consumer.lag,
        "epoch": consumer.epoch,
        "holder": consumer.holder,
        "create_time": json_time(consumer.create_time),
        "last_activity_time": json_time(consumer.last_activity_time),
    })
}
