//! Producers: registered, fenced, described, listed and unregistered.

use std::sync::Arc;

use crate::{
    broker::{
        admin::{Ensured, pages},
        catalogue::Catalogue,
        error::Error,
        quotas::Quotas,
    },
    model::{Claimant, Limit, Page, PageRequest, Principal, Producer, ProducerId, TopicName},
    storage::{self, Storage},
};

/// Administers producers.
pub struct ProducerAdmin {
    pub(crate) storage: Arc<Storage>,
    pub(crate) catalogue: Arc<Catalogue>,
    pub(crate) quotas: Quotas,
}

impl ProducerAdmin {
    /// Allows a producer, which belongs to `owner`, to publish to a topic.
    pub async fn register(
        &self,
        topic: TopicName,
        producer: ProducerId,
        owner: Option<&Claimant>,
    ) -> Result<Producer, Error> {
        let (row_locks, limit) = (self.storage.row_locks(), self.quotas.producers_per_topic);
        let registered = row_locks
            .of_topic(&topic, || self.storage.register_producer(&topic, &producer, owner, limit));
        match registered.await {
            Err(storage::Error::Full) => Err(Error::TooManyProducers { topic, limit }),
            Err(storage::Error::OwnerFull) => Err(Error::owner_full(owner, Limit::Producers)),
            Ok(Some(registered)) => Ok(registered),
            Ok(None) | Err(storage::Error::ParentGone) => Err(Error::TopicNotFound { topic }),
            Err(storage::Error::Taken) => Err(Error::ProducerExists { topic, producer }),
            Err(error) => Err(error.into()),
        }
    }

    /// Allows a producer, which belongs to `owner`, to publish to a topic unless it may already.
    pub async fn ensure(
        &self,
        topic: TopicName,
        producer: ProducerId,
        owner: Option<&Claimant>,
    ) -> Result<Ensured<Producer>, Error> {
        loop {
            match self.catalogue.producer(&topic, &producer).await {
                // Somebody else may have registered it since the caller was permitted.
                Ok(found) if !Claimant::may_use(owner, found.owner.as_ref()) => {
                    return Err(Error::ProducerExists { topic, producer });
                }
                Err(Error::ProducerNotFound { .. }) => {}
                found => return found.map(Ensured::existing),
            }
            match self.register(topic.clone(), producer.clone(), owner).await {
                Err(Error::ProducerExists { .. }) => {}
                registered => return registered.map(Ensured::new),
            }
        }
    }

    /// Allows a producer, which belongs to `owner`, to publish to a topic, and fences its older
    /// instances. One that belongs to another owner is as one that exists.
    pub async fn fence(
        &self,
        topic: TopicName,
        producer: ProducerId,
        owner: Option<&Claimant>,
    ) -> Result<Producer, Error> {
        let (row_locks, limit) = (self.storage.row_locks(), self.quotas.producers_per_topic);
        let fenced = row_locks
            .of_topic(&topic, || self.storage.fence_producer(&topic, &producer, owner, limit));
        match fenced.await {
            Err(storage::Error::Full) => Err(Error::TooManyProducers { topic, limit }),
            Err(storage::Error::OwnerFull) => Err(Error::owner_full(owner, Limit::Producers)),
            Ok(Some(registered)) => Ok(registered),
            Ok(None) | Err(storage::Error::ParentGone) => Err(Error::TopicNotFound { topic }),
            Err(storage::Error::Taken) => Err(Error::ProducerExists { topic, producer }),
            Err(error) => Err(error.into()),
        }
    }

    /// Withdraws a producer's right to publish, if it belongs to `owner`, or anyone's.
    pub async fn unregister(
        &self,
        topic: TopicName,
        producer: ProducerId,
        owner: Option<&Principal>,
    ) -> Result<(), Error> {
        let row_locks = self.storage.row_locks();
        let unregistered = row_locks
            .of_topic(&topic, || self.storage.unregister_producer(&topic, &producer, owner));
        if unregistered.await? {
            return Ok(());
        }
        self.catalogue.topic(&topic).await?;
        Err(Error::ProducerNotFound { topic, producer })
    }

    /// Describes a producer.
    pub async fn get(&self, topic: &TopicName, producer: &ProducerId) -> Result<Producer, Error> {
        self.catalogue.producer(topic, producer).await
    }

    /// Lists a topic's producers by id: those of an owner, or everyone's.
    pub async fn list(
        &self,
        topic: &TopicName,
        owner: Option<&Principal>,
        page: &PageRequest,
    ) -> Result<Page<Producer>, Error> {
        let (id, mark) = self.catalogue.identity(topic).await?;
        pages::check(page, mark)?;
        let found = self.storage.list_producers(id, owner, &page.after, page.size + 1).await;
        Ok(Page::of(found.map_err(Error::of_read)?, page.size, Some(mark)))
    }
}
