//! Stores a flush: as a whole if possible, otherwise in parts.
//!
//! Guarantees: every member of every group is answered once; those of a topic are stored in their
//! order; what the database refuses, or fails over, is answered alone, and the rest is stored. Only
//! an error that proves that nothing was stored takes a flush apart: where the connection is lost,
//! the outcome of all of it is unknown. A flush with so many errors that this would hold others up
//! is not taken apart to the end: then requests are sent back to be tried again.

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

/// How often a group may be tried again without the publishes that turned out not to fit, or
/// because what they have to fit changed meanwhile.
const MAX_ROUNDS: usize = 8;

/// How many statements of one flush the database may refuse, or fail, before it is no longer taken
/// apart. To find one bad request among 8,192 takes 14 at the most.
const MAX_REFUSED: usize = 128;

/// How long a group waits before each new try after a fault of the server's own. Such a fault
/// passes when another session gets to run, as when its update is being rolled back. Everybody in
/// the flush waits.
const FAULT_PAUSES: [Duration; 3] =
    [Duration::from_millis(1), Duration::from_millis(10), Duration::from_millis(50)];

/// How often a flush waits so.
const MAX_FAULTS: usize = 16;

/// How often a flush asks which of its characters the database refuses: each time takes some tens of
/// small statements, and everybody in the flush waits for them.
const MAX_LEARNED: usize = 8;

/// What a flush is stored in: the database, or a model of it.
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

    /// Waits.
    async fn pause(&self, pause: Duration);

    /// A draft was stored, and its publishers have been answered.
    fn acknowledged(&self, draft: Draft, appended: Appended);
}

/// A flush on its way into the log.
pub(crate) struct GroupCommit<'a, L> {
    log: &'a L,
    characters: &'a Characters,
    locked: &'a mut LockedTopics,
    /// Whether the flush has waited for a locked topic already: its next waits are short.
    hurry: bool,
    /// How many statements the database refused or failed.
    refused: usize,
    /// How often a group may still be tried again as it is after a fault of the server's own.
    faults_to_outwait: usize,
    /// How often the database may still be asked which characters it can store.
    to_learn: usize,
}

