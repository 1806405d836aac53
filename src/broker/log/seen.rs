//! What this broker knows to have been stored, and what of it is gone.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    model::{Batch, Offset, TopicId, TopicName},
    storage::LastBatch,
};

/// How long a loss is told: a consumer that turns up later, at a broker that it had not been at,
/// has been told elsewhere.
const TOLD_FOR: Duration = Duration::from_secs(7 * 24 * 3600);

/// What this broker knows to have been stored, and what of it is gone.
#[derive(Default)]
pub(crate) struct Losses {
    known: Mutex<Known>,
    lost: Mutex<HashMap<TopicId, Lost>>,
    /// ActiveLease by whoever looks whether messages are lost: one finds it for all. When nobody could
    /// tell last.
    pub looking: tokio::sync::Mutex<Option<Instant>>,
    /// How many sessions were opened with the database so far.
    opened: OnceLock<Arc<AtomicU64>>,
    /// How many were when somebody last looked at all logs.
    looked_at: AtomicU64,
    /// How many losses were found so far; changed under the lock of what is known only.
    found: AtomicU64,
}

/// When the database was asked: how many losses had been found by then. What it told of a log is
/// not taken in if one was found there since: it may be who has the messages still that answered,
/// and they would be lost once more.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked(u64);

#[derive(Default)]
struct Known {
    logs: HashMap<TopicId, KnownLog>,
    ids: HashMap<TopicName, TopicId>,
}

/// A log that was published to or read here.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct KnownLog {
    /// How far it came by what was told between the opening of one session and the next, the oldest
    /// first: each may have led to another server. One, once somebody has looked.
    extents: Vec<Extent>,
    /// How many losses had been found when one was found here, this one among them; 0 if none was.
    found: u64,
}

/// How far a log came.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Extent {
    /// How many sessions had been opened.
    opened: u64,
    /// The farthest head.
    pub head: Offset,
    /// The last batch that was stored or read here, if any was.
    pub last_batch: Option<LastBatch>,
}

/// How many extents of a log are kept apart.
const MAX_EXTENTS: usize = 8;

/// Messages of a topic that are gone.
struct Lost {
    first: Offset,
    end: Offset,
    since: Instant,
    audience: Audience,
}

/// Who is to be told of a loss.
enum Audience {
    /// Those who were registered when it was found.
    These(HashSet<i32>),
    /// Until somebody has looked who was: all but those who were told.
    AllBut(HashSet<i32>),
}

impl Losses {
    /// Has a count of the sessions that are opened with the database. A new one may lead to another
    /// server: what was known before is kept apart until somebody has looked at all logs.
    pub(crate) fn count_sessions(&self, opened: Arc<AtomicU64>) {
        let _ = self.opened.set(opened);
    }

    /// How many sessions were opened so far, if some were since somebody last looked at all logs.
    pub(crate) fn unsure(&self) -> Option<u64> {
        let opened = self.opened();
        (opened != self.looked_at.load(Ordering::Acquire)).then_some(opened)
    }

    /// All logs were looked at when so many sessions had been opened.
    pub(crate) fn looked(&self, opened: u64) {
        self.looked_at.store(opened, Ordering::Release);
        lock(&self.known).logs.values_mut().for_each(|log| log.settle(opened));
    }

    fn opened(&self) -> u64 {
        self.opened.get().map_or(0, |opened| opened.load(Ordering::Acquire))
    }

    /// Which topic has a name.
    pub(crate) fn learn_name(&self, name: &TopicName, topic: TopicId) {
        let mut known = lock(&self.known);
        if known.ids.get(name) == Some(&topic) {
            return;
        }
        if let Some(gone) = known.ids.insert(name.clone(), topic) {
            known.logs.remove(&gone);
        }
    }

    /// To be noted before the database is asked for what is seen.
    pub(crate) fn asked(&self) -> Asked {
        Asked(self.found.load(Ordering::Acquire))
    }

