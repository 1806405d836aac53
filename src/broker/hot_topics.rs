//! Topics that transactions publish to from SQL. They are polled every few milliseconds: a notification
//! for each transaction would take a lock of the whole cluster at its commit.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{self, Instant},
};

use crate::model::TopicId;

/// How often topics are polled that are published to from SQL, and for how long after each notification
/// of that. Their publishers repeat it every half a second.
const HOT_INTERVAL: Duration = Duration::from_millis(5);
const HOT_FOR: Duration = Duration::from_secs(1);

/// How many topics are polled so. The poll of each second finds what others store.
const MOST_HOT: usize = 1_024;

/// The topics that transactions publish to from SQL.
#[derive(Default)]
pub(crate) struct HotTopics {
    /// Until when each is polled.
    until: Mutex<HashMap<TopicId, Instant>>,
    heated: Notify,
}

impl HotTopics {
    /// Has a topic polled quickly from now on.
    pub(crate) fn heat(&self, topic: TopicId) {
        self.heat_at(topic, Instant::now());
        self.heated.notify_one();
    }

    fn heat_at(&self, topic: TopicId, now: Instant) {
        let mut until = self.until.lock();
        until.retain(|_, until| *until > now);
        if until.len() < MOST_HOT || until.contains_key(&topic) {
            until.insert(topic, now + HOT_FOR);
        }
    }

    /// The topics that are hot at a time.
    fn hot_at(&self, now: Instant) -> HashSet<TopicId> {
        let until = self.until.lock();
        until.iter().filter(|(_, until)| **until > now).map(|(topic, _)| *topic).collect()
    }

    /// Waits until there are hot topics, and for the interval between two polls of them.
    pub(crate) async fn due(&self) -> HashSet<TopicId> {
        loop {
            time::sleep(HOT_INTERVAL).await;
            let hot = self.hot_at(Instant::now());
            if !hot.is_empty() {
                return hot;
            }
            self.heated.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_hot_for_a_second_after_it_was_last_heated() {
        let (hot, start) = (HotTopics::default(), Instant::now());
        hot.heat_at(TopicId(1), start);
        hot.heat_at(TopicId(2), start + HOT_FOR / 2);
        assert_eq!(hot.hot_at(start + HOT_FOR / 2), HashSet::from([TopicId(1), TopicId(2)]));
        assert_eq!(hot.hot_at(start + HOT_FOR), HashSet::from([TopicId(2)]));
        assert_eq!(hot.hot_at(start + HOT_FOR * 2), HashSet::new());
    }

    #[test]
    fn false_notifications_do_not_fill_the_memory() {
        let (hot, start) = (HotTopics::default(), Instant::now());
        (0..2 * MOST_HOT as i32).for_each(|topic| hot.heat_at(TopicId(topic), start));
        assert_eq!(hot.hot_at(start).len(), MOST_HOT);
        hot.heat_at(TopicId(-1), start + HOT_FOR);
        assert_eq!(hot.hot_at(start + HOT_FOR), HashSet::from([TopicId(-1)]));
    }
}
