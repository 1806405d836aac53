//! TopicFlush commit: a writer takes all that waits, writes it in one transaction, and answers each.
//!
//! There is no timer: while one transaction goes to the disk the next publishes gather, so the
//! busier a topic the larger its batches. A publish is refused for a reason of its own only:
//! what shares its flush is stored.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::{sync::mpsc, time};

#[cfg(feature = "sabotage")]
use crate::broker::{error::Error, publish::flush::TopicFlush};
use crate::{
    broker::{
        characters::{Characters, TextStore},
        log::{seen::KnownLog, topics::TopicLogs},
        notify::outbox::Outbox,
        publish::{
            flush::Flush,
            group_commit::{AppendLog, GroupCommit},
            pending::Pending,
        },
        truncation::detect,
    },
    model::{Draft, Offset, ProducerId, Registration, TopicId, TopicName},
    storage::{self, Appended, Storage},
};

/// A statement without an answer for so long is given up, and its connection with it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

pub(crate) struct Writer {
    log: Arc<LogStore>,
    queue: mpsc::Receiver<Pending>,
}

/// The database's topics, and who is told of what is stored in them.
pub(crate) struct LogStore {
    pub storage: Arc<Storage>,
    pub logs: Arc<TopicLogs>,
    pub hints: Outbox,
    pub characters: Arc<Characters>,
}

impl Writer {
    pub(crate) fn new(log: Arc<LogStore>, queue: mpsc::Receiver<Pending>) -> Self {
        Self { log, queue }
    }

    /// Writes until the queue is closed and empty.
    pub(crate) async fn run(mut self) {
        let mut waiting = VecDeque::new();
        let mut taken = Vec::new();
        loop {
            if waiting.is_empty() {
                if self.queue.recv_many(&mut taken, 1_024).await == 0 {
                    return;
                }
                waiting.extend(taken.drain(..));
            }
            let groups = self.take_flush(&mut waiting).into_groups();
            #[cfg(feature = "sabotage")]
            if crate::model::Sabotage::AcknowledgeBeforeCommit.is_on() {
                self.log.write_what_is_acknowledged_already(groups).await;
                continue;
            }
            GroupCommit::new(&*self.log, &self.log.characters).store(groups).await;
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
    /// Runs one transaction, and gives its connection up if no answer comes.
    async fn write<T>(
        &self,
        work: impl AsyncFnOnce(&mut storage::Writer) -> Result<T, storage::Error>,
    ) -> Result<T, storage::Error> {
        let mut writer = self.storage.writer().await?;
        let outcome = time::timeout(ANSWER_TIMEOUT, work(&mut writer)).await;
        let outcome = outcome.unwrap_or_else(|_| {
            Err(storage::Error::ConnectionLost("no answer in time".to_owned()))
        });
        if let Err(storage::Error::ConnectionLost(_)) = outcome {
            writer.abandon();
        }
        outcome
    }

    /// What is known of a topic, before more is appended to it.
    fn known_log(&self, topic: &TopicName) -> Option<(TopicId, KnownLog)> {
        self.logs.losses().known_log_of(topic)
    }

    /// A batch was appended to a topic of which this was known before.
    fn appended(
        &self,
        topic: &TopicName,
        draft: &Draft,
        appended: Appended,
        known: Option<(TopicId, KnownLog)>,
    ) {
        self.logs.losses().learn_name(topic, appended.topic);
        if let Some((id, known)) = known
            && id == appended.topic
            && appended.base < known.head()
        {
            let ends = (appended.base, appended.base.after(draft.payloads.len()));
            detect::given_again(&self.storage, &self.logs, (id, topic), ends, &known);
        }
    }

    /// What must not be: a group is told where its messages will be stored, if all goes well.
    #[cfg(feature = "sabotage")]
    async fn write_what_is_acknowledged_already(&self, groups: Vec<TopicFlush>) {
        for group in groups {
            let found = self.storage.find_registrations(&group.topic, &group.producers()).await;
            let Ok(Some((head, _))) = found else {
                group.refuse(&Error::DatabaseUnavailable);
                continue;
            };
            let (topic, draft) = (group.topic.clone(), group.draft());
            group.acknowledge(head);
            if let Ok(Some(appended)) =
                self.write(async |writer| writer.append(&topic, &draft).await).await
            {
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
    ) -> Result<Option<Appended>, storage::Error> {
        let known = self.known_log(topic);
        let appended = self.write(async |writer| writer.append(topic, draft).await).await?;
        if let Some(appended) = appended {
            self.appended(topic, draft, appended, known);
        }
        Ok(appended)
    }

    async fn append_all(
        &self,
        drafts: &[(&TopicName, &Draft)],
    ) -> Result<Vec<Option<Appended>>, storage::Error> {
        let known: Vec<_> = drafts.iter().map(|(topic, _)| self.known_log(topic)).collect();
        let all = self.write(async |writer| writer.append_all(drafts).await).await?;
        for (((topic, draft), known), appended) in drafts.iter().zip(known).zip(&all) {
            if let Some(appended) = *appended {
                self.appended(topic, draft, appended, known);
            }
        }
        Ok(all)
    }

    async fn find_registrations(
        &self,
        topic: &TopicName,
        producers: &[ProducerId],
    ) -> Result<Option<(Offset, Vec<Registration>)>, storage::Error> {
        self.storage.find_registrations(topic, producers).await
    }

    fn acknowledged(&self, draft: Draft, appended: Appended) {
        let batch = draft.stored(appended.base, appended.published_at);
        let head = batch.end();
        self.logs.batch_stored(appended.topic, batch);
        self.hints.head_moved(appended.topic, head);
    }
}

impl TextStore for LogStore {
    async fn can_store(&self, text: &str) -> Result<bool, storage::Error> {
        self.storage.can_store(text).await
    }
}
