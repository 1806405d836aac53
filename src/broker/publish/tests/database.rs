//! A model of the database as a writer sees it: heads, batches and registrations, which behave as
//! under the statements `append_batch` and `find_registrations`.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::SystemTime,
};

use bytes::Bytes;
use proptest::prelude::*;

use crate::{
    broker::publish::tests::values::{
        CURSE, TOPICS, initially_registered, producer, refuses_value, topic,
    },
    model::{
        Batch, Draft, Epoch, Message, MessageRef, NewMessages, Offset, ProducerId, Registration,
        Sequence, SequenceRun, TopicName,
    },
    storage::{self, Registrations},
};

/// What goes wrong before a statement, or what another broker does.
#[derive(Clone, Debug)]
pub(crate) enum Mishap {
    Nothing,
    /// Another broker stores a message.
    OtherPublishes {
        topic: u8,
    },
    Fence {
        topic: u8,
        producer: u8,
    },
    Unregister {
        topic: u8,
        producer: u8,
    },
    Register {
        topic: u8,
        producer: u8,
    },
    /// Nothing is stored, as something changed during the statement; a retry may succeed.
    Changed,
    /// Nothing is stored, as another session holds a lock.
    Locked,
    /// Nothing is stored, as the server met a transient fault of its own.
    Fault,
    /// The connection is lost, before or after the commit.
    Lost {
        stored: bool,
    },
}

pub(crate) fn mishap() -> impl Strategy<Value = Mishap> {
    let (topic, producer) = (0..TOPICS, 0..4u8);
    prop_oneof![
        6 => Just(Mishap::Nothing),
        3 => topic.clone().prop_map(|topic| Mishap::OtherPublishes { topic }),
        1 => (topic.clone(), producer.clone())
            .prop_map(|(topic, producer)| Mishap::Fence { topic, producer }),
        1 => (topic.clone(), producer.clone())
            .prop_map(|(topic, producer)| Mishap::Unregister { topic, producer }),
        2 => (topic, producer).prop_map(|(topic, producer)| Mishap::Register { topic, producer }),
        2 => Just(Mishap::Changed),
        1 => Just(Mishap::Locked),
        1 => Just(Mishap::Fault),
        1 => any::<bool>().prop_map(|stored| Mishap::Lost { stored }),
    ]
}

/// How many runs of sequenced messages a registration keeps.
const RECENT_RUNS: usize = 8;

#[derive(Default)]
struct ModelTopic {
    head: Offset,
    batches: Vec<Batch>,
    registrations: HashMap<ProducerId, Registration>,
    /// The offsets of messages that other brokers stored.
    by_others: HashSet<Offset>,
    /// Producers that were unregistered.
    unregistered: HashSet<ProducerId>,
}

impl ModelTopic {
    /// Another broker stores a message.
    fn store_by_other(&mut self) {
        let mut draft = Draft::default();
        let message = Message { key: Some(Bytes::new()), ..Message::default() };
        let messages = NewMessages::parse(vec![message]).unwrap();
        draft.add(&producer(9), Epoch(0), None, &messages);
        self.by_others.insert(self.head);
        self.batches.push(draft.stored(self.head, SystemTime::UNIX_EPOCH));
        self.head = self.head.after(1);
    }
}

/// A message in a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogEntry {
    pub offset: Offset,
    pub producer: ProducerId,
    /// Its key, which is unique.
    pub id: Bytes,
}

pub(crate) struct Database(BTreeMap<TopicName, ModelTopic>);

pub(crate) fn new_registration(producer: ProducerId) -> Registration {
    let (epoch, next_sequence) = Default::default();
    Registration { producer, epoch, next_sequence, recent: Vec::new() }
}

impl Database {
    pub(crate) fn new() -> Self {
        let topics = (0..TOPICS).map(|number| {
            let registrations = initially_registered().map(|id| (id.clone(), new_registration(id)));
            (
                topic(number),
                ModelTopic { registrations: registrations.collect(), ..ModelTopic::default() },
            )
        });
        Self(topics.collect())
    }

    /// Fails if one of a draft's values cannot be stored.
    pub(crate) fn check(draft: &Draft) -> Result<(), storage::Error> {
        let headers = draft.headers.iter().flatten();
        for value in headers.flat_map(|headers| headers.entries().values()) {
            if value == CURSE {
                return Err(storage::Error::Failed("a trigger".to_owned()));
            }
            if refuses_value(value) {
                return Err(storage::Error::Refused("a value".to_owned()));
            }
        }
        Ok(())
    }

