//! Places in a log, and the numbers of topics and consumers.

use std::fmt;

use super::time::TimeBound;

/// The number of a message in its topic. Offsets are dense and start at 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(pub i64);

impl Offset {
    /// The offset `count` messages later.
    pub fn after(self, count: usize) -> Self {
        Self(self.0 + count as i64)
    }

    /// The number of messages from `earlier` up to this offset.
    pub fn since(self, earlier: Self) -> i64 {
        self.0 - earlier.0
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number that a producer gives a message on a topic. Sequences are dense and start at 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence(pub i64);

impl Sequence {
    /// The sequence `count` messages later.
    pub fn after(self, count: usize) -> Self {
        Self(self.0 + count as i64)
    }

    /// How many messages lie between `earlier` and this sequence.
    pub fn since(self, earlier: Self) -> i64 {
        self.0 - earlier.0
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A fencing number. A lease's grows with each acquisition, a producer's each time that a new instance
/// fences the older ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub i64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The database's number of a topic. A topic that is created again under its old name gets a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicId(pub i32);

/// The database's numbers of a consumer: the two keys of its advisory lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConsumerKey {
    /// The topic's number.
    pub topic: TopicId,
    /// The registration's number, unique within the topic.
    pub consumer: i32,
}

/// Where a new consumer starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the oldest message kept.
    Earliest,
    /// After the newest message.
    Latest,
    /// At this offset.
    Offset(Offset),
    /// At the first message stored at or after this time.
    Time(TimeBound),
}
