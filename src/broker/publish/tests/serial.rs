//! A model that judges publishes one by one: how each would be answered if none were stored
//! together.

use std::collections::{HashMap, VecDeque};

use crate::{
    broker::{
        error::Error,
        publish::{
            request::{Publish, Receipt},
            tests::values::{TOPICS, initially_registered, is_cursed, is_refused, topic},
        },
    },
    model::{Epoch, Offset, ProducerId, Sequence, TopicName},
};

/// The answer to a request.
pub(crate) type Answer = Result<Receipt, Error>;

/// How many earlier requests of a producer are certain to be remembered.
const KNOWN_REQUESTS: usize = 8;

/// How a request must be answered.
#[derive(Debug)]
pub(crate) enum Verdict {
    Stored(Offset),
    /// The request, or a part of it, was stored before.
    Passed {
        /// The offset of the first message, if all are stored one after the other.
        first: Option<Offset>,
        /// The offset of each of its messages that are stored.
        offsets: Vec<Offset>,
        /// The sequence from which on the offsets are certain to be remembered.
        known_from: Sequence,
        next: Sequence,
    },
    Gap {
        next: Sequence,
        /// Earlier requests of the producer were refused. When this request was judged, they may
        /// have counted as stored.
        some_refused: bool,
    },
    Fenced,
    NotRegistered,
    HeadMoved(Offset),
    NoTopic,
    /// The database refuses a value, or fails because of it. The request may also get the answer
    /// that it would get without that value, if that is an error.
    Refused {
        is_cursed: bool,
        otherwise: Box<Verdict>,
    },
}

/// The logs as they are if publishes are stored one by one.
#[derive(Default)]
pub(crate) struct Serial {
    heads: HashMap<TopicName, Offset>,
    histories: HashMap<(TopicName, ProducerId), History>,
}

/// The sequenced messages of a producer.
#[derive(Default)]
struct History {
    /// The offset of each sequence.
    offsets: Vec<Offset>,
    /// The first sequences of the last requests.
    requests: VecDeque<Sequence>,
    some_refused: bool,
}

impl Serial {
    /// Judges a request, and stores it if it can be stored.
    pub(crate) fn judge(&mut self, publish: &Publish) -> Verdict {
        let messages = publish.messages.as_slice();
        if messages.iter().any(is_refused) {
            let is_cursed = messages.iter().any(is_cursed);
            return Verdict::Refused { is_cursed, otherwise: Box::new(self.store(publish, false)) };
        }
        self.store(publish, true)
    }

    /// Judges a request and, if `can_be_stored`, stores it if it fits.
    fn store(&mut self, publish: &Publish, can_be_stored: bool) -> Verdict {
        let Publish { topic: name, producer, epoch, sequence, expected_head, messages } = publish;
        if (0..TOPICS).all(|number| topic(number) != *name) {
            return Verdict::NoTopic;
        }
        if initially_registered().all(|id| id != *producer) {
            return Verdict::NotRegistered;
        }
        if *epoch != Epoch(0) {
            return Verdict::Fenced;
        }
        let head = self.heads.entry(name.clone()).or_default();
        let history = self.histories.entry((name.clone(), producer.clone())).or_default();
        let next = Sequence(history.offsets.len() as i64);
        match *sequence {
            Some(sequence) if sequence > next => {
                return Verdict::Gap { next, some_refused: history.some_refused };
            }
            Some(sequence) if sequence < next => {
                let first = history.find(sequence, messages.count());
                let offsets = history.offsets[sequence.0 as usize..].iter().copied();
                let offsets = offsets.take(messages.count()).collect();
                let known_from = history.requests.front().map_or(next, |&first| first);
                return Verdict::Passed { first, offsets, known_from, next };
            }
            _ => {}
        }
        if expected_head.is_some_and(|expected| expected != *head) {
            return Verdict::HeadMoved(*head);
        }
        let first = *head;
        if !can_be_stored {
            history.some_refused |= sequence.is_some();
            return Verdict::Stored(first);
        }
        *head = first.after(messages.count());
        if let Some(sequence) = *sequence {
            history.offsets.extend((0..messages.count()).map(|index| first.after(index)));
            history.requests.push_back(sequence);
            if history.requests.len() > KNOWN_REQUESTS {
                history.requests.pop_front();
            }
        }
        Verdict::Stored(first)
    }
}

impl History {
    /// The offset of the first of some messages, if all are stored one after the other.
    fn find(&self, first: Sequence, count: usize) -> Option<Offset> {
        let from = first.0 as usize;
        let offsets = self.offsets.get(from..from + count)?;
        offsets.is_sorted_by(|a, b| a.after(1) == *b).then(|| offsets[0])
    }
}

impl Verdict {
    /// Whether an answer is as it must be.
    pub(crate) fn allows(&self, answer: &Answer) -> bool {
        match (self, answer) {
            (Self::Refused { is_cursed: true, .. }, Err(Error::Internal(_))) => true,
            (Self::Refused { is_cursed: false, .. }, Err(Error::Invalid(invalid))) => {
                invalid.field.starts_with("messages")
            }
            (Self::Refused { otherwise, .. }, _) => {
                !matches!(**otherwise, Self::Stored(_)) && otherwise.allows(answer)
            }
            (Self::Stored(first), Ok(receipt)) => receipt.first == *first && !receipt.duplicate,
            (Self::Passed { first, .. }, Ok(receipt)) => {
                Some(receipt.first) == *first && receipt.duplicate
            }
            (
                Self::Passed { first, offsets, known_from, next },
                Err(Error::SequencePassed { sequence, expected, stored, .. }),
            ) => {
                let end = sequence.after(offsets.len());
                let from = stored.first().map_or(end, |run| run.sequence);
                let reported = stored.iter().flat_map(|run| {
                    (0..run.count).map(|index| (run.sequence.after(index), run.offset.after(index)))
                });
                let actual =
                    offsets.iter().enumerate().map(|(index, at)| (sequence.after(index), *at));
                (first.is_none() || sequence < known_from)
                    && expected == next
                    && from <= end.min(*sequence.max(known_from))
                    && reported.eq(actual.skip_while(|(sequence, _)| *sequence < from))
            }
            (
                Self::Gap { next, some_refused },
                Err(Error::SequenceGap { expected, sequence, .. }),
            ) => expected == next || (*some_refused && next < expected && expected < sequence),
            (Self::HeadMoved(at), Err(Error::HeadMoved { head, .. })) => head == at,
            (Self::Fenced, Err(Error::ProducerFenced { .. }))
            | (Self::NotRegistered, Err(Error::ProducerNotRegistered { .. }))
            | (Self::NoTopic, Err(Error::TopicNotFound { .. })) => true,
            _ => false,
        }
    }
}
