//! Parts of a log.

use std::fmt;

use super::position::Offset;

/// The two ends of a topic's log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogEnds {
    /// The log start offset: that of the oldest message kept.
    pub start: Offset,
    /// The head: the offset that the topic's next message gets.
    pub head: Offset,
}

/// The offsets from `start` up to, but not including, `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffsetRange {
    /// The first offset.
    pub start: Offset,
    /// The offset after the last one.
    pub end: Offset,
}

impl OffsetRange {
    /// How many offsets there are.
    pub fn count(self) -> usize {
        usize::try_from(self.end.since(self.start)).unwrap_or(0)
    }

    /// The smallest range that holds both.
    pub fn hull(self, other: Self) -> Self {
        Self { start: self.start.min(other.start), end: self.end.max(other.end) }
    }
}

impl fmt::Display for OffsetRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.start, self.end)
    }
}
