//! Seeks: the only calls that move a position back.

use crate::{
    broker::{consume::delivery::Delivery, error::Error, notify::outbox::LeaseScope},
    model::{ConsumerId, Offset, Start, TopicName},
    storage::SeekOutcome,
};

impl Delivery {
    /// Refuses a target that a seek on this topic cannot have.
    pub async fn check_target(&self, topic: &TopicName, target: Start) -> Result<(), Error> {
        self.catalogue.resolve(topic, target).await.map(drop)
    }

    /// Moves a consumer's position to any offset of the log. A stream that holds the lease, on
    /// whatever broker, keeps it and continues from there.
    pub async fn seek(
        &self,
        topic: &TopicName,
        consumer: &ConsumerId,
        target: Start,
    ) -> Result<Offset, Error> {
        loop {
            let (id, position) = self.catalogue.resolve(topic, target).await?;
            let sought = self
                .storage
                .row_locks()
                .of_consumer(topic, consumer, || self.storage.seek(id, consumer, position));
            match sought.await? {
                SeekOutcome::Moved(key) => {
                    self.leases.changed(LeaseScope::Consumer(key));
                    return Ok(position);
                }
                // Retention has removed messages from this position on. It does so at most once a
                // second, so try again.
                SeekOutcome::BeforeLogStart => {}
                // Fails unless it has been registered again since; if so, try again.
                SeekOutcome::NotRegistered => drop(self.catalogue.position(topic, consumer).await?),
            }
        }
    }
}
