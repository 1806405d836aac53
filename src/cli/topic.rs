//! `trunkline topic`: creates, describes, changes, copies, reads and deletes topics.

use std::io;

use bytesize::ByteSize;
use clap::Subcommand;
use prost_types::FieldMask;
use serde_json::json;

use super::{
    confirmation,
    copy::{self, CopyArgs},
    failure::Failure,
    format::FormatArgs,
    name_value::{self, NameValue},
    output::{OutputArgs, Table, confirm, describe},
    pages::for_each_page,
    plural::count,
    readers::{self, Readers},
    reading::{self, PageReader},
    retention::{self, RetentionArgs, RetentionUpdate},
    start,
    tail::{self, TailArgs},
    timestamp::{json_time, time},
};
use crate::{
    client::{Client, Start},
    proto::{self, Topic, trim_topic_request::Before},
};

/// Create, list, describe, change, copy, trim, read and delete topics.
#[derive(Debug, Subcommand)]
pub(super) enum TopicCommand {
    /// Create an empty topic.
    Create {
        /// The new topic's name.
        name: String,
        /// Free text for people.
        #[arg(long, default_value = "")]
        description: String,
        /// A name and a value for tools; may be repeated.
        #[arg(long = "label", value_name = "NAME=VALUE")]
        labels: Vec<NameValue>,
        #[command(flatten)]
        retention: RetentionArgs,
        /// If the topic exists, succeed, unless it differs from what is given here.
        #[arg(long)]
        if_missing: bool,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// List topics by name.
    ///
    /// CONSUMERS is how many consumers a topic has, and GREATEST LAG how many messages the one
    /// behind most has left. With more than 100 topics, both are up to a second old, and "-" if they
    /// are not known.
    #[command(visible_alias = "ls")]
    List {
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Describe a topic.
    Describe {
        /// The topic's name.
        name: String,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Change a topic; anything not given stays as it is.
    Update {
        /// The topic's name.
        name: String,
        /// Free text for people.
        #[arg(long)]
        description: Option<String>,
        /// A name and a value for tools; replaces all existing labels; may be repeated.
        #[arg(long = "label", value_name = "NAME=VALUE")]
        labels: Vec<NameValue>,
        #[command(flatten)]
        retention: RetentionArgs,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Copy the messages of a topic to a topic that is empty or does not exist yet.
    ///
    /// Keys, payloads and headers are copied in order. Offsets and times are those of the new
    /// messages, and the producer is the one that copies.
    #[command(visible_alias = "cp")]
    Copy(CopyArgs),
    /// Remove a topic's oldest messages.
    Trim {
        /// The topic's name.
        name: String,
        /// Remove messages before this offset, or stored before @TIME: RFC 3339 or an age (@15m).
        #[arg(long, value_name = "OFFSET|@TIME", value_parser = start::parse)]
        before: Start,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Print messages without a consumer; no position moves.
    Read {
        /// The topic's name.
        name: String,
        /// Where to start: earliest, latest, an offset, or @TIME: RFC 3339 or an age (@15m).
        #[arg(long, default_value = "earliest", value_name = "START", value_parser = start::parse)]
        from: Start,
        /// Stop after this many messages, or at the head.
        #[arg(short = 'n', value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        count: Option<u64>,
        #[command(flatten)]
        format: FormatArgs,
    },
    /// Print the newest messages without a consumer, and optionally those that follow.
    Tail(TailArgs),
    /// Delete a topic with its messages, registrations and positions.
    ///
    /// On a terminal, it asks first.
    #[command(visible_alias = "rm")]
    Delete {
        /// The topic's name.
        name: String,
        /// Do not ask.
        #[arg(short, long)]
        yes: bool,
        #[command(flatten)]
        output: OutputArgs,
    },
}

pub(super) async fn run(client: &Client, command: TopicCommand) -> Result<(), Failure> {
    let mut topics = client.topics();
    let mut out = io::stdout();
    match command {
        TopicCommand::Create { name, description, labels, retention, if_missing, output } => {
            let RetentionUpdate { retention, paths } = retention.into_update();
            let request = proto::CreateTopicRequest {
                topic: name.clone(),
                description,
                labels: name_value::unique("--label", &labels)?,
                retention: (!paths.is_empty()).then_some(retention),
                if_missing,
            };
            let created = topics.create_topic(request).await?.into_inner();
            let line = match created.existed {
                true => format!("topic {name} exists"),
                false => format!("created topic {name}"),
            };
            confirm(&mut out, output, &line, &object(&created.topic.unwrap_or_default()))?;
        }
        TopicCommand::List { output } => {
            let topics = list(client).await?;
            let readers = readers::of_topics(client, &topics).await?;
            let columns = ["NAME", "FIRST", "HEAD", "LAST PUBLISHED", "SIZE", "CONSUMERS"];
            let mut table = Table::new(&[&columns[..], &["GREATEST LAG"]].concat());
            for (topic, readers) in topics.into_iter().zip(readers) {
                let object = object_with(&topic, readers);
                let size = size(&topic);
                let (first, head) = (topic.first_offset.to_string(), topic.head.to_string());
                let [consumers, lag] = readers.cells();
                let published = time(topic.last_publish_time);
                table.row([topic.name, first, head, published, size, consumers, lag], object);
            }
            table.print(&mut out, output)?;
        }
        TopicCommand::Describe { name, output } => {
            let topic = reading::topic(client, &name).await?;
            let readers = readers::of_topic(client, &name).await?;
            let [consumers, greatest_lag] = readers.cells();
            let mut lines =
                vec![("name", topic.name.clone()), ("description", topic.description.clone())];
            let labels = topic.labels.iter();
            lines.extend(labels.map(|(name, value)| ("label", format!("{name}={value}"))));
            let kept = retention::describe(&topic.retention.unwrap_or_default());
            lines.extend([
                ("created", time(topic.create_time)),
                ("updated", time(topic.update_time)),
                ("first offset", topic.first_offset.to_string()),
                ("head", topic.head.to_string()),
                ("last published", time(topic.last_publish_time)),
                ("size", size(&topic)),
                ("consumers", consumers),
                ("greatest lag", greatest_lag),
                ("kept", kept),
            ]);
            describe(&mut out, output, &lines, &object_with(&topic, readers))?;
        }
        TopicCommand::Update { name, description, labels, retention, output } => {
            let labels = name_value::unique("--label", &labels)?;
            let RetentionUpdate { retention, mut paths } = retention.into_update();
            paths.extend(description.is_some().then(|| "description".to_owned()));
            paths.extend((!labels.is_empty()).then(|| "labels".to_owned()));
            if paths.is_empty() {
                return Err(Failure::usage("nothing to change; --help lists what can be changed"));
            }
            let request = proto::UpdateTopicRequest {
                topic: name.clone(),
                description: description.unwrap_or_default(),
                labels,
                retention: Some(retention),
                update_mask: Some(FieldMask { paths }),
            };
            let topic = topics.update_topic(request).await?.into_inner().topic;
            let object = object(&topic.unwrap_or_default());
            confirm(&mut out, output, &format!("changed topic {name}"), &object)?;
        }
        TopicCommand::Copy(copy) => copy::run(client, copy).await?,
        TopicCommand::Trim { name, before, output } => {
            let before = match before {
                Start::Earliest => Before::Offset(0),
                Start::Latest => Before::Offset(reading::topic(client, &name).await?.head),
                Start::Offset(offset) => Before::Offset(offset),
                Start::Time(time) => Before::Time(time.into()),
            };
            let request = proto::TrimTopicRequest { topic: name.clone(), before: Some(before) };
            let first = topics.trim_topic(request).await?.into_inner().first_offset;
            let line = format!("trimmed topic {name}: it begins at offset {first}");
            let object = json!({ "topic": name, "first_offset": first });
            confirm(&mut out, output, &line, &object)?;
        }
        TopicCommand::Read { name, from, count, format } => {
            let left = count.unwrap_or(u64::MAX);
            let mut reader = PageReader { topic: &name, format: &format, from, left };
            reading::while_read(reader.print(client)).await?;
        }
        TopicCommand::Tail(tail) => tail::run(client, tail).await?,
        TopicCommand::Delete { name, yes, output } => {
            if !yes && confirmation::is_possible() {
                let topic = reading::topic(client, &name).await?;
                let kept = count(topic.head.abs_diff(topic.first_offset), "message");
                confirmation::ask(&format!("delete topic {name} with {kept}?"))?;
            }
            topics.delete_topic(proto::DeleteTopicRequest { topic: name.clone() }).await?;
            let object = json!({ "topic": name });
            confirm(&mut out, output, &format!("deleted topic {name}"), &object)?;
        }
    }
    Ok(())
}

async fn list(client: &Client) -> Result<Vec<Topic>, Failure> {
    let mut topics = Vec::new();
    for_each_page(async |page_token| {
        let request = proto::ListTopicsRequest { page_token, ..Default::default() };
        let page = client.topics().list_topics(request).await?.into_inner();
        topics.extend(page.topics);
        Ok(page.next_page_token)
    })
    .await?;
    Ok(topics)
}

fn size(topic: &Topic) -> String {
    ByteSize(topic.bytes.unsigned_abs()).to_string()
}

fn object_with(topic: &Topic, readers: Readers) -> serde_json::Value {
    let mut object = object(topic);
    readers.add_to(&mut object);
    object
}

fn object(topic: &Topic) -> serde_json::Value {
    let retention = topic.retention.unwrap_or_default();
    json!({
        "name": topic.name,
        "description": topic.description,
        "labels": topic.labels,
        "first_offset": topic.first_offset,
        "head": topic.head,
        "bytes": topic.bytes,
        "retention": retention::object(&retention),
        "create_time": json_time(topic.create_time),
        "update_time": json_time(topic.update_time),
        "last_publish_time": json_time(topic.last_publish_time),
    })
}
