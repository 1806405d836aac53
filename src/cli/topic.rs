//! `trunkline topic`: creates, describes, changes, reads and deletes topics.

use std::io;

use bytesize::ByteSize;
use clap::Subcommand;
use prost_types::FieldMask;
use serde_json::json;

use super::{
    failure::Failure,
    format::FormatArgs,
    name_value::{self, NameValue},
    output::{OutputArgs, Table, describe, print_line},
    pages::for_each_page,
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

/// Create, list, describe, change, trim, read and delete topics.
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
    },
    /// List topics by name.
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
    },
    /// Remove a topic's oldest messages.
    Trim {
        /// The topic's name.
        name: String,
        /// Remove messages before this offset, or stored before @TIME: RFC 3339 or an age (@15m).
        #[arg(long, value_name = "OFFSET|@TIME", value_parser = start::parse)]
        before: Start,
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
    Delete {
        /// The topic's name.
        name: String,
    },
}

pub(super) async fn run(client: &Client, command: TopicCommand) -> Result<(), Failure> {
    let mut topics = client.topics();
    let mut out = io::stdout();
    match command {
        TopicCommand::Create { name, description, labels, retention } => {
            let request = proto::CreateTopicRequest {
                topic: name.clone(),
                description,
                labels: name_value::unique("--label", &labels)?,
                retention: Some(retention.into_update().retention),
            };
            topics.create_topic(request).await?;
            print_line(&mut out, &format!("created topic {name}"))?;
        }
        TopicCommand::List { output } => {
            let mut table = Table::new(&["NAME", "FIRST", "HEAD", "LAST PUBLISHED"]);
            for_each_page(async |page_token| {
                let request = proto::ListTopicsRequest { page_token, ..Default::default() };
                let page = topics.list_topics(request).await?.into_inner();
                for topic in page.topics {
                    let object = object(&topic);
                    let (first, head) = (topic.first_offset.to_string(), topic.head.to_string());
                    table.row([topic.name, first, head, time(topic.last_publish_time)], object);
                }
                Ok(page.next_page_token)
            })
            .await?;
            table.print(&mut out, output)?;
        }
        TopicCommand::Describe { name, output } => {
            let topic = reading::topic(client, &name).await?;
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
                ("size", ByteSize(topic.bytes.unsigned_abs()).to_string()),
                ("kept", kept),
            ]);
            describe(&mut out, output, &lines, &object(&topic))?;
        }
        TopicCommand::Update { name, description, labels, retention } => {
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
            topics.update_topic(request).await?;
            print_line(&mut out, &format!("changed topic {name}"))?;
        }
        TopicCommand::Trim { name, before } => {
            let before = match before {
                Start::Earliest => Before::Offset(0),
                Start::Latest => Before::Offset(reading::topic(client, &name).await?.head),
                Start::Offset(offset) => Before::Offset(offset),
                Start::Time(time) => Before::Time(time.into()),
            };
            let request = proto::TrimTopicRequest { topic: name.clone(), before: Some(before) };
            let first = topics.trim_topic(request).await?.into_inner().first_offset;
            print_line(&mut out, &format!("trimmed topic {name}: it begins at offset {first}"))?;
        }
        TopicCommand::Read { name, from, count, format } => {
            let left = count.unwrap_or(u64::MAX);
            let mut reader = PageReader { topic: &name, format: &format, from, left };
            reading::while_read(reader.print(client)).await?;
        }
        TopicCommand::Tail(tail) => tail::run(client, tail).await?,
        TopicCommand::Delete { name } => {
            topics.delete_topic(proto::DeleteTopicRequest { topic: name.clone() }).await?;
            print_line(&mut out, &format!("deleted topic {name}"))?;
        }
    }
    Ok(())
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
