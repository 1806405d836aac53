//! Pulls: messages for clients that ask instead of holding a stream.

use std::time::Duration;

use tokio::time::{self, Instant};

use super::{Broker, Delivery, Error, cursor::end_of_fit};
use crate::{
    model::{ConsumerId, Offset, TopicName},
    storage,
};

/// A request for the next messages.
#[derive(Clone, Debug)]
pub struct Pull {
    /// The topic.
    pub topic: TopicName,
    /// The consumer whose position moves.
    pub consumer: ConsumerId,
    /// How many messages at the most.
    pub max_messages: usize,
    /// How long to wait for a message when there is none.
    pub wait: Duration,
}

/// What a pull took.
#[derive(Clone, Debug)]
pub struct Pulled {
    /// The messages; may be none.
    pub delivery: Delivery,
    /// The offset that the topic's next message gets.
    pub head: Offset,
}

/// Bytes that an answer may take on the wire: it must stay below the 4 MiB that a client decodes
/// by default, one message of the largest size included.
const ANSWER_BYTES: usize = 2 * 1024 * 1024;

/// How long pulls of one consumer queue up behind each other before they give up.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(5);

impl Broker {
    /// Takes the next messages and moves the position past them.
    pub async fn pull(&self, pull: Pull) -> Result<Pulled, Error> {
        self.refuse_when_draining()?;
        self.calls.track_future(self.pull_until_some(&pull)).await
    }

    async fn pull_until_some(&self, pull: &Pull) -> Result<Pulled, Error> {
        let deadline = Instant::now() + pull.wait;
        let stored = self.find_position(&pull.topic, &pull.consumer).await?;
        let mut log = self.feeds.subscribe(stored.key.topic, stored.head);
        loop {
            log.head.borrow_and_update();
            let pulled = self.pull_once(pull).await?;
            if pulled.delivery.count() > 0 || Instant::now() >= deadline {
                return Ok(pulled);
            }
            tokio::select! {
                _ = log.head.changed() => {}
                () = time::sleep_until(deadline) => return Ok(pulled),
                () = self.draining.cancelled() => return Err(Error::Draining),
            }
        }
    }

    async fn pull_once(&self, pull: &Pull) -> Result<Pulled, Error> {
        let Pull { topic, consumer, max_messages, .. } = pull;
        let seat = self.leases.seat(topic, consumer);
        let held = async || -> Result<Error, Error> {
            let holder = self.find_holder(&seat, topic, consumer).await?;
            Ok(Error::LeaseHeld { topic: topic.clone(), consumer: consumer.clone(), holder })
        };
        // Pulls queue up here, not at the database, where each would take up a connection.
        if seat.holder().is_some() {
            return Err(held().await?);
        }
        let Ok(_turn) = time::timeout(QUEUE_TIMEOUT, seat.turn()).await else {
            return Err(held().await?);
        };
        let key = self.find_position(topic, consumer).await?.key;
        let choose =
            |batches: &[_], from| end_of_fit(batches.iter(), from, *max_messages, ANSWER_BYTES);
        match self.storage.pull(key, ANSWER_BYTES, choose).await {
            Ok(Some(storage::Pulled { batches, from, to, head })) => {
                Ok(Pulled { delivery: Delivery::new(batches, from, to), head })
            }
            Ok(None) => {
                Err(Error::ConsumerNotFound { topic: topic.clone(), consumer: consumer.clone() })
            }
            Err(storage::Error::Locked(_)) => Err(held().await?),
            Err(error) => Err(error.into()),
        }
    }
}
