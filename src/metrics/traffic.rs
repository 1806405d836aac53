//! How much goes through this broker, by topic.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use parking_lot::RwLock;

use crate::model::TopicId;

/// How many topics are remembered. Once there are more, all are forgotten: a counter that begins anew is
/// one that Prometheus expects, and that many topics have gone that nobody told of.
const MOST: usize = 200_000;

/// How much goes through this broker, by topic. It remembers each topic until it is deleted.
#[derive(Default)]
pub struct Traffic(RwLock<HashMap<TopicId, Arc<Counters>>>);

#[derive(Default)]
struct Counters {
    published_messages: AtomicU64,
    published_bytes: AtomicU64,
    consumed_messages: AtomicU64,
    consumed_bytes: AtomicU64,
}

/// What went through this broker of one topic so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TopicTraffic {
    /// Messages that it stored.
    pub published_messages: u64,
    /// The bytes of their payloads, keys and headers.
    pub published_bytes: u64,
    /// Messages that it handed out.
    pub consumed_messages: u64,
    /// Their bytes, encoded.
    pub consumed_bytes: u64,
}

impl Traffic {
    /// Counts messages that were stored.
    pub fn count_published(&self, topic: TopicId, messages: usize, bytes: usize) {
        let counters = self.of(topic);
        counters.published_messages.fetch_add(messages as u64, Relaxed);
        counters.published_bytes.fetch_add(bytes as u64, Relaxed);
    }

    /// Counts messages that were handed out.
    pub fn count_consumed(&self, topic: TopicId, messages: usize, bytes: usize) {
        let counters = self.of(topic);
        counters.consumed_messages.fetch_add(messages as u64, Relaxed);
        counters.consumed_bytes.fetch_add(bytes as u64, Relaxed);
    }

    /// What went through so far; `None` of a topic that nothing went through.
    pub fn find(&self, topic: TopicId) -> Option<TopicTraffic> {
        let counters = self.0.read().get(&topic)?.clone();
        Some(TopicTraffic {
            published_messages: counters.published_messages.load(Relaxed),
            published_bytes: counters.published_bytes.load(Relaxed),
            consumed_messages: counters.consumed_messages.load(Relaxed),
            consumed_bytes: counters.consumed_bytes.load(Relaxed),
        })
    }

    /// Forgets a topic that was deleted.
    pub fn forget(&self, topic: TopicId) {
        self.0.write().remove(&topic);
    }

    fn of(&self, topic: TopicId) -> Arc<Counters> {
        if let Some(counters) = self.0.read().get(&topic) {
            return counters.clone();
        }
        let mut topics = self.0.write();
        if topics.len() >= MOST {
            topics.clear();
        }
        topics.entry(topic).or_default().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traffic_adds_up_by_topic_until_the_topic_is_gone() {
        let (orders, bills) = (TopicId(1), TopicId(2));
        let traffic = Traffic::default();
        traffic.count_published(orders, 2, 30);
        traffic.count_published(orders, 1, 5);
        traffic.count_consumed(orders, 1, 7);
        traffic.count_consumed(bills, 1, 1);
        let expected = TopicTraffic {
            published_messages: 3,
            published_bytes: 35,
            consumed_messages: 1,
            consumed_bytes: 7,
        };
        assert_eq!(traffic.find(orders), Some(expected));
        traffic.forget(bills);
        assert_eq!((traffic.find(orders), traffic.find(bills)), (Some(expected), None));
    }
}