/// Groups that are to be stored in one transaction.
type Piece = Vec<TopicFlush>;

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
            faults_to_outwait: MAX_FAULTS,
            to_learn: MAX_LEARNED,
        }
    }

    /// Stores groups, which must come in the order of their topics' names, and answers all their
    /// members.
    pub(crate) async fn store(mut self, groups: Piece) {
        let (locked, groups) = self.locked.part(groups, |group| &group.topic);
        let mut next = Some(groups);
        // What is left after that, the last one first. Topics that were found locked recently come
        // last, so that no other topic waits for them.
        let mut pieces: Vec<Piece> = locked.into_iter().map(|group| vec![group]).collect();
        while let Some(piece) = next.take().or_else(|| pieces.pop()) {
            let mut piece = self.without_refused(piece).await;
            let left = match piece.len() {
                2.. => self.store_together(piece).await,
                _ => match piece.pop() {
                    Some(group) => self.store_alone(group).await,
                    None => Vec::new(),
                },
            };
            pieces.extend(left.into_iter().rev());
        }
    }

    /// Stores groups in one transaction; returns what is still to be stored.
    async fn store_together(&mut self, groups: Piece) -> Vec<Piece> {
        let drafts: Vec<Draft> = groups.iter().map(TopicFlush::draft).collect();
        let named: Vec<_> = groups.iter().map(|group| &group.topic).zip(&drafts).collect();
        match self.log.append_all(&named).await {
            Ok(appended) => {
                let mut left = Vec::new();
                for ((group, draft), appended) in groups.into_iter().zip(drafts).zip(appended) {
                    match appended {
                        Some(appended) => self.acknowledge(group, draft, appended),
                        None => left.push(vec![group]),
                    }
                }
                left
            }
            Err(error) if error.is_of_a_statement() => self.take_apart(groups, error).await,
            // Nothing was stored: find out which topic is locked. It has had its full wait already.
            Err(storage::Error::Locked(_)) => {
                self.hurry = true;
                groups.into_iter().map(|group| vec![group]).collect()
            }
            Err(storage::Error::ChangedMeanwhile) => {
                groups.into_iter().map(|group| vec![group]).collect()
            }
            Err(error) => refuse_all(groups, error),
        }
    }

    /// Stores a group in a transaction of its own, without those of its members that do not fit;
    /// returns what is still to be stored.
    async fn store_alone(&mut self, mut group: TopicFlush) -> Vec<Piece> {
        let mut faults = 0;
        for _ in 0..MAX_ROUNDS {
            let draft = group.draft();
            let hurry = self.hurry || self.locked.has(&group.topic);
            match self.log.append(&group.topic, &draft, hurry).await {
                Ok(Some(appended)) => {
                    self.locked.forget(&group.topic);
                    self.acknowledge(group, draft, appended);
                    return Vec::new();
                }
                Ok(None) | Err(storage::Error::ChangedMeanwhile) => {
                    match self.settle(group).await {
                        Some(left) => group = left,
                        None => return Vec::new(),
                    }
                }
                Err(storage::Error::Locked(problem)) => {
                    tracing::warn!(topic = %group.topic, problem, "refuse publishes to a locked topic");
                    let topic = group.topic.clone();
                    self.locked.remember(&topic);
                    group.refuse(&Error::TopicBusy { topic });
                    return Vec::new();
                }
                Err(storage::Error::Fault(problem))
                    if faults < FAULT_PAUSES.len() && self.faults_to_outwait > 0 =>
                {
                    tracing::warn!(topic = %group.topic, problem, "store a batch once more");
                    self.log.pause(FAULT_PAUSES[faults]).await;
                    faults += 1;
                    self.faults_to_outwait -= 1;
                }
                Err(error) if error.is_of_a_statement() => {
                    return self.take_apart(vec![group], error).await;
                }
                Err(error) => return refuse_all(vec![group], error),
            }
        }
        // Its producers come and go faster than it can be written.
        group.refuse(&Error::unavailable());
        Vec::new()
    }

    fn acknowledge(&self, group: TopicFlush, draft: Draft, appended: Appended) {
        group.acknowledge(appended.base);
        self.log.acknowledged(draft, appended);
    }

    /// Answers the members that cannot be stored, or were before; `None` if nobody is left.
    async fn settle(&self, mut group: TopicFlush) -> Option<TopicFlush> {
        match self.log.find_registrations(&group.topic, &group.producers()).await {
            Ok(Some(Registrations { head, found })) => {
                group.settle(head, found);
                (!group.is_empty()).then_some(group)
            }
            Ok(None) => {
                let topic = group.topic.clone();
                group.refuse(&Error::TopicNotFound { topic });
                None
            }
            Err(error) => {
                // Nothing was stored, whatever became of the question.
                group.refuse(&Error::of_read(error).logged("look up registrations"));
                None
            }
        }
    }

    /// Takes apart what the database refused or failed, and stored nothing of; returns the parts,
    /// which are still to be stored. A request that is alone is answered.
    async fn take_apart(&mut self, mut groups: Piece, error: storage::Error) -> Vec<Piece> {
        self.refused += 1;
        if self.refused > MAX_REFUSED {
            tracing::warn!(%error, "send publishes back from a flush with too many errors");
            // Some of them may be to blame for it, and nobody knows which.
            groups.into_iter().for_each(|group| group.refuse(&Error::unavailable()));
            return Vec::new();
        }
        let of_a_value = matches!(error, storage::Error::Refused(_));
        if self.refused == MAX_REFUSED || (of_a_value && self.learn(&groups).await) {
            // Without what is known to be refused now, the rest can be stored together.
            return vec![groups];
        }
        if groups.len() > 1 {
            let second = groups.split_off(groups.len() / 2);
            return vec![groups, second];
        }
        let halves = groups.into_iter().map(TopicFlush::halves);
        let mut left = Vec::new();
        for halves in halves {
            match halves {
                Halves::Two(first, second) => left.extend([vec![first], vec![second]]),
                Halves::OneRequest(group) if of_a_value => {
                    tracing::warn!(topic = %group.topic, %error, "refuse a publish");
                    let problem = "hold a value that the database refuses";
                    group.refuse(&InvalidInput::new("messages", problem).into());
                }
                Halves::OneRequest(group) => {
                    tracing::error!(topic = %group.topic, %error, "fail a publish");
                    group.refuse(&Error::internal());
                }
            }
        }
        left
    }

    /// Asks about the characters of groups; whether one was found that cannot be stored.
    async fn learn(&mut self, groups: &[TopicFlush]) -> bool {
        let Some(left) = self.to_learn.checked_sub(1) else { return false };
        self.to_learn = left;
        let texts = groups.iter().flat_map(TopicFlush::publishes).flat_map(texts_of);
        match self.characters.learn(self.log, texts).await {
            Ok(found) => found,
            Err(error) => {
                // The flush is halved without: it must not wait for an answer again and again.
                tracing::debug!(%error, "ask which characters can be stored");
                self.to_learn = 0;
                false
            }
        }
    }

    /// The groups without the requests that are known to be refused, which are answered.
    async fn without_refused(&self, groups: Piece) -> Piece {
        if !self.characters.some_are_refused() && self.refused < MAX_REFUSED {
            return groups;
        }
        let mut left = Vec::with_capacity(groups.len());
        for mut group in groups {
            // Whoever counted on from a refused request leaves a gap.
            let judged_anew = group.refuse_each(|publish| self.refusal_of(publish));
            let settled = match judged_anew && !group.is_empty() {
                true => self.settle(group).await,
                false => Some(group),
            };
            left.extend(settled.filter(|group| !group.is_empty()));
        }
        left
    }

    fn refusal_of(&self, publish: &Publish) -> Option<Error> {
        if let Some(refusal) = self.find_refused_character(publish) {
            return Some(refusal);
        }
        let is_unchecked = !self.characters.find_unknown(texts_of(publish)).is_empty();
        (self.refused >= MAX_REFUSED && is_unchecked).then(Error::unavailable)
    }

    /// The first character of a publish that is known to be refused, as an error that names the field.
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

fn refuse_all(groups: Piece, error: storage::Error) -> Vec<Piece> {
    let error = Error::from(error).logged("store publishes");
    groups.into_iter().for_each(|group| group.refuse(&error));
    Vec::new()
}
