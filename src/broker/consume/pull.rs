//! Pulls: messages for clients that ask instead of holding a stream.

use std::time::Duration;

use tokio::time::{self, Instant};

use crate::{
    broker::{
        Broker,
        error::Error,
        lease::queue::Priority,
        log::cursor::{FrameLimits, Messages, end_of_fit},
    },
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
    /// When the client stops waiting, if it said so.
    pub deadline: Option<Instant>,
}

/// What a pull took.
#[derive(Clone, Debug)]
pub struct Pulled {
    /// The messages; may be none.
    pub delivery: Messages,
    /// Messages that were removed before they were taken: from and to before an offset.
    pub gap: Option<(Offset, Offset)>,
    /// The offset that the topic's next message gets.
    pub head: Offset,
}

/// How long pulls of one consumer queue up behind each other before they give up.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a pull pauses whose position something else moved.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// How long a pull waits for another broker's to end.
const LOCK_WAIT: Duration = Duration::from_secs(1);

impl Broker {
    /// Takes the next messages and moves the position past them.
    pub async fn pull(&self, pull: Pull) -> Result<Pulled, Error> {
        self.refuse_when_draining()?;
        self.calls.track_future(self.pull_until_some(&pull)).await
    }

    async fn pull_until_some(&self, pull: &Pull) -> Result<Pulled, Error> {
        let enough = Instant::now() + pull.wait;
        let deadline = pull.deadline.filter(|deadline| *deadline < enough);
        let (_, mut log) = self.begin_reading(&pull.topic, &pull.consumer).await?;
        let gone = log.gone();
        loop {
            log.head.borrow_and_update();
            let pulled = self.pull_once(pull).await?;
            if pulled.delivery.count() > 0 || pulled.gap.is_some() || Instant::now() >= enough {
                return Ok(pulled);
            }
            tokio::select! {
                _ = log.head.changed() => {}
                () = gone.cancelled() => return Err(Error::TopicNotFound { topic: pull.topic.clone() }),
                () = time::sleep_until(deadline.unwrap_or(enough)) => match deadline {
                    Some(_) => return Err(Error::DeadlineExceeded),
                    None => return Ok(pulled),
                },
                () = self.draining.cancelled() => return Err(Error::Draining),
            }
        }
    }

    async fn pull_once(&self, pull: &Pull) -> Result<Pulled, Error> {
        let Pull { topic, consumer, max_messages, .. } = pull;
        let waiter = self.leases.waiter(topic, consumer);
        let held = async || -> Result<Error, Error> {
            let holder = self.find_holder(&waiter, topic, consumer).await?;
            Ok(Error::LeaseHeld { topic: topic.clone(), consumer: consumer.clone(), holder })
        };
        // Pulls queue up here, not at the database, where each would take up a connection.
        if waiter.holder().is_some() {
            return Err(held().await?);
        }
        let give_up = Instant::now() + QUEUE_TIMEOUT;
        let in_line = time::timeout_at(pull.until(give_up), waiter.enqueue(Priority::Normal)).await;
        let Ok(Ok(_turn)) = in_line else {
            pull.refuse_when_late()?;
            return Err(held().await?);
        };
        let limits = FrameLimits::of_answer(*max_messages);
        let choose = |batches: &[_], from| end_of_fit(batches.iter(), from, limits);
        let lock_wait = || pull.until(Instant::now() + LOCK_WAIT).duration_since(Instant::now());
        let outcome = loop {
            let key = self.find_position(topic, consumer).await?.key;
            let outcome = self.storage.pull(key, limits.bytes, lock_wait(), choose).await;
            // Moved by something else meanwhile, or unregistered, and perhaps registered again.
            let changed = matches!(outcome, Ok(None) | Err(storage::Error::ChangedMeanwhile));
            if !changed || Instant::now() >= pull.until(give_up) {
                break outcome;
            }
            time::sleep(RETRY_PAUSE).await;
        };
        match outcome {
            Ok(Some(storage::Pulled { batches, position, from, to, head })) => {
                let gap = (position < from).then_some((position, from));
                Ok(Pulled { delivery: Messages::new(batches, from, to), gap, head })
            }
            Err(storage::Error::Locked(_)) => {
                pull.refuse_when_late()?;
                Err(held().await?)
            }
            // Nothing was taken: the position moves, or the consumer is registered anew, faster
            // than it can be read.
            Ok(None) | Err(storage::Error::ChangedMeanwhile) => Err(Error::DatabaseUnavailable),
            Err(error) => Err(error.into()),
        }
    }
}

impl Pull {
    /// A time, or the client's deadline if that comes first.
    fn until(&self, time: Instant) -> Instant {
        self.deadline.map_or(time, |deadline| deadline.min(time))
    }

    fn refuse_when_late(&self) -> Result<(), Error> {
        match self.deadline {
            Some(deadline) if deadline <= Instant::now() => Err(Error::DeadlineExceeded),
            _ => Ok(()),
        }
    }
}