    /// Messages of a topic up to an offset are stored, as the database told; false if that is not
    /// to be believed any more.
    pub(crate) fn saw(&self, topic: TopicId, head: Offset, asked: Asked) -> bool {
        self.saw_read(topic, head, None, asked)
    }

    /// The same of messages that were read, the last of them in a batch.
    pub(crate) fn saw_read(
        &self,
        topic: TopicId,
        head: Offset,
        last: Option<&Batch>,
        Asked(asked): Asked,
    ) -> bool {
        let mut known = lock(&self.known);
        let is_current = known.logs.get(&topic).is_none_or(|log| log.found <= asked);
        if is_current {
            self.learn(&mut known, topic, head, last);
        }
        is_current
    }

    /// This broker stored a batch.
    pub(crate) fn stored(&self, topic: TopicId, batch: &Batch) {
        self.learn(&mut lock(&self.known), topic, batch.end(), Some(batch));
    }

    fn learn(&self, known: &mut Known, topic: TopicId, head: Offset, last: Option<&Batch>) {
        // Before what is told: whoever told it did so over a session that counts already.
        let opened = self.opened();
        let new = Extent { opened, head, last_batch: None };
        let extents = &mut known.logs.entry(topic).or_insert_with(|| KnownLog::of(new)).extents;
        if extents.last().is_none_or(|last| last.opened != opened) {
            extents.push(new);
        }
        if extents.len() > MAX_EXTENTS {
            extents.remove(1);
        }
        if let Some(extent) = extents.last_mut() {
            extent.learn(head, last);
        }
    }

    /// The farthest head of a topic so far. To be asked before the database is: what is stored
    /// while it answers is no loss.
    pub(crate) fn known_head(&self, topic: TopicId) -> Offset {
        lock(&self.known).logs.get(&topic).map_or(Offset(0), KnownLog::head)
    }

    /// What is known of the topic that had this name when it was last heard of.
    pub(crate) fn known_log_of(&self, name: &TopicName) -> Option<(TopicId, KnownLog)> {
        let known = lock(&self.known);
        let topic = *known.ids.get(name)?;
        Some((topic, known.logs.get(&topic)?.clone()))
    }

    /// What is known of topics.
    pub(crate) fn known_logs(&self, topics: &[TopicId]) -> HashMap<TopicId, KnownLog> {
        let known = lock(&self.known);
        topics.iter().filter_map(|topic| Some((*topic, known.logs.get(topic)?.clone()))).collect()
    }

    /// All topics of which something is known.
    pub(crate) fn topics(&self) -> Vec<TopicId> {
        lock(&self.known).logs.keys().copied().collect()
    }

    /// A topic is gone, and its heads with it.
    pub(crate) fn forget(&self, topic: TopicId) {
        let mut known = lock(&self.known);
        known.logs.remove(&topic);
        known.ids.retain(|_, id| *id != topic);
        drop(known);
        lock(&self.lost).remove(&topic);
    }

    /// Messages from and to before an offset are gone, and whoever reads on is to be told; false if
    /// that was found since the log was `known` so. It ends at `head` now.
    pub(crate) fn find(
        &self,
        topic: TopicId,
        (first, end): (Offset, Offset),
        head: Offset,
        known: &KnownLog,
    ) -> bool {
        let mut all = lock(&self.known);
        let Some(log) = all.logs.get_mut(&topic).filter(|log| log.found == known.found) else {
            return false;
        };
        let now = Extent { opened: self.opened(), head, last_batch: None };
        let found = self.found.fetch_add(1, Ordering::AcqRel) + 1;
        *log = KnownLog { found, ..KnownLog::of(now) };
        drop(all);
        let mut lost = lock(&self.lost);
        // Whoever was not told of an earlier loss is told of both.
        let earlier = lost.get(&topic).filter(|lost| lost.is_to_be_told());
        let (first, end) =
            earlier.map_or((first, end), |lost| (lost.first.min(first), lost.end.max(end)));
        let audience = Audience::AllBut(HashSet::new());
        lost.insert(topic, Lost { first, end, since: Instant::now(), audience });
        true
    }

