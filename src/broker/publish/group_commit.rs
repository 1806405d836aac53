//! Stores a flush: as a whole if possible, otherwise in parts.
//!
//! Guarantees: every publish is answered once; the publishes of a topic are stored in order; a
//! request that the database refuses, or whose statement fails, gets its error alone, and the rest
//! is stored. A flush is split only after an error that proves that nothing was stored: if the
//! connection is lost, the outcome of the whole flush is unknown. A flush with so many errors that
//! splitting it would hold others up is not split to the end: the remaining requests are sent back
//! for their clients to retry.

use std::time::Duration;

use crate::{
    broker::{
        characters::{Characters, TextStore, texts},
        error::Error,
        publish::{
            flush::{Halves, TopicFlush},
            locked_topics::LockedTopics,
            request::Publish,
        },
    },
    model::{Draft, InvalidInput, ProducerId, TopicName},
    storage::{self, Appended, Registrations},
};

/// How often a topic's publishes may be tried again, without those that turned out not to fit, or
/// because what they must fit has changed meanwhile.
const MAX_ROUNDS: usize = 8;

/// How many statements of one flush the database may refuse or fail before the flush is no longer
/// split. Finding one bad request among 8,192 takes at most 14.
const MAX_REFUSED: usize = 128;

/// How long to wait before each retry after a fault of the server's own. Such a fault passes once
/// another session gets to run, for instance one whose update is being rolled back. The whole flush
/// waits.
const FAULT_PAUSES: [Duration; 3] =
    [Duration::from_millis(1), Duration::from_millis(10), Duration::from_millis(50)];

/// How often a flush waits for such a fault to pass.
const MAX_FAULTS: usize = 16;

/// How often a flush asks which of its characters the database refuses. Each time takes some tens
/// of small statements, for which the whole flush waits.
const MAX_LEARNED: usize = 8;

/// Where a flush is stored: the database, or a model of it.
pub(crate) trait AppendLog: TextStore {
    /// As [`storage::Writer::append`]; in a `hurry`, as after [`storage::Writer::hurry`].
    async fn append(
        &self,
        topic: &TopicName,
        draft: &Draft,
        hurry: bool,
    ) -> Result<Option<Appended>, storage::Error>;

    /// As [`storage::Writer::append_all`].
    async fn append_all(
        &self,
        drafts: &[(&TopicName, &Draft)],
    ) -> Result<Vec<Option<Appended>>, storage::Error>;

    /// As [`storage::Storage::find_registrations`].
    async fn find_registrations(
        &self,
        topic: &TopicName,
        producers: &[ProducerId],
    ) -> Result<Option<Registrations>, storage::Error>;

    /// Waits before a retry.
    async fn pause(&self, pause: Duration);

    /// A draft was stored, and its publishers have been answered.
    fn acknowledged(&self, draft: Draft, appended: Appended);
}

/// The group commit of one flush.
pub(crate) struct GroupCommit<'a, L> {
    log: &'a L,
    characters: &'a Characters,
    locked: &'a mut LockedTopics,
    /// Whether the flush has waited for a locked topic already: its next waits are short.
    hurry: bool,
    /// How many statements the database has refused or failed.
    refused: usize,
    /// How often publishes may still be retried unchanged after a fault of the server's own.
    faults_left: usize,
    /// How often the database may still be asked which characters it can store.
    learns_left: usize,
    /// Why publishes failed that were not at fault themselves, if some did.
    fault: Option<Error>,
}

/// Topics whose publishes are to be stored in one transaction.
type Part = Vec<TopicFlush>;

impl<'a, L: AppendLog> GroupCommit<'a, L> {
    pub(crate) fn new(
        log: &'a L,
        characters: &'a Characters,
        locked: &'a mut LockedTopics,
    ) -> Self {
        Self {
            log,
            characters,
            locked,
            hurry: false,
            refused: 0,
            faults_left: MAX_FAULTS,
            learns_left: MAX_LEARNED,
            fault: None,
        }
    }

    /// Stores the publishes of topics, which must be sorted by name, and answers each publish. Returns
    /// why publishes failed that were not at fault themselves, if some did.
    pub(crate) async fn store(mut self, flushes: Part) -> Option<Error> {
        let (locked, flushes) = self.locked.part(flushes, |flush| &flush.topic);
        let mut next = Some(flushes);
        // What is stored after that, in reverse order. Topics that were found locked recently come
        // last, so that no other topic waits for them.
        let mut parts: Vec<Part> = locked.into_iter().map(|flush| vec![flush]).collect();
        while let Some(part) = next.take().or_else(|| parts.pop()) {
            let mut part = self.without_refused(part).await;
            let left = match part.len() {
                2.. => self.store_together(part).await,
                _ => match part.pop() {
                    Some(flush) => self.store_alone(flush).await,
                    None => Vec::new(),
                },
            };
            parts.extend(left.into_iter().rev());
        }
        self.fault
    }

