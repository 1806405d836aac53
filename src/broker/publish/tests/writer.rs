//! Drives the real group commit over the model of the database.

use std::{
    cell::{Cell, Ref, RefCell},
    collections::VecDeque,
    time::{Duration, SystemTime},
};

use futures::FutureExt as _;
use tokio::sync::oneshot;

use crate::{
    broker::{
        budget::{Budget, Share},
        characters::{Characters, TextStore},
        publish::{
            flush::Flush,
            group_commit::{AppendLog, GroupCommit},
            locked_topics::LockedTopics,
            pending::{Answers, Caller, Pending},
            request::Publish,
            tests::{
                database::{Database, Mishap},
                values::{can_be_stored, is_refused},
            },
        },
    },
    metrics::PublishMetrics,
    model::{Draft, ProducerId, TopicId, TopicName},
    storage::{self, Appended, Registrations},
};

/// More than the publishes of any case.
const ROOM: usize = 100_000;

pub(crate) struct Driver {
    log: ModelLog,
    characters: Characters,
    locked: LockedTopics,
    queue: VecDeque<Pending>,
    room: Share,
    pub flushes: Vec<FlushStats>,
}

/// What a flush held, and what it took to store it.
#[derive(Debug)]
pub(crate) struct FlushStats {
    pub publishes: usize,
    pub messages: usize,
    pub bytes: usize,
    pub topics: usize,
    /// How many messages the database refuses.
    pub bad: usize,
    pub transactions: usize,
    /// How many of the transactions were refused.
    pub refused: usize,
}

/// The model of the database as the log that the writer appends to.
struct ModelLog {
    database: RefCell<Database>,
    /// What happens before each of the next statements.
    mishaps: RefCell<std::vec::IntoIter<Mishap>>,
    transactions: Cell<usize>,
    refused: Cell<usize>,
    /// How often the writer asked whether a text can be stored.
    questions: Cell<usize>,
}

impl Driver {
    pub(crate) fn new(mishaps: Vec<Mishap>) -> Self {
        Self {
            log: ModelLog {
                database: RefCell::new(Database::new()),
                mishaps: RefCell::new(mishaps.into_iter()),
                transactions: Cell::default(),
                refused: Cell::default(),
                questions: Cell::default(),
            },
            characters: Characters::new("LATIN1", false),
            locked: LockedTopics::default(),
            queue: VecDeque::new(),
            room: Budget::new(ROOM, ROOM).new_share(),
            flushes: Vec::new(),
        }
    }

    pub(crate) fn database(&self) -> Ref<'_, Database> {
        self.log.database.borrow()
    }

    /// How often the writer asked the database whether it can store a text.
    pub(crate) fn questions(&self) -> usize {
        self.log.questions.get()
    }

    pub(crate) fn enqueue(&mut self, publish: Publish) -> Answers {
        let (outcome, answered) = oneshot::channel();
        let answers = Answers::of(&publish, answered);
        let _hold = Some(self.room.try_hold(1).unwrap());
        self.queue.push_back(Pending::new(
            publish,
            Caller { outcome, _hold, timer: PublishMetrics::default().begin(), span: None },
        ));
        answers
    }

    pub(crate) fn all_room_is_returned(&self) -> bool {
        self.room.try_hold(ROOM).is_some()
    }

    pub(crate) fn write_all(&mut self) {
        while !self.queue.is_empty() {
            self.write_flush();
        }
    }

    /// Writes as many waiting publishes as can be stored together.
    pub(crate) fn write_flush(&mut self) {
        let mut flush = Flush::default();
        let (mut publishes, mut messages, mut bytes, mut bad) = (0, 0, 0, 0);
        while let Some(next) = self.queue.pop_front() {
            if !flush.admits(&next.publish) {
                self.queue.push_front(next);
                break;
            }
            let added = &next.publish.messages;
            (publishes, messages, bytes) =
                (publishes + 1, messages + added.count(), bytes + added.bytes());
            bad += added.as_slice().iter().filter(|message| is_refused(message)).count();
            flush.add(next);
        }
        let flushes = flush.into_topics();
        let is_sorted = flushes.is_sorted_by(|a, b| a.topic < b.topic);
        assert!(is_sorted, "all brokers lock topics in the same order");
        let (transactions, refused) = (self.log.transactions.get(), self.log.refused.get());
        let mut stats = FlushStats {
            publishes,
            messages,
            bytes,
            topics: flushes.len(),
            bad,
            transactions,
            refused,
        };
        let stored = GroupCommit::new(&self.log, &self.characters, &mut self.locked).store(flushes);
        stored.now_or_never().expect("the model answers at once");
        stats.transactions = self.log.transactions.get() - transactions;
        stats.refused = self.log.refused.get() - refused;
        self.flushes.push(stats);
    }
}

