//! Which consumers must still get an error for lost messages.
//!
//! Each consumer that was registered when a truncation was found gets one error from each broker
//! that found it, the next time it reads.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::model::{ConsumerKey, OffsetRange, TopicId};

/// How long a notice is kept. A consumer that first comes to this broker after that has read from
/// another broker meanwhile, and has got its error there.
const KEPT_FOR: Duration = Duration::from_secs(7 * 24 * 3600);

/// The notices of all topics: at most one for each.
#[derive(Default)]
pub(crate) struct Notices(Mutex<HashMap<TopicId, Notice>>);

struct Notice {
    lost: OffsetRange,
    since: Instant,
    audience: Audience,
}

/// The consumers that a notice is for.
enum Audience {
    /// Those that were registered when the truncation was found, except those that got it.
    Registered(HashSet<i32>),
    /// All except those that got it: which were registered is not known yet.
    AllBut(HashSet<i32>),
}

impl Notices {
    /// Adds lost offsets, for every consumer. A consumer that has not got an earlier notice gets
    /// both as one.
    pub(crate) fn add(&self, topic: TopicId, lost: OffsetRange) {
        let mut notices = self.0.lock();
        notices.retain(|_, notice| notice.is_open());
        let earlier = notices.get(&topic).filter(|notice| notice.is_open());
        let lost = earlier.map_or(lost, |notice| notice.lost.hull(lost));
        let audience = Audience::AllBut(HashSet::new());
        notices.insert(topic, Notice { lost, since: Instant::now(), audience });
    }

    /// Restricts a topic's notice to the consumers that were registered.
    pub(crate) fn restrict_to(&self, topic: TopicId, registered: Vec<i32>) {
        if let Some(notice) = self.0.lock().get_mut(&topic)
            && let Audience::AllBut(notified) = &notice.audience
        {
            let left = registered.into_iter().filter(|consumer| !notified.contains(consumer));
            notice.audience = Audience::Registered(left.collect());
        }
    }

    /// The lost offsets that a consumer must get an error for; each consumer gets them once.
    pub(crate) fn take(&self, ConsumerKey { topic, consumer }: ConsumerKey) -> Option<OffsetRange> {
        let mut notices = self.0.lock();
        let notice = notices.get_mut(&topic)?;
        if !notice.is_open() {
            notices.remove(&topic);
            return None;
        }
        let is_for_it = match &mut notice.audience {
            Audience::Registered(left) => left.remove(&consumer),
            Audience::AllBut(notified) => notified.insert(consumer),
        };
        is_for_it.then_some(notice.lost)
    }

    /// Forgets a deleted topic.
    pub(crate) fn forget(&self, topic: TopicId) {
        self.0.lock().remove(&topic);
    }
}

impl Notice {
    /// Whether a consumer may still have to get it.
    fn is_open(&self) -> bool {
        let all_notified = matches!(&self.audience, Audience::Registered(left) if left.is_empty());
        !all_notified && self.since.elapsed() < KEPT_FOR
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Offset;

    const TOPIC: TopicId = TopicId(1);

    fn range(start: i64, end: i64) -> OffsetRange {
        OffsetRange { start: Offset(start), end: Offset(end) }
    }

    #[test]
    fn each_consumer_gets_each_loss_once() {
        let notices = Notices::default();
        let take = |consumer| notices.take(ConsumerKey { topic: TOPIC, consumer });
        notices.add(TOPIC, range(90, 100));
        let lost = Some(range(90, 100));
        assert_eq!(
            [4, 4].map(take),
            [lost, None],
            "which consumers were registered is not known yet"
        );
        notices.restrict_to(TOPIC, vec![1, 2, 4]);
        assert_eq!([3, 1, 1, 4, 2].map(take), [None, lost, None, None, lost]);
        notices.add(TOPIC, range(110, 120));
        let lost = Some(range(110, 120));
        assert_eq!([3, 3].map(take), [lost, None], "every consumer has got the first loss");
        notices.add(TOPIC, range(105, 110));
        let lost = Some(range(105, 120));
        assert_eq!(take(3), lost, "not every consumer has got the loss before");
        notices.add(TOPIC, range(107, 109));
        assert_eq!(take(1), lost, "all three losses");
        notices.forget(TOPIC);
        assert_eq!(take(2), None);
    }
}
