//! The options of `trunkline produce`.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::Args;

use super::{
    super::{
        created,
        failure::Failure,
        name_value::{self, NameValue},
    },
    delay::DelayArgs,
    file_state::BadLinesDestination,
    follow::FollowArgs,
    message::{Form, OnBadLine, Rule},
};
use crate::{
    client::{Client, Producer, ProducerBuilder},
    proto::NewMessage,
};

/// How long to look for a lost broker by default.
const RETRY_FOR: Duration = Duration::from_secs(60);

/// The same for a shipper that follows files: longer than anybody waits.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// The room in the buffer of a producer that files are followed to: more than is ever sent to it
/// before it is acknowledged, so that one stuck topic does not hold up the others.
const FOLLOWED_BYTES: usize = 64 * 1024 * 1024;

/// Publish lines, each as a message.
#[derive(Args, Debug)]
pub(in super::super) struct ProduceArgs {
    /// The topic's name. With --topic-from there is none, and all arguments are files.
    pub(super) topic: String,
    /// The producer's id.
    #[arg(long, value_name = "ID")]
    pub(super) producer: String,
    /// Create the topic and register the producer if they do not exist.
    #[arg(long)]
    pub(super) register: bool,
    /// Continue each file where this producer left it: nothing is stored twice, and lines written
    /// in the meantime are shipped by the next run. A file is recognised by its inode and its
    /// content, so a rotated log is shipped from its beginning. A last line without a line end is
    /// not shipped until it has one.
    #[arg(long, group = "continues")]
    pub(super) resume: bool,
    #[command(flatten)]
    pub(super) follow: Box<FollowArgs>,
    /// The file that stores how far files are shipped; by default, one under
    /// $XDG_STATE_HOME/trunkline/produce, or trunkline/follow with --follow (~/.local/state without
    /// that variable).
    #[arg(long, value_name = "FILE", requires = "continues")]
    pub(super) state: Option<PathBuf>,
    /// Ship the files from their beginning, even if they were shipped before.
    #[arg(long, requires = "continues", conflicts_with = "same_file")]
    pub(super) restart: bool,
    /// Continue in a file that begins with all that was shipped of another file, if that one is
    /// gone or its content has changed: the copy of a truncated log, or a restored backup. Without
    /// this flag, such a file is refused.
    #[arg(long, requires = "resume")]
    pub(super) same_file: bool,
    /// The files are complete: ship a last line without a line end. With --follow, it needs
    /// --exit-at-end.
    #[arg(long, requires = "continues")]
    pub(super) r#final: bool,
    /// The text between a line's key and its payload; without it, lines have no key.
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["json", "payload_field", "json_payload", "key_field"])]
    key_separator: Option<String>,
    /// A header for every message; may be repeated with other names. With --json, a line's own
    /// header of the same name takes precedence.
    #[arg(long = "header", value_name = "NAME=VALUE")]
    headers: Vec<NameValue>,
    #[command(flatten)]
    delay: DelayArgs,
    /// Lines are JSON objects as `consume --json` prints them: with a payload, which is required, a
    /// key and headers. Bytes that are not text are {"base64": "…"}. Offset, time and producer are
    /// ignored; other fields are refused.
    #[arg(long)]
    json: bool,
    /// Lines are JSON objects, of which this field is the payload: the text of a string, or the
    /// JSON of any other value. Other fields are not stored.
    #[arg(long, value_name = "NAME", conflicts_with = "json_payload")]
    payload_field: Option<String>,
    /// Lines are JSON, and each whole line is a payload.
    #[arg(long)]
    json_payload: bool,
    /// The field that is the key, with --payload-field or --json-payload; null means no key.
    #[arg(long, value_name = "NAME")]
    key_field: Option<String>,
    /// What to do with a line that cannot be a message: stop, skip it, or cut it to the limit, if
    /// it is over the limit and not JSON. The default is to stop; with --resume and --follow, however,
    /// a line over the limit is cut if it is not JSON.
    #[arg(long, value_enum, value_name = "WHAT")]
    pub(super) on_bad_line: Option<OnBadLine>,
    /// Append skipped and cut lines to this file.
    #[arg(long, value_name = "FILE")]
    pub(super) bad_lines_file: Option<PathBuf>,
    /// Publish skipped and cut lines to this topic, with the headers file, line, line-bytes and
    /// problem.
    #[arg(long, value_name = "TOPIC", conflicts_with = "bad_lines_file")]
    pub(super) bad_lines_topic: Option<String>,
    /// The maximum number of messages in a request.
    #[arg(long, value_name = "N", default_value_t = 4_000)]
    pub(super) batch: usize,
    /// How long a line may wait for more lines while other requests are in flight.
    #[arg(long, value_name = "DURATION", default_value = "1ms", value_parser = humantime::parse_duration)]
    pub(super) linger: Duration,
    /// How long to look for a lost broker before giving up. [default: 60s; with --follow, for ever]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub(super) retry_for: Option<Duration>,
    /// The files to publish, one after the other; - is standard input, which is the default.
    #[arg(value_name = "FILE")]
    pub(super) files: Vec<OsString>,
}

