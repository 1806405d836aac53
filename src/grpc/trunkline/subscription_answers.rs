//! Encodes what subscriptions answer.

use std::time::Duration;

use crate::{
    broker::{DeliveryLimit, Description, Idle, Received, SharedDelivery, Stands, Working},
    grpc::trunkline::{encode, frames},
    model::{Consumer, DeliveryPolicy, ParkedMessage, Sharing, TopicName},
    proto::{
        self,
        raw::{self, subscribe_response::Event},
        stalled::Limit as ProtoLimit,
    },
};

pub(in crate::grpc) fn subscription(topic: &TopicName, consumer: Consumer) -> proto::Subscription {
    let Sharing { policy, retried, parked } = match consumer.sharing {
        Some(sharing) => sharing,
        None => Sharing { policy: DeliveryPolicy::default(), retried: 0, parked: 0 },
    };
    proto::Subscription {
        topic: topic.as_str().to_owned(),
        subscription_id: consumer.id.as_str().to_owned(),
        policy: Some(self::policy(&policy)),
        floor: consumer.position.0,
        head: consumer.head.0,
        retried_messages: retried,
        parked_messages: parked,
        create_time: Some(consumer.created_at.into()),
        owner: encode::owner(consumer.owner),
        ..Default::default()
    }
}

/// A subscription, and what is left to do.
pub(super) fn subscription_that_stands(
    topic: &TopicName,
    consumer: Consumer,
    Stands { backlog, oldest_at, working }: Stands,
) -> proto::Subscription {
    let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let proto::Subscription {
        outstanding_messages, outstanding_bytes, workers, stalled_by, ..
    } = self::working(working);
    proto::Subscription {
        unacknowledged_messages: Some(number(backlog.unacknowledged)),
        oldest_unacknowledged_time: oldest_at.map(Into::into),
        lost_messages: Some(number(backlog.lost)),
        outstanding_messages,
        outstanding_bytes,
        workers,
        stalled_by,
        ..subscription(topic, consumer)
    }
}

/// What an owner tells another broker of who works on a subscription.
pub(in crate::grpc) fn working(working: Option<Working>) -> proto::Subscription {
    let number = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
    let stalled_by = working.and_then(|working| working.stalled_by).map(limit);
    let outstanding = working.map(|working| working.outstanding);
    proto::Subscription {
        outstanding_messages: outstanding.map(|it| number(it.messages)),
        outstanding_bytes: outstanding.map(|it| number(it.bytes)),
        workers: working.map(|working| count(working.workers)),
        stalled_by: stalled_by.unwrap_or_default().into(),
        ..proto::Subscription::default()
    }
}

fn limit(limit: DeliveryLimit) -> ProtoLimit {
    match limit {
        DeliveryLimit::WorkerMessages => ProtoLimit::WorkerMessages,
        DeliveryLimit::WorkerBytes => ProtoLimit::WorkerBytes,
        DeliveryLimit::Outstanding => ProtoLimit::Outstanding,
        DeliveryLimit::OutstandingBytes => ProtoLimit::OutstandingBytes,
        DeliveryLimit::Retried => ProtoLimit::Retried,
    }
}

pub(in crate::grpc) fn policy(policy: &DeliveryPolicy) -> proto::DeliveryPolicy {
    let duration = |time: Duration| time.try_into().ok();
    let number = |number: Option<u32>| number.unwrap_or(0).try_into().unwrap_or(i32::MAX);
    proto::DeliveryPolicy {
        ack_deadline: duration(policy.ack_deadline),
        min_backoff: duration(policy.backoff.shortest),
        max_backoff: duration(policy.backoff.longest),
        max_deliveries: number(policy.max_deliveries),
        filter: policy.filter.as_ref().map(|filter| filter.as_str().to_owned()).unwrap_or_default(),
        dead_letter_topic: policy
            .dead_letter_topic
            .as_ref()
            .map(|topic| topic.as_str().to_owned())
            .unwrap_or_default(),
        exactly_once: policy.exactly_once,
        max_outstanding_messages: number(policy.outstanding_messages),
        max_outstanding_bytes: policy.outstanding_bytes.unwrap_or(0).try_into().unwrap_or(i64::MAX),
    }
}

pub(in crate::grpc) fn received(received: Received) -> raw::ReceiveResponse {
    raw::ReceiveResponse { deliveries: deliveries(received.deliveries), head: received.head.0 }
}

fn deliveries(deliveries: Vec<SharedDelivery>) -> Vec<raw::Delivery> {
    let delivery = |SharedDelivery { id, messages, attempts }| raw::Delivery {
        delivery: i64::try_from(id).unwrap_or(i64::MAX),
        batch: frames::encode(&messages),
        attempts: attempts.into_iter().map(|it| i32::try_from(it).unwrap_or(i32::MAX)).collect(),
    };
    deliveries.into_iter().map(delivery).collect()
}

/// The first event of a worker's stream.
pub(in crate::grpc) fn attached(stands: Description) -> Event {
    let policy = Some(self::policy(&stands.policy));
    let (floor, head) = (stands.floor.0, stands.head.0);
    Event::Attached(proto::SubscriptionAttached { policy, floor, head })
}

/// What a worker's stream gets.
pub(in crate::grpc) fn event(received: Received) -> Event {
    let Received { deliveries, idle, outstanding, .. } = received;
    let limit = match idle {
        None => {
            return Event::Deliveries(raw::Deliveries { deliveries: self::deliveries(deliveries) });
        }
        Some(Idle::CaughtUp) => return Event::CaughtUp(proto::CaughtUp { head: received.head.0 }),
        Some(Idle::Stalled(limit)) => limit,
    };
    Event::Stalled(proto::Stalled {
        limit: self::limit(limit).into(),
        outstanding_messages: count(outstanding.messages),
        outstanding_bytes: i64::try_from(outstanding.bytes).unwrap_or(i64::MAX),
    })
}

/// The answer to a request that settled messages.
pub(in crate::grpc) fn settled(request_id: i64, applied: &[usize]) -> Event {
    Event::Settled(proto::Settled { request_id, applied: counts(applied) })
}

pub(in crate::grpc) fn counts(counts: &[usize]) -> Vec<i32> {
    counts.iter().map(|it| count(*it)).collect()
}

pub(in crate::grpc) fn count(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

pub(in crate::grpc) fn parked_message(message: ParkedMessage) -> proto::ParkedMessage {
    proto::ParkedMessage {
        offset: message.offset.0,
        attempts: i32::try_from(message.attempts).unwrap_or(i32::MAX),
        reason: message.reason.to_string(),
        park_time: Some(message.parked_at.into()),
    }
}
