//! `trunkline topic`: topics made, described, changed, read and removed.

use std::io;

use bytesize::ByteSize;
use clap::Subcommand;
use prost_types::FieldMask;
use serde_json::json;

use super::{
    failure::Failure,
    format::FormatArgs,
    output::{Output, Table, describe, tell},
    parse_pair, reading,
    render::{json_time, time},
    retention::{self, RetentionArgs},
    start,
    tail::{self, Tail},
    unique_pairs,
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
        /// A name and a value for tools; may be given several times.
        #[arg(long = "label", value_name = "NAME=VALUE", value_parser = parse_pair)]
        labels: Vec<(String, String)>,
        #[command(flatten)]
        retention: RetentionArgs,
    },
    /// List topics by name.
    List {
        /// How to print.
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// Describe a topic.
    Describe {
        /// The topic's name.
        name: String,
        /// How to print.
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// Change a topic: what is not named stays.
    Update {
        /// The topic's name.
        name: String,
        /// Free text for people.
        #[arg(long)]
        description: Option<String>,
        /// A name and a value for tools, in place of all labels of before; may be given several
        /// times.
        #[arg(long = "label", value_name = "NAME=VALUE", value_parser = parse_pair)]
        labels: Vec<(String, String)>,
        #[command(flatten)]
        retention: RetentionArgs,
    },
    /// Remove a topic's oldest messages.
    Trim {
        /// The topic's name.
        name: String,
        /// Remove all before this offset, or stored before @TIME as RFC 3339 or as an age (@15m).
        #[arg(long, value_name = "OFFSET|@TIME", value_parser = start::parse)]
        before: Start,
    },
    /// Print messages without a consumer: nothing moves.
    Read {
        /// The topic's name.
        name: String,
        /// Where to start: earliest, latest, an offset, or @TIME as RFC 3339 or as an age (@15m).
        #[arg(long, default_value = "earliest", value_name = "START", value_parser = start::parse)]
        from: Start,
        /// End after so many messages; at the head at the latest.
        #[arg(short = 'n', value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        count: Option<u64>,
        #[command(flatten)]
        format: FormatArgs,
    },
    /// Print the newest messages without a consumer, and those that come, if asked to.
    Tail(Tail),
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
            let labels = unique_pairs("--label", &labels)?;
            let (topic, retention) = (name.clone(), Some(retention.into_proto().0));
            let request = proto::CreateTopicRequest { topic, description, labels, retention };
            topics.create_topic(request).await?;
            tell(&mut out, &format!("created topic {name}"))?;
        }
        TopicCommand::List { output } => {
            let mut table = Table::new(&["NAME", "FIRST", "HEAD", "LAST PUBLISHED"]);
            let mut request = proto::ListTopicsRequest::default();
            loop {
                let page = topics.list_topics(request.clone()).await?.into_inner();
                for topic in page.topics {
                    let object = object(&topic);
                    let (first, head) = (topic.first_offset.to_string(), topic.head.to_string());
                    table.row([topic.name, first, head, time(topic.last_publish_time)], object);
                }
                request.page_token = page.next_page_token;
                if request.page_token.is_empty() {
                    break;
                }
            }
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
            let labels = unique_pairs("--label", &labels)?;
            let (retention, mut paths) = retention.into_proto();
            paths.extend(description.is_some().then(|| "description".to_owned()));
            paths.extend((!labels.is_empty()).then(|| "labels".to_owned()));
            if paths.is_empty() {
                return Err(Failure::usage("name something to change; --help lists what can"));
            }
            let request = proto::UpdateTopicRequest {
                topic: name.clone(),
                description: description.unwrap_or_default(),
                labels,
                retention: Some(retention),
                update_mask: Some(FieldMask { paths }),
            };
            topics.update_topic(request).await?;
            tell(&mut out, &format!("changed topic {name}"))?;
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
            tell(&mut out, &format!("trimmed topic {name}: it begins at offset {first}"))?;
        }
        TopicCommand::Read { name, from, count, format } => {
            let mut from = from;
            let mut left = count.unwrap_or(u64::MAX);
            let printing = reading::print(client, &name, &mut from, &mut left, &format);
            reading::while_read(printing).await?;
        }
        TopicCommand::Tail(tail) => tail::run(client, tail).await?,
        TopicCommand::Delete { name } => {
            topics.delete_topic(proto::DeleteTopicRequest { topic: name.clone() }).await?;
            tell(&mut out, &format!("deleted topic {name}"))?;
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
