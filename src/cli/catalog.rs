//! `trunkline topic`, `producer` and `consumer`.

use std::{
    io::{self, Write as _},
    time::SystemTime,
};

use bytesize::ByteSize;
use prost_types::{FieldMask, Timestamp};
use tonic::{Code, Status};

use super::{
    ConsumerCommand, ProducerCommand, TopicCommand, failure::Failure, render, retention,
    start::StartAt, table::Table,
};
use crate::{
    client::Client,
    proto::{self, trim_topic_request::Before},
};

pub(super) async fn topic(client: &Client, command: TopicCommand) -> Result<(), Failure> {
    let mut topics = client.topics();
    let mut out = io::stdout();
    match command {
        TopicCommand::Create { name, description, labels, retention } => {
            let labels = labels.into_iter().collect();
            let (topic, retention) = (name.clone(), Some(retention.into_proto().0));
            let request = proto::CreateTopicRequest { topic, description, labels, retention };
            topics.create_topic(request).await?;
            writeln!(out, "created topic {name}")?;
        }
        TopicCommand::List => {
            let mut table = Table::new(&["NAME", "FIRST", "HEAD", "LAST PUBLISHED"]);
            let mut request = proto::ListTopicsRequest::default();
            loop {
                let page = topics.list_topics(request.clone()).await?.into_inner();
                for topic in page.topics {
                    let (first, head) = (topic.first_offset.to_string(), topic.head.to_string());
                    table.row([topic.name, first, head, time(topic.last_publish_time)]);
                }
                request.page_token = page.next_page_token;
                if request.page_token.is_empty() {
                    break;
                }
            }
            table.print(&mut out)?;
        }
        TopicCommand::Describe { name } => {
            let request = proto::GetTopicRequest { topic: name };
            let topic = topics.get_topic(request).await?.into_inner().topic.unwrap_or_default();
            writeln!(out, "name:            {}", topic.name)?;
            writeln!(out, "description:     {}", topic.description)?;
            for (name, value) in topic.labels {
                writeln!(out, "label:           {name}={value}")?;
            }
            writeln!(out, "created:         {}", time(topic.create_time))?;
            writeln!(out, "updated:         {}", time(topic.update_time))?;
            writeln!(out, "first offset:    {}", topic.first_offset)?;
            writeln!(out, "head:            {}", topic.head)?;
            writeln!(out, "last published:  {}", time(topic.last_publish_time))?;
            writeln!(out, "size:            {}", ByteSize(topic.bytes.unsigned_abs()))?;
            let retention = topic.retention.unwrap_or_default();
            writeln!(out, "kept:            {}", retention::describe(&retention))?;
        }
        TopicCommand::Update { name, description, labels, retention } => {
            let (retention, mut paths) = retention.into_proto();
            paths.extend(description.is_some().then(|| "description".to_owned()));
            paths.extend((!labels.is_empty()).then(|| "labels".to_owned()));
            if paths.is_empty() {
                return Err(Failure::refused("name something to change; --help lists what can"));
            }
            let request = proto::UpdateTopicRequest {
                topic: name.clone(),
                description: description.unwrap_or_default(),
                labels: labels.into_iter().collect(),
                retention: Some(retention),
                update_mask: Some(FieldMask { paths }),
            };
            topics.update_topic(request).await?;
            writeln!(out, "changed topic {name}")?;
        }
        TopicCommand::Trim { name, before } => {
            let before = match before {
                StartAt::Earliest => Before::Offset(0),
                StartAt::Latest => {
                    let request = proto::GetTopicRequest { topic: name.clone() };
                    let topic = topics.get_topic(request).await?.into_inner().topic;
                    Before::Offset(topic.unwrap_or_default().head)
                }
                StartAt::Offset(offset) => Before::Offset(offset),
                StartAt::Time(time) => Before::Time(time.into()),
            };
            let request = proto::TrimTopicRequest { topic: name.clone(), before: Some(before) };
            let first = topics.trim_topic(request).await?.into_inner().first_offset;
            writeln!(out, "trimmed topic {name}: it begins at offset {first}")?;
        }
        TopicCommand::Read { name, from, count, json } => {
            read(client, &name, from, count.unwrap_or(u64::MAX), json).await?;
        }
        TopicCommand::Delete { name } => {
            topics.delete_topic(proto::DeleteTopicRequest { topic: name.clone() }).await?;
            writeln!(out, "deleted topic {name}")?;
        }
    }
    Ok(())
}

