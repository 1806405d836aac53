//! Decodes what is asked of subscriptions.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    broker::{Error, Parked, Receive, Settle, Settlement, Verdict},
    grpc::trunkline::{decode, subscription_answers as answers},
    model::{
        Backoff, ConsumerId, DeliveryPolicy, Filter, InvalidInput, MAX_REASON_CHARACTERS, Offset,
        OffsetRange, TopicName,
    },
    proto::{self, settlement::Verdict as ProtoVerdict},
};

type Decoded<T> = Result<T, InvalidInput>;

const MIN_DEADLINE: Duration = Duration::from_secs(1);
const MAX_DEADLINE: Duration = Duration::from_secs(600);

const MAX_DELAY: Duration = Duration::from_secs(24 * 3_600);

const MAX_DELIVERIES: u32 = 1_000;

const MAX_OUTSTANDING_MESSAGES: u32 = 100_000;

const MAX_SETTLEMENTS: usize = 10_000;

/// The names in a request.
pub(in crate::grpc) fn names(topic: &str, subscription: &str) -> Decoded<(TopicName, ConsumerId)> {
    let topic = decode::topic_name(topic)?;
    Ok((topic, subscription_id(subscription)?))
}

pub(in crate::grpc) fn subscription_id(id: &str) -> Decoded<ConsumerId> {
    ConsumerId::parse(id).map_err(|invalid| invalid.in_field("subscription_id"))
}

/// A subscription's id, or a new one if none is given.
pub(in crate::grpc) fn subscription_or_new(id: &str) -> Decoded<ConsumerId> {
    if id.is_empty() { Ok(ConsumerId::generate()) } else { subscription_id(id) }
}

pub(in crate::grpc) fn policy(policy: Option<proto::DeliveryPolicy>) -> Decoded<DeliveryPolicy> {
    let default = DeliveryPolicy::default();
    let Some(policy) = policy else { return Ok(default) };
    let proto::DeliveryPolicy { ack_deadline, min_backoff, max_backoff, .. } = policy;
    let time = |field, value: Option<_>, range: (Duration, Duration), default| {
        value.map_or(Ok(default), |value| decode::duration(field, value, range.0, range.1))
    };
    let shortest = default.backoff.shortest;
    let shortest = time("policy.min_backoff", min_backoff, (Duration::ZERO, MAX_DELAY), shortest)?;
    let longest = default.backoff.longest.max(shortest);
    let longest = time("policy.max_backoff", max_backoff, (shortest, MAX_DELAY), longest)?;
    let deadlines = (MIN_DEADLINE, MAX_DEADLINE);
    Ok(DeliveryPolicy {
        ack_deadline: time("policy.ack_deadline", ack_deadline, deadlines, default.ack_deadline)?,
        backoff: Backoff { shortest, longest },
        max_deliveries: most("policy.max_deliveries", policy.max_deliveries, MAX_DELIVERIES)?,
        filter: filter_of(&policy.filter)?,
        dead_letter_topic: dead_letter_topic(&policy.dead_letter_topic)?,
        exactly_once: policy.exactly_once,
        outstanding_messages: most(
            "policy.max_outstanding_messages",
            policy.max_outstanding_messages,
            MAX_OUTSTANDING_MESSAGES,
        )?,
        outstanding_bytes: outstanding_bytes(policy.max_outstanding_bytes)?,
    })
}

fn filter_of(filter: &str) -> Decoded<Option<Arc<Filter>>> {
    let (characters, limit) = (filter.chars().count(), Filter::MAX_CHARACTERS);
    if characters > limit {
        return Err(InvalidInput::over_limit("policy.filter", characters, limit, "characters"));
    }
    if filter.is_empty() {
        return Ok(None);
    }
    match Filter::parse(filter) {
        Ok(filter) => Ok(Some(Arc::new(filter))),
        Err(error) => Err(InvalidInput::new("policy.filter", error.to_string())),
    }
}

/// A number up to `limit`, of which 0 stands for none.
fn most(field: &str, most: i32, limit: u32) -> Decoded<Option<u32>> {
    match u32::try_from(most) {
        Ok(0) => Ok(None),
        Ok(most) if most <= limit => Ok(Some(most)),
        _ => Err(InvalidInput {
            field: field.to_owned(),
            problem: format!("must lie between 0 and {limit}"),
            limit: Some(limit.into()),
        }),
    }
}

fn outstanding_bytes(most: i64) -> Decoded<Option<u64>> {
    let invalid = |_| InvalidInput::new("policy.max_outstanding_bytes", "must not be negative");
    let most = u64::try_from(most).map_err(invalid)?;
    Ok((most > 0).then_some(most))
}

