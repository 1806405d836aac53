//! Group commit: a writer takes all waiting publishes, stores them in one transaction, and answers
//! each.
//!
//! There is no timer: while one transaction is flushed to disk, the next publishes gather. So the
//! busier a topic is, the larger are its batches. A refused publish stores nothing, and publishes
//! flushed with it are unaffected.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::sync::mpsc;

#[cfg(feature = "sabotage")]
use crate::broker::{error::Error, publish::flush::TopicFlush};
use crate::{
    broker::{
        characters::{Characters, TextStore},
        log::topics::TopicLogs,
        notify::outbox::Outbox,
        publish::{
            flush::Flush,
            group_commit::{AppendLog, GroupCommit},
            locked_topics::LockedTopics,
            pending::Pending,
        },
        truncation::detect::{Detector, SeenBefore},
    },
    metrics::BrokerMetrics,
    model::{Draft, OffsetRange, ProducerId, TopicName},
    storage::{self, Appended, Registrations, Storage},
    traces::Traces,
};

/// Writes the publishes of the topics that it owns.
pub(crate) struct Writer {
    log: Arc<LogStore>,
    queue: mpsc::Receiver<Pending>,
}

/// The logs in the database, and what is notified when batches are stored in them.
pub(crate) struct LogStore {
    pub storage: Arc<Storage>,
    pub logs: Arc<TopicLogs>,
    pub truncation: Arc<Detector>,
    pub outbox: Outbox,
    pub characters: Arc<Characters>,
    pub metrics: Arc<BrokerMetrics>,
    pub traces: Traces,
}

impl Writer {
    pub(crate) fn new(log: Arc<LogStore>, queue: mpsc::Receiver<Pending>) -> Self {
        Self { log, queue }
    }

    /// Writes until the queue is closed and empty.
    pub(crate) async fn run(mut self) {
        let mut waiting = VecDeque::new();
        let mut locked = LockedTopics::default();
        let mut received = Vec::new();
        loop {
            if waiting.is_empty() {
                if self.queue.recv_many(&mut received, 1_024).await == 0 {
                    return;
                }
                waiting.extend(received.drain(..));
            }
            let flush = self.take_flush(&mut waiting);
            // Ends when all publishes are answered.
            let mut span = flush.begin_span(&self.log.traces);
            let flushes = flush.into_topics();
            #[cfg(feature = "sabotage")]
            if crate::model::Sabotage::AcknowledgeBeforeCommit.is_on() {
                self.log.acknowledge_before_commit(flushes).await;
                continue;
            }
            let commit = GroupCommit::new(&*self.log, &self.log.characters, &mut locked);
            let fault = commit.store(flushes).await;
            if let (Some(span), Some(fault)) = (&mut span, fault) {
                span.failed(&fault);
            }
        }
    }

    /// The next publishes, in order, as many as can be stored together.
    fn take_flush(&mut self, waiting: &mut VecDeque<Pending>) -> Flush {
        let mut flush = Flush::default();
        loop {
            let Some(next) = waiting.pop_front().or_else(|| self.queue.try_recv().ok()) else {
                return flush;
            };
            if !flush.admits(&next.publish) {
                waiting.push_front(next);
                return flush;
            }
            flush.add(next);
        }
    }
}

impl LogStore {
    /// Checks whether the offsets of an appended batch were used before.
    pub(crate) fn check_appended(
        &self,
        topic: &TopicName,
        draft: &Draft,
        Appended { topic: id, base, .. }: Appended,
        before: Option<SeenBefore>,
    ) {
        let batch = OffsetRange { start: base, end: base.after(draft.payloads.len()) };
        self.truncation.after_append(topic, id, batch, before);
    }

    /// What must not happen: publishes are acknowledged before they are stored.
    #[cfg(feature = "sabotage")]
    async fn acknowledge_before_commit(&self, flushes: Vec<TopicFlush>) {
        for flush in flushes {
            let found = self.storage.find_registrations(&flush.topic, &flush.producers()).await;
            let Ok(Some(Registrations { head, .. })) = found else {
                flush.refuse(&Error::unavailable());
                continue;
            };
            let (topic, draft) = (flush.topic.clone(), flush.draft());
            flush.acknowledge(head);
            let Ok(writer) = self.storage.writer().await else { continue };
            if let Ok(Some(appended)) = writer.append(&topic, &draft).await {
                let batch = draft.stored(appended.base, appended.published_at);
                self.logs.batch_stored(appended.topic, batch);
            }
        }
    }
}

impl AppendLog for LogStore {
    async fn append(
        &self,
        topic: &TopicName,
        draft: &Draft,
        hurry: bool,
    ) -> Result<Option<Appended>, storage::Error> {
        let before = self.truncation.before_append(topic);
        let mut writer = self.storage.writer().await?;
        if hurry {
            writer.hurry();
        }
        let appended = writer.append(topic, draft).await?;
        if let Some(appended) = appended {
            self.check_appended(topic, draft, appended, before);
        }
        Ok(appended)
    }

    async fn append_all(
        &self,
        drafts: &[(&TopicName, &Draft)],
    ) -> Result<Vec<Option<Appended>>, storage::Error> {
        let before: Vec<_> =
            drafts.iter().map(|(topic, _)| self.truncation.before_append(topic)).collect();
        let all = self.storage.writer().await?.append_all(drafts).await?;
        for (((topic, draft), before), appended) in drafts.iter().zip(before).zip(&all) {
            if let Some(appended) = *appended {
                self.check_appended(topic, draft, appended, before);
            }
        }
        Ok(all)
    }

    async fn find_registrations(
        &self,
        topic: &TopicName,
        producers: &[ProducerId],
    ) -> Result<Option<Registrations>, storage::Error> {
        self.storage.find_registrations(topic, producers).await
    }

    async fn pause(&self, pause: Duration) {
        tokio::time::sleep(pause).await;
    }

    fn acknowledged(&self, draft: Draft, appended: Appended) {
        let (messages, bytes) = (draft.payloads.len(), draft.bytes);
        self.metrics.publishing.count_batch(messages);
        self.metrics.traffic.count_published(appended.topic, messages, bytes);
        let batch = draft.stored(appended.base, appended.published_at);
        let head = batch.end();
        self.logs.batch_stored(appended.topic, batch);
        self.outbox.head_moved(appended.topic, head);
    }
}

impl TextStore for LogStore {
    async fn can_store(&self, text: &str) -> Result<bool, storage::Error> {
        self.storage.can_store(text).await
    }
}
