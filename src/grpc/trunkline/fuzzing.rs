//! What the fuzz targets call.

use bytes::Bytes;
use prost::Message;

use super::{decode, page_token, subscription_requests};
use crate::proto::{self, Bounded, raw::PublishRequest};

/// Reads bytes as a request of each kind. The first byte chooses the kind.
pub fn request(data: &[u8]) {
    let Some((kind, data)) = data.split_first() else { return };
    let data = Bytes::copy_from_slice(data);
    match kind % 13 {
        0 => check(data, decode::decode_publish),
        1 => check(data, |request: Bounded<PublishRequest>| {
            // A stream's requests reuse the names of those before.
            let mut names = decode::Names::default();
            decode::publish(request.clone(), &mut names)?;
            decode::publish(request, &mut names)
        }),
        2 => check(data, |request: Bounded<proto::CreateTopicRequest>| {
            let request = decode::bounded(request, "labels", "entries")?;
            decode::topic_name(&request.topic)?;
            decode::description(request.description)?;
            decode::labels(request.labels)?;
            decode::retention(request.retention)
        }),
        3 => check(data, decode::topic_changes),
        4 => check(data, |request: proto::ReadMessagesRequest| {
            decode::page_of_messages(request.max_messages)?;
            decode::read_start(request.start)
        }),
        5 => check(data, |request: proto::TrimTopicRequest| decode::trim_to(request.before)),
        6 => check(data, |request| decode::consume(request, String::new(), None)),
        7 => check(data, |request| decode::pull(request, None)),
        8 => check(data, |request| subscription_requests::receive(request, None)),
        9 => check(data, subscription_requests::settle),
        10 => check(data, |request: proto::CreateSubscriptionRequest| {
            subscription_requests::policy(request.policy)?;
            decode::subscription_start(request.start)
        }),
        11 => check(data, |request: proto::SeekSubscriptionRequest| {
            subscription_requests::names(&request.topic, &request.subscription_id)?;
            decode::subscription_target(request.target)
        }),
        _ => check(data, |request| decode::commit(&request)),
    }
}

fn check<R: Message + Default, D, E>(data: Bytes, decode: impl FnOnce(R) -> Result<D, E>) {
    if let Ok(request) = R::decode(data) {
        let _ = decode(request);
    }
}

/// Reads a page token of each list.
pub fn page_token(text: &str) {
    for list in ["topics", "producers"] {
        let _ = page_token::decode(list, 0, text);
    }
}