    /// Stores the publishes of several topics in one transaction; returns what is still to be
    /// stored.
    async fn store_together(&mut self, flushes: Part) -> Vec<Part> {
        let drafts: Vec<Draft> = flushes.iter().map(TopicFlush::draft).collect();
        let named: Vec<_> = flushes.iter().map(|flush| &flush.topic).zip(&drafts).collect();
        match self.log.append_all(&named).await {
            Ok(appended) => {
                let mut left = Vec::new();
                for ((flush, draft), appended) in flushes.into_iter().zip(drafts).zip(appended) {
                    match appended {
                        Some(appended) => self.acknowledge(flush, draft, appended),
                        None => left.push(vec![flush]),
                    }
                }
                left
            }
            Err(error) if error.is_of_a_statement() => self.split(flushes, error).await,
            // Nothing was stored. Storing each topic alone shows which one is locked; it has had its
            // full wait already.
            Err(storage::Error::Locked(_)) => {
                self.hurry = true;
                flushes.into_iter().map(|flush| vec![flush]).collect()
            }
            Err(storage::Error::ChangedMeanwhile | storage::Error::Unexpected(_)) => {
                flushes.into_iter().map(|flush| vec![flush]).collect()
            }
            Err(error) => self.fail_all(flushes, error),
        }
    }

    /// Stores a topic's publishes in a transaction of their own, without those that do not fit;
    /// returns what is still to be stored.
    async fn store_alone(&mut self, mut flush: TopicFlush) -> Vec<Part> {
        let mut faults = 0;
        for _ in 0..MAX_ROUNDS {
            let draft = flush.draft();
            let hurry = self.hurry || self.locked.has(&flush.topic);
            match self.log.append(&flush.topic, &draft, hurry).await {
                Ok(Some(appended)) => {
                    self.locked.forget(&flush.topic);
                    self.acknowledge(flush, draft, appended);
                    return Vec::new();
                }
                Ok(None) | Err(storage::Error::ChangedMeanwhile) => {
                    match self.settle(flush).await {
                        Some(left) => flush = left,
                        None => return Vec::new(),
                    }
                }
                Err(storage::Error::Locked(problem)) => {
                    tracing::warn!(topic = %flush.topic, error = problem, "refuse publishes to a locked topic");
                    let topic = flush.topic.clone();
                    self.locked.remember(&topic);
                    self.fail(flush, Error::TopicBusy { topic });
                    return Vec::new();
                }
                Err(storage::Error::Fault(problem))
                    if faults < FAULT_PAUSES.len() && self.faults_left > 0 =>
                {
                    tracing::warn!(topic = %flush.topic, error = problem, "retry a batch");
                    self.log.pause(FAULT_PAUSES[faults]).await;
                    faults += 1;
                    self.faults_left -= 1;
                }
                Err(error) if error.is_of_a_statement() => {
                    return self.split(vec![flush], error).await;
                }
                Err(error) => return self.fail_all(vec![flush], error),
            }
        }
        // The registrations change faster than the publishes can be stored.
        self.fail(flush, Error::unavailable());
        Vec::new()
    }

    fn acknowledge(&self, flush: TopicFlush, draft: Draft, appended: Appended) {
        flush.acknowledge(appended.base);
        self.log.acknowledged(draft, appended);
    }

    /// Answers the publishes that cannot be stored, or have been stored before; `None` if none is
    /// left.
    async fn settle(&mut self, mut flush: TopicFlush) -> Option<TopicFlush> {
        match self.log.find_registrations(&flush.topic, &flush.producers()).await {
            Ok(Some(Registrations { head, found })) => {
                flush.settle(head, found);
                (!flush.is_empty()).then_some(flush)
            }
            Ok(None) => {
                let topic = flush.topic.clone();
                flush.refuse(&Error::TopicNotFound { topic });
                None
            }
            Err(error) => {
                // Whether the query failed or not, nothing was stored.
                self.fail(flush, Error::of_read(error).logged("look up registrations"));
                None
            }
        }
    }

