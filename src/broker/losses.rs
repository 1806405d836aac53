//! What this broker knows to have been stored, and what of it is gone.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard},
    time::{Duration, Instant},
};

use crate::model::{Offset, TopicId, TopicName};

/// How long a loss is told: a consumer that turns up later, at a broker that it had not been at,
/// has been told elsewhere.
const TOLD_FOR: Duration = Duration::from_secs(3600);

/// What this broker knows to have been stored, and what of it is gone.
#[derive(Default)]
pub(super) struct Losses {
    known: Mutex<Known>,
    lost: Mutex<HashMap<TopicId, Lost>>,
}

#[derive(Default)]
struct Known {
    /// The farthest head of each topic that was published to or read here.
    heads: HashMap<TopicId, Offset>,
    ids: HashMap<TopicName, TopicId>,
}

/// Messages of a topic that are gone.
struct Lost {
    first: Offset,
    end: Offset,
    since: Instant,
    audience: Audience,
}

/// Who is to be told of a loss.
pub(super) enum Audience {
    /// Those who were registered when it was found.
    These(HashSet<i32>),
    /// Nobody knows who was: all but those who were told.
    AllBut(HashSet<i32>),
}

impl Losses {
    /// Which topic has a name.
    pub(super) fn learn(&self, name: &TopicName, topic: TopicId) {
        let mut known = lock(&self.known);
        if known.ids.get(name) != Some(&topic) {
            known.ids.insert(name.clone(), topic);
        }
    }

    /// Messages of a topic up to an offset were stored.
    pub(super) fn saw(&self, topic: TopicId, head: Offset) {
        let mut known = lock(&self.known);
        let known = known.heads.entry(topic).or_insert(head);
        *known = head.max(*known);
    }

    /// The farthest head of a topic so far. To be asked before the database is: what is stored
    /// while it answers is no loss.
    pub(super) fn known_head(&self, topic: TopicId) -> Offset {
        lock(&self.known).heads.get(&topic).copied().unwrap_or(Offset(0))
    }

    /// The same of the topic that had this name when it was last heard of.
    pub(super) fn known_head_of(&self, name: &TopicName) -> Option<(TopicId, Offset)> {
        let known = lock(&self.known);
        let topic = *known.ids.get(name)?;
        Some((topic, *known.heads.get(&topic)?))
    }

    /// A topic is gone, and its heads with it.
    pub(super) fn forget(&self, topic: TopicId) {
        let mut known = lock(&self.known);
        known.heads.remove(&topic);
        known.ids.retain(|_, id| *id != topic);
        drop(known);
        lock(&self.lost).remove(&topic);
    }

    /// Takes a loss in, unless another call has: the head that was known is then another one.
    pub(super) fn find(&self, topic: TopicId, head: Offset, known: Offset) -> bool {
        let mut all = lock(&self.known);
        let still_known = all.heads.get(&topic) == Some(&known);
        if still_known {
            all.heads.insert(topic, head);
        }
        still_known
    }

    /// Messages from and to before an offset are gone, and somebody is to be told.
    pub(super) fn add(&self, topic: TopicId, (first, end): (Offset, Offset), audience: Audience) {
        let lost = Lost { first, end, since: Instant::now(), audience };
        lock(&self.lost).insert(topic, lost);
    }

    /// The messages that a consumer is to be told of, once: from and to before an offset.
    pub(super) fn take(&self, topic: TopicId, consumer: i32) -> Option<(Offset, Offset)> {
        let mut all = lock(&self.lost);
        let lost = all.get_mut(&topic)?;
        if lost.since.elapsed() > TOLD_FOR {
            all.remove(&topic);
            return None;
        }
        let is_told_now = match &mut lost.audience {
            Audience::These(untold) => untold.remove(&consumer),
            Audience::AllBut(told) => told.insert(consumer),
        };
        is_told_now.then_some((lost.first, lost.end))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lose(losses: &Losses, topic: TopicId, audience: Audience) {
        assert!(losses.find(topic, Offset(90), Offset(100)));
        losses.add(topic, (Offset(90), Offset(100)), audience);
    }

    #[test]
    fn each_consumer_is_told_once_of_what_was_lost() {
        let (losses, topic) = (Losses::default(), TopicId(1));
        losses.saw(topic, Offset(100));
        losses.saw(topic, Offset(90));
        assert_eq!(losses.known_head(topic), Offset(100));
        lose(&losses, topic, Audience::These(HashSet::from([1, 2])));
        assert_eq!(losses.known_head(topic), Offset(90));
        assert!(!losses.find(topic, Offset(90), Offset(100)), "found by another call");
        let told = Some((Offset(90), Offset(100)));
        assert_eq!([3, 1, 1, 2].map(|it| losses.take(topic, it)), [None, told, None, told]);
        losses.saw(topic, Offset(100));
        lose(&losses, topic, Audience::AllBut(HashSet::new()));
        assert_eq!([3, 3, 1].map(|it| losses.take(topic, it)), [told, None, told]);
    }

    #[test]
    fn a_topic_that_is_gone_is_forgotten() {
        let (losses, topic, name) = (Losses::default(), TopicId(1), TopicName::stored("orders"));
        losses.learn(&name, topic);
        assert_eq!(losses.known_head_of(&name), None);
        losses.saw(topic, Offset(7));
        assert_eq!(losses.known_head_of(&name), Some((topic, Offset(7))));
        losses.forget(topic);
        assert_eq!((losses.known_head_of(&name), losses.known_head(topic)), (None, Offset(0)));
    }
}
