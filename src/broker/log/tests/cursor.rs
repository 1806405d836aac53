//! A cursor that cuts a log into frames.

use std::{cell::RefCell, sync::Arc};

use proptest::{collection::vec, prelude::*};

use crate::{
    broker::{
        log::{
            cursor::{Cursor, FrameLimits, Messages, end_of_fit},
            topics::{LogReader, TopicLogs},
        },
        testing::{
            check,
            log::{Stored, batch},
        },
    },
    model::{Batch, Offset, TopicId},
};

const TOPIC: TopicId = TopicId(1);

#[derive(Clone, Debug)]
enum Act {
    /// This broker stores a batch, whose messages have these sizes.
    Store(Vec<usize>),
    /// Another broker does.
    StoreElsewhere(Vec<usize>),
    /// Retention removes so many messages, and readers here are told of it or not.
    Remove(usize, bool),
    /// The next frame is made, within limits whose end lies so far ahead.
    Frame(FrameLimits),
    ForgetBatches,
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
        2 => (1..20usize, any::<bool>()).prop_map(|(count, told)| Act::Remove(count, told)),
        12 => limits().prop_map(Act::Frame),
        1 => Just(Act::ForgetBatches),
    ]
}

/// A stream at a log: what it handed out ends where its cursor stands.
struct Stream<'a> {
    stored: &'a RefCell<Stored>,
    log: LogReader,
    cursor: Cursor,
}

impl Stream<'_> {
    /// Reads ahead as `fill` does, hands out one frame, and tells whether there was one. A gap is
    /// told before what follows it.
    fn hand_out(&mut self, limits: FrameLimits) -> bool {
        let before = self.cursor.position();
        if !self.cursor.has_at_hand(&self.log) {
            let read = self.stored.borrow().read(before, 2 * 1024 * 1024);
            self.log.saw(&read, self.log.asked());
            self.cursor.take_in(read);
        }
        let from = self.cursor.position();
        let gap = (from > before).then_some((before, from));
        assert_eq!(self.cursor.take_gap(), gap, "told of exactly what was passed over");
        assert_eq!(self.cursor.take_gap(), None, "and once");
        assert!(gap.is_none() || from == self.stored.borrow().first);
        assert!(from >= self.log.floor(), "what is known to be removed is not handed out");
        let frame = self.cursor.next_frame(limits);
        let Some(frame) = frame else {
            assert_eq!(self.cursor.position(), from);
            let none_allowed = limits.messages == 0 || limits.end <= from;
            assert!(none_allowed || from == self.stored.borrow().head(), "there is more");
            return false;
        };
        assert_eq!((frame.from, frame.to), (from, self.cursor.position()));
        check_frame(&frame, limits, self.stored.borrow().batches());
        true
    }
}

/// A frame holds what is stored at its offsets, and no more than it may.
fn check_frame(frame: &Messages, limits: FrameLimits, stored: &[Arc<Batch>]) {
    assert!(frame.count() > 0 && frame.count() <= limits.messages && frame.to <= limits.end);
    let bytes: usize = frame.messages().map(|message| message.wire_bytes()).sum();
    assert!(bytes <= limits.bytes || frame.count() == 1, "{bytes} of {} bytes", limits.bytes);
    let expected = stored.iter().flat_map(|batch| batch.messages_from(frame.from));
    let expected = expected.take_while(|message| message.offset < frame.to);
    let same = frame
        .messages()
        .map(|message| (message.offset, message.payload))
        .eq(expected.map(|message| (message.offset, message.payload)));
    assert!(same, "the log from {} to {}", frame.from, frame.to);
    let parts = frame.parts().map(|(_, from, to)| to - from);
    assert_eq!(parts.sum::<usize>(), frame.count());
}

#[test]
fn frames_and_gaps_are_exactly_the_log_whatever_is_stored_and_removed_meanwhile() {
    check(192, (0..5usize, vec(act(), 1..60)), |(start, acts)| {
        let (stored, logs) = (RefCell::new(Stored::default()), Arc::new(TopicLogs::default()));
        stored.borrow_mut().store(&[1; 5]);
        let (position, head) = (Offset(start as i64), stored.borrow().head());
        let log = logs.subscribe(TOPIC, (Offset(0), head), logs.losses().asked());
        let mut stream = Stream { stored: &stored, log, cursor: Cursor::new(position, head) };
        for act in acts {
            match act {
                Act::Store(sizes) => {
                    let batch = stored.borrow_mut().store(&sizes);
                    logs.batch_stored(TOPIC, (*batch).clone());
                }
                Act::StoreElsewhere(sizes) => drop(stored.borrow_mut().store(&sizes)),
                Act::Remove(count, told) => {
                    let first = stored.borrow().first.after(count);
                    stored.borrow_mut().remove_before(first);
                    if told {
                        let stored = stored.borrow();
                        logs.saw(TOPIC, (stored.first, stored.head()), logs.losses().asked());
                    }
                }
                Act::Frame(limits) => drop(stream.hand_out(limits)),
                Act::ForgetBatches => logs.clear_cache(),
            }
        }
        while stream.hand_out(FrameLimits::MAX) {}
        assert_eq!(stream.cursor.position(), stored.borrow().head());
    });
}

#[test]
fn a_frame_is_no_smaller_than_it_must_be() {
    check(256, (vec(sizes(), 1..5), 0..10i64, limits()), |(batches, from, limits)| {
        let mut log = Vec::new();
        for sizes in batches {
            let base = log.last().map_or(Offset(0), |batch: &Arc<Batch>| batch.end());
            log.push(Arc::new(batch(base, &sizes)));
        }
        let head = log.last().map_or(Offset(0), |batch| batch.end());
        let from = Offset(from.min(head.0));
        let to = end_of_fit(log.iter(), from, limits);
        assert!(from <= to && to <= head);
        let one_more = log.iter().flat_map(|batch| batch.messages_from(from));
        let one_more = one_more.take_while(|message| message.offset <= to);
        let bytes: usize = one_more.map(|message| message.wire_bytes()).sum();
        let count = to.since(from) as usize;
        let full = to == head
            || count == limits.messages
            || to >= limits.end
            || (count > 0 && bytes > limits.bytes);
        assert!(full, "{count} messages of {limits:?}");
    });
}
