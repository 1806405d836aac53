//! Notifications for other brokers: heads that moved, and leases that were released or changed. SQL
//! functions send some as well.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::model::{ConsumerKey, Offset, TopicId};

/// A notification from another broker, or from a function that a client called with SQL.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Notification {
    /// A topic's head moved.
    HeadMoved(TopicId, Offset),
    /// A lease was released.
    LeaseReleased(ConsumerKey),
    /// Leases were changed from outside, not by their holders.
    LeaseChanged(LeaseScope),
    /// Transactions publish to a topic from SQL, and notify nobody of each message.
    PublishedFromSql(TopicId),
    /// Messages wait in the outbox of SQL publishers.
    OutboxFilled,
}

/// Which leases changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum LeaseScope {
    /// The lease of one consumer.
    Consumer(ConsumerKey),
    /// Those of a deleted topic.
    Topic(TopicId),
}

/// How many bytes a payload may have; PostgreSQL allows less than 8,000.
const MAX_PAYLOAD: usize = 7_000;

/// Notifications to be sent; cheap to clone. Bounded by the number of topics that are published to
/// and of leases that are released; while there is no session to send over, they are dropped.
#[derive(Clone, Default)]
pub(crate) struct Outbox(Arc<Unsent>);

#[derive(Default)]
struct Unsent {
    heads: Mutex<HashMap<TopicId, Offset>>,
    released: Mutex<Vec<ConsumerKey>>,
    changed: Mutex<HashSet<LeaseScope>>,
    /// Notified when there is something to send.
    added: Notify,
}

impl Outbox {
    /// Waits until there is something to send.
    pub(crate) async fn wait(&self) {
        self.0.added.notified().await;
    }

    /// A topic's head moved.
    pub(crate) fn head_moved(&self, topic: TopicId, head: Offset) {
        self.0.heads.lock().insert(topic, head);
        self.0.added.notify_one();
    }

    /// A lease was released.
    pub(crate) fn lease_released(&self, key: ConsumerKey) {
        self.0.released.lock().push(key);
        self.0.added.notify_one();
    }

    /// Leases were changed from outside, not by their holders.
    pub(crate) fn lease_changed(&self, scope: LeaseScope) {
        self.0.changed.lock().insert(scope);
        self.0.added.notify_one();
    }

    /// Takes everything to be sent, as payloads of PostgreSQL notifications: the broker's ID, then
    /// one word for each notification. Words have numbers and no names, as every role of the
    /// database may listen.
    pub(crate) fn take(&self, broker: &str) -> Vec<String> {
        let heads = std::mem::take(&mut *self.0.heads.lock());
        let released = std::mem::take(&mut *self.0.released.lock());
        let changed = std::mem::take(&mut *self.0.changed.lock());
        let words = heads
            .into_iter()
            .map(|(topic, head)| format!(" h{}={head}", topic.0))
            .chain(released.into_iter().map(|key| format!(" f{}/{}", key.topic.0, key.consumer)))
            .chain(changed.into_iter().map(|scope| match scope {
                LeaseScope::Consumer(key) => format!(" c{}/{}", key.topic.0, key.consumer),
                LeaseScope::Topic(topic) => format!(" t{}", topic.0),
            }));
        let mut payloads: Vec<String> = Vec::new();
        for word in words {
            match payloads.last_mut() {
                Some(payload) if payload.len() + word.len() <= MAX_PAYLOAD => {
                    payload.push_str(&word);
                }
                _ => payloads.push(format!("{broker}{word}")),
            }
        }
        payloads
    }
}

impl Notification {
    /// Parses a word of a payload; `None` if this broker does not know it.
    pub(crate) fn parse(word: &str) -> Option<Self> {
        if let Some(rest) = word.strip_prefix('h') {
            let (topic, head) = rest.split_once('=')?;
            return Some(Self::HeadMoved(TopicId(topic.parse().ok()?), Offset(head.parse().ok()?)));
        }
        if let Some(rest) = word.strip_prefix('c') {
            return Some(Self::LeaseChanged(LeaseScope::Consumer(parse_key(rest)?)));
        }
        if let Some(topic) = word.strip_prefix('s') {
            return Some(Self::PublishedFromSql(TopicId(topic.parse().ok()?)));
        }
        if word == "o" {
            return Some(Self::OutboxFilled);
        }
        if let Some(rest) = word.strip_prefix('t') {
            return Some(Self::LeaseChanged(LeaseScope::Topic(TopicId(rest.parse().ok()?))));
        }
        Some(Self::LeaseReleased(parse_key(word.strip_prefix('f')?)?))
    }
}

fn parse_key(numbers: &str) -> Option<ConsumerKey> {
    let (topic, consumer) = numbers.split_once('/')?;
    Some(ConsumerKey { topic: TopicId(topic.parse().ok()?), consumer: consumer.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_notifications_are_sent_in_few_payloads() {
        let outbox = Outbox::default();
        for topic in 0..2_000 {
            outbox.head_moved(TopicId(topic), Offset(1));
            outbox.head_moved(TopicId(topic), Offset(i64::from(topic)));
        }
        let released = ConsumerKey { topic: TopicId(3), consumer: 5 };
        outbox.lease_released(released);
        let changed = [
            LeaseScope::Topic(TopicId(3)),
            LeaseScope::Consumer(ConsumerKey { topic: TopicId(3), consumer: 4 }),
        ];
        changed.into_iter().for_each(|scope| outbox.lease_changed(scope));

        let payloads = outbox.take("me");
        assert!(payloads.iter().all(|payload| payload.len() < 8_000 && payload.starts_with("me ")));
        let words = payloads.iter().flat_map(|payload| payload.split(' ').skip(1));
        let sent: Vec<Notification> = words.filter_map(Notification::parse).collect();
        assert_eq!(sent.len(), 2_003);
        assert!(changed.into_iter().all(|scope| sent.contains(&Notification::LeaseChanged(scope))));
        assert!(sent.contains(&Notification::HeadMoved(TopicId(7), Offset(7))));
        assert!(sent.contains(&Notification::LeaseReleased(released)));
        assert!(outbox.take("me").is_empty());
    }

    #[test]
    fn words_of_sql_functions_are_known() {
        assert_eq!(Notification::parse("s5"), Some(Notification::PublishedFromSql(TopicId(5))));
        assert_eq!(Notification::parse("o"), Some(Notification::OutboxFilled));
    }

    #[test]
    fn unknown_words_of_a_newer_broker_are_ignored() {
        for word in [
            "", "h", "hx=1", "h1", "f", "fa", "fa/", "z9", "c", "c1", "c1/", "t", "tx", "s", "sx",
            "o1",
        ] {
            assert_eq!(Notification::parse(word), None, "{word}");
        }
    }
}
