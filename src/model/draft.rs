//! Messages that are about to be stored in a topic.

use std::{collections::HashMap, sync::OnceLock, time::SystemTime};

use bytes::Bytes;

use super::{
    labels::Labels,
    message::{Batch, NewMessages, ProducerRun},
    name::ProducerId,
    position::{Epoch, Offset, Sequence},
};

/// Messages of one topic that are to be stored together as one batch, before they have offsets.
#[derive(Clone, Debug, Default)]
pub struct Draft {
    /// The payload of each message.
    pub payloads: Vec<Bytes>,
    /// The key of each message, if it has one; `None` if no message has a key.
    pub keys: Option<Vec<Option<Bytes>>>,
    /// The headers of each message; `None` if no message has any.
    pub headers: Option<Vec<Labels>>,
    /// The producers of the messages: the runs follow each other and cover the draft.
    pub producers: Vec<ProducerRun>,
    /// What the draft requires of each producer's registration, one entry a producer.
    pub stamps: Vec<Stamp>,
    /// The offset that the first message must get, if it matters.
    pub expected_base: Option<Offset>,
    /// Bytes of all payloads, keys and headers.
    pub bytes: usize,
    /// The index of each producer's stamp.
    stamp_of: HashMap<ProducerId, usize>,
}

/// What a draft requires of a producer's registration, and writes to it.
#[derive(Clone, Debug)]
pub struct Stamp {
    /// The producer.
    pub producer: ProducerId,
    /// The epoch that the registration must have.
    pub epoch: Epoch,
    /// The index of the producer's last message in the draft.
    pub last_index: usize,
    /// The producer's messages that have sequences, if any have.
    pub sequences: Option<Sequences>,
}

/// A producer's messages with sequences in a draft. The sequences follow each other.
#[derive(Clone, Debug)]
pub struct Sequences {
    /// The first sequence, which must be the registration's next.
    pub first: Sequence,
    /// The sequence that follows the last one.
    pub next: Sequence,
    /// The runs: messages with no others between them. Each is the sequence of its first message and
    /// that message's index in the draft.
    pub runs: Vec<(Sequence, usize)>,
}

impl Draft {
    /// Adds the messages of one request. All requests of a producer must have the same epoch and
    /// sequences that follow each other.
    pub fn add(
        &mut self,
        producer: &ProducerId,
        epoch: Epoch,
        sequence: Option<Sequence>,
        messages: &NewMessages,
    ) {
        let start = self.payloads.len();
        for (index, message) in messages.as_slice().iter().enumerate() {
            self.payloads.push(message.payload.clone());
            add_sparse(&mut self.keys, start + index, &message.key, Option::is_none);
            add_sparse(&mut self.headers, start + index, &message.headers, Labels::is_empty);
        }
        let count = messages.count();
        match self.producers.last_mut() {
            Some(run) if run.producer == *producer => run.count += count,
            _ => self.producers.push(ProducerRun { producer: producer.clone(), count }),
        }
        let stamp = self.stamp(producer, epoch);
        stamp.last_index = start + count - 1;
        if let Some(sequence) = sequence {
            stamp.count_in(sequence, start, count);
        }
        self.bytes += messages.bytes();
    }

    fn stamp(&mut self, producer: &ProducerId, epoch: Epoch) -> &mut Stamp {
        // Usually the producer is the same as before, which saves the lookup.
        let newest = self.stamps.len().checked_sub(1);
        let same = newest.filter(|&newest| self.stamps[newest].producer == *producer);
        let index = match same.or_else(|| self.stamp_of.get(producer).copied()) {
            Some(index) => index,
            None => {
                let (producer, index) = (producer.clone(), self.stamps.len());
                self.stamp_of.insert(producer.clone(), index);
                self.stamps.push(Stamp { producer, epoch, last_index: 0, sequences: None });
                index
            }
        };
        &mut self.stamps[index]
    }

    /// The batch that the draft becomes once it is stored.
    pub fn stored(self, base: Offset, published_at: SystemTime) -> Batch {
        let Self { payloads, keys, headers, producers, .. } = self;
        Batch { base, published_at, payloads, keys, headers, producers, encoded: OnceLock::new() }
    }
}

impl Stamp {
    fn count_in(&mut self, sequence: Sequence, start: usize, count: usize) {
        let next = sequence.after(count);
        let Some(sequences) = &mut self.sequences else {
            let runs = vec![(sequence, start)];
            self.sequences = Some(Sequences { first: sequence, next, runs });
            return;
        };
        sequences.next = next;
        let continues = sequences
            .runs
            .last()
            .is_some_and(|&(of_run, start_of_run)| of_run.after(start - start_of_run) == sequence);
        if !continues {
            sequences.runs.push((sequence, start));
        }
    }
}

/// Adds a value to a column that stays `None` as long as all its values are empty.
fn add_sparse<T: Clone + Default>(
    column: &mut Option<Vec<T>>,
    before: usize,
    value: &T,
    is_empty: impl Fn(&T) -> bool,
) {
    match column {
        Some(values) => values.push(value.clone()),
        None if is_empty(value) => {}
        None => {
            let mut values = vec![T::default(); before];
            values.push(value.clone());
            *column = Some(values);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::message::Message;

    fn messages<const N: usize>(payloads: [usize; N]) -> NewMessages {
        NewMessages::parse(payloads.map(message).into()).unwrap()
    }

    fn message(payload: usize) -> Message {
        Message { payload: vec![b'x'; payload].into(), ..Message::default() }
    }

    #[test]
    fn a_draft_has_keys_and_headers_only_if_a_message_has() {
        let producer = ProducerId::stored("p");
        let mut draft = Draft::default();
        draft.add(&producer, Epoch(0), None, &messages([1, 2]));
        assert!(draft.keys.is_none() && draft.headers.is_none());
        let keyed = Message { key: Some(Bytes::new()), ..message(3) };
        let keyed = NewMessages::parse(vec![keyed, message(4)]).unwrap();
        draft.add(&producer, Epoch(0), None, &keyed);
        assert_eq!(draft.keys, Some(vec![None, None, Some(Bytes::new()), None]));
        assert!(draft.headers.is_none());
        assert_eq!(draft.producers, [ProducerRun { producer, count: 4 }]);
        assert_eq!(draft.bytes, 10);
    }

    #[test]
    fn messages_with_sequences_form_a_run_until_others_come_between() {
        let (a, b) = (ProducerId::stored("a"), ProducerId::stored("b"));
        let mut draft = Draft::default();
        let two = messages([1, 1]);
        draft.add(&a, Epoch(0), Some(Sequence(10)), &two);
        draft.add(&a, Epoch(0), Some(Sequence(12)), &two);
        draft.add(&b, Epoch(3), None, &two);
        draft.add(&a, Epoch(0), Some(Sequence(14)), &two);
        draft.add(&a, Epoch(0), None, &two);
        draft.add(&a, Epoch(0), Some(Sequence(16)), &two);

        let [of_a, of_b] = &draft.stamps[..] else { panic!("two producers: {draft:?}") };
        assert_eq!((of_a.last_index, of_b.last_index), (11, 5));
        assert!(of_b.sequences.is_none());
        let sequences = of_a.sequences.as_ref().unwrap();
        assert_eq!((sequences.first, sequences.next), (Sequence(10), Sequence(18)));
        assert_eq!(sequences.runs, [(Sequence(10), 0), (Sequence(14), 6), (Sequence(16), 10)]);
    }
}