impl ProduceArgs {
    /// How lines become messages.
    pub(super) fn rule(&self) -> Result<Rule, Failure> {
        let form = self.form()?;
        let continues = self.resume || self.follow.follow;
        let on_bad_line = self.on_bad_line.unwrap_or(match continues && form.is_plain() {
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
        let mut headers = name_value::unique("--header", &self.headers)?;
        self.delay.add_to(&mut headers)?;
        // With headers that break a limit, no line could be a message.
        let message = NewMessage { headers: headers.clone(), ..NewMessage::default() };
        message.check().map_err(|error| Failure::usage(format!("--header: {error}")))?;
        Ok(Rule { form, headers, on_bad_line, delay: self.delay.delay()? })
    }

    fn form(&self) -> Result<Form, Failure> {
        let key = self.key_field.clone();
        Ok(match (&self.key_separator, &self.payload_field) {
            (Some(separator), _) => Form::Keyed { separator: separator.clone() },
            (None, Some(payload)) => Form::JsonField { payload: payload.clone(), key },
            (None, None) if self.json_payload => Form::WholeJson { key },
            (None, None) if self.key_field.is_some() => {
                return Err(Failure::usage("--key-field needs --payload-field or --json-payload"));
            }
            (None, None) if self.json => Form::Json,
            (None, None) => Form::Payload,
        })
    }

    /// Where bad lines are kept, if they are.
    pub(super) fn bad_lines_destination(&self) -> Option<BadLinesDestination> {
        let topic = || self.bad_lines_topic.clone().map(BadLinesDestination::Topic);
        let Some(path) = &self.bad_lines_file else { return topic() };
        let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
        Some(BadLinesDestination::File(path.to_string_lossy().into_owned()))
    }

    /// The files to publish, one after the other.
    pub(super) fn inputs(&self) -> Vec<OsString> {
        match self.files.is_empty() {
            true => vec!["-".into()],
            false => self.files.clone(),
        }
    }

    /// The files and patterns to follow.
    pub(super) fn followed_files(&self) -> Vec<OsString> {
        let first = self.follow.topic_from.as_ref().map(|_| OsString::from(&self.topic));
        first.into_iter().chain(self.files.iter().cloned()).collect()
    }

    /// Whether to give up when no broker was reached for some time.
    pub(super) fn gives_up_after(&self, lost: Duration) -> bool {
        self.retry_for.is_some_and(|patience| lost >= patience)
    }

    /// Opens the producer on a topic that files are followed to.
    pub(super) async fn open_to_follow(
        &self,
        client: &Client,
        topic: &str,
    ) -> Result<Producer, Failure> {
        let builder = client
            .producer(topic, &self.producer)
            .linger(self.linger)
            .max_batch_messages(self.batch)
            .max_buffered_bytes(FOLLOWED_BYTES);
        self.open(client, topic, builder).await
    }

    /// Opens the producer, which fences its older instances.
    pub(super) async fn open_producer(&self, client: &Client) -> Result<Producer, Failure> {
        let builder = client
            .producer(&self.topic, &self.producer)
            .linger(self.linger)
            .max_batch_messages(self.batch);
        self.open(client, &self.topic, builder).await
    }

    /// Opens a producer on the topic for bad lines, if there is one.
    pub(super) async fn open_bad_lines_topic(
        &self,
        client: &Client,
    ) -> Result<Option<Producer>, Failure> {
        let Some(topic) = &self.bad_lines_topic else { return Ok(None) };
        let builder = client.producer(topic, &self.producer);
        Ok(Some(self.open(client, topic, builder).await?))
    }

    async fn open(
        &self,
        client: &Client,
        topic: &str,
        builder: ProducerBuilder,
    ) -> Result<Producer, Failure> {
        let default = if self.follow.follow { FOR_EVER } else { RETRY_FOR };
        let mut builder = builder.retry_for(self.retry_for.unwrap_or(default));
        if self.register {
            created::ensure_topic(client, topic).await?;
            created::ensure_producer(client, topic, &self.producer).await?;
            // It is registered, so that opening need not look for it first.
            builder = builder.register();
        }
        Ok(builder.open().await?)
    }
}
