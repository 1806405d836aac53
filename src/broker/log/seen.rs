//! What this broker has seen of each topic's log: how far it reached, and its last batch.
//!
//! A log only grows, unless the database loses its end. To find out whether it has,
//! [`crate::broker::truncation`] compares the log with what is remembered here.

use std::{
    collections::HashMap,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;

use crate::{
    model::{Batch, Offset, TopicId, TopicName},
    storage::LastBatch,
};

/// What this broker has seen of all logs.
#[derive(Default)]
pub(crate) struct SeenLogs {
    seen: Mutex<Seen>,
    /// How many sessions with the database have been opened.
    sessions: OnceLock<Arc<AtomicU64>>,
    /// How many of them had been opened when all logs were last checked for truncation.
    checked: AtomicU64,
    /// How many truncations have been recorded; changes only while `seen` is locked.
    truncations: AtomicU64,
}

#[derive(Default)]
struct Seen {
    logs: HashMap<TopicId, SeenLog>,
    ids: HashMap<TopicName, TopicId>,
    /// The last topic that [`SeenLogs::next_to_verify`] returned.
    verified_to: Option<TopicId>,
}

/// What this broker has seen of one log.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SeenLog {
    /// One extent for each time that sessions were opened, oldest first, as each session may lead
    /// to another server. A check of all logs merges them into one.
    extents: Vec<Extent>,
    /// The number of the log's last truncation; 0 if there was none.
    truncation: u64,
}

/// How far a log reached.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Extent {
    /// How many sessions had been opened when this was seen.
    sessions: u64,
    /// The highest head.
    pub head: Offset,
    /// The last batch that was stored or read here, if any was.
    pub last_batch: Option<LastBatch>,
}

/// How many extents of a log are kept.
const MAX_EXTENTS: usize = 8;

/// A moment before a question to the database: how many truncations had been recorded by then.
///
/// An answer about a log that was found truncated later is stale: it may come from the old primary,
/// which still has the lost messages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment(u64);

impl SeenLogs {
    /// Sets the counter of sessions opened with the database. A new session may lead to another
    /// server, so what was seen before it is kept apart until all logs have been checked.
    pub(crate) fn count_sessions(&self, sessions: Arc<AtomicU64>) {
        let _ = self.sessions.set(sessions);
    }

    /// How many sessions have been opened, if some were opened since the last check of all logs.
    pub(crate) fn unchecked_sessions(&self) -> Option<u64> {
        let sessions = self.sessions();
        (sessions != self.checked.load(Ordering::Acquire)).then_some(sessions)
    }

    /// Records a check of all logs that began when this many sessions had been opened.
    pub(crate) fn all_checked(&self, sessions: u64) {
        self.checked.store(sessions, Ordering::Release);
        self.seen.lock().logs.values_mut().for_each(|log| log.merge_extents(sessions));
    }

    fn sessions(&self) -> u64 {
        self.sessions.get().map_or(0, |sessions| sessions.load(Ordering::Acquire))
    }

    /// Records which topic has a name.
    pub(crate) fn learn_name(&self, name: &TopicName, topic: TopicId) {
        let mut seen = self.seen.lock();
        if seen.ids.get(name) == Some(&topic) {
            return;
        }
        if let Some(deleted) = seen.ids.insert(name.clone(), topic) {
            seen.logs.remove(&deleted);
        }
    }

    /// The present moment. Call it before asking the database.
    pub(crate) fn now(&self) -> Moment {
        Moment(self.truncations.load(Ordering::Acquire))
    }

    /// Records that a log reaches up to a head, and perhaps its last batch, as the database
    /// answered a question asked at `moment`. Returns false, and records nothing, if the answer is
    /// stale.
    pub(crate) fn observe(
        &self,
        topic: TopicId,
        head: Offset,
        last: Option<&Batch>,
        Moment(moment): Moment,
    ) -> bool {
        let mut seen = self.seen.lock();
        let is_current = seen.logs.get(&topic).is_none_or(|log| log.truncation <= moment);
        if is_current {
            self.extend(&mut seen, topic, head, last);
        }
        is_current
    }

    /// Records a batch that this broker stored.
    pub(crate) fn stored(&self, topic: TopicId, batch: &Batch) {
        self.extend(&mut self.seen.lock(), topic, batch.end(), Some(batch));
    }

