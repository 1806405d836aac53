//! `trunkline topic copy`: publishes the messages of a topic to another one.

use std::io;

use clap::Args;
use serde_json::json;

use super::{
    created,
    failure::{Failure, print_notice},
    output::{OutputArgs, confirm},
    plural::count,
    reading,
};
use crate::{
    client::{Acknowledgement, Client, Producer, Start},
    proto::{Message, NewMessage, ReadMessagesRequest, Topic},
};

/// Copy the messages of a topic to a topic that is empty or does not exist yet.
#[derive(Args, Debug)]
pub(super) struct CopyArgs {
    /// The topic to read.
    source: String,
    /// The topic to publish to.
    target: String,
    /// The producer's id on the target, which is registered if it is not yet. Its older instances
    /// are fenced.
    #[arg(long, value_name = "ID", default_value = "copy")]
    producer: String,
    #[command(flatten)]
    output: OutputArgs,
}

pub(super) async fn run(client: &Client, args: CopyArgs) -> Result<(), Failure> {
    let CopyArgs { source, target, producer, output } = args;
    let from = reading::topic(client, &source).await?;
    refuse_messages(client, &target).await?;
    created::ensure_topic(client, &target).await?;
    created::ensure_producer(client, &target, &producer).await?;
    let opened = client.producer(&target, &producer).register().open().await?;
    let mut copy = Copy { client, producer: opened, sent: Vec::new(), copied: 0 };
    let copied = tokio::select! {
        copied = copy.all(&from) => copied,
        _ = tokio::signal::ctrl_c() => Err(Failure::interrupted()),
    };
    let copied = copied.map_err(|failure| {
        failure.after(&format!("{} copied to topic {target}", count(copy.copied, "message")))
    });
    copied?;
    let line =
        format!("copied {} from topic {source} to topic {target}", count(copy.copied, "message"));
    let object = json!({ "source": source, "target": target, "messages": copy.copied });
    confirm(&mut io::stdout(), output, &line, &object)?;
    if copy.copied > 0 {
        print_notice("the copies have the time of copying, and offsets of their own");
    }
    Ok(copy.producer.close().await?)
}

async fn refuse_messages(client: &Client, target: &str) -> Result<(), Failure> {
    match reading::topic(client, target).await {
        Ok(Topic { first_offset, head, .. }) if first_offset < head => {
            let kept = count(head.abs_diff(first_offset), "message");
            Err(Failure::refused(format!(
                "topic {target} has {kept}: copy to a topic that is empty or does not exist"
            )))
        }
        Ok(_) => Ok(()),
        Err(failure) if failure.reason() == Some("TOPIC_NOT_FOUND") => Ok(()),
        Err(failure) => Err(failure),
    }
}

struct Copy<'a> {
    client: &'a Client,
    producer: Producer,
    /// The acknowledgements of the page that was read last.
    sent: Vec<Acknowledgement>,
    /// The number of messages that are stored.
    copied: u64,
}

impl Copy<'_> {
    /// Copies the messages before the head that the source has had at the start.
    async fn all(&mut self, source: &Topic) -> Result<(), Failure> {
        let mut next = source.first_offset;
        while next < source.head {
            let request = ReadMessagesRequest {
                topic: source.name.clone(),
                start: Some(Start::Offset(next).into()),
                max_messages: i32::try_from(source.head - next).unwrap_or(i32::MAX),
            };
            let page = self.client.topics().read_messages(request).await?.into_inner();
            if page.messages.is_empty() {
                break;
            }
            next = page.next_offset;
            for message in page.messages {
                self.send(message).await?;
            }
            self.settle().await?;
        }
        Ok(())
    }

    async fn send(&mut self, message: Message) -> Result<(), Failure> {
        let Message { payload, key, headers, .. } = message;
        let copy = NewMessage { payload, key, headers, ..NewMessage::default() };
        self.sent.push(self.producer.send(copy).await?);
        Ok(())
    }

    /// Waits until a page is stored.
    async fn settle(&mut self) -> Result<(), Failure> {
        for acknowledgement in self.sent.drain(..) {
            acknowledgement.offset().await?;
            self.copied += 1;
        }
        Ok(())
    }
}
