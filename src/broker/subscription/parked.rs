//! What people do with a subscription: messages that were parked, how messages are delivered, and from where
//! on.

use crate::{
    broker::{
        consume::delivery::Delivery,
        error::Error,
        subscription::{
            deliveries::ALL,
            receivers::Command,
            request::{Parked, Unparked},
            room::{Names, Room, Subscriptions},
        },
    },
    model::{
        ConsumerId, DeliveryPolicy, Offset, Page, PageRequest, ParkedMessage, Start, TopicName,
    },
};

/// How many parked messages a call is about.
const MAX_UNPARKED: usize = 10_000;

impl Subscriptions {
    /// Lists parked messages by their offsets, from `from` on.
    pub async fn list_parked(
        &self,
        topic: TopicName,
        subscription: ConsumerId,
        from: Offset,
        page: &PageRequest,
    ) -> Result<Page<ParkedMessage>, Error> {
        let delivery = &self.0.delivery;
        // Describing the consumer would count all of its parked messages for each page.
        let found = delivery.catalogue.position(&topic, &subscription).await?;
        if !found.is_shared {
            return Err(Error::NotASubscription { topic, consumer: subscription });
        }
        let listed = delivery.storage.list_parked(found.key, from, page.size + 1).await;
        Ok(Page::of(listed.map_err(Error::of_read)?, page.size, None))
    }

    /// Delivers parked messages again, as if for the first time.
    pub async fn replay_parked(&self, request: Parked) -> Result<Unparked, Error> {
        self.0.unpark(request, |parked, reply| Command::Replay { parked, reply }).await
    }

    /// Forgets parked messages.
    pub async fn discard_parked(&self, request: Parked) -> Result<Unparked, Error> {
        self.0.unpark(request, |parked, reply| Command::Discard { parked, reply }).await
    }

    /// Moves a subscription anywhere in the log; returns its new floor. All that it knows of messages is
    /// forgotten, apart from those that are parked. The owner notices, on whatever broker it is.
    pub async fn seek(
        &self,
        topic: TopicName,
        subscription: ConsumerId,
        target: Start,
    ) -> Result<Offset, Error> {
        let delivery = &self.0.delivery;
        if !delivery.catalogue.position(&topic, &subscription).await?.is_shared {
            return Err(Error::NotASubscription { topic, consumer: subscription });
        }
        delivery.seek(&topic, &subscription, target).await
    }

    /// Refuses a policy that the database cannot store.
    pub async fn check_policy(&self, policy: &DeliveryPolicy) -> Result<(), Error> {
        let filter = policy.filter.iter().map(|filter| filter.as_str());
        let Delivery { characters, storage, .. } = &*self.0.delivery;
        characters.check(&**storage, "policy.filter", filter).await
    }

    /// Changes how messages are delivered.
    pub async fn update(
        &self,
        topic: TopicName,
        subscription: ConsumerId,
        change: impl Fn(&DeliveryPolicy) -> Result<DeliveryPolicy, Error>,
    ) -> Result<(), Error> {
        let names: Names = (topic, subscription);
        let _turn = self.0.change(&names).await;
        loop {
            let stands = self.0.describe(&names).await?;
            let policy = change(&stands.policy)?;
            self.check_policy(&policy).await?;
            let storage = &self.0.delivery.storage;
            // If another owner has begun meanwhile, it may know another policy.
            if storage.set_policy(stands.key, stands.epoch, &policy).await? {
                let set = |reply| Command::SetPolicy { policy: policy.clone(), reply };
                return self.0.call(&names, set).await;
            }
        }
    }
}

impl Room {
    async fn unpark(
        &self,
        Parked { topic, subscription, ranges }: Parked,
        command: impl Fn(Vec<Offset>, Answer) -> Command,
    ) -> Result<Unparked, Error> {
        let names = (topic, subscription);
        // Whoever unparks the same messages finds them parked no more.
        let _turn = self.change(&names).await;
        let stands = self.describe(&names).await?;
        let ranges = if ranges.is_empty() { vec![ALL] } else { ranges };
        let found = self.delivery.storage.find_parked(stands.key, &ranges, MAX_UNPARKED + 1).await;
        let mut parked = found.map_err(Error::of_read)?;
        let has_more = parked.len() > MAX_UNPARKED;
        parked.truncate(MAX_UNPARKED);
        let count = self.call(&names, |reply| command(parked.clone(), reply)).await?;
        Ok(Unparked { count, has_more })
    }
}

/// Where the number of messages is sent.
type Answer = tokio::sync::oneshot::Sender<Result<usize, Error>>;