    /// Stores a draft if all of it fits, or nothing.
    pub(crate) fn append(&mut self, topic: &TopicName, draft: &Draft) -> Option<Offset> {
        let topic = self.0.get_mut(topic)?;
        let all_fit = draft.stamps.iter().all(|stamp| {
            let registration = topic.registrations.get(&stamp.producer);
            registration.is_some_and(|registration| {
                let first = stamp.sequences.as_ref().map(|sequences| sequences.first);
                registration.epoch == stamp.epoch
                    && first.is_none_or(|first| first == registration.next_sequence)
            })
        });
        let base = topic.head;
        if !all_fit || draft.expected_base.is_some_and(|expected| expected != base) {
            return None;
        }
        for stamp in &draft.stamps {
            let Some(sequences) = &stamp.sequences else { continue };
            let registration = topic.registrations.get_mut(&stamp.producer)?;
            registration.next_sequence = sequences.next;
            let runs = sequences
                .runs
                .iter()
                .rev()
                .map(|&(sequence, index)| SequenceRun { sequence, offset: base.after(index) });
            let recent = runs.chain(registration.recent.iter().copied());
            registration.recent = recent.take(RECENT_RUNS).collect();
        }
        let batch = draft.clone().stored(base, SystemTime::UNIX_EPOCH);
        topic.head = batch.end();
        topic.batches.push(batch);
        Some(base)
    }

    pub(crate) fn find_registrations(
        &self,
        topic: &TopicName,
        producers: &[ProducerId],
    ) -> Option<Registrations> {
        let topic = self.0.get(topic)?;
        let found = producers.iter().filter_map(|producer| topic.registrations.get(producer));
        Some(Registrations { head: topic.head, found: found.cloned().collect() })
    }

    /// Does what another broker does, if that is the mishap.
    pub(crate) fn apply(&mut self, mishap: &Mishap) {
        match *mishap {
            Mishap::OtherPublishes { topic } => self.topic(topic).store_by_other(),
            Mishap::Fence { topic, producer: number } => {
                let registrations = &mut self.topic(topic).registrations;
                if let Some(registration) = registrations.get_mut(&producer(number)) {
                    registration.epoch.0 += 1;
                }
            }
            Mishap::Unregister { topic, producer: number } => {
                let topic = self.topic(topic);
                if let Some(removed) = topic.registrations.remove(&producer(number)) {
                    topic.unregistered.insert(removed.producer);
                }
            }
            Mishap::Register { topic, producer: number } => {
                let (topic, producer) = (self.topic(topic), producer(number));
                // A second registration would forget the sequences of the first one.
                if !topic.unregistered.contains(&producer) {
                    let registration = topic.registrations.entry(producer.clone());
                    registration.or_insert_with(|| new_registration(producer));
                }
            }
            Mishap::Nothing
            | Mishap::Changed
            | Mishap::Locked
            | Mishap::Fault
            | Mishap::Lost { .. } => {}
        }
    }

    fn topic(&mut self, number: u8) -> &mut ModelTopic {
        self.0.get_mut(&topic(number)).unwrap()
    }

    pub(crate) fn head(&self, topic: &TopicName) -> Offset {
        self.0.get(topic).map(|topic| topic.head).unwrap_or_default()
    }

    /// All messages of a topic.
    pub(crate) fn log(&self, topic: &TopicName) -> Vec<LogEntry> {
        let batches = self.0.get(topic).map_or(&[][..], |topic| &topic.batches);
        let messages = batches.iter().flat_map(|batch| batch.messages_from(batch.base));
        let entry = |message: MessageRef<'_>| {
            let (producer, id) = (message.producer.clone(), message.key.unwrap().clone());
            LogEntry { offset: message.offset, producer, id }
        };
        messages.map(entry).collect()
    }

    pub(crate) fn stored_by_others(&self, topic: &TopicName) -> HashSet<Offset> {
        self.0.get(topic).map(|topic| topic.by_others.clone()).unwrap_or_default()
    }

    /// The sequence of a producer's next message.
    pub(crate) fn next_sequence(&self, topic: &TopicName, producer: &ProducerId) -> Sequence {
        let topic = self.0.get(topic);
        let registration = topic.and_then(|topic| topic.registrations.get(producer));
        registration.map(|registration| registration.next_sequence).unwrap_or_default()
    }
}
