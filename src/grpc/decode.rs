//! Requests into the broker's words; what is ill-formed is refused here, by field.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use prost_types::{FieldMask, Timestamp};

use crate::{
    broker::{CommitMode, Consume, OnBusy, Publish, Pull},
    model::{
        ConsumerId, Epoch, InvalidInput, Labels, MAX_REQUEST_MESSAGES, Message, NewMessages,
        Offset, ProducerId, Sequence, Start, TopicChanges, TopicName,
    },
    proto::{self, register_consumer_request::Start as ProtoStart},
};

type Decoded<T> = Result<T, InvalidInput>;

const MAX_DESCRIPTION_BYTES: usize = 1_024;

const DEFAULT_HEARTBEAT: Duration = Duration::from_secs(15);
const MIN_HEARTBEAT: Duration = Duration::from_millis(100);
const MAX_HEARTBEAT: Duration = Duration::from_secs(60);

const DEFAULT_PULL: usize = 100;
const MAX_PULL: usize = 10_000;
const MAX_WAIT: Duration = Duration::from_secs(60);

/// A producer's id, or a new one if there is none.
pub(super) fn producer_or_new(id: &str) -> Decoded<ProducerId> {
    if id.is_empty() { Ok(ProducerId::generate()) } else { ProducerId::parse(id) }
}

/// A consumer's id, or a new one if there is none.
pub(super) fn consumer_or_new(id: &str) -> Decoded<ConsumerId> {
    if id.is_empty() { Ok(ConsumerId::generate()) } else { ConsumerId::parse(id) }
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
    Labels::parse("labels", entries)
}

pub(super) fn topic_changes(request: proto::UpdateTopicRequest) -> Decoded<TopicChanges> {
    let proto::UpdateTopicRequest { description, labels, update_mask, .. } = request;
    let paths = update_mask.map(|FieldMask { paths }| paths).unwrap_or_default();
    let known = |path: &&String| ["description", "labels", "*"].contains(&path.as_str());
    if let Some(path) = paths.iter().find(|path| !known(path)) {
        // Cut short: a status travels in headers, which are bounded.
        let path: String = path.chars().take(64).collect();
        let problem = format!("names {path:?}, and only description, labels and * can change");
        return Err(InvalidInput::new("update_mask", problem));
    }
    let asked = |path: &str, filled: bool| match paths.as_slice() {
        [] => filled,
        paths => paths.iter().any(|named| named == path || named == "*"),
    };
    let (of_description, of_labels) =
        (asked("description", !description.is_empty()), asked("labels", !labels.is_empty()));
    if !of_description && !of_labels {
        return Err(InvalidInput::new("update_mask", "leaves nothing to change"));
    }
    Ok(TopicChanges {
        description: of_description.then(|| self::description(description)).transpose()?,
        labels: of_labels.then(|| self::labels(labels)).transpose()?,
    })
}

pub(super) fn publish(request: proto::PublishRequest) -> Decoded<Publish> {
    let messages = request.messages.into_iter().enumerate().map(message).collect::<Decoded<_>>()?;
    Ok(Publish {
        topic: TopicName::parse(&request.topic)?,
        producer: ProducerId::parse(&request.producer_id)?,
        epoch: Epoch(not_negative("producer_epoch", request.producer_epoch)?),
        sequence: request.sequence.map(sequence).transpose()?,
        expected_head: request
            .expected_head
            .map(|head| not_negative("expected_head", head).map(Offset))
            .transpose()?,
        messages: NewMessages::parse(messages)?,
    })
}

/// A publish stream's request says the same as a unary one.
pub(super) fn streamed_publish(request: proto::PublishStreamRequest) -> Decoded<Publish> {
    let proto::PublishStreamRequest {
        topic,
        producer_id,
        messages,
        sequence,
        expected_head,
        producer_epoch,
    } = request;
    publish(proto::PublishRequest {
        topic,
        producer_id,
        messages,
        sequence,
        expected_head,
        producer_epoch,
    })
}

