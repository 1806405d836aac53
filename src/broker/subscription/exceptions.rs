//! The messages that are delivered again, at once or later.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use tokio::time::Instant;

use crate::model::{Offset, OffsetRange};

/// Messages that are delivered again.
#[derive(Default)]
pub(crate) struct Exceptions {
    by_offset: BTreeMap<Offset, Exception>,
    /// Those that wait, by when they are due.
    due: BTreeSet<(Instant, Offset)>,
}

/// A message that was delivered and not acknowledged, or is to be delivered later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exception {
    /// How often it was delivered.
    pub attempts: u32,
    /// When it is to be delivered; `None` while a worker has it.
    pub due: Option<Instant>,
    /// Whether it has a row in the database. If so, it counts as settled besides.
    pub is_stored: bool,
}

impl Exceptions {
    pub(crate) fn get(&self, offset: Offset) -> Option<Exception> {
        self.by_offset.get(&offset).copied()
    }

    /// Adds or replaces one.
    pub(crate) fn put(&mut self, offset: Offset, exception: Exception) {
        self.remove(offset);
        self.by_offset.insert(offset, exception);
        if let Some(due) = exception.due {
            self.due.insert((due, offset));
        }
    }

    pub(crate) fn remove(&mut self, offset: Offset) -> Option<Exception> {
        let removed = self.by_offset.remove(&offset)?;
        if let Some(due) = removed.due {
            self.due.remove(&(due, offset));
        }
        Some(removed)
    }

    /// The messages that are due, in the order in which they became so, at most `limit`.
    pub(crate) fn due(&self, now: Instant, limit: usize) -> impl Iterator<Item = Offset> + '_ {
        let due = self.due.iter().take_while(move |(due, _)| *due <= now);
        due.take(limit).map(|(_, offset)| *offset)
    }

    /// When the next message is due.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// When the next message is due after a time.
    pub(crate) fn next_due_after(&self, time: Instant) -> Option<Instant> {
        let later = (Bound::Excluded((time, Offset(i64::MAX))), Bound::Unbounded);
        self.due.range(later).next().map(|(due, _)| *due)
    }

    /// Delays those that are due before a time until then. They may have been delivered meanwhile.
    pub(crate) fn delay(&mut self, until: Instant) {
        let sooner = self.due.iter().take_while(|(due, _)| *due < until);
        let sooner: Vec<Offset> = sooner.map(|(_, offset)| *offset).collect();
        for offset in sooner {
            if let Some(exception) = self.get(offset) {
                let attempts = exception.attempts.max(1);
                self.put(offset, Exception { attempts, due: Some(until), ..exception });
            }
        }
    }

    /// Those that have rows, in the order of their offsets.
    pub(crate) fn stored(&self) -> impl Iterator<Item = Offset> + '_ {
        self.by_offset.iter().filter(|(_, it)| it.is_stored).map(|(offset, _)| *offset)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.by_offset.len()
    }

    /// Removes the messages of a range, and returns those that have rows.
    pub(crate) fn remove_range(&mut self, range: OffsetRange) -> Vec<Offset> {
        let in_range = self.by_offset.range(range.start..range.end);
        let found: Vec<(Offset, bool)> = in_range.map(|(at, it)| (*at, it.is_stored)).collect();
        for (offset, _) in &found {
            self.remove(*offset);
        }
        found.into_iter().filter_map(|(offset, is_stored)| is_stored.then_some(offset)).collect()
    }
}