    /// Splits publishes that the database refused or failed, and stored none of; returns the parts,
    /// which are still to be stored. A single request is answered with the error.
    async fn split(&mut self, mut flushes: Part, error: storage::Error) -> Vec<Part> {
        self.refused += 1;
        if self.refused > MAX_REFUSED {
            tracing::warn!(%error, "give up a flush with many errors");
            // Some of them may be to blame for the errors, but it is not known which.
            flushes.into_iter().for_each(|flush| self.fail(flush, Error::unavailable()));
            return Vec::new();
        }
        let of_a_value = matches!(error, storage::Error::Refused(_));
        if of_a_value && (self.refused == MAX_REFUSED || self.learn(&flushes).await) {
            // Without the requests that are now known to be refused, the rest can be stored
            // together.
            return vec![flushes];
        }
        if flushes.len() > 1 {
            let second = flushes.split_off(flushes.len() / 2);
            return vec![flushes, second];
        }
        let halves = flushes.into_iter().map(TopicFlush::halves);
        let mut left = Vec::new();
        for halves in halves {
            match halves {
                Halves::Two(first, second) => left.extend([vec![first], vec![second]]),
                Halves::OneRequest(flush) if of_a_value => {
                    tracing::warn!(topic = %flush.topic, %error, "refuse a publish");
                    let problem = "hold a value that the database refuses";
                    flush.refuse(&InvalidInput::new("messages", problem).into());
                }
                Halves::OneRequest(flush) => {
                    tracing::error!(topic = %flush.topic, %error, "fail a publish");
                    self.fail(flush, Error::internal());
                }
            }
        }
        left
    }

    /// Asks about the characters of publishes. Returns whether one was found that cannot be stored.
    async fn learn(&mut self, flushes: &[TopicFlush]) -> bool {
        let Some(left) = self.learns_left.checked_sub(1) else { return false };
        self.learns_left = left;
        let texts = flushes.iter().flat_map(TopicFlush::publishes).flat_map(texts_of);
        match self.characters.learn(self.log, texts).await {
            Ok(found) => found,
            Err(error) => {
                // Halving goes on without an answer, so that the flush does not wait for one again.
                tracing::debug!(%error, "ask which characters can be stored");
                self.learns_left = 0;
                false
            }
        }
    }

    /// Answers the requests that are known to be refused, and returns the others.
    async fn without_refused(&mut self, flushes: Part) -> Part {
        if !self.characters.some_are_refused() && self.refused < MAX_REFUSED {
            return flushes;
        }
        let mut left = Vec::with_capacity(flushes.len());
        for mut flush in flushes {
            // Requests that follow a refused one leave a gap.
            let judge_again = flush.refuse_each(|publish| self.refusal_of(publish));
            let settled = match judge_again && !flush.is_empty() {
                true => self.settle(flush).await,
                false => Some(flush),
            };
            left.extend(settled.filter(|flush| !flush.is_empty()));
        }
        left
    }

    /// Answers publishes with an error of the database; nothing is left to be stored.
    fn fail_all(&mut self, flushes: Part, error: storage::Error) -> Vec<Part> {
        let error = Error::from(error).logged("store publishes");
        flushes.into_iter().for_each(|flush| self.fail(flush, error.clone()));
        Vec::new()
    }

    /// Answers publishes with an error that they are not to blame for.
    fn fail(&mut self, flush: TopicFlush, error: Error) {
        flush.refuse(&error);
        self.fault.get_or_insert(error);
    }

    /// Why a publish is refused without asking the database, if it is.
    fn refusal_of(&self, publish: &Publish) -> Option<Error> {
        if let Some(refusal) = self.find_refused_character(publish) {
            return Some(refusal);
        }
        let is_unchecked = !self.characters.find_unknown(texts_of(publish)).is_empty();
        (self.refused >= MAX_REFUSED && is_unchecked).then(Error::unavailable)
    }

    /// An error for the first character of a publish that is known to be refused, naming the field.
    fn find_refused_character(&self, publish: &Publish) -> Option<Error> {
        let messages = publish.messages.as_slice().iter().enumerate();
        messages.filter(|(_, message)| !message.headers.is_empty()).find_map(|(index, message)| {
            let character = self.characters.find_refused(texts(&message.headers))?;
            let field = format!("messages[{index}].headers");
            Some(self.characters.refusal(&field, character).into())
        })
    }
}

/// The texts of a publish's headers.
fn texts_of(publish: &Publish) -> impl Iterator<Item = &str> + Clone + Send {
    publish.messages.as_slice().iter().flat_map(|message| texts(&message.headers))
}