    fn extend(&self, seen: &mut Seen, topic: TopicId, head: Offset, last: Option<&Batch>) {
        // The session that gave the answer has been counted.
        let sessions = self.sessions();
        let new = Extent { sessions, head, last_batch: None };
        let extents = &mut seen.logs.entry(topic).or_insert_with(|| SeenLog::of(new)).extents;
        if extents.last().is_none_or(|last| last.sessions != sessions) {
            extents.push(new);
        }
        if extents.len() > MAX_EXTENTS {
            extents.remove(1);
        }
        if let Some(extent) = extents.last_mut() {
            extent.extend(head, last);
        }
    }

    /// The highest head of a topic so far. Call it before asking the database: messages stored
    /// while the database answers are not lost.
    pub(crate) fn head(&self, topic: TopicId) -> Offset {
        self.seen.lock().logs.get(&topic).map_or(Offset(0), SeenLog::head)
    }

    /// What was seen of the topic that last had this name.
    pub(crate) fn log_named(&self, name: &TopicName) -> Option<(TopicId, SeenLog)> {
        let seen = self.seen.lock();
        let topic = *seen.ids.get(name)?;
        Some((topic, seen.logs.get(&topic)?.clone()))
    }

    /// What was seen of some topics.
    pub(crate) fn logs(&self, topics: &[TopicId]) -> HashMap<TopicId, SeenLog> {
        let seen = self.seen.lock();
        topics.iter().filter_map(|topic| Some((*topic, seen.logs.get(topic)?.clone()))).collect()
    }

    /// What was seen of all topics.
    pub(crate) fn all_logs(&self) -> HashMap<TopicId, SeenLog> {
        self.seen.lock().logs.clone()
    }

    /// The next topics, in turn, for the database to say whether they exist. A broker that hears no
    /// notifications would otherwise remember the topics that others deleted.
    pub(crate) fn next_to_verify(&self, count: usize) -> Vec<TopicId> {
        let mut seen = self.seen.lock();
        let after = seen.verified_to;
        let mut next: Vec<_> = seen.logs.keys().copied().filter(|id| Some(*id) > after).collect();
        next.sort_unstable();
        next.truncate(count);
        seen.verified_to = next.last().copied().filter(|_| next.len() == count);
        next
    }

    /// Forgets a deleted topic.
    pub(crate) fn forget(&self, topic: TopicId) {
        let mut seen = self.seen.lock();
        seen.logs.remove(&topic);
        seen.ids.retain(|_, id| *id != topic);
    }

    /// Records that a log was truncated and now ends at `head`. Returns false if another truncation
    /// of it has been recorded since `seen` was read.
    pub(crate) fn truncate(&self, topic: TopicId, head: Offset, seen: &SeenLog) -> bool {
        let mut all = self.seen.lock();
        let Some(log) = all.logs.get_mut(&topic).filter(|log| log.truncation == seen.truncation)
        else {
            return false;
        };
        let now = Extent { sessions: self.sessions(), head, last_batch: None };
        let truncation = self.truncations.fetch_add(1, Ordering::AcqRel) + 1;
        *log = SeenLog { truncation, ..SeenLog::of(now) };
        true
    }
}

impl Extent {
    fn extend(&mut self, head: Offset, last: Option<&Batch>) {
        self.head = head.max(self.head);
        let known = self.last_batch.map(|last_batch| last_batch.base);
        if let Some(last) = last.filter(|last| known.is_none_or(|known| known < last.base)) {
            let (base, published_at) = (last.base, last.published_at);
            self.last_batch = Some(LastBatch { base, published_at });
        }
    }
}

impl SeenLog {
    fn of(extent: Extent) -> Self {
        Self { extents: vec![extent], truncation: 0 }
    }

    /// The highest head.
    pub(crate) fn head(&self) -> Offset {
        self.extents.iter().map(|extent| extent.head).max().unwrap_or_default()
    }

    /// How far the log reached, for each server that may have answered.
    pub(crate) fn extents(&self) -> &[Extent] {
        &self.extents
    }