impl ModelLog {
    /// Stores all drafts or, if that fails, none.
    fn transaction(
        &self,
        drafts: &[(&TopicName, &Draft)],
    ) -> Result<Vec<Option<Appended>>, storage::Error> {
        self.transactions.set(self.transactions.get() + 1);
        let failed = self.next_mishap();
        if let Err(storage::Error::ConnectionLost(stored)) = &failed
            && stored == "stored"
        {
            let _ = self.append_all(drafts);
        }
        failed?;
        self.append_all(drafts)
    }

    fn append_all(
        &self,
        drafts: &[(&TopicName, &Draft)],
    ) -> Result<Vec<Option<Appended>>, storage::Error> {
        for (_, draft) in drafts {
            Database::check(draft).inspect_err(|_| self.refused.set(self.refused.get() + 1))?;
        }
        let mut database = self.database.borrow_mut();
        let appended =
            |base| Appended { topic: TopicId(0), base, published_at: SystemTime::UNIX_EPOCH };
        let all = drafts.iter().map(|(topic, draft)| database.append(topic, draft).map(appended));
        Ok(all.collect())
    }

    /// Lets the next mishap happen, and returns the error that it causes.
    fn next_mishap(&self) -> Result<(), storage::Error> {
        let mishap = self.mishaps.borrow_mut().next().unwrap_or(Mishap::Nothing);
        self.database.borrow_mut().apply(&mishap);
        match mishap {
            Mishap::Changed => Err(storage::Error::ChangedMeanwhile),
            Mishap::Locked => Err(storage::Error::Locked(String::new())),
            Mishap::Fault => Err(storage::Error::Fault(String::new())),
            Mishap::Lost { stored } => {
                let stored = if stored { "stored" } else { "" };
                Err(storage::Error::ConnectionLost(stored.to_owned()))
            }
            _ => Ok(()),
        }
    }
}

impl AppendLog for ModelLog {
    async fn append(
        &self,
        topic: &TopicName,
        draft: &Draft,
        _hurry: bool,
    ) -> Result<Option<Appended>, storage::Error> {
        Ok(self.transaction(&[(topic, draft)])?[0])
    }

    async fn append_all(
        &self,
        drafts: &[(&TopicName, &Draft)],
    ) -> Result<Vec<Option<Appended>>, storage::Error> {
        self.transaction(drafts)
    }

    async fn find_registrations(
        &self,
        topic: &TopicName,
        producers: &[ProducerId],
    ) -> Result<Option<Registrations>, storage::Error> {
        // No error: this query waits for no lock, and is repeated if its connection is lost.
        let _ = self.next_mishap();
        Ok(self.database.borrow().find_registrations(topic, producers))
    }

    async fn pause(&self, _: Duration) {}

    fn acknowledged(&self, _: Draft, _: Appended) {}
}

impl TextStore for ModelLog {
    async fn can_store(&self, text: &str) -> Result<bool, storage::Error> {
        self.questions.set(self.questions.get() + 1);
        self.next_mishap()?;
        Ok(text.chars().all(can_be_stored))
    }
}