fn dead_letter_topic(name: &str) -> Decoded<Option<TopicName>> {
    if name.is_empty() {
        return Ok(None);
    }
    let topic = TopicName::parse(name);
    topic.map(Some).map_err(|invalid| invalid.in_field("policy.dead_letter_topic"))
}

pub(in crate::grpc) fn receive(
    request: proto::ReceiveRequest,
    deadline: Option<Instant>,
) -> Decoded<Receive> {
    let (topic, subscription) = names(&request.topic, &request.subscription_id)?;
    Ok(Receive {
        topic,
        subscription,
        max_messages: decode::page_of_messages(request.max_messages)?,
        wait: decode::wait(request.wait)?,
        deadline,
        answers: None,
    })
}

/// The dead-letter topic that a change sets, if it sets one.
pub(super) fn dead_letter_topic_set(
    request: &proto::UpdateSubscriptionRequest,
) -> Decoded<Option<TopicName>> {
    let paths = request.update_mask.as_ref().map(|mask| &mask.paths[..]).unwrap_or_default();
    let is_set = paths.is_empty() || paths.iter().any(|path| path == "dead_letter_topic");
    let given = request.policy.as_ref().filter(|_| is_set);
    given.map_or(Ok(None), |policy| dead_letter_topic(&policy.dead_letter_topic))
}

/// How a policy changes.
pub(in crate::grpc) fn policy_change(
    request: proto::UpdateSubscriptionRequest,
) -> Decoded<impl Fn(&DeliveryPolicy) -> Result<DeliveryPolicy, Error> + Send + Sync + 'static> {
    let paths = request.update_mask.map(|mask| mask.paths).unwrap_or_default();
    let is_known = |path: &str| CHANGEABLE.iter().any(|(field, _)| *field == path);
    if let Some(path) = paths.iter().find(|path| !is_known(path)) {
        // Truncated, as the status is sent in headers, whose size is limited.
        let path: String = path.chars().take(64).collect();
        let known = CHANGEABLE.map(|(field, _)| field).join(", ");
        let problem = format!("names {path:?}, and only {known} can change");
        return Err(InvalidInput::new("update_mask", problem));
    }
    let given = request.policy.unwrap_or_default();
    Ok(move |stored: &DeliveryPolicy| {
        let mut changed = answers::policy(stored);
        for (field, copy) in CHANGEABLE {
            if paths.is_empty() || paths.iter().any(|path| path == field) {
                copy(&mut changed, &given);
            }
        }
        Ok(policy(Some(changed))?)
    })
}

/// Copies a field of a policy to another one.
type Copy = fn(&mut proto::DeliveryPolicy, &proto::DeliveryPolicy);

/// The fields of a policy, and how each is copied.
const CHANGEABLE: [(&str, Copy); 9] = [
    ("ack_deadline", |to, from| to.ack_deadline = from.ack_deadline),
    ("min_backoff", |to, from| to.min_backoff = from.min_backoff),
    ("max_backoff", |to, from| to.max_backoff = from.max_backoff),
    ("max_deliveries", |to, from| to.max_deliveries = from.max_deliveries),
    ("filter", |to, from| to.filter.clone_from(&from.filter)),
    ("dead_letter_topic", |to, from| to.dead_letter_topic.clone_from(&from.dead_letter_topic)),
    ("exactly_once", |to, from| to.exactly_once = from.exactly_once),
    ("max_outstanding_messages", |to, from| {
        to.max_outstanding_messages = from.max_outstanding_messages;
    }),
    ("max_outstanding_bytes", |to, from| to.max_outstanding_bytes = from.max_outstanding_bytes),
];

/// The parked messages that a call is about.
pub(in crate::grpc) fn parked(
    topic: &str,
    subscription: &str,
    offsets: Vec<i64>,
    ranges: Vec<proto::OffsetRange>,
) -> Decoded<Parked> {
    let (topic, subscription) = names(topic, subscription)?;
    for (field, count) in [("offsets", offsets.len()), ("ranges", ranges.len())] {
        if count > MAX_SETTLEMENTS {
            return Err(InvalidInput::over_limit(field, count, MAX_SETTLEMENTS, "entries"));
        }
    }
    Ok(Parked { topic, subscription, ranges: self::ranges(offsets, ranges)? })
}

/// An offset in a page token.
pub(in crate::grpc) fn parse_offset(text: &str) -> Option<Offset> {
    text.parse().ok().filter(|offset| (0..i64::MAX).contains(offset)).map(Offset)
}

pub(in crate::grpc) fn settle(request: proto::SettleRequest) -> Decoded<Settle> {
    let proto::SettleRequest { topic, subscription_id, settlements } = request;
    let (topic, subscription) = names(&topic, &subscription_id)?;
    let settlements = self::settlements(settlements)?.into();
    Ok(Settle { topic, subscription, settlements })
}

