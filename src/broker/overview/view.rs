//! The part of a snapshot that somebody asks for, in an order.

use std::cmp::Ordering;

use super::Snapshot;
use crate::{
    model::TopicName,
    storage::{ConsumerState, TopicState},
};

/// What topics are ordered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopicOrder {
    /// Messages published each second.
    PublishRate,
    /// The name.
    Name,
    /// The bytes of its messages.
    Bytes,
    /// The head.
    Head,
    /// When the last message was published.
    LastPublished,
}

/// What consumers are ordered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConsumerOrder {
    /// Messages left.
    Lag,
    /// The topic and the id.
    Name,
    /// How long its next message has been stored.
    Behind,
    /// Messages that it moves on by each second.
    ConsumeRate,
    /// How long its position has stood still.
    Idle,
}

/// What somebody asks for.
pub struct ViewRequest<'a> {
    /// What the names of the topics contain, whatever the case.
    pub topic_contains: &'a str,
    /// The topics that are to be shown.
    pub knows: &'a dyn Fn(&TopicName) -> bool,
    /// The topics whose consumers are to be shown.
    pub sees_consumers: &'a dyn Fn(&TopicName) -> bool,
    /// What the topics are ordered by.
    pub topic_order: TopicOrder,
    /// What the consumers are ordered by.
    pub consumer_order: ConsumerOrder,
}

/// The topics and consumers that somebody asks for, in the order asked for.
pub struct View<'a> {
    /// The topics.
    pub topics: Vec<&'a TopicState>,
    /// The consumers of these topics.
    pub consumers: Vec<&'a ConsumerState>,
    /// Messages published to the topics each second.
    pub publish_rate: f64,
    /// Messages that the consumers move on by each second.
    pub consume_rate: f64,
    /// Whether there are topics or consumers that the snapshot does not list.
    pub is_incomplete: bool,
}

impl TopicOrder {
    /// Compares two topics: the smaller value comes first.
    pub fn compare(self, snapshot: &Snapshot, a: &TopicState, b: &TopicState) -> Ordering {
        match self {
            Self::PublishRate => snapshot.published(a.id).total_cmp(&snapshot.published(b.id)),
            Self::Name => a.name.cmp(&b.name),
            Self::Bytes => a.bytes.cmp(&b.bytes),
            Self::Head => a.head.cmp(&b.head),
            Self::LastPublished => {
                let at = |it: &TopicState| it.last_published.unwrap_or(0.0);
                at(a).total_cmp(&at(b))
            }
        }
    }
}

impl ConsumerOrder {
    /// Compares two consumers: the smaller value comes first.
    fn compare(self, snapshot: &Snapshot, a: &ConsumerState, b: &ConsumerState) -> Ordering {
        match self {
            Self::Lag => a.lag.cmp(&b.lag),
            Self::Name => by_name(a, b),
            Self::Behind => a.behind.cmp(&b.behind),
            Self::ConsumeRate => snapshot.consumed(a.key).total_cmp(&snapshot.consumed(b.key)),
            Self::Idle => a.unchanged_for.cmp(&b.unchanged_for),
        }
    }
}

fn by_name(a: &ConsumerState, b: &ConsumerState) -> Ordering {
    (&a.topic, &a.id).cmp(&(&b.topic, &b.id))
}

impl Snapshot {
    /// The part of the snapshot that somebody asks for. Names come in ascending order, the largest
    /// numbers first.
    pub fn view<'a>(&'a self, request: &ViewRequest<'_>) -> View<'a> {
        let wanted = request.topic_contains.to_lowercase();
        let matches =
            |name: &TopicName| wanted.is_empty() || name.as_str().to_lowercase().contains(&wanted);
        let shown = |it: &&TopicState| matches(&it.name) && (request.knows)(&it.name);
        let mut topics: Vec<_> = self.topics.iter().filter(shown).collect();
        let shown = |it: &&ConsumerState| matches(&it.topic) && (request.sees_consumers)(&it.topic);
        let mut consumers: Vec<_> = self.consumers.iter().filter(shown).collect();
        let order = request.topic_order;
        topics.sort_by(|a, b| match order {
            TopicOrder::Name => order.compare(self, a, b),
            _ => order.compare(self, b, a).then_with(|| a.name.cmp(&b.name)),
        });
        let order = request.consumer_order;
        consumers.sort_by(|a, b| match order {
            ConsumerOrder::Name => order.compare(self, a, b),
            _ => order.compare(self, b, a).then_with(|| by_name(a, b)),
        });
        let lists_all = (self.topics.len() as u64, self.consumers.len() as u64)
            == (self.size.topics, self.size.consumers);
        View {
            publish_rate: topics.iter().map(|it| self.published(it.id)).sum(),
            consume_rate: consumers.iter().map(|it| self.consumed(it.key)).sum(),
            topics,
            consumers,
            is_incomplete: !lists_all,
        }
    }
}