/// Prints messages up to the head, page by page.
async fn read(
    client: &Client,
    topic: &str,
    from: StartAt,
    mut left: u64,
    json: bool,
) -> Result<(), Failure> {
    let mut out = io::BufWriter::new(io::stdout());
    let mut request = proto::ReadMessagesRequest {
        topic: topic.to_owned(),
        start: Some(from.into()),
        ..Default::default()
    };
    while left > 0 {
        request.max_messages = i32::try_from(left).unwrap_or(i32::MAX);
        let page = client.topics().read_messages(request.clone()).await?.into_inner();
        if page.messages.is_empty() {
            break;
        }
        render::messages(&mut out, &page.messages, json)?;
        left -= page.messages.len() as u64;
        request.start = Some(StartAt::Offset(page.next_offset).into());
    }
    Ok(out.flush()?)
}

pub(super) async fn producer(client: &Client, command: ProducerCommand) -> Result<(), Failure> {
    let mut producers = client.producers();
    let mut out = io::stdout();
    match command {
        ProducerCommand::Register { topic, id, fence } => {
            let id = id.unwrap_or_default();
            let registered = register_producer(client, &topic, &id, fence).await?;
            let proto::Producer { producer_id: id, epoch, .. } = registered;
            let with_epoch = if fence { format!(" with epoch {epoch}") } else { String::new() };
            writeln!(out, "registered producer {id} on topic {topic}{with_epoch}")?;
        }
        ProducerCommand::Unregister { topic, id } => {
            let (of_topic, producer_id) = (topic.clone(), id.clone());
            let request = proto::UnregisterProducerRequest { topic: of_topic, producer_id };
            producers.unregister_producer(request).await?;
            writeln!(out, "unregistered producer {id} from topic {topic}")?;
        }
        ProducerCommand::List { topic } => {
            let mut table =
                Table::new(&["PRODUCER", "EPOCH", "LAST OFFSET", "LAST PUBLISHED", "REGISTERED"]);
            let mut request = proto::ListProducersRequest { topic, ..Default::default() };
            loop {
                let page = producers.list_producers(request.clone()).await?.into_inner();
                for producer in page.producers {
                    let last = producer.last_offset.map_or("-".to_owned(), |last| last.to_string());
                    table.row([
                        producer.producer_id,
                        producer.epoch.to_string(),
                        last,
                        time(producer.last_publish_time),
                        time(producer.create_time),
                    ]);
                }
                request.page_token = page.next_page_token;
                if request.page_token.is_empty() {
                    break;
                }
            }
            table.print(&mut out)?;
        }
    }
    Ok(())
}

