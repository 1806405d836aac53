//! What a stream is asked for, and what it tells.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use tracing::Instrument as _;

use crate::{
    broker::{
        Broker,
        consume::{
            outbox::{self, Frames},
            stream::Stream,
        },
        error::Error,
        lease::registry::Waiter,
        log::cursor::{FrameLimits, Messages},
    },
    model::{ConsumerId, Epoch, Offset, TopicName},
    storage::Stored,
};

/// What a stream is to do.
#[derive(Clone, Debug)]
pub struct Consume {
    /// The topic.
    pub topic: TopicName,
    /// The consumer whose position the stream advances.
    pub consumer: ConsumerId,
    /// When the position moves.
    pub commit_mode: CommitMode,
    /// What to do when another stream holds the lease.
    pub on_busy: OnBusy,
    /// When the stream is to end by itself, if it is.
    pub stop: Option<Stop>,
    /// What a frame may hold.
    pub frame: FrameLimits,
    /// How many messages may be handed out beyond the stored position; any number if `None`.
    pub max_in_flight: Option<usize>,
    /// How long the stream may stay idle before it beats.
    pub heartbeat: Duration,
    /// When the client stops waiting, if it said so.
    pub deadline: Option<Instant>,
    /// What others are told of who holds the lease.
    pub holder: String,
}

/// When a stream's position moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitMode {
    /// Before a frame leaves.
    Auto,
    /// When the client commits.
    Manual,
}

/// What a stream does when another one holds the lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnBusy {
    /// It waits.
    Wait,
    /// It ends.
    Fail,
    /// It takes the lease.
    TakeOver,
}

/// When a stream ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// When nothing is left to read.
    CaughtUp,
    /// When all messages before an offset are handed out.
    Offset(Offset),
    /// When so many messages are handed out.
    Messages(u64),
}

/// What a stream tells its client.
#[derive(Clone, Debug)]
pub enum Frame {
    /// The stream holds the lease.
    Attached {
        /// The offset of the first message to come.
        position: Offset,
        /// The offset that the topic's next message gets.
        head: Offset,
        /// The number of this acquisition.
        epoch: Epoch,
        /// The epoch that the last seek began; 0 if there was none.
        seek_epoch: Epoch,
    },
    /// Another stream holds the lease.
    Standby {
        /// Who holds it.
        holder: String,
    },
    /// Messages at the position.
    Batch(Messages),
    /// A seek moved the position.
    Repositioned {
        /// The offset of the first message to come.
        position: Offset,
        /// The offset that the topic's next message gets.
        head: Offset,
        /// The number to commit with from now on.
        epoch: Epoch,
    },
    /// Messages that retention removed before they were handed out.
    Gap {
        /// The offset of the first one.
        from: Offset,
        /// The offset behind the last one.
        to: Offset,
    },
    /// Nothing is left to read for now.
    CaughtUp {
        /// The offset that the topic's next message gets.
        head: Offset,
    },
    /// The stream is alive, though idle.
    Heartbeat {
        /// The stored position.
        position: Offset,
        /// The offset that the topic's next message gets.
        head: Offset,
    },
}

impl Broker {
    /// Starts a stream. Whatever goes wrong from here on, is told in the stream.
    pub fn consume(self: &Arc<Self>, request: Consume) -> Result<Frames, Error> {
        self.refuse_when_draining()?;
        let (sender, fence, frames) = outbox::channel();
        let stream = Stream::new(self.clone(), request, sender, fence);
        self.calls.spawn(stream.run().in_current_span());
        Ok(frames)
    }

    /// A consumer's stored position, or what is missing.
    pub(crate) async fn find_position(
        &self,
        topic: &TopicName,
        consumer: &ConsumerId,
    ) -> Result<Stored, Error> {
        let stored = self.storage.find_stored_position(topic, consumer).await;
        if let Some(stored) = stored.map_err(Error::of_read)? {
            return Ok(stored);
        }
        self.get_topic(topic.clone()).await?;
        Err(Error::ConsumerNotFound { topic: topic.clone(), consumer: consumer.clone() })
    }

    /// What is missing of a consumer that was not found any more: it, or its topic.
    pub(crate) async fn find_missing(&self, topic: &TopicName, consumer: &ConsumerId) -> Error {
        match self.find_position(topic, consumer).await {
            // There is another one of that name by now.
            Ok(_) => Error::ConsumerNotFound { topic: topic.clone(), consumer: consumer.clone() },
            Err(error) => error,
        }
    }

    /// Who holds a consumer's lease, for people.
    pub(crate) async fn find_holder(
        &self,
        waiter: &Waiter,
        topic: &TopicName,
        consumer: &ConsumerId,
    ) -> Result<String, Error> {
        if let Some(holder) = waiter.holder() {
            return Ok(holder);
        }
        let found = self.get_consumer(topic.clone(), consumer.clone()).await?;
        // Pulls hold it for a moment, and leave no name.
        let holder = found.holder.filter(|holder| !holder.is_empty());
        Ok(holder.unwrap_or_else(|| "a pull or a stream that just ended".to_owned()))
    }
}
