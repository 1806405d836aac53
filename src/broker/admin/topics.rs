//! Topics: created, described, listed, changed, trimmed and deleted.

use std::sync::Arc;

use crate::{
    broker::{
        admin::Ensured,
        catalogue::Catalogue,
        characters::{Characters, texts},
        error::Error,
        lease::registry::Leases,
        log::topics::TopicLogs,
        notify::outbox::LeaseScope,
        quotas::Quotas,
        truncation::detect::Detector,
    },
    model::{
        Claimant, Labels, Limit, LogEnds, Offset, Page, PageRequest, Retention, TimeBound, Topic,
        TopicChanges, TopicFilter, TopicName,
    },
    storage::{self, Storage},
};

/// Topics that one statement reads for a page. Each may take 17 KiB, so that a page may be full
/// before it holds as many topics as were asked for.
const TOPICS_AT_A_TIME: usize = 128;

/// What to trim a topic's log to.
#[derive(Clone, Copy, Debug)]
pub enum TrimTo {
    /// The messages from an offset on.
    Offset(Offset),
    /// The messages stored at a time or later.
    Time(TimeBound),
}

/// A topic to create.
#[derive(Clone, Debug)]
pub struct NewTopic {
    /// Its name.
    pub name: TopicName,
    /// Free text for people.
    pub description: String,
    /// Names and values for tools.
    pub labels: Labels,
    /// How long messages are kept; `None` for ever.
    pub retention: Option<Retention>,
}

impl NewTopic {
    /// What it gives that an existing topic has otherwise. What it leaves empty is the same.
    fn differences(&self, existing: &Topic) -> Vec<&'static str> {
        let Self { description, labels, retention, .. } = self;
        let retention = retention.map(Retention::as_stored);
        let differs = [
            ("description", !description.is_empty() && *description != existing.description),
            ("labels", !labels.entries().is_empty() && *labels != existing.labels),
            ("retention", retention.is_some_and(|retention| retention != existing.retention)),
        ];
        differs.into_iter().filter_map(|(field, differs)| differs.then_some(field)).collect()
    }
}

/// Administers topics.
pub struct TopicAdmin {
    pub(crate) storage: Arc<Storage>,
    pub(crate) catalogue: Arc<Catalogue>,
    pub(crate) characters: Arc<Characters>,
    pub(crate) logs: Arc<TopicLogs>,
    pub(crate) leases: Arc<Leases>,
    pub(crate) truncation: Arc<Detector>,
    pub(crate) quotas: Quotas,
}

impl TopicAdmin {
    /// Creates an empty topic, for a creator if there is one.
    pub async fn create(&self, new: &NewTopic, creator: Option<&Claimant>) -> Result<Topic, Error> {
        let NewTopic { name, description, labels, retention } = new;
        self.check_text("description", [description.as_str()].into_iter()).await?;
        self.check_text("labels", texts(labels)).await?;
        let (limit, retention) = (self.quotas.topics, retention.unwrap_or_default());
        let create =
            || self.storage.create_topic(name, description, labels, &retention, creator, limit);
        match self.storage.row_locks().of_topic(name, create).await {
            Err(storage::Error::Full) => Err(Error::TooManyTopics { limit }),
            Err(storage::Error::OwnerFull) => Err(Error::owner_full(creator, Limit::Topics)),
            Err(storage::Error::Taken) => Err(Error::TopicExists { topic: name.clone() }),
            Err(storage::Error::NumbersUsedUp) => Err(Error::NumbersUsedUp { what: "topic" }),
            other => Ok(other?),
        }
    }

    /// A topic of this name, which is created for `creator` if there is none.
    pub async fn ensure(
        &self,
        new: &NewTopic,
        creator: Option<&Claimant>,
    ) -> Result<Ensured<Topic>, Error> {
        loop {
            match self.existing(new).await {
                Err(Error::TopicNotFound { .. }) => {}
                found => return found.map(Ensured::existing),
            }
            match self.create(new, creator).await {
                // Somebody else has created it since, and may have deleted it again.
                Err(Error::TopicExists { .. }) => {}
                created => return created.map(Ensured::new),
            }
        }
    }