    /// Of a loss only these are to be told, who were registered when it was found.
    pub(crate) fn tell_only(&self, topic: TopicId, consumers: Vec<i32>) {
        if let Some(lost) = lock(&self.lost).get_mut(&topic)
            && let Audience::AllBut(told) = &lost.audience
        {
            let untold = consumers.into_iter().filter(|consumer| !told.contains(consumer));
            lost.audience = Audience::These(untold.collect());
        }
    }

    /// The messages that a consumer is to be told of, once: from and to before an offset.
    pub(crate) fn take(&self, topic: TopicId, consumer: i32) -> Option<(Offset, Offset)> {
        let mut all = lock(&self.lost);
        let lost = all.get_mut(&topic)?;
        if !lost.is_to_be_told() {
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

impl Extent {
    fn learn(&mut self, head: Offset, last: Option<&Batch>) {
        self.head = head.max(self.head);
        let known = self.last_batch.map(|last_batch| last_batch.base);
        if let Some(last) = last.filter(|last| known.is_none_or(|known| known < last.base)) {
            let (base, published_at) = (last.base, last.published_at);
            self.last_batch = Some(LastBatch { base, published_at });
        }
    }
}

impl KnownLog {
    fn of(extent: Extent) -> Self {
        Self { extents: vec![extent], found: 0 }
    }

    /// The farthest head.
    pub(crate) fn head(&self) -> Offset {
        self.extents.iter().map(|extent| extent.head).max().unwrap_or_default()
    }

    /// How far it came, by what each server may have told.
    pub(crate) fn extents(&self) -> &[Extent] {
        &self.extents
    }

    /// Makes one of the extents that were told by the time that so many sessions had been opened.
    fn settle(&mut self, opened: u64) {
        let settled = self.extents.partition_point(|extent| extent.opened <= opened);
        let one = self.extents.drain(..settled).reduce(|earlier, later| Extent {
            opened: later.opened,
            head: earlier.head.max(later.head),
            last_batch: later.last_batch.or(earlier.last_batch),
        });
        self.extents.splice(..0, one);
    }
}

impl Lost {
    fn is_to_be_told(&self) -> bool {
        let all_are_told = matches!(&self.audience, Audience::These(untold) if untold.is_empty());
        !all_are_told && self.since.elapsed() < TOLD_FOR
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOPIC: TopicId = TopicId(1);

    fn known(losses: &Losses) -> KnownLog {
        losses.known_logs(&[TOPIC])[&TOPIC].clone()
    }

    fn lose(losses: &Losses, first: i64, end: i64) {
        let known = known(losses);
        assert!(losses.find(TOPIC, (Offset(first), Offset(end)), Offset(first), &known));
        assert!(!losses.find(TOPIC, (Offset(1), Offset(end)), Offset(1), &known), "found already");
    }

    #[test]
    fn each_consumer_is_told_once_of_what_was_lost() {
        let losses = Losses::default();
        losses.saw(TOPIC, Offset(100), losses.asked());
        losses.saw(TOPIC, Offset(90), losses.asked());
        assert_eq!(losses.known_head(TOPIC), Offset(100));
        lose(&losses, 90, 100);
        assert_eq!(losses.known_head(TOPIC), Offset(90));
        let told = Some((Offset(90), Offset(100)));
        // Nobody has looked yet who was registered.
        assert_eq!([4, 4].map(|it| losses.take(TOPIC, it)), [told, None]);
        losses.tell_only(TOPIC, vec![1, 2, 4]);
        assert_eq!(
            [3, 1, 1, 4, 2].map(|it| losses.take(TOPIC, it)),
            [None, told, None, None, told]
        );
        losses.saw(TOPIC, Offset(120), losses.asked());
        lose(&losses, 110, 120);
        let told = Some((Offset(110), Offset(120)));
        assert_eq!([3, 3].map(|it| losses.take(TOPIC, it)), [told, None], "all know of the first");
        lose(&losses, 105, 110);
        // Others have not been told of that one.
        let told = Some((Offset(105), Offset(120)));
        assert_eq!(losses.take(TOPIC, 3), told);
        lose(&losses, 107, 109);
        assert_eq!(losses.take(TOPIC, 1), told, "of all three");
    }

    #[test]
    fn what_was_asked_for_before_a_loss_was_found_is_not_taken_in() {
        let losses = Losses::default();
        losses.saw(TOPIC, Offset(100), losses.asked());
        let asked = losses.asked();
        lose(&losses, 90, 100);
        assert!(!losses.saw(TOPIC, Offset(100), asked));
        assert_eq!(losses.known_head(TOPIC), Offset(90));
        assert!(losses.saw(TopicId(2), Offset(100), asked), "nothing of that topic was lost");
        assert!(losses.saw(TOPIC, Offset(91), losses.asked()));
        assert_eq!(losses.known_head(TOPIC), Offset(91));
    }

    #[test]
    fn a_landmark_is_the_last_batch() {
        let losses = Losses::default();
        let batch = |base| Batch {
            base: Offset(base),
            published_at: std::time::SystemTime::UNIX_EPOCH,
            payloads: vec!["a".into(), "b".into()],
            keys: None,
            headers: None,
            producers: Vec::new(),
            encoded: Default::default(),
        };
        for base in [7, 9, 5] {
            losses.stored(TOPIC, &batch(base));
        }
        assert_eq!(losses.known_head(TOPIC), Offset(11));
        assert_eq!(known(&losses).extents()[0].last_batch.unwrap().base, Offset(9));
        lose(&losses, 9, 11);
        assert_eq!(known(&losses).extents()[0].last_batch, None);
        losses.stored(TOPIC, &batch(9));
        assert_eq!(known(&losses).extents()[0].last_batch.unwrap().base, Offset(9));
    }

    #[test]
    fn what_was_known_before_a_session_was_opened_is_kept_until_somebody_has_looked() {
        let (losses, opened) = (Losses::default(), Arc::<AtomicU64>::default());
        losses.count_sessions(opened.clone());
        let heads = || known(&losses).extents().iter().map(|it| it.head.0).collect::<Vec<_>>();
        losses.saw(TOPIC, Offset(10), losses.asked());
        opened.fetch_add(1, Ordering::Relaxed);
        losses.saw(TOPIC, Offset(20), losses.asked());
        losses.saw(TOPIC, Offset(15), losses.asked());
        let looked_at = losses.unsure().unwrap();
        opened.fetch_add(1, Ordering::Relaxed);
        losses.saw(TOPIC, Offset(12), losses.asked());
        assert_eq!((heads(), losses.known_head(TOPIC)), (vec![10, 20, 12], Offset(20)));
        losses.looked(looked_at);
        assert_eq!(heads(), [20, 12], "another one was opened meanwhile");
        losses.looked(losses.unsure().unwrap());
        assert_eq!((losses.unsure(), heads()), (None, vec![20]));
        for head in 21..40 {
            opened.fetch_add(1, Ordering::Relaxed);
            losses.saw(TOPIC, Offset(head), losses.asked());
        }
        assert_eq!(heads(), [20, 33, 34, 35, 36, 37, 38, 39], "the oldest and the last ones");
    }

    #[test]
    fn a_topic_that_is_gone_is_forgotten() {
        let (losses, name) = (Losses::default(), TopicName::stored("orders"));
        losses.learn_name(&name, TOPIC);
        assert_eq!(losses.known_log_of(&name), None);
        losses.saw(TOPIC, Offset(7), losses.asked());
        assert_eq!(losses.known_log_of(&name), Some((TOPIC, known(&losses))));
        losses.forget(TOPIC);
        assert_eq!((losses.known_log_of(&name), losses.known_head(TOPIC)), (None, Offset(0)));
        losses.saw(TOPIC, Offset(7), losses.asked());
        losses.learn_name(&name, TOPIC);
        losses.learn_name(&name, TopicId(2));
        assert_eq!(losses.topics(), [], "another topic has the name");
    }
}
