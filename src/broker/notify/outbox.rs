//! What this broker has to tell the others: heads that moved, leases that came free.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard},
};

use tokio::sync::Notify;

use crate::model::{ConsumerId, ConsumerKey, Offset, TopicId, TopicName};

/// A hint out of another broker's text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Notification {
    /// A topic's head moved.
    Head(TopicId, Offset),
    /// A lease was given back.
    Freed(TopicName, ConsumerId),
    /// Leases were changed by somebody who does not hold them.
    Changed(LeaseScope),
}

/// LeaseScope lease changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum LeaseScope {
    /// A consumer's.
    Consumer(ConsumerKey),
    /// All of a topic's, as it was deleted.
    Topic(TopicId),
}

/// PostgreSQL takes less than 8,000 bytes.
const MAX_TEXT: usize = 7_000;

/// Outbox to be sent; cheap to clone. What waits is bounded by the topics published to and the
/// leases given back, and is dropped when nobody can be told.
#[derive(Clone, Default)]
pub(crate) struct Outbox(Arc<Waiting>);

#[derive(Default)]
struct Waiting {
    heads: Mutex<HashMap<TopicId, Offset>>,
    freed: Mutex<Vec<(TopicName, ConsumerId)>>,
    changed: Mutex<HashSet<LeaseScope>>,
    some: Notify,
}

impl Outbox {
    /// Waits until there is something to tell.
    pub(crate) async fn some(&self) {
        self.0.some.notified().await;
    }

    /// A topic's head moved.
    pub(crate) fn head_moved(&self, topic: TopicId, head: Offset) {
        lock(&self.0.heads).insert(topic, head);
        self.0.some.notify_one();
    }

    /// A lease was given back.
    pub(crate) fn lease_freed(&self, topic: TopicName, consumer: ConsumerId) {
        lock(&self.0.freed).push((topic, consumer));
        self.0.some.notify_one();
    }

    /// Leases were changed by somebody who does not hold them.
    pub(crate) fn lease_changed(&self, whose: LeaseScope) {
        lock(&self.0.changed).insert(whose);
        self.0.some.notify_one();
    }

    /// All that waits, as texts that each fit in one notification.
    pub(crate) fn take(&self, broker: &str) -> Vec<String> {
        let heads = std::mem::take(&mut *lock(&self.0.heads));
        let freed = std::mem::take(&mut *lock(&self.0.freed));
        let changed = std::mem::take(&mut *lock(&self.0.changed));
        let words = heads
            .into_iter()
            .map(|(topic, head)| format!(" h{}={head}", topic.0))
            .chain(freed.into_iter().map(|(topic, consumer)| format!(" f{topic}/{consumer}")))
            .chain(changed.into_iter().map(|whose| match whose {
                LeaseScope::Consumer(key) => format!(" c{}/{}", key.topic.0, key.consumer),
                LeaseScope::Topic(topic) => format!(" t{}", topic.0),
            }));
        let mut texts: Vec<String> = Vec::new();
        for word in words {
            match texts.last_mut() {
                Some(text) if text.len() + word.len() <= MAX_TEXT => text.push_str(&word),
                _ => texts.push(format!("{broker}{word}")),
            }
        }
        texts
    }
}

impl Notification {
    /// Reads a word of a text; `None` if it is one that this broker does not know.
    pub(crate) fn parse(word: &str) -> Option<Self> {
        if let Some(rest) = word.strip_prefix('h') {
            let (topic, head) = rest.split_once('=')?;
            return Some(Self::Head(TopicId(topic.parse().ok()?), Offset(head.parse().ok()?)));
        }
        if let Some(rest) = word.strip_prefix('c') {
            let (topic, consumer) = rest.split_once('/')?;
            let (topic, consumer) = (TopicId(topic.parse().ok()?), consumer.parse().ok()?);
            return Some(Self::Changed(LeaseScope::Consumer(ConsumerKey { topic, consumer })));
        }
        if let Some(rest) = word.strip_prefix('t') {
            return Some(Self::Changed(LeaseScope::Topic(TopicId(rest.parse().ok()?))));
        }
        let (topic, consumer) = word.strip_prefix('f')?.split_once('/')?;
        Some(Self::Freed(TopicName::parse(topic).ok()?, ConsumerId::parse(consumer).ok()?))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_gathers_is_sent_as_few_texts_that_say_all() {
        let hints = Outbox::default();
        for topic in 0..2_000 {
            hints.head_moved(TopicId(topic), Offset(1));
            hints.head_moved(TopicId(topic), Offset(i64::from(topic)));
        }
        let (topic, consumer) = (TopicName::stored("orders"), ConsumerId::stored("billing"));
        hints.lease_freed(topic.clone(), consumer.clone());
        let changed = [
            LeaseScope::Topic(TopicId(3)),
            LeaseScope::Consumer(ConsumerKey { topic: TopicId(3), consumer: 4 }),
        ];
        changed.into_iter().for_each(|whose| hints.lease_changed(whose));

        let texts = hints.take("me");
        assert!(texts.iter().all(|text| text.len() < 8_000 && text.starts_with("me ")));
        let words = texts.iter().flat_map(|text| text.split(' ').skip(1));
        let told: Vec<Notification> = words.filter_map(Notification::parse).collect();
        assert_eq!(told.len(), 2_003);
        assert!(changed.into_iter().all(|whose| told.contains(&Notification::Changed(whose))));
        assert!(told.contains(&Notification::Head(TopicId(7), Offset(7))));
        assert!(told.contains(&Notification::Freed(topic, consumer)));
        assert!(hints.take("me").is_empty());
    }

    #[test]
    fn words_of_a_newer_broker_are_passed_over() {
        for word in ["", "h", "hx=1", "h1", "f", "fa", "fa/", "z9", "c", "c1", "c1/", "t", "tx"] {
            assert_eq!(Notification::parse(word), None, "{word}");
        }
    }
}
