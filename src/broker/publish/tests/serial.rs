//! Publishes one by one: what each would be answered if nothing were ever written together.

use std::collections::{HashMap, VecDeque};

use crate::{
    broker::{
        error::Error,
        publish::{
            request::Publish,
            tests::{
                Answer,
                requests::{TOPICS, initially_registered, is_cursed, is_refused, topic},
            },
        },
    },
    model::{Epoch, Offset, ProducerId, Sequence, TopicName},
};

/// How many requests of before a producer may rely on to be known.
const KNOWN_REQUESTS: usize = 8;

#[derive(Debug)]
pub(crate) enum Verdict {
    Stored(Offset),
    /// It is there from before, or a part of it; from which sequence on that is still known is
    /// certain of the last requests only.
    Passed {
        first: Option<Offset>,
        /// Where each of its messages that are there is.
        offsets: Vec<Offset>,
        known_from: Sequence,
        next: Sequence,
    },
    Gap {
        next: Sequence,
        /// The producer's requests before it may have been counted in when it was judged, though
        /// the database refused one of them afterwards.
        some_refused: bool,
    },
    Fenced,
    NotRegistered,
    HeadMoved(Offset),
    NoTopic,
    /// The database refuses its value, or fails over it; or it is told that it would not have
    /// fitted.
    Refused {
        cursed: bool,
        otherwise: Box<Verdict>,
    },
}

#[derive(Default)]
pub(crate) struct Serial {
    heads: HashMap<TopicName, Offset>,
    counts: HashMap<(TopicName, ProducerId), Count>,
}

/// All that a producer counted: sequence by sequence the offset, and the last requests.
#[derive(Default)]
struct Count {
    offsets: Vec<Offset>,
    requests: VecDeque<Sequence>,
    some_refused: bool,
}

impl Serial {
    pub(crate) fn judge(&mut self, publish: &Publish) -> Verdict {
        let messages = publish.messages.as_slice();
        if messages.iter().any(is_refused) {
            let cursed = messages.iter().any(is_cursed);
            return Verdict::Refused { cursed, otherwise: Box::new(self.place(publish, false)) };
        }
        self.place(publish, true)
    }

    fn place(&mut self, publish: &Publish, stored: bool) -> Verdict {
        let Publish { topic: of, producer: by, epoch, sequence, expected_head, messages } = publish;
        if (0..TOPICS).all(|number| topic(number) != *of) {
            return Verdict::NoTopic;
        }
        if initially_registered().all(|id| id != *by) {
            return Verdict::NotRegistered;
        }
        if *epoch != Epoch(0) {
            return Verdict::Fenced;
        }
        let head = self.heads.entry(of.clone()).or_default();
        let count = self.counts.entry((of.clone(), by.clone())).or_default();
        let next = Sequence(count.offsets.len() as i64);
        match *sequence {
            Some(sequence) if sequence > next => {
                return Verdict::Gap { next, some_refused: count.some_refused };
            }
            Some(sequence) if sequence < next => {
                let first = count.find(sequence, messages.count());
                let offsets = count.offsets[sequence.0 as usize..].iter().copied();
                let offsets = offsets.take(messages.count()).collect();
                let known_from = count.requests.front().map_or(next, |&first| first);
                return Verdict::Passed { first, offsets, known_from, next };
            }
            _ => {}
        }
        if expected_head.is_some_and(|expected| expected != *head) {
            return Verdict::HeadMoved(*head);
        }
        let first = *head;
        if !stored {
            count.some_refused |= sequence.is_some();
            return Verdict::Stored(first);
        }
        *head = first.after(messages.count());
        if let Some(sequence) = *sequence {
            count.offsets.extend((0..messages.count()).map(|index| first.after(index)));
            count.requests.push_back(sequence);
            if count.requests.len() > KNOWN_REQUESTS {
                count.requests.pop_front();
            }
        }
        Verdict::Stored(first)
    }
}

impl Count {
    /// Where messages are, if all of them are, one behind the other.
    fn find(&self, first: Sequence, count: usize) -> Option<Offset> {
        let from = first.0 as usize;
        let offsets = self.offsets.get(from..from + count)?;
        offsets.is_sorted_by(|a, b| a.after(1) == *b).then(|| offsets[0])
    }
}

impl Verdict {
    pub(crate) fn allows(&self, answer: &Answer) -> bool {
        match (self, answer) {
            (Self::Refused { cursed: true, .. }, Err(Error::Internal(_))) => true,
            (Self::Refused { cursed: false, .. }, Err(Error::Invalid(invalid))) => {
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
                let told = stored.iter().flat_map(|run| {
                    (0..run.count).map(|index| (run.sequence.after(index), run.offset.after(index)))
                });
                let there =
                    offsets.iter().enumerate().map(|(index, at)| (sequence.after(index), *at));
                (first.is_none() || sequence < known_from)
                    && expected == next
                    && from <= end.min(*sequence.max(known_from))
                    && told.eq(there.skip_while(|(sequence, _)| *sequence < from))
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
