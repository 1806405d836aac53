//! What is to be stored, and how it is cut into writes of limited size.
//!
//! A message's row and the bit that counts it as settled are always stored together, so a part says nothing of
//! messages whose rows are left for a later one. If the owner ends in between, those are delivered again.

use std::{collections::BTreeMap, sync::Arc};

use tokio::time::Instant;

use crate::{
    broker::subscription::{changes::Changes, dead_letters::Letter, reservation::Reservation},
    model::{Offset, OffsetRange, TopicName},
    storage::MessageChange,
};

/// What is to be stored.
#[derive(Clone, Debug, Default)]
pub(crate) struct Unstored {
    pub settled: Changes,
    pub rows: BTreeMap<Offset, Row>,
    pub reservation: Option<Reservation>,
    /// How many messages were lost in all, if that has changed.
    pub lost: Option<u64>,
    /// Whether the floor moved without any of these.
    pub floor_moved: bool,
}

/// What is to become of a message's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Row {
    /// It is delivered again at that time.
    Retry { attempts: u32, due: Instant },
    /// It was parked.
    Parked { attempts: u32, reason: Arc<str> },
    /// It is moved to a dead-letter topic; it takes so many bytes, encoded.
    Moved { attempts: u32, reason: Arc<str>, to: TopicName, bytes: u32 },
    /// It is removed.
    Removed,
}

/// What one write may hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PartLimits {
    /// Bytes of the reasons for which messages are parked.
    pub reason_bytes: usize,
    /// Messages that are moved to a dead-letter topic.
    pub letters: usize,
    /// Their bytes. A single one may have more.
    pub letter_bytes: usize,
}

/// What was to be stored at some time, and is not yet.
pub(crate) struct Unwritten {
    unstored: Unstored,
    /// The first message that was not settled by then.
    floor: Offset,
}

/// What one write stores.
pub(crate) struct Part {
    pub settled: Changes,
    pub rows: BTreeMap<Offset, Row>,
    /// What is reserved from now on, if that changes. In the last part, as it counts only once all is stored.
    pub reservation: Option<Reservation>,
    /// How many messages were lost in all, if that has changed. In the last part, too.
    pub lost: Option<u64>,
    /// The first message that is not settled, as far as this part and those before it say.
    pub floor: Offset,
}

/// Messages that a write moves to a dead-letter topic.
pub(crate) struct Letters {
    pub to: TopicName,
    pub letters: Arc<[Letter]>,
    /// Whether the write has their copies.
    pub are_copied: bool,
}

/// What a part has taken.
#[derive(Default)]
struct Taken {
    reason_bytes: usize,
    letters: usize,
    letter_bytes: usize,
    /// The dead-letter topic: all of a part go to one.
    to: Option<TopicName>,
}

impl PartLimits {
    /// Those of a write.
    pub(crate) const OF_A_WRITE: Self =
        Self { reason_bytes: 4 * 1024 * 1024, letters: 1_000, letter_bytes: 2 * 1024 * 1024 };
}

impl Unstored {
    pub(crate) fn is_empty(&self) -> bool {
        let Self { settled, rows, reservation, lost, floor_moved } = self;
        let says_nothing = reservation.is_none() && lost.is_none() && !floor_moved;
        says_nothing && settled.is_empty() && rows.is_empty()
    }
}

impl Unwritten {
    pub(crate) fn new(unstored: Unstored, floor: Offset) -> Self {
        Self { unstored, floor }
    }

    /// Whether all parts were cut off.
    pub(crate) fn is_empty(&self) -> bool {
        self.unstored.is_empty()
    }

    /// The messages that are settled and belong to later parts.
    pub(crate) fn held(&self) -> &Changes {
        &self.unstored.settled
    }

    /// The messages whose rows belong to later parts.
    #[cfg(test)]
    pub(crate) fn rows_left(&self) -> impl Iterator<Item = Offset> + '_ {
        self.unstored.rows.keys().copied()
    }

    /// Cuts the next part off.
    pub(crate) fn cut(&mut self, limits: PartLimits) -> Part {
        let Unstored { mut settled, mut rows, mut reservation, mut lost, .. } =
            std::mem::take(&mut self.unstored);
        let mut taken = Taken::default();
        let first_left = rows.iter().find(|(_, row)| !taken.take(row, limits));
        let first_left = first_left.map(|(offset, _)| *offset);
        let left = first_left.map(|first| rows.split_off(&first)).unwrap_or_default();
        let mut held = Changes::default();
        for offset in left.keys().filter(|offset| settled.forget(**offset)) {
            held.note(OffsetRange { start: *offset, end: offset.after(1) });
        }
        let floor = held.first().map_or(self.floor, |first| first.min(self.floor));
        self.unstored = Unstored {
            reservation: reservation.take_if(|_| !left.is_empty()),
            lost: lost.take_if(|_| !left.is_empty()),
            settled: held,
            rows: left,
            floor_moved: false,
        };
        Part { settled, rows, reservation, lost, floor }
    }
}

