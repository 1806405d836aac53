//! Messages on their way into a topic.

use std::{collections::HashMap, sync::OnceLock, time::SystemTime};

use bytes::Bytes;

use super::{Batch, Epoch, Labels, NewMessages, Offset, ProducerId, ProducerRun, Sequence};

/// Messages of one topic that are to be committed together, before they have offsets.
#[derive(Clone, Debug, Default)]
pub struct Draft {
    /// A payload for each message.
    pub payloads: Vec<Bytes>,
    /// A key, or none, for each message; `None` where no message has one.
    pub keys: Option<Vec<Option<Bytes>>>,
    /// Headers for each message; `None` where no message has any.
    pub headers: Option<Vec<Labels>>,
    /// Who publishes what: the runs follow each other and cover the draft.
    pub producers: Vec<ProducerRun>,
    /// What the draft asks of each producer's registration, each once.
    pub stamps: Vec<Stamp>,
    /// The offset that the first message must get; any if it is `None`.
    pub expected_base: Option<Offset>,
    /// Bytes of all payloads, keys and headers.
    pub bytes: usize,
    /// Which stamp is whose.
    stamp_of: HashMap<ProducerId, usize>,
}

/// What a draft asks of a producer's registration, and leaves there.
#[derive(Clone, Debug)]
pub struct Stamp {
    /// The producer.
    pub producer: ProducerId,
    /// The epoch that its registration must have.
    pub epoch: Epoch,
    /// Where in the draft its last message is.
    pub last_index: usize,
    /// Its messages that are counted, if any are.
    pub sequences: Option<Sequences>,
}

/// A producer's counted messages in a draft: their sequences follow each other.
#[derive(Clone, Debug)]
pub struct Sequences {
    /// The sequence of the first one: what the registration must be up to.
    pub first: Sequence,
    /// The sequence that follows the last one.
    pub next: Sequence,
    /// Sequence and place of the first message of each run of messages that no others come
    /// between.
    pub runs: Vec<(Sequence, usize)>,
}

impl Draft {
    /// Adds the messages of one request. Those of one producer must have one epoch, and sequences
    /// that follow each other.
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
        // Most often it is the same as before: then nothing is looked up.
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

    /// The batch that the draft became when it was stored.
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
        let goes_on = sequences
            .runs
            .last()
            .is_some_and(|&(of_run, start_of_run)| of_run.after(start - start_of_run) == sequence);
        if !goes_on {
            sequences.runs.push((sequence, start));
        }
    }
}

/// Adds a value to a column that stays away as long as all its values are empty.
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
    use crate::model::Message;

    fn messages<const N: usize>(payloads: [usize; N]) -> NewMessages {
        NewMessages::parse(payloads.map(message).into()).unwrap()
    }

    fn message(payload: usize) -> Message {
        Message { payload: vec![b'x'; payload].into(), ..Message::default() }
    }

    #[test]
    fn a_draft_has_keys_and_headers_only_when_a_message_has() {
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
    fn counted_messages_make_a_run_as_long_as_nothing_comes_between() {
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
