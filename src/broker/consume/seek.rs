//! Seeks: the only calls that move a position back.

use crate::{
    broker::{Broker, error::Error, notify::outbox::LeaseScope},
    model::{ConsumerId, Offset, Start, TopicName},
};

impl Broker {
    /// Moves a consumer's position anywhere in the log. A stream that holds its lease, on whatever
    /// broker, keeps it and goes on from there.
    pub async fn seek(
        &self,
        topic: TopicName,
        consumer: ConsumerId,
        target: Start,
    ) -> Result<Offset, Error> {
        loop {
            let (id, position) = self.resolve(&topic, target).await?;
            match self.storage.seek(id, &consumer, position).await? {
                Some(Some(key)) => {
                    self.leases.changed(LeaseScope::Consumer(key));
                    return Ok(position);
                }
                // The log went from there meanwhile; it does so at most once a second.
                Some(None) => {}
                // It may be registered again by now.
                None => drop(self.find_position(&topic, &consumer).await?),
            }
        }
    }
}
