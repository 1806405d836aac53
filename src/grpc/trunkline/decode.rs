//! Decodes requests into the broker's types. Invalid requests are refused here, naming the field.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use prost_types::{FieldMask, Timestamp};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::deliver_at;
use crate::{
    broker::{
        Commit, CommitMode, Consume, FrameLimits, NewTopic, OnBusy, Publish, Pull, Stop, TrimTo,
    },
    model::{
        ConsumerId, DeliverAt, Epoch, InvalidInput, InvalidValue, Labels, MAX_MESSAGE_BYTES,
        MAX_REQUEST_MESSAGES, Message, NewMessages, Offset, Origin, ProducerId, Retention,
        Sequence, Start, TimeBound, TopicChanges, TopicName,
    },
    proto::{
        self, Bounded, Elements,
        consume_request::Stop as ProtoStop,
        raw::{PublishRequest, UnboundedMessage, unbounded_message::HeadersEntry},
        trim_topic_request::Before as ProtoBefore,
    },
};

// The limits that clients know are the ones that the broker enforces.
const _: () = {
    assert!(proto::MAX_MESSAGE_BYTES == MAX_MESSAGE_BYTES);
    assert!(proto::MAX_REQUEST_MESSAGES == MAX_REQUEST_MESSAGES);
    assert!(proto::MAX_HEADERS == Labels::MAX_ENTRIES);
    assert!(proto::MAX_HEADERS_BYTES == Labels::MAX_BYTES);
    assert!(proto::MAX_HEADER_NAME_BYTES == Labels::MAX_NAME_BYTES);
    assert!(proto::MAX_DELIVERY_DELAY.as_secs() == DeliverAt::MAX_DELAY.as_secs());
};

type Decoded<T> = Result<T, InvalidInput>;

const MAX_DESCRIPTION_BYTES: usize = 1_024;

const MAX_CLIENT_NAME_BYTES: usize = 255;

/// The paths that an update mask may name.
const CHANGEABLE: [&str; 8] = [
    "description",
    "labels",
    "retention",
    "retention.max_age",
    "retention.max_bytes",
    "retention.max_messages",
    "retention.keep_unread",
    "*",
];

const MIN_AGE: Duration = Duration::from_secs(1);
/// 100 years, so that subtracting an age from the present gives a time that PostgreSQL can
/// represent.
const MAX_AGE: Duration = Duration::from_secs(100 * 365 * 24 * 3_600);

const DEFAULT_HEARTBEAT: Duration = Duration::from_secs(15);
const MIN_HEARTBEAT: Duration = Duration::from_millis(100);
const MAX_HEARTBEAT: Duration = Duration::from_secs(60);

const DEFAULT_PULL: usize = 100;
const MAX_PULL: usize = 10_000;
const MAX_WAIT: Duration = Duration::from_secs(60);

/// Names the field that a value was parsed from.
fn in_field<T>(field: &str, parsed: Result<T, InvalidValue>) -> Decoded<T> {
    parsed.map_err(|invalid| invalid.in_field(field))
}

/// A request, unless it has too many elements in a field: these were counted, and not decoded.
pub(super) fn bounded<M: Elements>(
    request: Bounded<M>,
    field: &str,
    unit: &'static str,
) -> Decoded<M> {
    let over_limit = |count| InvalidInput::over_limit(field, count, M::MOST, unit);
    request.within_limit().map_err(over_limit)
}

pub(super) fn topic_name(name: &str) -> Decoded<TopicName> {
    in_field("topic", TopicName::parse(name))
}

pub(super) fn producer_id(id: &str) -> Decoded<ProducerId> {
    in_field("producer_id", ProducerId::parse(id))
}

pub(super) fn consumer_id(id: &str) -> Decoded<ConsumerId> {
    in_field("consumer_id", ConsumerId::parse(id))
}

/// A producer's ID, or a new one if none is given.
pub(super) fn producer_or_new(id: &str) -> Decoded<ProducerId> {
    if id.is_empty() { Ok(ProducerId::generate()) } else { producer_id(id) }
}

