//! The real cursor, over a model of the log.

use std::sync::Arc;

use parking_lot::Mutex;
use proptest::{collection::vec, prelude::*};
use tokio::runtime::{self, Runtime};

use crate::{
    broker::{
        log::{
            cursor::{Cursor, LogSource},
            messages::{FrameLimits, Messages, encoded_bytes, fit},
            topics::{LogReader, TopicLogs},
        },
        testing::{
            check,
            log::{StoredLog, batch},
        },
    },
    model::{Batch, LogEnds, Offset, OffsetRange, TopicId},
    storage::{self, LogSlice},
};

const TOPIC: TopicId = TopicId(1);

#[derive(Clone, Debug)]
enum Act {
    /// This broker stores a batch, whose messages have these sizes.
    Store(Vec<usize>),
    /// Another broker stores a batch.
    StoreElsewhere(Vec<usize>),
    /// Retention removes messages, and this broker observes that or not.
    Remove {
        count: usize,
        observed: bool,
    },
    /// The stream makes its next frame.
    Frame(FrameLimits),
    ClearCache,
}

fn sizes() -> impl Strategy<Value = Vec<usize>> {
    let largest = 1024 * 1024usize;
    let size = prop_oneof![20 => 1..200usize, 4 => 1..=64 * 1024usize, 1 => 1..=largest];
    vec(size, 1..8)
}

fn limits() -> impl Strategy<Value = FrameLimits> {
    let messages = prop_oneof![0..10usize, Just(10_000)];
    let bytes = prop_oneof![1..2_000usize, 1..=1024 * 1024usize, Just(1024 * 1024)];
    let end = prop_oneof![0..50i64, Just(i64::MAX)].prop_map(Offset);
    (messages, bytes, end).prop_map(|(messages, bytes, end)| FrameLimits { messages, bytes, end })
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => sizes().prop_map(Act::Store),
        3 => sizes().prop_map(Act::StoreElsewhere),
        2 => (1..20usize, any::<bool>()).prop_map(|(count, observed)| Act::Remove { count, observed }),
        12 => limits().prop_map(Act::Frame),
        1 => Just(Act::ClearCache),
    ]
}

/// The model that the cursor reads from.
#[derive(Default)]
struct ModelSource(Mutex<StoredLog>);

impl LogSource for ModelSource {
    async fn read_batches(
        &self,
        _: TopicId,
        from: Offset,
        max_bytes: usize,
    ) -> Result<Option<LogSlice>, storage::Error> {
        Ok(Some(self.0.lock().read(from, max_bytes)))
    }
}

/// A stream, which has handed out what precedes its cursor's position.
struct ModelStream<'a> {
    runtime: &'a Runtime,
    source: Arc<ModelSource>,
    log: LogReader,
    cursor: Cursor,
}

impl ModelStream<'_> {
    /// Fills the cursor and hands out one frame; false if there is none. A gap comes before the
    /// messages that follow it.
    fn hand_out(&mut self, limits: FrameLimits) -> bool {
        let before = self.cursor.position();
        let filled = self.runtime.block_on(self.cursor.fill(&self.source, &self.log));
        assert!(filled.unwrap(), "the topic exists");
        let from = self.cursor.position();
        let gap = (from > before).then_some(OffsetRange { start: before, end: from });
        assert_eq!(self.cursor.take_gap(), gap, "exactly what was skipped");
        assert_eq!(self.cursor.take_gap(), None, "reported once");
        let stored = self.source.0.lock();
        assert!(gap.is_none() || from <= stored.start);
        assert!(from >= self.log.start(), "nothing known to be removed is handed out");
        let Some(frame) = self.cursor.next_messages(limits) else {
            assert_eq!(self.cursor.position(), from);
            let none_allowed = limits.messages == 0 || limits.end <= from;
            assert!(none_allowed || from == stored.head(), "there is more");
            return false;
        };
        assert_eq!(frame.range, OffsetRange { start: from, end: self.cursor.position() });
        check_frame(&frame, limits, stored.batches());
        true
    }
}

