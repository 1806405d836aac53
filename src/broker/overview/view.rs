//! The part of a snapshot that somebody asks for, in an order.

use std::{
    cmp::{Ordering, Reverse},
    time::Duration,
};

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
    /// Whether there are topics or consumers that the snapshot does not list: not all of them may be
    /// among those asked for.
    pub is_incomplete: bool,
}

impl TopicOrder {
    /// Compares two topics: the smaller value comes first.
    pub fn compare(self, snapshot: &Snapshot, a: &TopicState, b: &TopicState) -> Ordering {
        self.rank(snapshot, a).cmp(&self.rank(snapshot, b)).then_with(|| a.name.cmp(&b.name))
    }

    /// Numbers whose order is that of the topics, as far as it is not that of their names. For numbers
    /// that are not negative, the order of their bits is theirs.
    fn rank(self, snapshot: &Snapshot, topic: &TopicState) -> (u64, u64) {
        let head = topic.head.0.unsigned_abs();
        match self {
            Self::PublishRate => (snapshot.published(topic.id).to_bits(), head),
            Self::Name => (0, 0),
            Self::Bytes => (topic.bytes.unsigned_abs(), head),
            Self::Head => (head, 0),
            Self::LastPublished => (topic.last_published.unwrap_or(0.0).max(0.0).to_bits(), head),
        }
    }
}

impl ConsumerOrder {
    /// As [`TopicOrder::rank`].
    fn rank(self, snapshot: &Snapshot, consumer: &ConsumerState) -> (u64, u64) {
        let lag = consumer.lag.unsigned_abs();
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        match self {
            Self::Lag => (lag, millis(consumer.behind)),
            Self::Name => (0, 0),
            Self::Behind => (millis(consumer.behind), lag),
            Self::ConsumeRate => (snapshot.consumed(consumer.key).to_bits(), lag),
            Self::Idle => (millis(consumer.unchanged_for), lag),
        }
    }
}

impl Snapshot {
    /// The part of the snapshot that somebody asks for. Names come in ascending order, the largest
    /// numbers first.
    pub fn view<'a>(&'a self, request: &ViewRequest<'_>) -> View<'a> {
        let wanted = request.topic_contains.to_lowercase();
        let matches =
            |name: &TopicName| wanted.is_empty() || name.as_str().to_lowercase().contains(&wanted);
        let topics = self.topics.iter().filter(|it| matches(&it.name) && (request.knows)(&it.name));
        let ranked = topics.map(|it| (Reverse(request.topic_order.rank(self, it)), &it.name, it));
        let topics: Vec<_> = sorted(ranked).into_iter().map(|(.., it)| it).collect();

        // Consumers come by topic, so each topic is looked at once.
        let mut last: Option<(&TopicName, bool)> = None;
        let consumers = self.consumers.iter().filter(|it| match last {
            Some((topic, is_shown)) if *topic == it.topic => is_shown,
            _ => {
                let is_shown = matches(&it.topic) && (request.sees_consumers)(&it.topic);
                last = Some((&it.topic, is_shown));
                is_shown
            }
        });
        let ranked = consumers
            .map(|it| (Reverse(request.consumer_order.rank(self, it)), (&it.topic, &it.id), it));
        let consumers: Vec<_> = sorted(ranked).into_iter().map(|(.., it)| it).collect();
        View {
            publish_rate: topics.iter().map(|it| self.published(it.id)).sum(),
            consume_rate: consumers.iter().map(|it| self.consumed(it.key)).sum(),
            topics,
            consumers,
            is_incomplete: self.is_incomplete,
        }
    }
}

/// Sorts by rank, then by name.
fn sorted<R: Ord, N: Ord, T>(ranked: impl Iterator<Item = (R, N, T)>) -> Vec<(R, N, T)> {
    let mut ranked: Vec<_> = ranked.collect();
    ranked.sort_by(|(a, x, _), (b, y, _)| a.cmp(b).then_with(|| x.cmp(y)));
    ranked
}
