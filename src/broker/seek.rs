//! Seeks: the only calls that move a position back.

use super::{Broker, Error, hints::Whose};
use crate::model::{ConsumerId, Offset, Start, TopicName};

impl Broker {
    /// Moves a consumer's position anywhere in the log. A stream that holds its lease, on whatever
    /// broker, keeps it and goes on from there.
    pub async fn seek(
        &self,
        topic: TopicName,
        consumer: ConsumerId,
        target: Start,
    ) -> Result<Offset, Error> {
        let (id, position) = self.resolve(&topic, target).await?;
        let sought = self.storage.seek(id, &consumer, position).await?;
        let Some(key) = sought else { return Err(Error::ConsumerNotFound { topic, consumer }) };
        self.leases.changed(Whose::Consumer(key));
        Ok(position)
    }
}