    /// The topic of this name, unless it differs from what is asked for.
    pub async fn existing(&self, new: &NewTopic) -> Result<Topic, Error> {
        let topic = self.catalogue.topic(&new.name).await?;
        match new.differences(&topic) {
            fields if fields.is_empty() => Ok(topic),
            fields => Err(Error::TopicDiffers { topic: new.name.clone(), fields }),
        }
    }

    /// Describes a topic.
    pub async fn get(&self, topic: &TopicName) -> Result<Topic, Error> {
        self.catalogue.topic(topic).await
    }

    /// Lists topics by name: those that `filter` lets pass, or all.
    pub async fn list(
        &self,
        page: &PageRequest,
        filter: Option<&TopicFilter>,
    ) -> Result<Page<Topic>, Error> {
        let (mut found, mut after) = (Vec::<Topic>::new(), page.after.clone());
        loop {
            let limit = TOPICS_AT_A_TIME.min(page.size + 1 - found.len());
            let next = match filter {
                Some(filter) => self.storage.list_topics_of(filter, &after, limit).await,
                None => self.storage.list_topics(&after, limit).await,
            };
            let next = next.map_err(Error::of_read)?;
            let ended = next.len() < limit;
            found.extend(next);
            match found.last() {
                Some(last) if !ended && !Page::is_filled_by(&found, page.size) => {
                    after = last.name.to_string();
                }
                _ => return Ok(Page::of(found, page.size, None)),
            }
        }
    }

    /// Changes a topic.
    pub async fn update(&self, topic: TopicName, changes: &TopicChanges) -> Result<Topic, Error> {
        let TopicChanges { description, labels, .. } = changes;
        self.check_text("description", description.iter().map(String::as_str)).await?;
        self.check_text("labels", labels.iter().flat_map(texts)).await?;
        let row_locks = self.storage.row_locks();
        let updated = row_locks.of_topic(&topic, || self.storage.update_topic(&topic, changes));
        updated.await?.ok_or(Error::TopicNotFound { topic })
    }

    async fn check_text<'t>(
        &self,
        field: &str,
        texts: impl Iterator<Item = &'t str> + Clone + Send,
    ) -> Result<(), Error> {
        self.characters.check(&*self.storage, field, texts).await
    }

    /// Removes a topic's oldest messages; returns the log start offset.
    pub async fn trim(&self, topic: TopicName, to: TrimTo) -> Result<Offset, Error> {
        let observation = self.logs.begin();
        let (id, ends) = self.catalogue.log(&topic).await?;
        let target = match to {
            TrimTo::Offset(offset) if offset > ends.head => {
                return Err(Error::OffsetOutOfRange { topic, offset, ends });
            }
            TrimTo::Offset(offset) => offset,
            TrimTo::Time(time) => {
                self.storage.find_offset_at(id, time).await.map_err(Error::of_read)?
            }
        };
        loop {
            // A lost connection leaves nothing uncertain: the log start offset only grows.
            let raised = self.storage.raise_floor(id, target, false);
            let start = match self.storage.row_locks().once_of_topic(&topic, raised).await {
                Ok(Some(start)) => start,
                Ok(None) => return Err(Error::TopicNotFound { topic }),
                Err(storage::Error::Locked(_)) => return Err(Error::TopicBusy { topic }),
                Err(error) => return Err(Error::of_read(error)),
            };
            observation.observe(id, LogEnds { start, ..ends });
            if start >= target {
                return Ok(start);
            }
        }
    }

    /// Deletes a topic with its registrations and messages.
    pub async fn delete(&self, topic: TopicName) -> Result<(), Error> {
        let row_locks = self.storage.row_locks();
        let deleted = row_locks.of_topic(&topic, || self.storage.delete_topic(&topic));
        let Some(id) = deleted.await? else {
            return Err(Error::TopicNotFound { topic });
        };
        self.truncation.topic_deleted(id);
        self.leases.changed(LeaseScope::Topic(id));
        Ok(())
    }
}
