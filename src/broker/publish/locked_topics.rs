//! Topics whose rows recent publishes found locked, so that other topics do not wait for them.
//!
//! A writer stores the publishes of several topics together, so a topic whose row another session
//! of the database holds makes them all wait. Once such a topic is found, its publishes are stored
//! separately, after the others, and wait only briefly. That ends with the first publish that is
//! stored, or 5 s later: then one publish has the full wait again, as a topic that is merely busy
//! may need it.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::model::TopicName;

/// How long a topic that was found locked is remembered.
const REMEMBERED_FOR: Duration = Duration::from_secs(5);

/// One writer's topics that were found locked, and when. Finding one takes at least 100 ms, and it
/// is forgotten after 5 s, so there are at most 50.
#[derive(Default)]
pub(crate) struct LockedTopics(HashMap<TopicName, Instant>);

impl LockedTopics {
    /// Separates what belongs to recently locked topics from the rest.
    pub(crate) fn part<T>(
        &self,
        all: Vec<T>,
        topic_of: impl Fn(&T) -> &TopicName,
    ) -> (Vec<T>, Vec<T>) {
        if self.0.is_empty() {
            return (Vec::new(), all);
        }
        all.into_iter().partition(|one| self.has(topic_of(one)))
    }

    /// Whether a topic was found locked recently.
    pub(crate) fn has(&self, topic: &TopicName) -> bool {
        self.0.get(topic).is_some_and(is_recent)
    }

    /// Records that a topic was found locked. One that is remembered already is not remembered for
    /// longer: it had only the short wait.
    pub(crate) fn remember(&mut self, topic: &TopicName) {
        self.0.retain(|_, found_at| is_recent(found_at));
        self.0.entry(topic.clone()).or_insert_with(Instant::now);
    }

    /// Records that a topic is no longer locked.
    pub(crate) fn forget(&mut self, topic: &TopicName) {
        if !self.0.is_empty() {
            self.0.remove(topic);
        }
    }
}

fn is_recent(found_at: &Instant) -> bool {
    found_at.elapsed() < REMEMBERED_FOR
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_kept_apart_until_a_publish_to_it_is_stored() {
        let mut locked = LockedTopics::default();
        let topics = ["first", "held", "last"].map(|name| TopicName::parse(name).unwrap());
        let part = |locked: &LockedTopics| locked.part(topics.each_ref().into(), |topic| topic);
        let [first, held, last] = &topics;
        assert_eq!(part(&locked), (vec![], vec![first, held, last]));
        locked.remember(held);
        assert_eq!(part(&locked), (vec![held], vec![first, last]));
        locked.forget(held);
        assert_eq!(part(&locked), (vec![], vec![first, held, last]));
    }
}
