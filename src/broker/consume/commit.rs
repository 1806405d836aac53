//! Commits of streams in manual mode.

use crate::{
    broker::{Broker, error::Error, notify::outbox::LeaseScope},
    model::{ConsumerId, Epoch, InvalidInput, Offset, TopicName},
    storage::Advance,
};

/// A position to be moved by a stream's client.
#[derive(Clone, Debug)]
pub struct Commit {
    /// The topic.
    pub topic: TopicName,
    /// The consumer.
    pub consumer: ConsumerId,
    /// The epoch that the stream was told when it attached.
    pub epoch: Epoch,
    /// The offset to get next.
    pub position: Offset,
}

impl Commit {
    /// Checks and takes a client's numbers.
    pub fn parse(
        topic: TopicName,
        consumer: ConsumerId,
        epoch: i64,
        position: i64,
    ) -> Result<Self, InvalidInput> {
        if epoch < 1 {
            let problem = "must be the one that the stream's attached frame gave, at least 1";
            return Err(InvalidInput::new("epoch", problem));
        }
        if position < 0 {
            return Err(InvalidInput::new("position", "must not be negative"));
        }
        Ok(Self { topic, consumer, epoch: Epoch(epoch), position: Offset(position) })
    }
}

impl Broker {
    /// Moves a position, and returns it once it is on disk.
    ///
    /// What was delivered is known to the broker that holds the lease; a commit that comes to
    /// another broker may go up to the topic's head.
    pub async fn commit(&self, commit: Commit) -> Result<Offset, Error> {
        let Commit { topic, consumer, epoch, position } = &commit;
        let held = self.leases.held(topic, consumer).filter(|held| held.progress.epoch() == *epoch);
        let (key, delivered) = match &held {
            Some(held) => (held.key, held.progress.delivered()),
            None => {
                let stored = self.find_position(topic, consumer).await?;
                #[cfg(feature = "sabotage")]
                let stored = match crate::model::Sabotage::NoEpochCheck.is_on() {
                    true => crate::storage::Stored { epoch: *epoch, ..stored },
                    false => stored,
                };
                if stored.epoch != *epoch {
                    return Err(commit.lease_lost());
                }
                (stored.key, stored.head)
            }
        };
        if *position > delivered {
            return Err(Error::CommitBeyond { asked: *position, delivered });
        }
        let advance = Advance { key, epoch: *epoch, position: *position };
        if self.positions.advance(advance).await? {
            match held {
                Some(held) => held.progress.position_stored(*epoch, *position),
                // The stream may be on another broker, and wait for it.
                None => self.leases.changed(LeaseScope::Consumer(key)),
            }
            return Ok(*position);
        }
        let stored = self.find_position(topic, consumer).await?;
        if stored.key != key || stored.epoch != *epoch {
            return Err(commit.lease_lost());
        }
        if *position < stored.position {
            return Err(Error::CommitBehind { asked: *position, position: stored.position });
        }
        if *position > stored.head {
            return Err(Error::CommitBeyond { asked: *position, delivered: stored.head });
        }
        // It lay beyond the head, or another commit that was written with it did.
        Err(Error::DatabaseUnavailable)
    }
}

impl Commit {
    fn lease_lost(&self) -> Error {
        let (topic, consumer) = (self.topic.clone(), self.consumer.clone());
        Error::LeaseLost { topic, consumer, epoch: self.epoch }
    }
}
