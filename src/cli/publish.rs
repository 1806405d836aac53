//! `trunkline pub`: publishes messages that the command line gives.
//!
//! It publishes without a sequence, so that several runs at a time may share a producer's id and no
//! run fences another. A message whose answer is lost may be stored, and is not sent again.

mod input;

use std::{ffi::OsString, io, os::unix::ffi::OsStringExt as _};

use clap::Args;
use serde_json::json;

use super::plural::count;
use super::{
    created,
    failure::Failure,
    name_value::{self, NameValue},
    output::{OutputArgs, confirm},
    this_user,
};
use crate::{
    client::Client,
    proto::{NewMessage, Producer, PublishRequest},
};
use input::StandardInput;

/// The most messages of one request.
const MAX_MESSAGES: usize = 1_000;

/// About the most bytes of one request.
const MAX_BYTES: usize = 1024 * 1024;

/// Publish messages, and print their offsets.
#[derive(Args, Debug)]
pub(super) struct PublishArgs {
    /// The topic's name.
    topic: String,
    /// The messages; - is standard input, of which each line becomes a message.
    #[arg(value_name = "MESSAGE", default_value = "-")]
    messages: Vec<OsString>,
    /// The key of every message: what it is about.
    #[arg(short, long)]
    key: Option<String>,
    /// A header for every message; may be repeated with other names.
    #[arg(short = 'H', long = "header", value_name = "NAME=VALUE")]
    headers: Vec<NameValue>,
    /// The producer's id, which is registered if it is not yet [default: USER-HOST, of this user and
    /// this machine].
    #[arg(long, value_name = "ID")]
    producer: Option<String>,
    /// Create the topic if it does not exist.
    #[arg(long)]
    register: bool,
    #[command(flatten)]
    output: OutputArgs,
}

pub(super) async fn run(client: &Client, args: PublishArgs) -> Result<(), Failure> {
    let headers = name_value::unique("--header", &args.headers)?;
    let key = args.key.clone().map(Into::into);
    let template = NewMessage { key, headers, ..NewMessage::default() };
    template.check().map_err(|error| Failure::usage(format!("--key or --header: {error}")))?;
    let producer = open_producer(client, &args).await?;
    let mut publisher = Publisher {
        client,
        producer,
        output: args.output,
        waiting: Vec::new(),
        waiting_bytes: 0,
        published: 0,
    };
    let published = tokio::select! {
        published = publisher.publish_all(args.messages, &template) => published,
        _ = tokio::signal::ctrl_c() => Err(Failure::interrupted()),
    };
    published.map_err(|failure| match publisher.published {
        0 => failure,
        published => failure.after(&format!("{} published", count(published as u64, "message"))),
    })
}

/// The registration of the producer, which is created if it is missing.
async fn open_producer(client: &Client, args: &PublishArgs) -> Result<Producer, Failure> {
    if args.register {
        created::ensure_topic(client, &args.topic).await?;
    }
    let id = args.producer.clone().unwrap_or_else(this_user::producer_id);
    created::ensure_producer(client, &args.topic, &id).await
}

struct Publisher<'a> {
    client: &'a Client,
    producer: Producer,
    output: OutputArgs,
    /// Messages for the next request.
    waiting: Vec<NewMessage>,
    waiting_bytes: usize,
    published: usize,
}

impl Publisher<'_> {
    async fn publish_all(
        &mut self,
        messages: Vec<OsString>,
        template: &NewMessage,
    ) -> Result<(), Failure> {
        for message in messages {
            if message == "-" {
                self.publish_lines(template).await?;
                continue;
            }
            let message = NewMessage { payload: message.into_vec().into(), ..template.clone() };
            message.check()?;
            self.add(message).await?;
        }
        self.flush().await
    }

    /// Publishes each line of standard input, and does not wait for more lines before it does.
    async fn publish_lines(&mut self, template: &NewMessage) -> Result<(), Failure> {
        let mut input = StandardInput::new();
        loop {
            if !input.has_line() {
                self.flush().await?;
            }
            let Some((number, payload)) = input.next_line().await? else { return Ok(()) };
            let message = NewMessage { payload: payload.into(), ..template.clone() };
            message.check().map_err(|error| {
                Failure::refused(format!("line {number} of standard input: {error}"))
            })?;
            self.add(message).await?;
        }
    }

    async fn add(&mut self, message: NewMessage) -> Result<(), Failure> {
        let bytes = message.payload.len();
        if self.waiting.len() == MAX_MESSAGES || self.waiting_bytes + bytes > MAX_BYTES {
            self.flush().await?;
        }
        self.waiting_bytes += bytes;
        self.waiting.push(message);
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Failure> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let Producer { topic, producer_id, epoch, .. } = &self.producer;
        let request = PublishRequest {
            topic: topic.clone(),
            producer_id: producer_id.clone(),
            messages: std::mem::take(&mut self.waiting),
            producer_epoch: *epoch,
            ..Default::default()
        };
        self.waiting_bytes = 0;
        let count = request.messages.len();
        let answer = self.client.producers().publish(request).await?.into_inner();
        self.published += count;
        for offset in (answer.first_offset..).take(count) {
            let line = format!("published offset {offset}");
            let object = json!({ "topic": topic, "offset": offset, "producer_id": producer_id });
            confirm(&mut io::stdout(), self.output, &line, &object)?;
        }
        Ok(())
    }
}
