//! `trunkline producer`: registers, describes and assigns the producers of a topic.

use std::io;

use clap::Subcommand;
use serde_json::json;

use super::{
    all_topics::in_all_topics,
    failure::Failure,
    output::{OutputArgs, Table, confirm, describe},
    pages::for_each_page,
    registration::{
        self, AssignArgs, ListRegistrationsArgs, Names, NewRegistrationArgs, OneRegistrationArgs,
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
        /// If the id is registered already, succeed, and fence nobody.
        #[arg(long, conflicts_with = "fence")]
        if_missing: bool,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Remove a producer's permission to publish.
    #[command(visible_alias = "rm")]
    Unregister(OneRegistrationArgs),
    /// Give a producer to a principal, who alone may use it then.
    Assign(AssignArgs),
    /// List the producers of a topic, or of all topics.
    #[command(visible_alias = "ls")]
    List(ListRegistrationsArgs),
    /// Describe a producer: its epoch, and how far it has published.
    Describe(OneRegistrationArgs),
}

pub(super) async fn run(client: &Client, command: ProducerCommand) -> Result<(), Failure> {
    let mut producers = client.producers();
    let mut out = io::stdout();
    match command {
        ProducerCommand::Register { registration, fence, if_missing, output } => {
            let Names { topic, id } = registration.names();
            let request = RegisterProducerRequest {
                topic: topic.clone(),
                producer_id: id,
                fence,
                if_missing,
            };
            let registered = producers.register_producer(request).await?.into_inner();
            let producer = registered.producer.unwrap_or_default();
            let Producer { producer_id: id, epoch, .. } = &producer;
            let with_epoch = if fence { format!(" with epoch {epoch}") } else { String::new() };
            let line = match registered.existed {
                true => format!("producer {id} is registered on topic {topic}"),
                false => format!("registered producer {id} on topic {topic}{with_epoch}"),
            };
            confirm(&mut out, output, &line, &object(&producer))?;
        }
        ProducerCommand::Unregister(OneRegistrationArgs { registration, output }) => {
            let Names { topic, id } = registration.names();
            let request =
                UnregisterProducerRequest { topic: topic.clone(), producer_id: id.clone() };
            producers.unregister_producer(request).await?;
            let line = format!("unregistered producer {id} from topic {topic}");
            let object = json!({ "topic": topic, "producer_id": id });
            confirm(&mut out, output, &line, &object)?;
        }
        ProducerCommand::Assign(assign) => {
            registration::assign(client, "producer", Registration::ProducerId, assign).await?;
        }
        ProducerCommand::List(args) => list(client, &args).await?,
        ProducerCommand::Describe(OneRegistrationArgs { registration, output }) => {
            let Names { topic, id } = registration.names();
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

async fn list(client: &Client, args: &ListRegistrationsArgs) -> Result<(), Failure> {
    let producers = match args.topic() {
        Some(topic) => of_topic(client, topic.to_owned()).await?,
        None => in_all_topics(client, |topic| of_topic(client, topic)).await?,
    };
    let several = args.topic().is_none();
    let columns = ["PRODUCER", "EPOCH", "LAST OFFSET", "LAST PUBLISHED", "REGISTERED"];
    let mut table = Table::of_topics(several, &columns);
    for producer in producers {
        let object = object(&producer);
        let Producer { topic, producer_id, epoch, last_offset, .. } = producer;
        let (published, registered) =
            (time(producer.last_publish_time), time(producer.create_time));
        let cells = [producer_id, epoch.to_string(), number(last_offset), published, registered];
        table.topic_row(several.then_some(&topic), cells, object);
    }
    Ok(table.print(&mut io::stdout(), args.output)?)
}

async fn of_topic(client: &Client, topic: String) -> Result<Vec<Producer>, Failure> {
    let mut producers = Vec::new();
    for_each_page(async |page_token| {
        let topic = topic.clone();
        let request = ListProducersRequest { topic, page_token, ..Default::default() };
        let page = client.producers().list_producers(request).await?.into_inner();
        producers.extend(page.producers);
        Ok(page.next_page_token)
    })
    .await?;
    Ok(producers)
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