/// A consumer's ID, or a new one if none is given.
pub(super) fn consumer_or_new(id: &str) -> Decoded<ConsumerId> {
    if id.is_empty() { Ok(ConsumerId::generate()) } else { consumer_id(id) }
}

pub(super) fn description(text: String) -> Decoded<String> {
    if text.len() > MAX_DESCRIPTION_BYTES {
        let (actual, limit) = (text.len(), MAX_DESCRIPTION_BYTES);
        return Err(InvalidInput::over_limit("description", actual, limit, "bytes"));
    }
    if text.contains('\0') {
        return Err(InvalidInput::new("description", "holds a NUL character"));
    }
    Ok(text)
}

pub(super) fn labels(entries: BTreeMap<String, String>) -> Decoded<Labels> {
    in_field("labels", Labels::parse(entries))
}

pub(super) fn topic_changes(request: proto::UpdateTopicRequest) -> Decoded<TopicChanges> {
    let proto::UpdateTopicRequest { description, labels, retention, update_mask, .. } = request;
    let paths = update_mask.map(|FieldMask { paths }| paths).unwrap_or_default();
    if let Some(path) = paths.iter().find(|path| !CHANGEABLE.contains(&path.as_str())) {
        // Truncated, as the status is sent in headers, whose size is limited.
        let path: String = path.chars().take(64).collect();
        let problem = format!("names {path:?}, and only {} can change", CHANGEABLE.join(", "));
        return Err(InvalidInput::new("update_mask", problem));
    }
    let is_changed = |path: &str, filled: bool| match paths.as_slice() {
        [] => filled,
        paths => paths.iter().any(|named| {
            named == "*"
                || path
                    .strip_prefix(named.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        }),
    };
    let retention_given = retention.is_some();
    let retention = self::retention(retention)?;
    let changes = TopicChanges {
        description: is_changed("description", !description.is_empty())
            .then(|| self::description(description))
            .transpose()?,
        labels: is_changed("labels", !labels.is_empty())
            .then(|| self::labels(labels))
            .transpose()?,
        max_age: is_changed("retention.max_age", retention_given).then_some(retention.max_age),
        max_bytes: is_changed("retention.max_bytes", retention_given)
            .then_some(retention.max_bytes),
        max_messages: is_changed("retention.max_messages", retention_given)
            .then_some(retention.max_messages),
        keep_unread: is_changed("retention.keep_unread", retention_given)
            .then_some(retention.keep_unread),
    };
    if changes == TopicChanges::default() {
        return Err(InvalidInput::new("update_mask", "leaves nothing to change"));
    }
    Ok(changes)
}

/// A topic to create.
pub(super) fn new_topic(request: proto::CreateTopicRequest) -> Decoded<NewTopic> {
    let proto::CreateTopicRequest { topic, description, labels: entries, retention: kept, .. } =
        request;
    Ok(NewTopic {
        name: topic_name(&topic)?,
        description: self::description(description)?,
        labels: labels(entries)?,
        retention: kept.map(|kept| retention(Some(kept))).transpose()?,
    })
}

/// A topic's retention; without any, messages are kept for ever.
pub(super) fn retention(retention: Option<proto::Retention>) -> Decoded<Retention> {
    let Some(retention) = retention else { return Ok(Retention::default()) };
    let limit = |field: &str, value: i64| {
        not_negative(field, value).map(|value| (value > 0).then_some(value))
    };
    Ok(Retention {
        max_age: retention
            .max_age
            .map(|age| duration("retention.max_age", age, MIN_AGE, MAX_AGE))
            .transpose()?,
        max_bytes: limit("retention.max_bytes", retention.max_bytes)?,
        max_messages: limit("retention.max_messages", retention.max_messages)?,
        keep_unread: retention.keep_unread,
    })
}

/// The names in a stream's last request. Later requests usually repeat them, and then they need not
/// be parsed and allocated again.
#[derive(Default)]
pub(super) struct Names {
    topic: Option<TopicName>,
    producer: Option<ProducerId>,
}

pub(super) fn publish(request: Bounded<PublishRequest>, names: &mut Names) -> Decoded<Publish> {
    let request = bounded(request, "messages", "messages")?;
    // Not collected, which would reuse the memory of the request's messages: it has room for more of
    // them, and is not a multiple of what a message takes, so it would be moved for each request.
    let mut messages = Vec::with_capacity(request.messages.len());
    for entry in request.messages.into_iter().enumerate() {
        messages.push(message(entry)?);
    }
    Ok(Publish {
        topic: name_like_last(&mut names.topic, &request.topic, "topic")?,
        producer: name_like_last(&mut names.producer, &request.producer_id, "producer_id")?,
        epoch: Epoch(not_negative("producer_epoch", request.producer_epoch)?),
        sequence: request.sequence.map(sequence).transpose()?,
        expected_head: request
            .expected_head
            .map(|head| not_negative("expected_head", head).map(Offset))
            .transpose()?,
        messages: in_field("messages", NewMessages::parse(messages))?,
    })
}

/// Decodes a publish request that belongs to no stream.
pub fn decode_publish(request: Bounded<PublishRequest>) -> Decoded<Publish> {
    publish(request, &mut Names::default())
}

/// Reuses the previous request's name if it is the same.
fn name_like_last<N>(last: &mut Option<N>, name: &[u8], field: &str) -> Decoded<N>
where
    N: Clone + AsRef<str> + for<'a> TryFrom<&'a str, Error = InvalidValue>,
{
    if let Some(last) = last.as_ref().filter(|last| last.as_ref().as_bytes() == name) {
        return Ok(last.clone());
    }
    let name = str::from_utf8(name).map_err(|_| InvalidInput::new(field, "is not UTF-8"))?;
    let name = in_field(field, N::try_from(name))?;
    Ok(last.insert(name).clone())
}

/// Sequences end early enough for those of a request's messages not to overflow.
fn sequence(sequence: i64) -> Decoded<Sequence> {
    const LAST: i64 = i64::MAX - MAX_REQUEST_MESSAGES as i64;
    if sequence > LAST {
        let problem = format!("must not exceed {LAST}");
        let limit = Some(LAST as u64);
        return Err(InvalidInput { field: "sequence".to_owned(), problem, limit });
    }
    not_negative("sequence", sequence).map(Sequence)
}

fn not_negative(field: &str, value: i64) -> Decoded<i64> {
    if value < 0 { Err(InvalidInput::new(field, "must not be negative")) } else { Ok(value) }
}

fn message((index, message): (usize, Bounded<UnboundedMessage>)) -> Decoded<Message> {
    let within = |invalid: InvalidInput| invalid.within(&format!("messages[{index}]"));
    let message = bounded(message, "headers", "entries").map_err(within)?;
    let UnboundedMessage { payload, key, headers, deliver_at } = message;
    let headers = match headers.is_empty() && deliver_at.is_none() {
        true => Labels::default(),
        false => self::headers(headers, deliver_at).map_err(within)?,
    };
    Ok(Message { payload, key, headers })
}

/// A message's headers, with the one that says when it is to be delivered. Of two entries with the same
/// name the last one counts, as in every protobuf map.
fn headers(entries: Vec<HeadersEntry>, deliver_at: Option<Timestamp>) -> Decoded<Labels> {
    let text = |bytes: &[u8]| match str::from_utf8(bytes) {
        Ok(text) => Ok(text.to_owned()),
        Err(_) => Err(InvalidInput::new("headers", "holds a name or a value that is not UTF-8")),
    };
    let entries = entries.iter().map(|HeadersEntry { key, value }| Ok((text(key)?, text(value)?)));
    let mut entries = entries.collect::<Decoded<_>>()?;
    deliver_at::add_to(&mut entries, deliver_at, SystemTime::now)?;
    in_field("headers", Labels::parse(entries))
}

/// Five requests name a position in the log, each with a oneof of its own.
macro_rules! decode_start {
    ($($name:ident: $oneof:path),*) => {$(
        pub(super) fn $name(start: Option<$oneof>) -> Decoded<Start> {
            use $oneof as OneOf;
            match start {
                None => Ok(Start::Earliest),
                Some(OneOf::Edge(value)) => edge(value),
                Some(OneOf::Offset(value)) => offset("offset", value).map(Start::Offset),
                Some(OneOf::Time(value)) => time(value).map(Start::Time),
            }
        }
    )*};
}

decode_start!(
    start: proto::register_consumer_request::Start,
    subscription_start: proto::create_subscription_request::Start,
    seek_target: proto::seek_request::Target,
    subscription_target: proto::seek_subscription_request::Target,
    read_start: proto::read_messages_request::Start
);

pub(super) fn trim_to(before: Option<ProtoBefore>) -> Decoded<TrimTo> {
    match before {
        None => Err(InvalidInput::new("before", "must be an offset or a time")),
        Some(ProtoBefore::Offset(value)) => offset("offset", value).map(TrimTo::Offset),
        Some(ProtoBefore::Time(value)) => time(value).map(TrimTo::Time),
    }
}

fn edge(edge: i32) -> Decoded<Start> {
    match proto::LogEdge::try_from(edge) {
        Ok(proto::LogEdge::Unspecified | proto::LogEdge::Earliest) => Ok(Start::Earliest),
        Ok(proto::LogEdge::Latest) => Ok(Start::Latest),
        Err(_) => Err(unknown_value("edge", edge)),
    }
}

pub(super) fn offset(field: &str, offset: i64) -> Decoded<Offset> {
    not_negative(field, offset).map(Offset)
}

fn time(Timestamp { seconds, nanos }: Timestamp) -> Decoded<TimeBound> {
    in_field("time", TimeBound::parse(seconds, nanos))
}

pub(super) fn consume(
    request: proto::ConsumeRequest,
    connection: String,
    deadline: Option<Instant>,
) -> Decoded<Consume> {
    let commit_mode = match proto::CommitMode::try_from(request.commit_mode) {
        Ok(proto::CommitMode::Unspecified | proto::CommitMode::Auto) => CommitMode::Auto,
        Ok(proto::CommitMode::Manual) => CommitMode::Manual,
        Err(_) => return Err(unknown_value("commit_mode", request.commit_mode)),
    };
    let up_to = |field, requested, max: usize| count(field, requested, max, max);
    let max_in_flight = up_to("max_in_flight", request.max_in_flight, usize::MAX)?;
    if max_in_flight < usize::MAX && commit_mode == CommitMode::Auto {
        let problem = "needs COMMIT_MODE_MANUAL: in auto mode nothing waits for a commit";
        return Err(InvalidInput::new("max_in_flight", problem));
    }
    Ok(Consume {
        topic: topic_name(&request.topic)?,
        consumer: consumer_id(&request.consumer_id)?,
        commit_mode,
        on_busy: match proto::OnBusy::try_from(request.on_busy) {
            Ok(proto::OnBusy::Unspecified | proto::OnBusy::Wait) => OnBusy::Wait,
            Ok(proto::OnBusy::Fail) => OnBusy::Fail,
            Ok(proto::OnBusy::TakeOver) => OnBusy::TakeOver,
            Err(_) => return Err(unknown_value("on_busy", request.on_busy)),
        },
        heartbeat: heartbeat("heartbeat_interval", request.heartbeat_interval)?,
        stop: stop(request.stop)?,
        frame: FrameLimits {
            messages: up_to(
                "max_batch_messages",
                request.max_batch_messages,
                FrameLimits::MAX.messages,
            )?,
            bytes: up_to("max_batch_bytes", request.max_batch_bytes, FrameLimits::MAX.bytes)?,
            end: FrameLimits::MAX.end,
        },
        max_in_flight: (max_in_flight < usize::MAX).then_some(max_in_flight),
        deadline,
        holder: if request.client_name.is_empty() {
            connection
        } else {
            client_name(request.client_name)?
        },
        is_missing: false,
        origin: Origin::default(),
        withdrawn: CancellationToken::new(),
    })
}

/// How long a stream may be silent.
pub(super) fn heartbeat(field: &str, interval: Option<prost_types::Duration>) -> Decoded<Duration> {
    match interval {
        None => Ok(DEFAULT_HEARTBEAT),
        Some(interval) => duration(field, interval, MIN_HEARTBEAT, MAX_HEARTBEAT),
    }
}

fn stop(stop: Option<ProtoStop>) -> Decoded<Option<Stop>> {
    Ok(match stop {
        None | Some(ProtoStop::UntilCaughtUp(false)) => None,
        Some(ProtoStop::UntilCaughtUp(true)) => Some(Stop::CaughtUp),
        Some(ProtoStop::UntilOffset(offset)) => {
            Some(Stop::Offset(Offset(not_negative("until_offset", offset)?)))
        }
        Some(ProtoStop::MaxMessages(count)) => match u64::try_from(count) {
            Ok(count @ 1..) => Some(Stop::Messages(count)),
            _ => return Err(InvalidInput::new("max_messages", "must be at least 1")),
        },
    })
}

fn client_name(name: String) -> Decoded<String> {
    if name.len() > MAX_CLIENT_NAME_BYTES {
        let (actual, limit) = (name.len(), MAX_CLIENT_NAME_BYTES);
        return Err(InvalidInput::over_limit("client_name", actual, limit, "bytes"));
    }
    if name.chars().any(char::is_control) {
        return Err(InvalidInput::new("client_name", "holds a control character"));
    }
    Ok(name)
}

pub(super) fn commit(request: &proto::CommitRequest) -> Decoded<Commit> {
    let proto::CommitRequest { topic, consumer_id, epoch, position } = request;
    let (topic, consumer) = (topic_name(topic)?, self::consumer_id(consumer_id)?);
    if *epoch < 1 {
        let problem = "must be the one from the stream's attached frame, at least 1";
        return Err(InvalidInput::new("epoch", problem));
    }
    let position = Offset(not_negative("position", *position)?);
    Ok(Commit { topic, consumer, epoch: Epoch(*epoch), position })
}

pub(super) fn pull(request: proto::PullRequest, deadline: Option<Instant>) -> Decoded<Pull> {
    Ok(Pull {
        topic: topic_name(&request.topic)?,
        consumer: consumer_id(&request.consumer_id)?,
        max_messages: page_of_messages(request.max_messages)?,
        deadline,
        wait: wait(request.wait)?,
        answers: None,
    })
}

/// How long a call waits for messages; not at all if nothing is given.
pub(super) fn wait(wait: Option<prost_types::Duration>) -> Decoded<Duration> {
    wait.map_or(Ok(Duration::ZERO), |wait| duration("wait", wait, Duration::ZERO, MAX_WAIT))
}

/// How many messages an answer may hold.
pub(super) fn page_of_messages(requested: i32) -> Decoded<usize> {
    count("max_messages", requested, DEFAULT_PULL, MAX_PULL)
}

/// A count: 0 means the default, and more than `max` means `max`.
pub(super) fn count(field: &str, requested: i32, default: usize, max: usize) -> Decoded<usize> {
    match usize::try_from(requested) {
        Err(_) => Err(InvalidInput::new(field, "must not be negative")),
        Ok(0) => Ok(default),
        Ok(requested) => Ok(requested.min(max)),
    }
}

pub(super) fn duration(
    field: &str,
    value: prost_types::Duration,
    min: Duration,
    max: Duration,
) -> Decoded<Duration> {
    Duration::try_from(value).ok().filter(|value| (min..=max).contains(value)).ok_or_else(|| {
        let problem = format!("must lie between {min:?} and {max:?}");
        InvalidInput { field: field.to_owned(), problem, limit: Some(max.as_secs()) }
    })
}

pub(super) fn unknown_value(field: &str, value: i32) -> InvalidInput {
    InvalidInput::new(field, format!("has the value {value}, which this broker does not know"))
}