pub(super) async fn consumer(client: &Client, command: ConsumerCommand) -> Result<(), Failure> {
    let mut consumers = client.consumers();
    let mut out = io::stdout();
    match command {
        ConsumerCommand::Register { topic, id, from } => {
            let request = register_request(&topic, &id.unwrap_or_default(), from);
            let consumer = consumers.register_consumer(request).await?.into_inner().consumer;
            let proto::Consumer { consumer_id, position, .. } = consumer.unwrap_or_default();
            writeln!(
                out,
                "registered consumer {consumer_id} on topic {topic} at offset {position}"
            )?;
        }
        ConsumerCommand::Seek { topic, id, to } => {
            let request = proto::SeekRequest {
                topic: topic.clone(),
                consumer_id: id.clone(),
                target: Some(to.into()),
            };
            let position = consumers.seek(request).await?.into_inner().position;
            writeln!(out, "consumer {id} on topic {topic} goes on at offset {position}")?;
        }
        ConsumerCommand::Unregister { topic, id } => {
            let (of_topic, consumer_id) = (topic.clone(), id.clone());
            let request = proto::UnregisterConsumerRequest { topic: of_topic, consumer_id };
            consumers.unregister_consumer(request).await?;
            writeln!(out, "unregistered consumer {id} from topic {topic}")?;
        }
        ConsumerCommand::List { topic } => {
            let mut table =
                Table::new(&["CONSUMER", "POSITION", "HEAD", "LAG", "LAST ACTIVITY", "HOLDER"]);
            let mut request = proto::ListConsumersRequest { topic, ..Default::default() };
            loop {
                let page = consumers.list_consumers(request.clone()).await?.into_inner();
                for consumer in page.consumers {
                    table.row([
                        consumer.consumer_id,
                        consumer.position.to_string(),
                        consumer.head.to_string(),
                        consumer.lag.to_string(),
                        time(consumer.last_activity_time),
                        consumer.holder,
                    ]);
                }
                request.page_token = page.next_page_token;
                if request.page_token.is_empty() {
                    break;
                }
            }
            table.print(&mut out)?;
        }
        ConsumerCommand::Describe { topic, id } => {
            let request = proto::GetConsumerRequest { topic, consumer_id: id };
            let consumer = consumers.get_consumer(request).await?.into_inner().consumer;
            let consumer = consumer.unwrap_or_default();
            writeln!(out, "consumer:       {}", consumer.consumer_id)?;
            writeln!(out, "topic:          {}", consumer.topic)?;
            writeln!(out, "position:       {}", consumer.position)?;
            writeln!(out, "head:           {}", consumer.head)?;
            writeln!(out, "lag:            {}", consumer.lag)?;
            writeln!(out, "epoch:          {}", consumer.epoch)?;
            writeln!(out, "holder:         {}", consumer.holder)?;
            writeln!(out, "registered:     {}", time(consumer.create_time))?;
            writeln!(out, "last activity:  {}", time(consumer.last_activity_time))?;
        }
    }
    Ok(())
}

/// Creates a topic unless it exists.
pub(super) async fn ensure_topic(client: &Client, topic: &str) -> Result<(), Status> {
    let request = proto::CreateTopicRequest { topic: topic.to_owned(), ..Default::default() };
    unless_exists(client.topics().create_topic(request).await)
}

/// Registers a producer unless it is registered.
pub(super) async fn ensure_producer(client: &Client, topic: &str, id: &str) -> Result<(), Status> {
    unless_exists(register_producer(client, topic, id, false).await)
}

/// Registers a producer, whether it is registered or not, and shuts its older instances out.
pub(super) async fn fence_producer(
    client: &Client,
    topic: &str,
    id: &str,
) -> Result<proto::Producer, Status> {
    register_producer(client, topic, id, true).await
}

async fn register_producer(
    client: &Client,
    topic: &str,
    id: &str,
    fence: bool,
) -> Result<proto::Producer, Status> {
    let (topic, producer_id) = (topic.to_owned(), id.to_owned());
    let request = proto::RegisterProducerRequest { topic, producer_id, fence };
    let registered = client.producers().register_producer(request).await?.into_inner();
    Ok(registered.producer.unwrap_or_default())
}

/// Registers a consumer unless it is registered.
pub(super) async fn ensure_consumer(
    client: &Client,
    topic: &str,
    id: &str,
    from: StartAt,
) -> Result<(), Status> {
    let request = register_request(topic, id, from);
    unless_exists(client.consumers().register_consumer(request).await)
}

fn register_request(topic: &str, id: &str, from: StartAt) -> proto::RegisterConsumerRequest {
    proto::RegisterConsumerRequest {
        topic: topic.to_owned(),
        consumer_id: id.to_owned(),
        start: Some(from.into()),
    }
}

fn unless_exists<T>(outcome: Result<T, Status>) -> Result<(), Status> {
    match outcome {
        Err(status) if status.code() != Code::AlreadyExists => Err(status),
        _ => Ok(()),
    }
}

/// A time for people; a dash where there is none.
fn time(time: Option<Timestamp>) -> String {
    match time.map(SystemTime::try_from) {
        Some(Ok(time)) => humantime::format_rfc3339_millis(time).to_string(),
        _ => "-".to_owned(),
    }
}
