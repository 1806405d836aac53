//! The client library's consumer, against a scripted broker.

use std::time::Duration;

use tokio_stream::StreamExt as _;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};
use trunkline::{
    client::{Client, Commit, Consumer, ConsumerBuilder, Event, Message},
    proto::{self, consume_response::Event as Frame},
};

use super::{ScriptedBroker, ScriptedConsume, soon};

pub async fn builder(broker: &ScriptedBroker, commit: Commit) -> ConsumerBuilder {
    Client::connect(&broker.endpoint).await.unwrap().consumer("orders", "billing", commit)
}

pub async fn open(broker: &ScriptedBroker, commit: Commit) -> Consumer {
    builder(broker, commit).await.open().await.unwrap()
}

/// A consumer whose stream is attached at offset 0 in epoch 1 and was sent some messages.
pub async fn reading(
    commit: Commit,
    offsets: std::ops::Range<i64>,
) -> (ScriptedBroker, Consumer, ScriptedConsume) {
    let mut broker = ScriptedBroker::start().await;
    let consumer = open(&broker, commit).await;
    let stream = broker.consume().await;
    stream.attach(0, 1).await;
    stream.messages(offsets).await;
    (broker, consumer, stream)
}

/// A message of 1 MiB.
pub fn large_frame(offset: i64) -> Frame {
    let payload = vec![b'x'; 1024 * 1024].into();
    let message = proto::Message { offset, payload, ..Default::default() };
    Frame::Batch(proto::MessageBatch { messages: vec![message] })
}

pub fn status(code: Code, reason: &str) -> Status {
    let details = ErrorDetails::with_error_info(reason, "trunkline", []);
    Status::with_error_details(code, "refused", details)
}

/// As [`status`], with a retry delay.
pub fn status_to_retry(code: Code, reason: &str) -> Status {
    let mut details = ErrorDetails::with_error_info(reason, "trunkline", []);
    details.set_retry_info(Some(Duration::from_millis(10)));
    Status::with_error_details(code, "refused", details)
}

pub async fn next_event(consumer: &mut Consumer) -> Event {
    soon("an event", consumer.next_event()).await.unwrap().unwrap()
}

/// The next messages; skips other events.
pub async fn messages(consumer: &mut Consumer) -> Vec<Message> {
    loop {
        if let Event::Messages(messages) = next_event(consumer).await {
            return messages;
        }
    }
}

pub async fn offsets(consumer: &mut Consumer) -> Vec<i64> {
    messages(consumer).await.iter().map(|message| message.offset).collect()
}

pub async fn next(consumer: &mut Consumer) -> Message {
    soon("a message", consumer.next()).await.unwrap().unwrap()
}