pub(in crate::grpc) fn settlements(
    settlements: Vec<proto::Settlement>,
) -> Decoded<Vec<Settlement>> {
    if settlements.is_empty() {
        return Err(InvalidInput::new("settlements", "must not be empty"));
    }
    if settlements.len() > MAX_SETTLEMENTS {
        let (count, limit) = (settlements.len(), MAX_SETTLEMENTS);
        return Err(InvalidInput::over_limit("settlements", count, limit, "settlements"));
    }
    let decode = |(index, it)| {
        settlement(it)
            .map_err(|invalid: InvalidInput| invalid.within(&format!("settlements[{index}]")))
    };
    settlements.into_iter().enumerate().map(decode).collect()
}

fn settlement(settlement: proto::Settlement) -> Decoded<Settlement> {
    let proto::Settlement { delivery, offsets, ranges, verdict } = settlement;
    let delivery = u64::try_from(delivery).ok().filter(|delivery| *delivery > 0);
    let delivery = delivery.ok_or_else(|| {
        InvalidInput::new("delivery", "must be the one that the messages came in, at least 1")
    })?;
    Ok(Settlement {
        delivery,
        ranges: self::ranges(offsets, ranges)?,
        verdict: self::verdict(verdict)?,
    })
}

/// The messages that are named, in ranges that do not overlap.
fn ranges(offsets: Vec<i64>, ranges: Vec<proto::OffsetRange>) -> Decoded<Vec<OffsetRange>> {
    let mut decoded = Vec::with_capacity(offsets.len() + ranges.len());
    for offset in offsets {
        if offset == i64::MAX {
            return Err(InvalidInput::new("offsets", "holds an offset that no message has"));
        }
        let start = decode::offset("offsets", offset)?;
        decoded.push(OffsetRange { start, end: start.after(1) });
    }
    for proto::OffsetRange { first_offset, end_offset } in ranges {
        let start = decode::offset("ranges.first_offset", first_offset)?;
        if end_offset <= first_offset {
            return Err(InvalidInput::new(
                "ranges.end_offset",
                "must be greater than first_offset",
            ));
        }
        decoded.push(OffsetRange { start, end: Offset(end_offset) });
    }
    decoded.sort_unstable_by_key(|range| range.start);
    decoded.dedup_by(|next, before| {
        let follows = next.start <= before.end;
        if follows {
            before.end = before.end.max(next.end);
        }
        follows
    });
    Ok(decoded)
}

fn verdict(verdict: Option<ProtoVerdict>) -> Decoded<Verdict> {
    Ok(match verdict {
        None => {
            let problem = "must be acknowledge, retry, reject, release or extend";
            return Err(InvalidInput::new("verdict", problem));
        }
        Some(ProtoVerdict::Acknowledge(proto::Acknowledge {})) => Verdict::Acknowledge,
        Some(ProtoVerdict::Retry(proto::Retry { delay })) => {
            let delay =
                delay.map(|it| decode::duration("retry.delay", it, Duration::ZERO, MAX_DELAY));
            Verdict::Retry { delay: delay.transpose()? }
        }
        Some(ProtoVerdict::Reject(proto::Reject { reason })) => {
            Verdict::Reject { reason: self::reason(reason)?.into() }
        }
        Some(ProtoVerdict::Release(proto::Release {})) => Verdict::Release,
        Some(ProtoVerdict::Extend(proto::Extend { by })) => {
            let by = by.map(|it| decode::duration("extend.by", it, MIN_DEADLINE, MAX_DEADLINE));
            Verdict::Extend { by: by.transpose()? }
        }
    })
}

fn reason(reason: String) -> Decoded<String> {
    let characters = reason.chars().count();
    if characters > MAX_REASON_CHARACTERS {
        let limit = MAX_REASON_CHARACTERS;
        return Err(InvalidInput::over_limit("reject.reason", characters, limit, "characters"));
    }
    if reason.contains('\0') {
        return Err(InvalidInput::new("reject.reason", "holds a NUL character"));
    }
    Ok(reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_that_are_named_twice_are_settled_once() {
        let range = |first_offset, end_offset| proto::OffsetRange { first_offset, end_offset };
        let decoded = ranges(vec![7, 3, 4, 3, 9], vec![range(4, 6), range(5, 8), range(20, 21)]);
        let decoded: Vec<_> = decoded.unwrap().iter().map(|it| (it.start.0, it.end.0)).collect();
        assert_eq!(decoded, [(3, 8), (9, 10), (20, 21)]);
    }
}
