//! What people do with a subscription: messages that were parked, how messages are delivered, and from where
//! on.

use std::time::Duration;

use tokio::{
    sync::oneshot,
    time::{Instant, sleep},
};

use crate::{
    broker::{
        consume::delivery::Delivery,
        error::Error,
        subscription::{
            deliveries::ALL,
            receivers::{Command, Description},
            request::{Parked, Unparked},
            room::{Names, Room, Subscriptions},
            storing::CountOutcome,
        },
    },
    model::{
        ConsumerId, DeliveryPolicy, Epoch, InvalidInput, Offset, Page, PageRequest, ParkedMessage,
        Start, TopicName,
    },
};

/// How many parked messages a call is about.
const MAX_UNPARKED: usize = 10_000;

/// How long a change begins anew while other owners begin, and the pause before that: an owner may not know yet
/// that its epoch has ended.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(5);
const CHANGE_PAUSE: Duration = Duration::from_millis(100);

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
        let replay = |Found { epoch, parked }, reply| Command::Replay { epoch, parked, reply };
        self.0.unpark(request, replay).await
    }

    /// Forgets parked messages.
    pub async fn discard_parked(&self, request: Parked) -> Result<Unparked, Error> {
        let discard = |Found { epoch, parked }, reply| Command::Discard { epoch, parked, reply };
        self.0.unpark(request, discard).await
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

    /// Refuses a dead-letter topic that is the subscription's own, or does not exist.
    pub async fn check_dead_letter_topic(
        &self,
        topic: &TopicName,
        policy: &DeliveryPolicy,
    ) -> Result<(), Error> {
        let Some(dead_letter_topic) = &policy.dead_letter_topic else { return Ok(()) };
        if dead_letter_topic == topic {
            let problem = "must not be the subscription's own topic";
            return Err(InvalidInput::new("policy.dead_letter_topic", problem).into());
        }
        match self.0.delivery.catalogue.log(dead_letter_topic).await {
            Err(Error::TopicNotFound { topic }) => Err(Error::DeadLetterTopicNotFound { topic }),
            found => found.map(drop),
        }
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
        let tries = Tries::begin();
        loop {
            let Description { key, epoch, policy: before, .. } = self.0.describe(&names).await?;
            let policy = change(&before)?;
            self.check_policy(&policy).await?;
            // One that was deleted must not keep other settings from being changed.
            if policy.dead_letter_topic != before.dead_letter_topic {
                self.check_dead_letter_topic(&names.0, &policy).await?;
            }
            let (storage, (topic, consumer)) = (&self.0.delivery.storage, &names);
            let store = || storage.set_policy(key, epoch, &policy);
            if storage.row_locks().of_consumer(topic, consumer, store).await? {
                let set = |reply| Command::SetPolicy { epoch, policy: policy.clone(), reply };
                return self.0.call(&names, set).await;
            }
            tries.pause().await?;
        }
    }
}

impl Room {
    async fn unpark(
        &self,
        Parked { topic, subscription, ranges }: Parked,
        command: impl Fn(Found, Answer) -> Command,
    ) -> Result<Unparked, Error> {
        let names = (topic, subscription);
        let ranges = if ranges.is_empty() { vec![ALL] } else { ranges };
        // Whoever unparks the same messages finds them parked no more.
        let _turn = self.change(&names).await;
        let tries = Tries::begin();
        loop {
            let Description { key, epoch, .. } = self.describe(&names).await?;
            let found = self.delivery.storage.find_parked(key, &ranges, MAX_UNPARKED + 1).await;
            let mut parked = found.map_err(Error::of_read)?;
            let has_more = parked.len() > MAX_UNPARKED;
            parked.truncate(MAX_UNPARKED);
            let found = Found { epoch, parked };
            let unparked = self.call(&names, |reply| command(found.clone(), reply)).await?;
            if let Some(count) = unparked {
                return Ok(Unparked { count, has_more });
            }
            tries.pause().await?;
        }
    }
}

/// Tries of a change that does nothing if another epoch has begun since the owner was asked.
struct Tries {
    give_up_at: Instant,
}

impl Tries {
    fn begin() -> Self {
        Self { give_up_at: Instant::now() + CHANGE_TIMEOUT }
    }

    /// Waits before the next one.
    async fn pause(&self) -> Result<(), Error> {
        if Instant::now() >= self.give_up_at {
            return Err(Error::unavailable());
        }
        sleep(CHANGE_PAUSE).await;
        Ok(())
    }
}

/// Parked messages, and the epoch of the owner in which they were found.
#[derive(Clone)]
struct Found {
    epoch: Epoch,
    parked: Vec<Offset>,
}

/// Where the number of messages is sent.
type Answer = oneshot::Sender<CountOutcome>;
