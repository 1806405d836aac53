//! Places in a log.

use std::time::SystemTime;

use crate::proto::{LogEdge, read_messages_request, register_consumer_request, seek_request};

/// Where in a topic's log to begin.
///
/// ```
/// use std::time::{Duration, SystemTime};
///
/// use trunkline::client::Start;
///
/// let an_hour_ago = Start::Time(SystemTime::now() - Duration::from_secs(3600));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Start {
    /// At the oldest message that is kept.
    Earliest,
    /// Behind the newest message.
    Latest,
    /// At an offset, which lies between the topic's first offset and its head.
    Offset(i64),
    /// At the first message stored at this time or later; at the head if there is none.
    Time(SystemTime),
}

/// Three requests name a place in the log, each by a oneof of its own.
macro_rules! into_place {
    ($($place:ty),*) => {$(
        impl From<Start> for $place {
            fn from(start: Start) -> Self {
                match start {
                    Start::Earliest => Self::Edge(LogEdge::Earliest.into()),
                    Start::Latest => Self::Edge(LogEdge::Latest.into()),
                    Start::Offset(offset) => Self::Offset(offset),
                    Start::Time(time) => Self::Time(time.into()),
                }
            }
        }
    )*};
}

into_place!(register_consumer_request::Start, seek_request::Target, read_messages_request::Start);