/// Checks that a frame holds what is stored at its offsets, and keeps to its limits.
fn check_frame(frame: &Messages, limits: FrameLimits, stored: &[Arc<Batch>]) {
    assert!(frame.count() > 0 && frame.count() <= limits.messages && frame.range.end <= limits.end);
    let bytes: usize = frame.iter().map(|message| encoded_bytes(&message)).sum();
    assert!(bytes <= limits.bytes || frame.count() == 1, "{bytes} of {} bytes", limits.bytes);
    let expected = stored.iter().flat_map(|batch| batch.messages_from(frame.range.start));
    let expected = expected.take_while(|message| message.offset < frame.range.end);
    let same = frame
        .iter()
        .map(|message| (message.offset, message.payload))
        .eq(expected.map(|message| (message.offset, message.payload)));
    assert!(same, "the log from {}", frame.range);
    let parts = frame.parts().map(|part| part.indexes.len());
    assert_eq!(parts.sum::<usize>(), frame.count());
}

#[test]
fn frames_and_gaps_make_up_the_log_whatever_is_stored_or_removed_meanwhile() {
    let runtime = runtime::Builder::new_current_thread().enable_time().build().unwrap();
    // With a second reader the log is shared: reads are then cached, and nothing is read ahead.
    let cases = (0..5usize, any::<bool>(), vec(act(), 1..60));
    check(192, cases, |(start, is_shared, acts)| {
        let (source, logs) = (Arc::<ModelSource>::default(), Arc::new(TopicLogs::default()));
        source.0.lock().store(&[1; 5]);
        let (position, head) = (Offset(start as i64), source.0.lock().head());
        let join = || logs.begin().join(TOPIC, LogEnds { start: Offset(0), head });
        let _other = is_shared.then(join);
        let cursor = Cursor::new(position, head);
        let mut stream =
            ModelStream { runtime: &runtime, source: source.clone(), log: join(), cursor };
        for act in acts {
            match act {
                Act::Store(sizes) => {
                    let batch = source.0.lock().store(&sizes);
                    logs.batch_stored(TOPIC, (*batch).clone());
                }
                Act::StoreElsewhere(sizes) => drop(source.0.lock().store(&sizes)),
                Act::Remove { count, observed } => {
                    let mut stored = source.0.lock();
                    let start = stored.start.after(count);
                    stored.remove_before(start);
                    if observed {
                        let ends = LogEnds { start: stored.start, head: stored.head() };
                        logs.begin().observe(TOPIC, ends);
                    }
                }
                Act::Frame(limits) => drop(stream.hand_out(limits)),
                Act::ClearCache => logs.clear_cache(),
            }
        }
        // A read-ahead that was begun before the last batches were stored ends before them.
        while stream.hand_out(FrameLimits::MAX) || stream.hand_out(FrameLimits::MAX) {}
        assert_eq!(stream.cursor.position(), source.0.lock().head());
    });
}

#[test]
fn a_frame_holds_as_many_messages_as_fit() {
    check(256, (vec(sizes(), 1..5), 0..10i64, limits()), |(batches, from, limits)| {
        let mut log = Vec::new();
        for sizes in batches {
            let base = log.last().map_or(Offset(0), |batch: &Arc<Batch>| batch.end());
            log.push(Arc::new(batch(base, &sizes)));
        }
        let head = log.last().map_or(Offset(0), |batch| batch.end());
        let from = Offset(from.min(head.0));
        let (to, _) = fit(log.iter(), from, limits);
        assert!(from <= to && to <= head);
        let one_more = log.iter().flat_map(|batch| batch.messages_from(from));
        let one_more = one_more.take_while(|message| message.offset <= to);
        let bytes: usize = one_more.map(|message| encoded_bytes(&message)).sum();
        let count = to.since(from) as usize;
        let full = to == head
            || count == limits.messages
            || to >= limits.end
            || (count > 0 && bytes > limits.bytes);
        assert!(full, "{count} messages of {limits:?}");
    });
}
