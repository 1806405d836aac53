//! What `trunkline top` asks for.

use clap::ValueEnum;

use crate::proto;

/// What topics are sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum TopicsBy {
    /// Messages published per second.
    #[default]
    Rate,
    /// The name.
    Name,
    /// The size in bytes.
    Size,
    /// The head.
    Head,
    /// When the newest message was stored.
    Published,
}

/// What consumers are sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum ConsumersBy {
    /// Messages left.
    #[default]
    Lag,
    /// How long the next message has been stored.
    Behind,
    /// Messages that it moves on by per second.
    Rate,
    /// How long the position has stood still.
    Idle,
    /// The topic and the id.
    Name,
}

impl TopicsBy {
    pub(super) fn order(self) -> proto::TopicOrder {
        match self {
            Self::Rate => proto::TopicOrder::PublishRate,
            Self::Name => proto::TopicOrder::Name,
            Self::Size => proto::TopicOrder::Bytes,
            Self::Head => proto::TopicOrder::Head,
            Self::Published => proto::TopicOrder::LastPublishTime,
        }
    }
}

impl ConsumersBy {
    pub(super) fn order(self) -> proto::ConsumerOrder {
        match self {
            Self::Lag => proto::ConsumerOrder::Lag,
            Self::Behind => proto::ConsumerOrder::TimeBehind,
            Self::Rate => proto::ConsumerOrder::ConsumeRate,
            Self::Idle => proto::ConsumerOrder::IdleTime,
            Self::Name => proto::ConsumerOrder::Name,
        }
    }
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) contains: String,
    pub(super) topics_by: TopicsBy,
    pub(super) consumers_by: ConsumersBy,
    pub(super) limit: u16,
}
