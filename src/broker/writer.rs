//! Group commit: a writer takes all that waits, writes it in one transaction, and answers each.
//!
//! There is no timer: while one transaction goes to the disk the next publishes gather, so the
//! busier a topic the larger its batches. A publish is refused for a reason of its own only:
//! what shares its flush is stored.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::{sync::mpsc, time};

use super::{
    Error,
    feed::Feeds,
    flush::{Flush, Group},
    hints::Hints,
    loss,
    losses::KnownLog,
    reply::Queued,
};
use crate::{
    model::{Draft, TopicId},
    storage::{self, Appended, Storage},
};

/// A statement without an answer for so long is given up, and its connection with it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// How often a flush may be tried again without the publishes that turned out not to fit, or
/// because what they have to fit changed meanwhile.
const MAX_ROUNDS: usize = 8;

pub(super) struct Writer {
    storage: Arc<Storage>,
    feeds: Arc<Feeds>,
    hints: Hints,
    queue: mpsc::Receiver<Queued>,
}

impl Writer {
    pub(super) fn new(
        storage: Arc<Storage>,
        feeds: Arc<Feeds>,
        hints: Hints,
        queue: mpsc::Receiver<Queued>,
    ) -> Self {
        Self { storage, feeds, hints, queue }
    }

    /// Writes until the queue is closed and empty.
    pub(super) async fn run(mut self) {
        let mut waiting = VecDeque::new();
        let mut taken = Vec::new();
        loop {
            if waiting.is_empty() {
                if self.queue.recv_many(&mut taken, 1_024).await == 0 {
                    return;
                }
                waiting.extend(taken.drain(..));
            }
            let flush = self.take_flush(&mut waiting);
            self.write(flush.into_groups()).await;
        }
    }

    /// The next publishes, in order, as many as can be stored together.
    fn take_flush(&mut self, waiting: &mut VecDeque<Queued>) -> Flush {
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

    async fn write(&self, mut groups: Vec<Group>) {
        #[cfg(feature = "sabotage")]
        if crate::model::Sabotage::AcknowledgeBeforeCommit.is_on() {
            return self.write_what_is_acknowledged_already(groups).await;
        }
        if groups.len() > 1 {
            groups = self.write_together(groups).await;
        }
        for group in groups {
            self.write_alone(group).await;
        }
    }

    /// Writes groups in one transaction; returns those that are still to be written.
    async fn write_together(&self, groups: Vec<Group>) -> Vec<Group> {
        let drafts: Vec<Draft> = groups.iter().map(Group::draft).collect();
        let named: Vec<_> = groups.iter().map(|group| &group.topic).zip(&drafts).collect();
        let known: Vec<_> = groups.iter().map(|group| self.known_log(group)).collect();
        let outcome = self.append(async |writer| writer.append_all(&named).await).await;
        match outcome {
            Ok(appended) => {
                let mut left = Vec::new();
                let groups = groups.into_iter().zip(drafts).zip(known);
                for (((group, draft), known), appended) in groups.zip(appended) {
                    match appended {
                        Some(appended) => self.acknowledge(group, draft, appended, known),
                        None => left.push(group),
                    }
                }
                left
            }
            // Nothing was stored: find out which of them it was.
            Err(
                storage::Error::Locked(_)
                | storage::Error::ChangedMeanwhile
                | storage::Error::Unexpected(_),
            ) => groups,
            Err(error) => {
                let error = Error::from(error);
                groups.into_iter().for_each(|group| group.refuse(&error));
                Vec::new()
            }
        }
    }

    /// Writes a group in a transaction of its own, without those of its members that cannot be
    /// stored.
    async fn write_alone(&self, mut group: Group) {
        for _ in 0..MAX_ROUNDS {
            let (draft, known) = (group.draft(), self.known_log(&group));
            match self.append(async |writer| writer.append(&group.topic, &draft).await).await {
                Ok(Some(appended)) => {
                    return self.acknowledge(group, draft, appended, known);
                }
                Ok(None) | Err(storage::Error::ChangedMeanwhile) => {
                    match self.settle(group).await {
                        Some(left) => group = left,
                        None => return,
                    }
                }
                Err(storage::Error::Locked(problem)) => {
                    tracing::warn!(topic = %group.topic, problem, "refuse publishes to a locked topic");
                    let topic = group.topic.clone();
                    return group.refuse(&Error::TopicBusy { topic });
                }
                Err(error) => return group.refuse(&Error::from(error)),
            }
        }
        // Its producers come and go faster than it can be written.
        group.refuse(&Error::DatabaseUnavailable);
    }

    /// Answers the members that cannot be stored, or were before; `None` if nobody is left.
    async fn settle(&self, mut group: Group) -> Option<Group> {
        match self.storage.find_registrations(&group.topic, &group.producers()).await {
            Ok(Some((head, registrations))) => {
                group.settle(head, registrations);
                (!group.is_empty()).then_some(group)
            }
            Ok(None) => {
                let topic = group.topic.clone();
                group.refuse(&Error::TopicNotFound { topic });
                None
            }
            Err(error) => {
                // Nothing was stored, whatever became of the question.
                group.refuse(&Error::of_read(error));
                None
            }
        }
    }

    /// Runs one transaction, and gives its connection up if no answer comes.
    async fn append<T>(
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

    /// What must not be: a group is told where its messages will be stored, if all goes well.
    #[cfg(feature = "sabotage")]
    async fn write_what_is_acknowledged_already(&self, groups: Vec<Group>) {
        for group in groups {
            let found = self.storage.find_registrations(&group.topic, &group.producers()).await;
            let Ok(Some((head, _))) = found else {
                group.refuse(&Error::DatabaseUnavailable);
                continue;
            };
            let (topic, draft) = (group.topic.clone(), group.draft());
            group.acknowledge(head);
            if let Ok(Some(appended)) =
                self.append(async |writer| writer.append(&topic, &draft).await).await
            {
                let batch = draft.stored(appended.base, appended.published_at);
                self.feeds.batch_stored(appended.topic, batch);
            }
        }
    }

    /// What is known of the topic of a group, before more is appended to it.
    fn known_log(&self, group: &Group) -> Option<(TopicId, KnownLog)> {
        self.feeds.losses().known_log_of(&group.topic)
    }

    fn acknowledge(
        &self,
        group: Group,
        draft: Draft,
        appended: Appended,
        known: Option<(TopicId, KnownLog)>,
    ) {
        self.feeds.losses().learn_name(&group.topic, appended.topic);
        if let Some((topic, known)) = known
            && topic == appended.topic
            && appended.base < known.head()
        {
            let ends = (appended.base, appended.base.after(draft.payloads.len()));
            let topic = (topic, &group.topic);
            loss::given_again(&self.storage, &self.feeds, topic, ends, &known);
        }
        group.acknowledge(appended.base);
        let batch = draft.stored(appended.base, appended.published_at);
        let head = batch.end();
        self.feeds.batch_stored(appended.topic, batch);
        self.hints.head_moved(appended.topic, head);
    }
}
