//! What streams, pulls, commits, seeks and reads share.

use std::sync::Arc;

use crate::{
    audit::Audit,
    broker::{
        calls::Calls,
        catalogue::Catalogue,
        characters::Characters,
        consume::{positions::Positions, stream_limit::StreamLimit},
        error::Error,
        lease::registry::{Leases, Waiter},
        log::topics::{LogReader, TopicLogs},
        truncation::detect::Detector,
    },
    metrics::BrokerMetrics,
    model::{ConsumerId, LogEnds, OffsetRange, TopicName},
    storage::{Storage, Stored},
};

/// Hands messages out to clients, and moves the positions of consumers.
pub struct Delivery {
    pub(crate) calls: Calls,
    pub(crate) storage: Arc<Storage>,
    pub(crate) audit: Arc<Audit>,
    pub(crate) catalogue: Arc<Catalogue>,
    pub(crate) characters: Arc<Characters>,
    pub(crate) logs: Arc<TopicLogs>,
    pub(crate) truncation: Arc<Detector>,
    pub(crate) leases: Arc<Leases>,
    pub(crate) positions: Positions,
    pub(crate) streams: StreamLimit,
    pub(crate) metrics: Arc<BrokerMetrics>,
}

impl Delivery {
    /// As [`Self::open_log`], for a consumer that reads by itself.
    pub(crate) async fn begin_reading(
        &self,
        topic: &TopicName,
        consumer: &ConsumerId,
    ) -> Result<(Stored, LogReader), Error> {
        let (stored, log) = self.open_log(topic, consumer).await?;
        if stored.is_shared {
            let (topic, consumer) = (topic.clone(), consumer.clone());
            return Err(Error::ConsumerIsShared { topic, consumer });
        }
        Ok((stored, log))
    }

    /// A consumer's position, and a reader of its topic's log. If messages were lost since the
    /// consumer last read, returns an error, once.
    pub(crate) async fn open_log(
        &self,
        topic: &TopicName,
        consumer: &ConsumerId,
    ) -> Result<(Stored, LogReader), Error> {
        let mut observation = self.logs.begin();
        let mut stored = self.catalogue.position(topic, consumer).await?;
        let id = stored.key.topic;
        self.logs.seen().learn_name(topic, id);
        let seen_head = self.logs.seen().head(id);
        if stored.head < seen_head {
            // A publish may have moved the head while this was read.
            observation = self.logs.begin();
            stored = self.catalogue.position(topic, consumer).await?;
            if stored.head < seen_head && stored.key.topic == id {
                self.truncation.check_log(topic, stored.key, seen_head).await?;
            }
        }
        self.truncation.report(topic, stored.key)?;
        if stored.position > stored.head {
            let lost = OffsetRange { start: stored.head, end: stored.position };
            return Err(Error::MessagesLost { topic: topic.clone(), lost });
        }
        let ends = LogEnds { start: stored.first, head: stored.head };
        Ok((stored, observation.join(stored.key.topic, ends)))
    }

    /// Who holds a consumer's lease, described for people.
    pub(crate) async fn find_holder(
        &self,
        waiter: &Waiter,
        topic: &TopicName,
        consumer: &ConsumerId,
    ) -> Result<String, Error> {
        if let Some(holder) = waiter.holder() {
            return Ok(holder);
        }
        let found = self.catalogue.consumer(topic, consumer).await?;
        // A pull holds the lease only for a moment, and stores no name.
        let holder = found.holder.filter(|holder| !holder.is_empty());
        Ok(holder.unwrap_or_else(|| "a pull or a stream that just ended".to_owned()))
    }
}
