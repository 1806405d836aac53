//! Decodes the requests of a worker's stream.

use std::time::Duration;

use crate::{
    broker::{Settlement, Subscribe, WorkerLimits},
    grpc::trunkline::{decode, subscription_requests},
    model::InvalidInput,
    proto::{self, subscribe_request::Request as ProtoRequest},
};

type Decoded<T> = Result<T, InvalidInput>;

/// How many messages a worker can have, and how many bytes of messages.
const DEFAULT_OUTSTANDING: usize = 1_000;
const MAX_OUTSTANDING: usize = 100_000;
const DEFAULT_OUTSTANDING_BYTES: usize = 64 * 1024 * 1024;
const MAX_OUTSTANDING_BYTES: usize = 256 * 1024 * 1024;

/// How many messages it gets together.
const DEFAULT_BATCH: usize = 1_000;
const MAX_BATCH: usize = 10_000;

/// What the first request of a worker's stream asks for, and how long the stream may be silent.
pub(in crate::grpc) fn open(
    request: Option<proto::SubscribeRequest>,
) -> Decoded<(Subscribe, Duration)> {
    let request = request.and_then(|request| request.request);
    let Some(ProtoRequest::Open(open)) = request else {
        return Err(InvalidInput::new("request", "must be open in the first request"));
    };
    let proto::OpenSubscription {
        topic,
        subscription_id,
        max_outstanding_messages,
        max_outstanding_bytes,
        max_batch_messages,
        heartbeat_interval,
    } = open;
    let (topic, subscription) = subscription_requests::names(&topic, &subscription_id)
        .map_err(|invalid| invalid.within("open"))?;
    let messages = bounded(
        "open.max_outstanding_messages",
        max_outstanding_messages.into(),
        (DEFAULT_OUTSTANDING, MAX_OUTSTANDING),
    )?;
    let bytes = bounded(
        "open.max_outstanding_bytes",
        max_outstanding_bytes,
        (DEFAULT_OUTSTANDING_BYTES, MAX_OUTSTANDING_BYTES),
    )?;
    let max_batch_messages =
        decode::count("open.max_batch_messages", max_batch_messages, DEFAULT_BATCH, MAX_BATCH)?;
    let heartbeat = decode::heartbeat("open.heartbeat_interval", heartbeat_interval)?;
    let limits = WorkerLimits { messages, bytes };
    Ok((Subscribe { topic, subscription, limits, max_batch_messages }, heartbeat))
}

/// A number that has a default and a limit.
fn bounded(field: &str, value: i64, (default, limit): (usize, usize)) -> Decoded<usize> {
    match usize::try_from(value) {
        Ok(0) => Ok(default),
        Ok(value) if value <= limit => Ok(value),
        _ => Err(InvalidInput {
            field: field.to_owned(),
            problem: format!("must lie between 0 and {limit}"),
            limit: Some(limit as u64),
        }),
    }
}

/// What a later request of a worker's stream asks for.
pub(super) enum Asked {
    Settle { request_id: i64, settlements: Vec<Settlement> },
    Stop,
}

pub(super) fn asked(request: proto::SubscribeRequest) -> Decoded<Asked> {
    match request.request {
        Some(ProtoRequest::Settle(proto::SettleMessages { settlements, request_id })) => {
            let settlements = subscription_requests::settlements(settlements)
                .map_err(|invalid| invalid.within("settle"))?;
            Ok(Asked::Settle { request_id, settlements })
        }
        Some(ProtoRequest::Stop(proto::StopDelivery {})) => Ok(Asked::Stop),
        Some(ProtoRequest::Open(_)) => {
            Err(InvalidInput::new("request", "must not be open again: the stream is open"))
        }
        None => Err(InvalidInput::new("request", "must be settle or stop")),
    }
}
