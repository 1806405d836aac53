//! Where things stand in a log, and who they belong to.

use std::fmt;

use super::TimeBound;

/// The number of a message in its topic: dense, from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(pub i64);

impl Offset {
    /// The offset `count` messages later.
    pub fn after(self, count: usize) -> Self {
        Self(self.0 + count as i64)
    }

    /// How many messages lie between `earlier` and this offset.
    pub fn since(self, earlier: Self) -> i64 {
        self.0 - earlier.0
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number of a message in its producer's own count on a topic: dense, from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence(pub i64);

impl Sequence {
    /// The sequence `count` messages later.
    pub fn after(self, count: usize) -> Self {
        Self(self.0 + count as i64)
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A fencing number: of a lease, one more at each acquisition; of a producer, one more whenever a
/// new instance shuts the older ones out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub i64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The database's number of a topic; a topic that is made anew under an old name gets another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicId(pub i32);

/// The database's numbers of a consumer on its topic: the two keys of its advisory lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConsumerKey {
    /// The topic's number.
    pub topic: TopicId,
    /// The registration's number, unique in the topic.
    pub consumer: i32,
}

/// Where a new consumer starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the oldest message kept.
    Earliest,
    /// Behind the newest message.
    Latest,
    /// At this offset.
    Offset(Offset),
    /// At the first message stored at this time or later.
    Time(TimeBound),
}
