//! The writer's loop, over the model of the database.

use std::{collections::VecDeque, sync::Arc};

use tokio::sync::{Semaphore, oneshot};

use super::database::{Database, Mishap};
use crate::{
    broker::{
        Answers, Error, Run,
        flush::{Flush, Group},
        reply::{Caller, Queued},
    },
    model::Offset,
};

/// More than all publishes of a case.
const ROOM: usize = 100_000;

pub(super) struct Driver {
    pub database: Database,
    queue: VecDeque<Queued>,
    mishaps: std::vec::IntoIter<Mishap>,
    room: Arc<Semaphore>,
    /// Of each flush: runs, messages, bytes.
    pub flushes: Vec<(usize, usize, usize)>,
    pub most_rounds: usize,
}

/// Why a transaction failed.
enum Failure {
    Changed,
    Locked,
    Lost,
}

impl Driver {
    pub(super) fn new(mishaps: Vec<Mishap>) -> Self {
        Self {
            database: Database::new(),
            queue: VecDeque::new(),
            mishaps: mishaps.into_iter(),
            room: Arc::new(Semaphore::new(ROOM)),
            flushes: Vec::new(),
            most_rounds: 0,
        }
    }

    pub(super) fn take_in(&mut self, run: Run) -> Answers {
        let (outcome, answered) = oneshot::channel();
        let answers = Answers { counts: run.counts.clone(), outcome: answered };
        let _room = self.room.clone().try_acquire_owned().unwrap();
        self.queue.push_back(Queued::new(run, Caller { outcome, _room }));
        answers
    }

    pub(super) fn all_room_is_given_back(&self) -> bool {
        self.room.available_permits() == ROOM
    }

    pub(super) fn write_all(&mut self) {
        while !self.queue.is_empty() {
            self.write_flush();
        }
    }

    /// Writes what waits, as much of it as can be stored together.
    pub(super) fn write_flush(&mut self) {
        let mut flush = Flush::default();
        let mut size = (0, 0, 0);
        while let Some(next) = self.queue.pop_front() {
            if !flush.admits(&next.publish) {
                self.queue.push_front(next);
                break;
            }
            let messages = &next.publish.messages;
            size = (size.0 + 1, size.1 + messages.count(), size.2 + messages.bytes());
            flush.add(next);
        }
        self.flushes.push(size);
        let mut groups = flush.into_groups();
        assert!(groups.is_sorted_by(|a, b| a.topic < b.topic), "locked in one order by all");
        if groups.len() > 1 {
            groups = self.write_together(groups);
        }
        groups.into_iter().for_each(|group| self.write_alone(group));
    }

    fn write_together(&mut self, groups: Vec<Group>) -> Vec<Group> {
        match self.transaction(&groups) {
            Ok(bases) => {
                let mut left = Vec::new();
                for (group, base) in groups.into_iter().zip(bases) {
                    match base {
                        Some(base) => group.acknowledge(base),
                        None => left.push(group),
                    }
                }
                left
            }
            Err(Failure::Locked | Failure::Changed) => groups,
            Err(Failure::Lost) => {
                groups.into_iter().for_each(|group| group.refuse(&Error::OutcomeUnknown));
                Vec::new()
            }
        }
    }

    fn write_alone(&mut self, mut group: Group) {
        for round in 1..=8 {
            self.most_rounds = self.most_rounds.max(round);
            match self.transaction(std::slice::from_ref(&group)).map(|bases| bases[0]) {
                Ok(Some(base)) => return group.acknowledge(base),
                Ok(None) | Err(Failure::Changed) => {
                    self.meet();
                    let producers = group.producers();
                    match self.database.find_registrations(&group.topic, &producers) {
                        Some((head, registrations)) => group.settle(head, registrations),
                        None => {
                            let topic = group.topic.clone();
                            return group.refuse(&Error::TopicNotFound { topic });
                        }
                    }
                    if group.is_empty() {
                        return;
                    }
                }
                Err(Failure::Locked) => {
                    let topic = group.topic.clone();
                    return group.refuse(&Error::TopicBusy { topic });
                }
                Err(Failure::Lost) => return group.refuse(&Error::OutcomeUnknown),
            }
        }
        group.refuse(&Error::DatabaseUnavailable);
    }

    fn transaction(&mut self, groups: &[Group]) -> Result<Vec<Option<Offset>>, Failure> {
        match self.meet() {
            Mishap::Changed => return Err(Failure::Changed),
            Mishap::Locked => return Err(Failure::Locked),
            Mishap::Lost { stored: false } => return Err(Failure::Lost),
            Mishap::Lost { stored: true } => {
                self.append_all(groups);
                return Err(Failure::Lost);
            }
            _ => {}
        }
        Ok(self.append_all(groups))
    }

    fn append_all(&mut self, groups: &[Group]) -> Vec<Option<Offset>> {
        groups.iter().map(|group| self.database.append(&group.topic, &group.draft())).collect()
    }

    fn meet(&mut self) -> Mishap {
        let mishap = self.mishaps.next().unwrap_or(Mishap::Nothing);
        self.database.meet(&mishap);
        mishap
    }
}
