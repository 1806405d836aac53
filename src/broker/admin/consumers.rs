//! Consumers: registered, described, listed and unregistered.

use std::sync::Arc;

use crate::{
    broker::{
        admin::{Ensured, pages},
        catalogue::Catalogue,
        error::Error,
        lease::registry::Leases,
        notify::outbox::LeaseScope,
        quotas::Quotas,
    },
    model::{
        Claimant, Consumer, ConsumerId, DeliveryPolicy, Limit, Page, PageRequest, Principal, Start,
        TopicName,
    },
    storage::{self, NewConsumer, Storage},
};

/// Administers consumers.
pub struct ConsumerAdmin {
    pub(crate) storage: Arc<Storage>,
    pub(crate) catalogue: Arc<Catalogue>,
    pub(crate) leases: Arc<Leases>,
    pub(crate) quotas: Quotas,
}

impl ConsumerAdmin {
    /// Gives a consumer, which belongs to `owner`, a position in a topic.
    pub async fn register(
        &self,
        topic: TopicName,
        consumer: ConsumerId,
        start: Start,
        owner: Option<&Claimant>,
    ) -> Result<Consumer, Error> {
        self.add(topic, consumer, start, owner, None).await
    }

    /// As [`Self::register`], a subscription: workers share its messages.
    pub async fn subscribe(
        &self,
        topic: TopicName,
        subscription: ConsumerId,
        start: Start,
        owner: Option<&Claimant>,
        policy: &DeliveryPolicy,
    ) -> Result<Consumer, Error> {
        self.add(topic, subscription, start, owner, Some(policy)).await
    }

    async fn add(
        &self,
        topic: TopicName,
        consumer: ConsumerId,
        start: Start,
        owner: Option<&Claimant>,
        policy: Option<&DeliveryPolicy>,
    ) -> Result<Consumer, Error> {
        let limit = self.quotas.consumers_per_topic;
        loop {
            let (id, position) = self.catalogue.resolve(&topic, start).await?;
            let registered = self.storage.row_locks().of_consumer(&topic, &consumer, || {
                let new = NewConsumer { id: &consumer, position, owner, policy };
                self.storage.register_consumer(id, new, limit)
            });
            match registered.await {
                Err(storage::Error::Full) => return Err(Error::TooManyConsumers { topic, limit }),
                Err(storage::Error::OwnerFull) => {
                    return Err(Error::owner_full(owner, Limit::Consumers));
                }
                Ok(Some(registered)) => return Ok(registered),
                // Retention has removed messages from this position on. It does so at most once a
                // second, so try again.
                Ok(None) => {}
                Err(storage::Error::Taken) => {
                    return Err(Error::ConsumerExists { topic, consumer });
                }
                Err(storage::Error::ParentGone) => return Err(Error::TopicNotFound { topic }),
                Err(storage::Error::NumbersUsedUp) => {
                    return Err(Error::NumbersUsedUp { what: "consumer" });
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Gives a consumer, which belongs to `owner`, a position in a topic unless it has one.
    pub async fn ensure(
        &self,
        topic: TopicName,
        consumer: ConsumerId,
        start: Start,
        owner: Option<&Claimant>,
    ) -> Result<Ensured<Consumer>, Error> {
        self.find_or_add(topic, consumer, start, owner, None).await
    }

    /// As [`Self::ensure`], a subscription.
    pub async fn ensure_shared(
        &self,
        topic: TopicName,
        subscription: ConsumerId,
        start: Start,
        owner: Option<&Claimant>,
        policy: &DeliveryPolicy,
    ) -> Result<Ensured<Consumer>, Error> {
        self.find_or_add(topic, subscription, start, owner, Some(policy)).await
    }

    /// An existing subscription; `None` if there is no consumer with that id.
    pub async fn find_shared(
        &self,
        topic: &TopicName,
        subscription: &ConsumerId,
        owner: Option<&Claimant>,
    ) -> Result<Option<Consumer>, Error> {
        self.find(topic, subscription, owner, true).await
    }

    async fn find_or_add(
        &self,
        topic: TopicName,
        consumer: ConsumerId,
        start: Start,
        owner: Option<&Claimant>,
        policy: Option<&DeliveryPolicy>,
    ) -> Result<Ensured<Consumer>, Error> {
        loop {
            if let Some(found) = self.find(&topic, &consumer, owner, policy.is_some()).await? {
                return Ok(Ensured::existing(found));
            }
            match self.add(topic.clone(), consumer.clone(), start, owner, policy).await {
                Err(Error::ConsumerExists { .. }) => {}
                added => return added.map(Ensured::new),
            }
        }
    }

    /// A consumer that `owner` may use, and that workers share or not; `None` if there is none with that id.
    async fn find(
        &self,
        topic: &TopicName,
        consumer: &ConsumerId,
        owner: Option<&Claimant>,
        is_shared: bool,
    ) -> Result<Option<Consumer>, Error> {
        let found = match self.catalogue.consumer(topic, consumer).await {
            Err(Error::ConsumerNotFound { .. }) => return Ok(None),
            found => found?,
        };
        let (topic, consumer) = (topic.clone(), consumer.clone());
        // Somebody else may have registered it since the caller was permitted.
        if !Claimant::may_use(owner, found.owner.as_ref()) {
            return Err(Error::ConsumerExists { topic, consumer });
        }
        match (found.sharing.is_some(), is_shared) {
            (true, false) => Err(Error::ConsumerIsShared { topic, consumer }),
            (false, true) => Err(Error::NotASubscription { topic, consumer }),
            _ => Ok(Some(found)),
        }
    }

    /// Forgets a consumer and its position, if it belongs to `owner`, or anyone's.
    pub async fn unregister(
        &self,
        topic: TopicName,
        consumer: ConsumerId,
        owner: Option<&Principal>,
    ) -> Result<(), Error> {
        let unregistered = self.storage.row_locks().of_consumer(&topic, &consumer, || {
            self.storage.unregister_consumer(&topic, &consumer, owner)
        });
        if let Some(key) = unregistered.await? {
            self.leases.changed(LeaseScope::Consumer(key));
            return Ok(());
        }
        self.catalogue.topic(&topic).await?;
        Err(Error::ConsumerNotFound { topic, consumer })
    }

    /// Describes a consumer.
    pub async fn get(&self, topic: &TopicName, consumer: &ConsumerId) -> Result<Consumer, Error> {
        self.catalogue.consumer(topic, consumer).await
    }

    /// Lists a topic's consumers by id: those of an owner, or everyone's.
    pub async fn list(
        &self,
        topic: &TopicName,
        owner: Option<&Principal>,
        page: &PageRequest,
    ) -> Result<Page<Consumer>, Error> {
        self.list_those(topic, owner, page, false).await
    }

    /// As [`Self::list`], those that are subscriptions.
    pub async fn list_shared(
        &self,
        topic: &TopicName,
        owner: Option<&Principal>,
        page: &PageRequest,
    ) -> Result<Page<Consumer>, Error> {
        self.list_those(topic, owner, page, true).await
    }

    async fn list_those(
        &self,
        topic: &TopicName,
        owner: Option<&Principal>,
        page: &PageRequest,
        shared_only: bool,
    ) -> Result<Page<Consumer>, Error> {
        let (id, mark) = self.catalogue.identity(topic).await?;
        pages::check(page, mark)?;
        let (after, limit) = (&page.after, page.size + 1);
        let found = self.storage.list_consumers(id, owner, shared_only, after, limit).await;
        Ok(Page::of(found.map_err(Error::of_read)?, page.size, Some(mark)))
    }
}
