//! `trunkline produce`: publishes lines, and says how far they were acknowledged.

mod bad_lines;
mod checks;
mod going_back;
mod identity;
mod input;
mod json;
mod ledger;
mod message;
mod passing;
mod problem;
mod progress;
mod rehearsal;
mod resume;
mod sent;
mod shipping;
mod state;

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{Args, builder::NonEmptyStringValueParser};

use super::{failure::Failure, parse_pair, unique_pairs};
use crate::{
    client::{Client, Producer},
    proto::NewMessage,
};
use bad_lines::{BadLines, Sink};
use going_back::Refused;
use message::{Form, OnBadLine, Rule};
use progress::Progress;
use resume::Opened;
use sent::Sent;
use shipping::{Current, Shipping};
use state::BadLinesIn;

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
    /// Go on where this producer left each file: nothing is stored twice, and what is written
    /// meanwhile is shipped by the next run. A file is known by its inode and its content, so that
    /// a rotated log is shipped from its beginning. A last line without an end waits for it.
    #[arg(long)]
    resume: bool,
    /// The file that keeps how far files are shipped; by default one under
    /// $XDG_STATE_HOME/trunkline/produce (~/.local/state without that variable).
    #[arg(long, value_name = "FILE", requires = "resume", value_parser = clap::builder::PathBufValueParser::new())]
    state: Option<PathBuf>,
    /// Ship the files from their beginning, whatever was shipped of them before.
    #[arg(long, requires = "resume", conflicts_with = "same_file")]
    restart: bool,
    /// Take a file that begins with all that was shipped of another one, which is gone or has
    /// other content now, for that one: the copy of a log that was truncated, or a restored backup.
    /// Without this, it is refused.
    #[arg(long, requires = "resume")]
    same_file: bool,
    /// The files are complete: a last line without an end is a line.
    #[arg(long, requires = "resume")]
    r#final: bool,
    /// What stands between a line's key and its payload; without it, a line has no key.
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["json", "payload_field", "json_payload", "key_field"], value_parser = NonEmptyStringValueParser::new())]
    key_separator: Option<String>,
    /// A header for every message; may be given several times, each name once. With --json, a
    /// line's own header of the same name wins.
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = parse_pair)]
    headers: Vec<(String, String)>,
    /// A line is a JSON object as `consume --json` prints it: a payload, which is required, a key
    /// and headers. Bytes that are no text stand as {"base64": "…"}. Offset, time and producer are
    /// read and not used; other fields are refused.
    #[arg(long)]
    json: bool,
    /// A line is a JSON object, and this field of it is the payload: a string's text, or the JSON
    /// of anything else. Its other fields are not stored.
    #[arg(long, value_name = "NAME", conflicts_with = "json_payload")]
    payload_field: Option<String>,
    /// A line is JSON, and all of it is the payload.
    #[arg(long)]
    json_payload: bool,
    /// This field is the key, with --payload-field or --json-payload; if it is null, there is none.
    #[arg(long, value_name = "NAME")]
    key_field: Option<String>,
    /// What to do with a line that cannot be a message: end with it, skip it, or, if it is over the
    /// limit and not JSON, cut it to the limit. By default it ends the run, but for a line over the
    /// limit with --resume, which is cut if it is not JSON.
    #[arg(long, value_enum, value_name = "WHAT")]
    on_bad_line: Option<OnBadLine>,
    /// Append lines that are skipped or cut to this file.
    #[arg(long, value_name = "FILE", value_parser = clap::builder::PathBufValueParser::new())]
    bad_lines_file: Option<PathBuf>,
    /// Publish lines that are skipped or cut to this topic, with the headers file, line, line-bytes
    /// and problem.
    #[arg(long, value_name = "TOPIC", conflicts_with = "bad_lines_file")]
    bad_lines_topic: Option<String>,
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
    let rule = options.rule()?;
    let inputs = input::open_all(&options.files).await?;
    checks::options(&options)?;
    checks::files(&options, &inputs)?;
    let file = options.bad_lines_file.clone().map(Sink::file).transpose()?;
    let found = checks::registration(client, &options).await?;
    let Opened { producer, ledger, places, passing, last_message } = match options.resume {
        true => resume::resume(client, &options, &rule, &inputs, found).await?,
        false => resume::anew(client, &options, &inputs).await?,
    };
    // Lines that another rule made messages of may be longer.
    let rules = places.iter().filter_map(|place| Some(&place.unsettled.as_ref()?.rule));
    let limit = rules.chain([&rule]).map(Rule::max_line_bytes).max().unwrap_or(0);
    let names = inputs.iter().map(|input| input.name.clone()).collect();
    let sources = inputs.into_iter().zip(&places);
    let sources = sources.map(|(input, place)| input.read_from(&place.position, limit));
    let sources = sources.collect::<Result<Vec<_>, _>>()?;
    let mut shipping = Shipping {
        progress: Progress::start(&sources),
        bad_lines: BadLines::to(match file {
            Some(file) => file,
            None => bad_lines_topic(client, &options).await?,
        }),
        leaves_unfinished: options.resume && !options.r#final,
        producer,
        rule,
        names_flag: options.on_bad_line.is_none(),
        names,
        sources,
        places,
        ledger,
        passing,
        last_message,
        sent: Sent::default(),
        passed_over: 0,
        unfinished: Vec::new(),
        refused: Refused::default(),
        dealt_with: None,
        current: Current::default(),
        limit,
        client: client.clone(),
        options,
    };
    let shipped = tokio::select! {
        shipped = shipping.ship() => shipped,
        _ = tokio::signal::ctrl_c() => Err(Failure::interrupted()),
    };
    shipping.finish(shipped).await
}

