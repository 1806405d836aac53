//! `trunkline produce`: publishes lines, and says how far they were acknowledged.

mod input;
mod message;
mod progress;
mod sent;

use std::{ffi::OsString, fmt::Display, time::Duration};

use bytes::Bytes;
use clap::{Args, builder::NonEmptyStringValueParser};
use tokio::io::AsyncReadExt as _;

use super::{
    failure::{Failure, say},
    lines::Lines,
    parse_pair,
};
use crate::client::{Client, Error, Producer};
use input::Input;
use message::Shape;
use progress::Progress;
use sent::Sent;

const READ_BYTES: usize = 256 * 1024;

/// How long answers are waited for after Ctrl-C.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// Publish lines, each a message.
///
/// What is published is counted, so that lines are stored once even if the broker is lost in
/// between. A producer has one live instance: a second one of the same id shuts the first one out.
#[derive(Args, Debug)]
pub(super) struct Produce {
    /// The topic's name.
    topic: String,
    /// The producer's id.
    #[arg(long, value_name = "ID")]
    producer: String,
    /// Create the topic if it is missing, and register the producer if it is not.
    #[arg(long)]
    register: bool,
    /// Pass over as many lines as this producer has published before: the same files, given again
    /// after a failure, go on where they were left, and nothing is stored twice.
    #[arg(long)]
    resume: bool,
    /// What stands between a line's key and its payload; without it, a line has no key.
    #[arg(long, value_name = "TEXT", conflicts_with = "json", value_parser = NonEmptyStringValueParser::new())]
    key_separator: Option<String>,
    /// A header for every message; may be given several times.
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = parse_pair)]
    headers: Vec<(String, String)>,
    /// A line is a JSON object with payload, key and headers, as `consume --json` prints them:
    /// bytes that are no text stand as {"base64": "…"}. Other fields are passed over.
    #[arg(long)]
    json: bool,
    /// How many messages a request may hold.
    #[arg(long, value_name = "N", default_value_t = 4_000)]
    batch: usize,
    /// How long a line may wait for others while requests are under way.
    #[arg(long, value_name = "DURATION", default_value = "1ms", value_parser = humantime::parse_duration)]
    linger: Duration,
    /// How long a broker that is lost is looked for before giving up.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = humantime::parse_duration)]
    retry_for: Duration,
    /// Files to publish, one after the other; - is standard input.
    #[arg(default_value = "-", value_name = "FILE")]
    files: Vec<OsString>,
}

pub(super) async fn run(client: &Client, options: Produce) -> Result<(), Failure> {
    let inputs = input::open_all(&options.files).await?;
    let producer = open(client, &options).await?;
    let published = if options.resume { producer.first_sequence().unsigned_abs() } else { 0 };
    let mut shipping = Shipping {
        progress: Progress::start(&inputs),
        shape: Shape::new(options.key_separator, options.headers, options.json),
        names: inputs.iter().map(|input| input.name.clone()).collect(),
        sent: Sent::default(),
        published,
        passed_over: 0,
        producer,
    };
    let shipped = tokio::select! {
        shipped = shipping.ship(inputs) => shipped,
        _ = tokio::signal::ctrl_c() => Err(Failure::interrupted()),
    };
    shipping.finish(shipped).await
}

async fn open(client: &Client, options: &Produce) -> Result<Producer, Failure> {
    let mut producer = client
        .producer(&options.topic, &options.producer)
        .linger(options.linger)
        .max_batch_messages(options.batch)
        .retry_for(options.retry_for);
    if options.register {
        client.ensure_topic(&options.topic).await?;
        producer = producer.register();
    }
    producer.open().await.map_err(|error| match error {
        Error::Invalid { field: "max_batch_messages", problem } => {
            Failure::usage(format!("--batch {problem}"))
        }
        error => error.into(),
    })
}

struct Shipping {
    producer: Producer,
    shape: Shape,
    names: Vec<String>,
    sent: Sent,
    /// Lines that were published before, and how many of them have been passed over.
    published: u64,
    passed_over: u64,
    progress: Progress,
}

impl Shipping {
    async fn ship(&mut self, inputs: Vec<Input>) -> Result<(), Failure> {
        for (file, Input { name, mut reader, .. }) in inputs.into_iter().enumerate() {
            let mut lines = Lines::default();
            let mut number = 0;
            loop {
                lines.buffer().reserve(READ_BYTES);
                let read = tokio::select! {
                    read = reader.read_buf(lines.buffer()) => {
                        read.map_err(|error| Failure::refused(format!("read {name}: {error}")))?
                    }
                    error = self.sent.failed() => return Err(error.into()),
                };
                loop {
                    let line = match lines.next_line() {
                        None if read == 0 => lines.last_line(),
                        line => line,
                    };
                    let Some(line) = line else { break };
                    number += 1;
                    self.ship_line(file, number, line).await?;
                }
                self.sent.take_answers()?;
                self.progress.read(read, self.sent.acknowledged());
                if lines.unfinished() > self.shape.max_line_bytes() {
                    return Err(self.too_long(file, number + 1));
                }
                if read == 0 {
                    break;
                }
            }
        }
        let (passed_over, published) = (self.passed_over, self.published);
        if passed_over < published {
            return Err(Failure::refused(format!(
                "there are {passed_over} lines, and this producer has published {published} before: \
                 these are not the files that it began with"
            )));
        }
        Ok(())
    }

    async fn ship_line(&mut self, file: usize, number: u64, line: Bytes) -> Result<(), Failure> {
        if self.passed_over < self.published {
            self.passed_over += 1;
            return Ok(());
        }
        if line.len() > self.shape.max_line_bytes() {
            return Err(self.too_long(file, number));
        }
        let told = |problem: &dyn Display| {
            Failure::refused(format!("line {number} of {}: {problem}", self.names[file]))
        };
        let message = self.shape.message(line).map_err(|problem| told(&problem))?;
        match self.producer.send(message).await {
            Ok(acknowledgement) => self.sent.push(acknowledgement, file, number),
            Err(error @ Error::Invalid { .. }) => return Err(told(&error)),
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn too_long(&self, file: usize, number: u64) -> Failure {
        let (name, limit) = (&self.names[file], self.shape.max_line_bytes());
        Failure::refused(format!(
            "line {number} of {name} is longer than the limit of {limit} bytes"
        ))
    }

    /// Waits for the answers to what was sent, and says how far it was acknowledged.
    async fn finish(mut self, shipped: Result<(), Failure>) -> Result<(), Failure> {
        let interrupted = shipped.as_ref().is_err_and(Failure::is_interruption);
        let patience = async {
            match interrupted {
                true => tokio::time::sleep(LAST_ANSWERS).await,
                false => _ = tokio::signal::ctrl_c().await,
            }
        };
        // What was sent before a line that cannot be is acknowledged all the same.
        let answered = tokio::select! {
            flushed = self.producer.flush() => flushed.map_err(Failure::from),
            () = patience => Err(Failure::interrupted()),
        };
        let answered = answered.and(self.sent.take_answers().map_err(Failure::from));
        self.progress.finish();
        let mut told = self.sent.told(&self.names, self.progress.elapsed());
        if self.passed_over > 0 {
            told = format!("{} lines were published before; {told}", self.passed_over);
        }
        match shipped.and(answered) {
            Ok(()) => {
                say(&told);
                Ok(())
            }
            Err(failure) => Err(failure.after(&told)),
        }
    }
}