impl Part {
    /// The offset after the last message that has a row, or is moved.
    pub(crate) fn last_row(&self) -> Option<Offset> {
        let kept = self.rows.iter().rev().find(|(_, row)| **row != Row::Removed);
        kept.map(|(offset, _)| offset.after(1))
    }

    /// Which messages are settled, what becomes of their rows, and those that are moved.
    pub(crate) fn into_changes(
        self,
        now: Instant,
    ) -> (Changes, Vec<(Offset, MessageChange)>, Option<Letters>) {
        let (mut messages, mut letters, mut topic) = (Vec::new(), Vec::new(), None);
        for (offset, row) in self.rows {
            let change = match row {
                Row::Retry { attempts, due } => {
                    MessageChange::Retry { attempts, due_in: due.saturating_duration_since(now) }
                }
                Row::Parked { attempts, reason } => MessageChange::Park { attempts, reason },
                Row::Removed => MessageChange::Remove,
                Row::Moved { attempts, reason, to, .. } => {
                    topic = Some(to);
                    letters.push(Letter { offset, attempts, reason });
                    continue;
                }
            };
            messages.push((offset, change));
        }
        let letters = topic.map(|to| Letters { to, letters: letters.into(), are_copied: false });
        (self.settled, messages, letters)
    }
}

impl Taken {
    /// Takes a row if there is room for it; there always is for the first one.
    fn take(&mut self, row: &Row, limits: PartLimits) -> bool {
        match row {
            Row::Retry { .. } | Row::Removed => true,
            Row::Parked { reason, .. } => {
                let is_first = self.reason_bytes == 0;
                self.reason_bytes += reason.len();
                is_first || self.reason_bytes <= limits.reason_bytes
            }
            Row::Moved { reason, to, bytes, .. } => {
                let is_first = self.letters == 0;
                self.letters += 1;
                self.letter_bytes += *bytes as usize + reason.len();
                *self.to.get_or_insert_with(|| to.clone()) == *to
                    && (is_first
                        || self.letters <= limits.letters
                            && self.letter_bytes <= limits.letter_bytes)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moved(to: &str, bytes: u32) -> Row {
        let to = TopicName::stored(to);
        Row::Moved { attempts: 1, reason: "no order".into(), to, bytes }
    }

    fn parked(reason_bytes: usize) -> Row {
        Row::Parked { attempts: 1, reason: "x".repeat(reason_bytes).into() }
    }

    type Ranges = Vec<(i64, i64)>;

    /// The parts in which rows are stored, of messages that were all settled since the last write, and one more:
    /// the offsets of each part's rows, what it settles, and its floor.
    fn parts(rows: impl IntoIterator<Item = Row>) -> Vec<(Vec<i64>, Ranges, i64)> {
        let rows = (0..).map(Offset).zip(rows).collect();
        let mut unstored = Unstored { rows, ..Unstored::default() };
        let end = Offset(0).after(unstored.rows.len() + 1);
        unstored.settled.note(OffsetRange { start: Offset(0), end });
        let mut unwritten = Unwritten::new(unstored, end);
        let mut parts = Vec::new();
        while !unwritten.is_empty() {
            let part = unwritten.cut(PartLimits::OF_A_WRITE);
            let rows = part.rows.keys().map(|offset| offset.0).collect();
            let settled = part.settled.ranges().map(|it| (it.start.0, it.end.0)).collect();
            parts.push((rows, settled, part.floor.0));
        }
        parts
    }

    #[test]
    fn each_part_is_limited_and_says_nothing_of_messages_whose_rows_are_left() {
        let letters = parts(std::iter::repeat_n(moved("dead", 900 * 1024), 5));
        let expected = [
            (vec![0, 1], vec![(0, 2), (5, 6)], 2),
            (vec![2, 3], vec![(2, 4)], 4),
            (vec![4], vec![(4, 5)], 6),
        ];
        assert_eq!(letters, expected);
        let reasons = parts(std::iter::repeat_n(parked(3 * 1024 * 1024), 2));
        assert_eq!(reasons, [(vec![0], vec![(0, 1), (2, 3)], 1), (vec![1], vec![(1, 2)], 3)]);
        let few = parts([parked(10), Row::Removed, moved("dead", 10)]);
        assert_eq!(few, [(vec![0, 1, 2], vec![(0, 4)], 4)]);
    }

    #[test]
    fn a_part_moves_messages_to_one_topic() {
        let topics = parts([moved("dead", 10), moved("other", 10), moved("other", 10)]);
        let rows: Vec<_> = topics.into_iter().map(|(rows, ..)| rows).collect();
        assert_eq!(rows, [vec![0], vec![1, 2]]);
    }

    #[test]
    fn a_message_of_any_size_is_moved() {
        assert_eq!(parts([moved("dead", 5 * 1024 * 1024), moved("dead", 10)]).len(), 2);
    }
}