/// Sequences end where the numbers of a request's messages could not be counted any more.
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

fn message((index, message): (usize, proto::NewMessage)) -> Decoded<Message> {
    let proto::NewMessage { payload, key, headers } = message;
    let headers = match headers.is_empty() {
        true => Labels::default(),
        false => Labels::parse("headers", headers)
            .map_err(|invalid| invalid.within(&format!("messages[{index}]")))?,
    };
    Ok(Message { payload, key, headers })
}

pub(super) fn start(start: Option<ProtoStart>) -> Decoded<Start> {
    match start {
        None => Ok(Start::Earliest),
        Some(ProtoStart::Edge(edge)) => match proto::LogEdge::try_from(edge) {
            Ok(proto::LogEdge::Unspecified | proto::LogEdge::Earliest) => Ok(Start::Earliest),
            Ok(proto::LogEdge::Latest) => Ok(Start::Latest),
            Err(_) => Err(unknown_value("edge", edge)),
        },
        Some(ProtoStart::Offset(offset)) => {
            not_negative("offset", offset).map(|offset| Start::Offset(Offset(offset)))
        }
        Some(ProtoStart::Time(time)) => self::time(time).map(Start::Time),
    }
}

/// The times that both protobuf and PostgreSQL know: the years 1 to 9999.
fn time(time: Timestamp) -> Decoded<SystemTime> {
    const YEAR_1: i64 = -62_135_596_800;
    const YEAR_10000: i64 = 253_402_300_800;
    let invalid = || InvalidInput::new("time", "is no time of the years 1 to 9999");
    if !(YEAR_1..YEAR_10000).contains(&time.seconds) || !(0..1_000_000_000).contains(&time.nanos) {
        return Err(invalid());
    }
    time.try_into().map_err(|_| invalid())
}

pub(super) fn consume(request: proto::ConsumeRequest, holder: String) -> Decoded<Consume> {
    Ok(Consume {
        topic: TopicName::parse(&request.topic)?,
        consumer: ConsumerId::parse(&request.consumer_id)?,
        commit_mode: match proto::CommitMode::try_from(request.commit_mode) {
            Ok(proto::CommitMode::Unspecified | proto::CommitMode::Auto) => CommitMode::Auto,
            Ok(proto::CommitMode::Manual) => CommitMode::Manual,
            Err(_) => return Err(unknown_value("commit_mode", request.commit_mode)),
        },
        on_busy: match proto::OnBusy::try_from(request.on_busy) {
            Ok(proto::OnBusy::Unspecified | proto::OnBusy::Wait) => OnBusy::Wait,
            Ok(proto::OnBusy::Fail) => OnBusy::Fail,
            Err(_) => return Err(unknown_value("on_busy", request.on_busy)),
        },
        heartbeat: match request.heartbeat_interval {
            None => DEFAULT_HEARTBEAT,
            Some(interval) => {
                duration("heartbeat_interval", interval, MIN_HEARTBEAT, MAX_HEARTBEAT)?
            }
        },
        holder,
    })
}

pub(super) fn pull(request: proto::PullRequest) -> Decoded<Pull> {
    Ok(Pull {
        topic: TopicName::parse(&request.topic)?,
        consumer: ConsumerId::parse(&request.consumer_id)?,
        max_messages: match usize::try_from(request.max_messages) {
            Err(_) => return Err(InvalidInput::new("max_messages", "must not be negative")),
            Ok(0) => DEFAULT_PULL,
            Ok(asked) => asked.min(MAX_PULL),
        },
        wait: match request.wait {
            None => Duration::ZERO,
            Some(wait) => duration("wait", wait, Duration::ZERO, MAX_WAIT)?,
        },
    })
}

fn duration(
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

fn unknown_value(field: &str, value: i32) -> InvalidInput {
    InvalidInput::new(field, format!("has the value {value}, which this broker does not know"))
}
