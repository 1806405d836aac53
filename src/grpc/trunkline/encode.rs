//! Encodes the broker's types into responses.

use prost_types::Timestamp;

use crate::{
    broker::{Frame, Messages, Pulled, ReadMessages, Receipt},
    grpc::trunkline::frames,
    model::{Consumer, OffsetRange, Principal, Producer, Retention, Topic, TopicName},
    proto::{
        self,
        raw::{ConsumeResponse, consume_response::Event as ProtoEvent},
    },
};

pub(super) fn topic(topic: Topic) -> proto::Topic {
    proto::Topic {
        name: topic.name.as_str().to_owned(),
        description: topic.description,
        labels: topic.labels.entries().clone(),
        create_time: Some(topic.created_at.into()),
        update_time: Some(topic.updated_at.into()),
        first_offset: topic.first_offset.0,
        head: topic.head.0,
        last_publish_time: topic.last_published_at.map(Timestamp::from),
        retention: retention(topic.retention),
        bytes: topic.bytes,
    }
}

/// Absent if messages are kept for ever.
fn retention(retention: Retention) -> Option<proto::Retention> {
    (retention != Retention::default()).then(|| proto::Retention {
        max_age: retention.max_age.and_then(|age| age.try_into().ok()),
        max_bytes: retention.max_bytes.unwrap_or(0),
        max_messages: retention.max_messages.unwrap_or(0),
        keep_unread: retention.keep_unread,
    })
}

pub(super) fn producer(topic: &TopicName, producer: Producer) -> proto::Producer {
    proto::Producer {
        topic: topic.as_str().to_owned(),
        producer_id: producer.id.as_str().to_owned(),
        create_time: Some(producer.created_at.into()),
        last_publish_time: producer.last_published_at.map(Timestamp::from),
        last_offset: producer.last_offset.map(|offset| offset.0),
        epoch: producer.epoch.0,
        last_sequence: producer.last_sequence.map(|sequence| sequence.0),
        next_sequence: producer.last_sequence.map_or(0, |sequence| sequence.0 + 1),
        owner: owner(producer.owner),
    }
}

pub(super) fn consumer(topic: &TopicName, consumer: Consumer) -> proto::Consumer {
    proto::Consumer {
        topic: topic.as_str().to_owned(),
        consumer_id: consumer.id.as_str().to_owned(),
        position: consumer.position.0,
        head: consumer.head.0,
        lag: consumer.head.since(consumer.position.max(consumer.first)),
        epoch: consumer.epoch.0,
        holder: consumer.holder.unwrap_or_default(),
        create_time: Some(consumer.created_at.into()),
        last_activity_time: Some(consumer.updated_at.into()),
        owner: owner(consumer.owner),
    }
}

pub(super) fn owner(owner: Option<Principal>) -> String {
    owner.map_or_else(String::new, |owner| owner.as_str().to_owned())
}

pub(super) fn receipt(receipt: Receipt) -> proto::PublishReceipt {
    let Receipt { first, count, duplicate } = receipt;
    proto::PublishReceipt { first_offset: first.0, count: count as i32, duplicate }
}

pub(super) fn frame(frame: Frame) -> ConsumeResponse {
    let event = match frame {
        Frame::Attached { position, head, epoch, seek_epoch } => {
            ProtoEvent::Attached(proto::Attached {
                position: position.0,
                head: head.0,
                epoch: epoch.0,
                seek_epoch: seek_epoch.0,
            })
        }
        Frame::Standby { holder } => ProtoEvent::Standby(proto::Standby { holder }),
        Frame::Messages(messages) => ProtoEvent::Batch(frames::encode(&messages)),
        Frame::Repositioned { position, head, epoch } => {
            ProtoEvent::Repositioned(proto::Repositioned {
                position: position.0,
                head: head.0,
                epoch: epoch.0,
            })
        }
        Frame::Gap(range) => ProtoEvent::Gap(gap(range)),
        Frame::CaughtUp { head } => ProtoEvent::CaughtUp(proto::CaughtUp { head: head.0 }),
        Frame::Heartbeat { position, head } => {
            ProtoEvent::Heartbeat(proto::Heartbeat { position: position.0, head: head.0 })
        }
    };
    ConsumeResponse { event: Some(event) }
}

pub(super) fn pulled(pulled: &Pulled) -> proto::PullResponse {
    proto::PullResponse {
        messages: messages(&pulled.messages),
        position: pulled.messages.range.end.0,
        head: pulled.head.0,
        gap: pulled.gap.map(gap),
    }
}

pub(super) fn read_messages(read: &ReadMessages) -> proto::ReadMessagesResponse {
    proto::ReadMessagesResponse {
        messages: messages(&read.messages),
        next_offset: read.messages.range.end.0,
        first_offset: read.ends.start.0,
        head: read.ends.head.0,
    }
}

fn gap(OffsetRange { start, end }: OffsetRange) -> proto::Gap {
    proto::Gap { first_offset: start.0, end_offset: end.0 }
}

fn messages(messages: &Messages) -> Vec<proto::Message> {
    let mut encoded = Vec::with_capacity(messages.count());
    encoded.extend(messages.iter().map(frames::message));
    encoded
}