    /// Merges the extents that were seen by the time that this many sessions had been opened.
    fn merge_extents(&mut self, sessions: u64) {
        let merged = self.extents.partition_point(|extent| extent.sessions <= sessions);
        let merged = self.extents.drain(..merged).reduce(|earlier, later| Extent {
            sessions: later.sessions,
            head: earlier.head.max(later.head),
            last_batch: later.last_batch.or(earlier.last_batch),
        });
        self.extents.splice(..0, merged);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOPIC: TopicId = TopicId(1);

    fn observe(logs: &SeenLogs, head: i64) -> bool {
        logs.observe(TOPIC, Offset(head), None, logs.now())
    }

    fn seen(logs: &SeenLogs) -> SeenLog {
        logs.logs(&[TOPIC])[&TOPIC].clone()
    }

    #[test]
    fn an_answer_from_before_a_truncation_is_stale() {
        let logs = SeenLogs::default();
        observe(&logs, 100);
        observe(&logs, 90);
        assert_eq!(logs.head(TOPIC), Offset(100));
        let (before, log) = (logs.now(), seen(&logs));
        assert!(logs.truncate(TOPIC, Offset(90), &log));
        assert!(!logs.truncate(TOPIC, Offset(80), &log), "recorded already");
        assert!(!logs.observe(TOPIC, Offset(100), None, before));
        assert_eq!(logs.head(TOPIC), Offset(90));
        assert!(logs.observe(TopicId(2), Offset(100), None, before), "another topic");
        assert!(observe(&logs, 91));
        assert_eq!(logs.head(TOPIC), Offset(91));
    }

    #[test]
    fn the_last_batch_is_the_one_with_the_highest_offset() {
        let logs = SeenLogs::default();
        let batch = |base| Batch {
            base: Offset(base),
            published_at: std::time::SystemTime::UNIX_EPOCH,
            payloads: vec!["a".into(), "b".into()],
            keys: None,
            headers: None,
            producers: Vec::new(),
            encoded: Default::default(),
        };
        let last_batch = || seen(&logs).extents()[0].last_batch.map(|last| last.base);
        for base in [7, 9, 5] {
            logs.stored(TOPIC, &batch(base));
        }
        assert_eq!((logs.head(TOPIC), last_batch()), (Offset(11), Some(Offset(9))));
        assert!(logs.truncate(TOPIC, Offset(9), &seen(&logs)));
        assert_eq!(last_batch(), None);
        logs.stored(TOPIC, &batch(9));
        assert_eq!(last_batch(), Some(Offset(9)));
    }

    #[test]
    fn extents_of_earlier_sessions_are_kept_until_all_logs_are_checked() {
        let (logs, sessions) = (SeenLogs::default(), Arc::<AtomicU64>::default());
        logs.count_sessions(sessions.clone());
        let heads = || seen(&logs).extents().iter().map(|extent| extent.head.0).collect::<Vec<_>>();
        observe(&logs, 10);
        sessions.fetch_add(1, Ordering::Relaxed);
        observe(&logs, 20);
        observe(&logs, 15);
        let checked = logs.unchecked_sessions().unwrap();
        sessions.fetch_add(1, Ordering::Relaxed);
        observe(&logs, 12);
        assert_eq!((heads(), logs.head(TOPIC)), (vec![10, 20, 12], Offset(20)));
        logs.all_checked(checked);
        assert_eq!(heads(), [20, 12], "another session was opened meanwhile");
        logs.all_checked(logs.unchecked_sessions().unwrap());
        assert_eq!((logs.unchecked_sessions(), heads()), (None, vec![20]));
        for head in 21..40 {
            sessions.fetch_add(1, Ordering::Relaxed);
            observe(&logs, head);
        }
        assert_eq!(
            heads(),
            [20, 33, 34, 35, 36, 37, 38, 39],
            "the oldest extent and the newest ones"
        );
    }

    #[test]
    fn all_topics_are_verified_in_turn() {
        let logs = SeenLogs::default();
        for topic in 1..=5 {
            logs.observe(TopicId(topic), Offset(0), None, logs.now());
        }
        let next = || logs.next_to_verify(2).into_iter().map(|id| id.0).collect::<Vec<_>>();
        let turns: [Vec<i32>; 5] = std::array::from_fn(|_| next());
        assert_eq!(turns, [vec![1, 2], vec![3, 4], vec![5], vec![1, 2], vec![3, 4]]);
    }

    #[test]
    fn a_deleted_topic_is_forgotten() {
        let (logs, name) = (SeenLogs::default(), TopicName::stored("orders"));
        logs.learn_name(&name, TOPIC);
        assert_eq!(logs.log_named(&name), None);
        observe(&logs, 7);
        assert_eq!(logs.log_named(&name), Some((TOPIC, seen(&logs))));
        logs.forget(TOPIC);
        assert_eq!((logs.log_named(&name), logs.head(TOPIC)), (None, Offset(0)));
        observe(&logs, 7);
        logs.learn_name(&name, TOPIC);
        logs.learn_name(&name, TopicId(2));
        assert!(logs.all_logs().is_empty(), "another topic has the name");
    }
}
