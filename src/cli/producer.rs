//! `trunkline producer`: those who may publish to a topic.

use std::io;

use clap::Subcommand;
use serde_json::json;

use super::{
    failure::Failure,
    output::{Output, Table, describe, tell},
    render::{json_time, time},
};
use crate::{
    client::Client,
    proto::{
        GetProducerRequest, ListProducersRequest, Producer, RegisterProducerRequest,
        UnregisterProducerRequest,
    },
};

/// Register, list and describe those who may publish to a topic.
#[derive(Debug, Subcommand)]
pub(super) enum ProducerCommand {
    /// Allow a producer to publish to a topic.
    Register {
        /// The topic's name.
        #[arg(long)]
        topic: String,
        /// The id to register; without one, a new one is made and printed.
        id: Option<String>,
        /// Register it again if it is registered, and shut its older instances out.
        #[arg(long)]
        fence: bool,
    },
    /// Take the right to publish away.
    Unregister {
        /// The topic's name.
        #[arg(long)]
        topic: String,
        /// The id that was registered.
        id: String,
    },
    /// List a topic's producers by id.
    List {
        /// The topic's name.
        #[arg(long)]
        topic: String,
        /// How to print.
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// Describe a producer: its epoch, and how far it has published.
    Describe {
        /// The topic's name.
        #[arg(long)]
        topic: String,
        /// The producer's id.
        id: String,
        /// How to print.
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
}

pub(super) async fn run(client: &Client, command: ProducerCommand) -> Result<(), Failure> {
    let mut producers = client.producers();
    let mut out = io::stdout();
    match command {
        ProducerCommand::Register { topic, id, fence } => {
            let (of_topic, producer_id) = (topic.clone(), id.unwrap_or_default());
            let request = RegisterProducerRequest { topic: of_topic, producer_id, fence };
            let registered = producers.register_producer(request).await?.into_inner();
            let Producer { producer_id: id, epoch, .. } = registered.producer.unwrap_or_default();
            let with_epoch = if fence { format!(" with epoch {epoch}") } else { String::new() };
            tell(&mut out, &format!("registered producer {id} on topic {topic}{with_epoch}"))?;
        }
        ProducerCommand::Unregister { topic, id } => {
            let (of_topic, producer_id) = (topic.clone(), id.clone());
            let request = UnregisterProducerRequest { topic: of_topic, producer_id };
            producers.unregister_producer(request).await?;
            tell(&mut out, &format!("unregistered producer {id} from topic {topic}"))?;
        }
        ProducerCommand::List { topic, output } => {
            let mut table =
                Table::new(&["PRODUCER", "EPOCH", "LAST OFFSET", "LAST PUBLISHED", "REGISTERED"]);
            let mut request = ListProducersRequest { topic, ..Default::default() };
            loop {
                let page = producers.list_producers(request.clone()).await?.into_inner();
                for producer in page.producers {
                    let object = object(&producer);
                    let last = number(producer.last_offset);
                    table.row(
                        [
                            producer.producer_id,
                            producer.epoch.to_string(),
                            last,
                            time(producer.last_publish_time),
                            time(producer.create_time),
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
        ProducerCommand::Describe { topic, id, output } => {
            let request = GetProducerRequest { topic, producer_id: id };
            let producer = producers.get_producer(request).await?.into_inner().producer;
            let producer = producer.unwrap_or_default();
            let lines = [
                ("producer", producer.producer_id.clone()),
                ("topic", producer.topic.clone()),
                ("epoch", producer.epoch.to_string()),
                ("last offset", number(producer.last_offset)),
                ("last sequence", number(producer.last_sequence)),
                ("last published", time(producer.last_publish_time)),
                ("registered", time(producer.create_time)),
            ];
            describe(&mut out, output, &lines, &object(&producer))?;
        }
    }
    Ok(())
}

fn object(producer: &Producer) -> serde_json::Value {
    json!({
        "topic": producer.topic,
        "producer_id": producer.producer_id,
        "epoch": producer.epoch,
        "last_offset": producer.last_offset,
        "last_sequence": producer.last_sequence,
        "last_publish_time": json_time(producer.last_publish_time),
        "create_time": json_time(producer.create_time),
    })
}

/// A number for people; a dash where there is none.
fn number(number: Option<i64>) -> String {
    number.map_or("-".to_owned(), |number| number.to_string())
}
