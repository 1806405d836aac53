//! A consumer's stream whose frames are awaited with a deadline.

use tonic::{Status, Streaming};
use trunkline::{
    client::Client,
    proto::{
        Attached, CommitRequest, ConsumeResponse, Gap, Message, Repositioned,
        consume_response::Event,
    },
};

use super::soon;

pub struct TestStream {
    client: Client,
    topic: String,
    consumer: String,
    stream: Streaming<ConsumeResponse>,
    pub epoch: i64,
}

impl TestStream {
    pub fn new(
        client: Client,
        topic: String,
        consumer: String,
        stream: Streaming<ConsumeResponse>,
    ) -> Self {
        Self { client, topic, consumer, stream, epoch: 0 }
    }

    pub async fn try_next(&mut self) -> Result<Event, Status> {
        let frame = soon("a frame", self.stream.message()).await?;
        let event = frame.expect("the stream ends with a status").event.unwrap();
        match &event {
            Event::Attached(attached) => self.epoch = attached.epoch,
            Event::Repositioned(repositioned) => self.epoch = repositioned.epoch,
            _ => {}
        }
        Ok(event)
    }

    pub async fn next(&mut self) -> Event {
        self.try_next().await.unwrap()
    }

    pub async fn attached(&mut self) -> Attached {
        match self.next().await {
            Event::Attached(attached) => attached,
            other => panic!("attached expected, not {other:?}"),
        }
    }

    /// The next attached frame; skips the frames of a standby.
    pub async fn attaches(&mut self) -> Attached {
        loop {
            match self.next().await {
                Event::Attached(attached) => return attached,
                Event::Standby(_) | Event::Heartbeat(_) => {}
                other => panic!("attached expected, not {other:?}"),
            }
        }
    }

    /// The lease holder that a standby frame names.
    pub async fn standby(&mut self) -> String {
        match self.next().await {
            Event::Standby(standby) => standby.holder,
            other => panic!("standby expected, not {other:?}"),
        }
    }

    /// The messages of the next frame that has any; skips others.
    pub async fn next_messages(&mut self) -> Vec<Message> {
        loop {
            if let Event::Batch(batch) = self.next().await {
                return batch.messages;
            }
        }
    }

    /// At least `count` messages, from as many frames as it takes.
    pub async fn messages(&mut self, count: usize) -> Vec<Message> {
        let mut messages = Vec::new();
        while messages.len() < count {
            messages.extend(self.next_messages().await);
        }
        messages
    }

    /// The payloads of at least `count` messages.
    pub async fn payloads(&mut self, count: usize) -> Vec<String> {
        self.messages(count).await.iter().map(payload).collect()
    }

    /// All messages up to the head, and the head.
    pub async fn read_to_end(&mut self) -> (Vec<Message>, i64) {
        let mut messages = Vec::new();
        loop {
            match self.next().await {
                Event::Batch(batch) => messages.extend(batch.messages),
                Event::CaughtUp(caught_up) => return (messages, caught_up.head),
                _ => {}
            }
        }
    }

    /// The next repositioned frame; skips the frames from before the seek.
    pub async fn repositioned(&mut self) -> Repositioned {
        loop {
            if let Event::Repositioned(repositioned) = self.next().await {
                return repositioned;
            }
        }
    }

    /// The range of the next gap frame: its first offset and its end. Heartbeats may come before it.
    pub async fn gap(&mut self) -> (i64, i64) {
        loop {
            match self.next().await {
                Event::Gap(Gap { first_offset, end_offset }) => return (first_offset, end_offset),
                Event::Heartbeat(_) => {}
                other => panic!("a gap expected, not {other:?}"),
            }
        }
    }

    /// All messages up to the end of the stream, which must not be an error.
    pub async fn read_until_it_ends(&mut self) -> Vec<Message> {
        let mut messages = Vec::new();
        loop {
            match soon("a frame or the end of the stream", self.stream.message()).await.unwrap() {
                Some(ConsumeResponse { event: Some(Event::Batch(batch)) }) => {
                    messages.extend(batch.messages);
                }
                Some(_) => {}
                None => return messages,
            }
        }
    }

    /// The position of the next heartbeat; fails if messages come before it.
    pub async fn heartbeat_without_messages(&mut self) -> i64 {
        loop {
            match self.next().await {
                Event::Heartbeat(heartbeat) => return heartbeat.position,
                Event::CaughtUp(_) => {}
                other => panic!("a heartbeat expected, not {other:?}"),
            }
        }
    }

    /// The status that ends the stream; skips the frames before it.
    pub async fn ended(&mut self) -> Status {
        let ends = async {
            loop {
                match self.stream.message().await {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("the stream ended without a status"),
                    Err(status) => return status,
                }
            }
        };
        // One deadline for the whole, as heartbeats keep arriving.
        soon("the stream's end", ends).await
    }

    pub async fn commit(&self, position: i64) -> Result<i64, Status> {
        self.commit_with(self.epoch, position).await
    }

    pub async fn commit_with(&self, epoch: i64, position: i64) -> Result<i64, Status> {
        let (topic, consumer_id) = (self.topic.clone(), self.consumer.clone());
        let request = CommitRequest { topic, consumer_id, epoch, position };
        Ok(self.client.consumers().commit(request).await?.into_inner().position)
    }
}

pub fn payload(message: &Message) -> String {
    String::from_utf8(message.payload.to_vec()).unwrap()
}
