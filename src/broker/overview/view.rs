//! The part of a snapshot that somebody asks for, in an order.

use std::time::Duration;

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
        let ViewRequest { topic_contains, knows, .. } = request;
        let topics = self.sort_topics(topic_contains, knows, request.topic_order, false);
        let matches = name_matcher(topic_contains);
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
        let mut ranked: Vec<_> =
            consumers.map(|it| (request.consumer_order.rank(self, it), it)).collect();
        ranked.sort_by(|(a, x), (b, y)| {
            b.cmp(a).then_with(|| (&x.topic, &x.id).cmp(&(&y.topic, &y.id)))
        });
        let consumers: Vec<_> = ranked.into_iter().map(|(_, it)| it).collect();
        View {
            publish_rate: topics.iter().map(|it| self.published(it.id)).sum(),
            consume_rate: consumers.iter().map(|it| self.consumed(it.key)).sum(),
            topics,
            consumers,
            is_incomplete: self.is_incomplete,
        }
    }

    /// The topics that `knows` knows and whose names contain a text, in the order of [`Self::view`], or
    /// the other way round. Those of the same rank come by name either way.
    pub fn sort_topics(
        &self,
        contains: &str,
        knows: &dyn Fn(&TopicName) -> bool,
        order: TopicOrder,
        is_reversed: bool,
    ) -> Vec<&TopicState> {
        let matches = name_matcher(contains);
        let topics = self.topics.iter().filter(|it| matches(&it.name) && knows(&it.name));
        let mut ranked: Vec<_> = topics.map(|it| (order.rank(self, it), it)).collect();
        ranked.sort_by(|(a, x), (b, y)| match (order, is_reversed) {
            (TopicOrder::Name, true) => y.name.cmp(&x.name),
            (_, false) => b.cmp(a).then_with(|| x.name.cmp(&y.name)),
            (_, true) => a.cmp(b).then_with(|| x.name.cmp(&y.name)),
        });
        ranked.into_iter().map(|(_, it)| it).collect()
    }
}

/// Whether a name contains a text, whatever the case.
fn name_matcher(contains: &str) -> impl Fn(&TopicName) -> bool {
    let wanted = contains.to_lowercase();
    move |name| wanted.is_empty() || name.as_str().to_lowercase().contains(&wanted)
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, time::Instant};

    use super::*;
    use crate::{
        model::{Offset, TopicId},
        storage::CatalogueSize,
    };

    #[test]
    fn topics_of_one_rank_come_by_name_in_either_direction() {
        let topic = |(id, (name, head)): (i32, (&str, i64))| TopicState {
            id: TopicId(id),
            name: TopicName::stored(name),
            head: Offset(head),
            start: Offset(0),
            bytes: 0,
            last_published: None,
        };
        let snapshot = Snapshot {
            taken_at: Instant::now(),
            took: Duration::ZERO,
            size: CatalogueSize { topics: 4, consumers: 0 },
            is_incomplete: false,
            topics: (0..).zip([("b", 1), ("d", 2), ("a", 1), ("c", 2)]).map(topic).collect(),
            consumers: Vec::new(),
            outbox: None,
            server: None,
            published: HashMap::new(),
            consumed: HashMap::new(),
        };
        for (order, is_reversed, expected) in [
            (TopicOrder::Head, false, "cdab"),
            (TopicOrder::Head, true, "abcd"),
            (TopicOrder::Name, false, "abcd"),
            (TopicOrder::Name, true, "dcba"),
            // All have the same rate.
            (TopicOrder::PublishRate, false, "cdab"),
        ] {
            let sorted = snapshot.sort_topics("", &|_| true, order, is_reversed);
            let names: String = sorted.iter().map(|it| it.name.as_str()).collect();
            assert_eq!(names, expected, "{order:?} {is_reversed}");
        }
        let known =
            snapshot.sort_topics("C", &|name| name.as_str() != "d", TopicOrder::Name, false);
        assert_eq!(known.iter().map(|it| it.name.as_str()).collect::<String>(), "c");
    }
}