impl Produce {
    fn rule(&self) -> Result<Rule, Failure> {
        let key = self.key_field.clone();
        let form = match (&self.key_separator, &self.payload_field) {
            (Some(separator), _) => Form::Keyed { separator: separator.clone() },
            (None, Some(payload)) => Form::JsonField { payload: payload.clone(), key },
            (None, None) if self.json_payload => Form::WholeJson { key },
            (None, None) if self.key_field.is_some() => {
                return Err(Failure::usage("--key-field needs --payload-field or --json-payload"));
            }
            (None, None) if self.json => Form::Json,
            (None, None) => Form::Payload,
        };
        let on_bad_line = self.on_bad_line.unwrap_or(match self.resume && form.is_plain() {
            true => OnBadLine::CutOrStop,
            false => OnBadLine::Stop,
        });
        let keeps = self.bad_lines_file.is_some() || self.bad_lines_topic.is_some();
        if keeps && on_bad_line.stops() {
            return Err(Failure::usage(
                "--bad-lines-file and --bad-lines-topic need --on-bad-line skip or cut",
            ));
        }
        if self.bad_lines_topic.as_ref() == Some(&self.topic) {
            return Err(Failure::usage("--bad-lines-topic is the topic itself"));
        }
        let headers = unique_pairs("--header", &self.headers)?;
        // No line could be a message with headers that break a limit.
        let message = NewMessage { headers: headers.clone(), ..NewMessage::default() };
        message.check().map_err(|error| Failure::usage(format!("--header: {error}")))?;
        Ok(Rule { form, headers, on_bad_line })
    }

    /// Where bad lines are kept, if they are.
    fn bad_lines_in(&self) -> Option<BadLinesIn> {
        let topic = || self.bad_lines_topic.clone().map(BadLinesIn::Topic);
        let Some(path) = &self.bad_lines_file else { return topic() };
        let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
        Some(BadLinesIn::File(path.to_string_lossy().into_owned()))
    }
}

async fn bad_lines_topic(client: &Client, options: &Produce) -> Result<Sink, Failure> {
    let Some(topic) = &options.bad_lines_topic else { return Ok(Sink::Nowhere) };
    let mut producer = client.producer(topic, &options.producer).retry_for(options.retry_for);
    if options.register {
        client.ensure_topic(topic).await?;
        producer = producer.register();
    }
    Ok(Sink::Topic(producer.open().await?))
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
    Ok(producer.open().await?)
}
