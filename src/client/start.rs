//! Where in a log to begin.

use std::time::SystemTime;

use crate::proto::{
    LogEdge, create_subscription_request, read_messages_request, register_consumer_request,
    seek_request, seek_subscription_request,
};

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
    /// At the oldest message kept.
    Earliest,
    /// After the newest message.
    Latest,
    /// At an offset between the topic's log start offset and its head.
    Offset(i64),
    /// At the first message stored at or after this time; at the head if there is none.
    Time(SystemTime),
}

/// Four requests say where to begin, each with a oneof of its own.
macro_rules! into_oneof {
    ($($oneof:ty),*) => {$(
        impl From<Start> for $oneof {
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

into_oneof!(
    register_consumer_request::Start,
    seek_request::Target,
    read_messages_request::Start,
    create_subscription_request::Start,
    seek_subscription_request::Target
);
