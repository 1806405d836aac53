//! `trunkline producer`: registers, describes and assigns the producers of a topic.

use std::io;

use clap::Subcommand;
use serde_json::json;

use super::{
    failure::Failure,
    output::{Table, describe, print_line},
    pages::for_each_page,
    registration::{
        self, AssignArgs, DescribeRegistrationArgs, ListRegistrationsArgs, NewRegistrationArgs,
        RegistrationArgs,
    },
    timestamp::{json_time, time},
};
use crate::{
    client::Client,
    proto::{
        GetProducerRequest, ListProducersRequest, Producer, RegisterProducerRequest,
        UnregisterProducerRequest, assign_owner_request::Registration,
    },
};

/// Register, list, describe and assign the producers of a topic.
#[derive(Debug, Subcommand)]
pub(super) enum ProducerCommand {
    /// Allow a producer to publish to a topic.
    Register {
        #[command(flatten)]
        registration: NewRegistrationArgs,
        /// If the id is registered already, register it again and fence its older instances.
        #[arg(long)]
        fence: bool,
    },
    /// Remove a producer's permission to publish.
    Unregister(RegistrationArgs),
    /// Give a producer to a principal, who alone may use it then.
    Assign(AssignArgs),
    /// List a topic's producers by id.
    List(ListRegistrationsArgs),
    /// Describe a producer: its epoch, and how far it has published.
    Describe(DescribeRegistrationArgs),
}

pub(super) async fn run(client: &Client, command: ProducerCommand) -> Result<(), Failure> {
    let mut producers = client.producers();
    let mut out = io::stdout();
    match command {
        ProducerCommand::Register { registration: NewRegistrationArgs { topic, id }, fence } => {
            let request = RegisterProducerRequest {
                topic: topic.clone(),
                producer_id: id.unwrap_or_default(),
                fence,
            };
            let registered = producers.register_producer(request).await?.into_inner();
            let Producer { producer_id: id, epoch, .. } = registered.producer.unwrap_or_default();
            let with_epoch = if fence { format!(" with epoch {epoch}") } else { String::new() };
            print_line(
                &mut out,
                &format!("registered producer {id} on topic {topic}{with_epoch}"),
            )?;
        }
        ProducerCommand::Unregister(RegistrationArgs { topic, id }) => {
            let request =
                UnregisterProducerRequest { topic: topic.clone(), producer_id: id.clone() };
            producers.unregister_producer(request).await?;
            print_line(&mut out, &format!("unregistered producer {id} from topic {topic}"))?;
        }
        ProducerCommand::Assign(assign) => {
            let registration = Registration::ProducerId(assign.id.clone());
            registration::assign(client, "producer", registration, assign).await?;
        }
        ProducerCommand::List(ListRegistrationsArgs { topic, output }) => {
            let mut table =
                Table::new(&["PRODUCER", "EPOCH", "LAST OFFSET", "LAST PUBLISHED", "REGISTERED"]);
            for_each_page(async |page_token| {
                let topic = topic.clone();
                let request = ListProducersRequest { topic, page_token, ..Default::default() };
                let page = producers.list_producers(request).await?.into_inner();
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
                Ok(page.next_page_token)
            })
            .await?;
            table.print(&mut out, output)?;
        }
        ProducerCommand::Describe(DescribeRegistrationArgs { registration, output }) => {
            let RegistrationArgs { topic, id } = registration;
            let request = GetProducerRequest { topic, producer_id: id };
            let producer = producers.get_producer(request).await?.into_inner().producer;
            let producer = producer.unwrap_or_default();
            let lines = [
                ("producer", producer.producer_id.clone()),
                ("topic", producer.topic.clone()),
                ("owner", producer.owner.clone()),
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
        "owner": producer.owner,
        "epoch": producer.epoch,
        "last_offset": producer.last_offset,
        "last_sequence": producer.last_sequence,
        "last_publish_time": json_time(producer.last_publish_time),
        "create_time": json_time(producer.create_time),
    })
}

/// A number for people; a dash if there is none.
fn number(number: Option<i64>) -> String {
    number.map_or("-".to_owned(), |number| number.to_string())
}
