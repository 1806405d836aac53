//! Commits of streams in manual mode.

use crate::{
    broker::{consume::delivery::Delivery, error::Error, notify::outbox::LeaseScope},
    model::{ConsumerId, Epoch, Offset, TopicName},
    storage::Advance,
};

/// A position that a stream's client commits.
#[derive(Clone, Debug)]
pub struct Commit {
    /// The topic.
    pub topic: TopicName,
    /// The consumer.
    pub consumer: ConsumerId,
    /// The epoch from the stream's attached frame.
    pub epoch: Epoch,
    /// The offset of the next message.
    pub position: Offset,
}

impl Delivery {
    /// Commits a position, and returns it once it is on disk.
    ///
    /// Only the broker that holds the lease knows what was delivered. A commit to another broker
    /// may go up to the topic's head.
    pub async fn commit(&self, commit: Commit) -> Result<Offset, Error> {
        let Commit { topic, consumer, epoch, position } = &commit;
        let lease = self.leases.active(topic, consumer);
        let lease = lease.filter(|lease| lease.state.epoch() == *epoch);
        let (key, delivered) = match &lease {
            Some(lease) => (lease.key, lease.state.delivered()),
            None => {
                let stored = self.catalogue.position(topic, consumer).await?;
                #[cfg(feature = "sabotage")]
                let stored = match crate::model::Sabotage::NoEpochCheck.is_on() {
                    true => crate::storage::Stored { epoch: *epoch, ..stored },
                    false => stored,
                };
                if stored.is_shared {
                    return Err(commit.of_subscription());
                }
                if stored.epoch != *epoch {
                    return Err(commit.lease_lost());
                }
                (stored.key, stored.head)
            }
        };
        if *position > delivered {
            if self.catalogue.position(topic, consumer).await?.is_shared {
                return Err(commit.of_subscription());
            }
            return Err(Error::CommitBeyond { asked: *position, delivered });
        }
        let advance = Advance { key, epoch: *epoch, position: *position };
        if self.positions.advance(advance).await? {
            match lease {
                Some(lease) => lease.state.record_stored(*epoch, *position),
                // The stream may be on another broker, and may be waiting for this commit.
                None => self.leases.changed(LeaseScope::Consumer(key)),
            }
            return Ok(*position);
        }
        let stored = self.catalogue.position(topic, consumer).await?;
        if stored.key != key || stored.epoch != *epoch {
            return Err(commit.lease_lost());
        }
        if *position < stored.position {
            return Err(Error::CommitBehind { asked: *position, position: stored.position });
        }
        if *position > stored.head {
            return Err(Error::CommitBeyond { asked: *position, delivered: stored.head });
        }
        // The position was beyond the head when the statement ran, or another commit in the same
        // statement superseded this one.
        Err(Error::unavailable())
    }
}

impl Commit {
    fn of_subscription(&self) -> Error {
        let (topic, consumer) = (self.topic.clone(), self.consumer.clone());
        Error::ConsumerIsShared { topic, consumer }
    }

    fn lease_lost(&self) -> Error {
        let (topic, consumer) = (self.topic.clone(), self.consumer.clone());
        Error::LeaseLost { topic, consumer, epoch: self.epoch }
    }
}
