//! What a writer stores together: pending publishes, merged by topic.

use std::collections::HashMap;

use crate::{
    broker::{
        error::Error,
        publish::{
            pending::Pending,
            request::{Publish, Receipt},
        },
    },
    model::{Draft, Epoch, Offset, ProducerId, Registration, Sequence, StoredRun, TopicName},
    traces::{FlushSize, FlushSpan, Traces},
};

/// A flush holds at most this many messages. Larger batches were not faster, and a consumer reads
/// whole batches.
const FLUSH_MESSAGES: usize = 8_192;

/// A flush holds at most this many bytes.
const FLUSH_BYTES: usize = 2 * 1024 * 1024;

/// Publishes that may all be stored in one transaction.
#[derive(Default)]
pub(crate) struct Flush {
    topics: Vec<TopicFlush>,
    index_of: HashMap<TopicName, usize>,
    messages: usize,
    bytes: usize,
}

/// The publishes of one topic in a flush, in the order in which they were enqueued.
pub(crate) struct TopicFlush {
    pub topic: TopicName,
    members: Vec<Pending>,
    producers: Vec<FlushedProducer>,
    index_of: HashMap<ProducerId, usize>,
}

/// The two parts of a topic's publishes.
pub(crate) enum Halves {
    Two(TopicFlush, TopicFlush),
    /// A single request cannot be split: it is stored whole or not at all.
    OneRequest(TopicFlush),
}

/// A producer with publishes in a flush, and what its next publish there must continue.
struct FlushedProducer {
    id: ProducerId,
    epoch: Epoch,
    /// The next sequence; `None` if no publish had one yet.
    next_sequence: Option<Sequence>,
}

impl Flush {
    /// Whether a publish can be stored together with those in the flush. A publish with a sequence
    /// that does not follow, with another epoch or with an expected head goes into the next flush,
    /// where the database compares it with what is stored.
    pub(crate) fn admits(&self, publish: &Publish) -> bool {
        if self.topics.is_empty() {
            return true;
        }
        let Some(index) = self.find(&publish.topic) else { return self.has_room(publish) };
        self.has_room(publish)
            && publish.expected_head.is_none()
            && self.topics[index].producer(&publish.producer).is_none_or(|producer| {
                producer.epoch == publish.epoch
                    && (producer.next_sequence.is_none()
                        || publish.sequence.is_none()
                        || producer.next_sequence == publish.sequence)
            })
    }

    /// The index of a topic. Usually it is the newest one, which needs no look-up.
    fn find(&self, topic: &TopicName) -> Option<usize> {
        let newest = self.topics.len().checked_sub(1)?;
        match self.topics[newest].topic == *topic {
            true => Some(newest),
            false => self.index_of.get(topic).copied(),
        }
    }

    fn has_room(&self, publish: &Publish) -> bool {
        self.messages + publish.messages.count() <= FLUSH_MESSAGES
            && self.bytes + publish.messages.bytes() <= FLUSH_BYTES
    }

    /// The span of the flush, if one of its publishes is traced.
    pub(crate) fn begin_span(&self, traces: &Traces) -> Option<FlushSpan> {
        let members = self.topics.iter().flat_map(|topic| &topic.members);
        traces.begin_flush(members.filter_map(Pending::span), || FlushSize {
            topics: self.topics.len(),
            messages: self.messages,
            bytes: self.bytes,
        })
    }

    /// Adds a publish.
    pub(crate) fn add(&mut self, queued: Pending) {
        self.messages += queued.publish.messages.count();
        self.bytes += queued.publish.messages.bytes();
        let topic = &queued.publish.topic;
        let index = match self.find(topic) {
            Some(index) => index,
            None => {
                self.index_of.insert(topic.clone(), self.topics.len());
                self.topics.push(TopicFlush::new(topic.clone()));
                self.topics.len() - 1
            }
        };
        self.topics[index].add(queued);
    }

    /// The topics in the order of their names, in which all brokers lock them.
    pub(crate) fn into_topics(mut self) -> Vec<TopicFlush> {
        self.topics.sort_unstable_by(|a, b| a.topic.cmp(&b.topic));
        self.topics
    }
}

impl TopicFlush {
    fn new(topic: TopicName) -> Self {
        Self { topic, members: Vec::new(), producers: Vec::new(), index_of: HashMap::new() }
    }

    /// The index of a producer, found in the same way as a topic's.
    fn find(&self, producer: &ProducerId) -> Option<usize> {
        let newest = self.producers.len().checked_sub(1)?;
        match self.producers[newest].id == *producer {
            true => Some(newest),
            false => self.index_of.get(producer).copied(),
        }
    }

    fn producer(&self, producer: &ProducerId) -> Option<&FlushedProducer> {
        self.find(producer).map(|index| &self.producers[index])
    }

    fn add(&mut self, queued: Pending) {
        let Publish { producer, epoch, sequence, messages, .. } = &queued.publish;
        let next_sequence = sequence.map(|first| first.after(messages.count()));
        match self.find(producer) {
            Some(index) => {
                let producer = &mut self.producers[index];
                producer.next_sequence = next_sequence.or(producer.next_sequence);
            }
            None => {
                let (id, epoch) = (producer.clone(), *epoch);
                self.index_of.insert(id.clone(), self.producers.len());
                self.producers.push(FlushedProducer { id, epoch, next_sequence });
            }
        }
        self.members.push(queued);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// All messages, as a draft of the batch that they become.
    pub(crate) fn draft(&self) -> Draft {
        let first = self.members.first().map(|member| &member.publish);
        let mut draft = Draft::default();
        draft.expected_base = first.and_then(|publish| publish.expected_head);
        draft.payloads.reserve(self.members.iter().map(|m| m.publish.messages.count()).sum());
        for Pending { publish, .. } in &self.members {
            draft.add(&publish.producer, publish.epoch, publish.sequence, &publish.messages);
        }
        draft
    }

    /// The producers, each once.
    pub(crate) fn producers(&self) -> Vec<ProducerId> {
        self.producers.iter().map(|producer| producer.id.clone()).collect()
    }

    /// Answers every publish with where its messages were stored.
    pub(crate) fn acknowledge(self, base: Offset) {
        let mut first = base;
        for member in self.members {
            let count = member.publish.messages.count();
            member.answer(Ok(Receipt { first, count, duplicate: false }));
            first = first.after(count);
        }
    }

    /// Answers every publish with an error.
    pub(crate) fn refuse(self, error: &Error) {
        for member in self.members {
            member.answer(Err(error.clone()));
        }
    }

    /// The publishes, in order.
    pub(crate) fn publishes(&self) -> impl Iterator<Item = &Publish> + Clone {
        self.members.iter().map(|member| &member.publish)
    }

    /// Splits the publishes into two halves, and a single publish by its requests.
    pub(crate) fn halves(self) -> Halves {
        let Self { topic, mut members, .. } = self;
        if members.len() == 1 {
            members = members.into_iter().flat_map(Pending::split).collect();
        }
        let second = members.split_off(members.len() / 2);
        let flush = |members| Self::of(topic.clone(), members);
        match members.is_empty() {
            true => Halves::OneRequest(flush(second)),
            false => Halves::Two(flush(members), flush(second)),
        }
    }

    /// Refuses the requests for which `refusal` returns an error; the others stay. Returns whether
    /// one with a sequence was refused: requests that follow it leave a gap, and must be judged
    /// again.
    pub(crate) fn refuse_each(&mut self, refusal: impl Fn(&Publish) -> Option<Error>) -> bool {
        if self.publishes().all(|publish| refusal(publish).is_none()) {
            return false;
        }
        let mut leaves_gap = false;
        let mut left = Vec::with_capacity(self.members.len());
        for member in std::mem::take(&mut self.members) {
            if refusal(&member.publish).is_none() {
                left.push(member);
                continue;
            }
            for request in member.split() {
                match refusal(&request.publish) {
                    Some(error) => {
                        leaves_gap |= request.publish.sequence.is_some();
                        request.answer(Err(error));
                    }
                    None => left.push(request),
                }
            }
        }
        *self = Self::of(self.topic.clone(), left);
        leaves_gap
    }

    fn of(topic: TopicName, members: Vec<Pending>) -> Self {
        let mut flush = Self::new(topic);
        members.into_iter().for_each(|member| flush.add(member));
        flush
    }

    /// Answers the requests that cannot be stored, or have been stored already; the others stay.
    pub(crate) fn settle(&mut self, head: Offset, registrations: Vec<Registration>) {
        let mut registrations: HashMap<ProducerId, Registration> = registrations
            .into_iter()
            .map(|registration| (registration.producer.clone(), registration))
            .collect();
        let members = std::mem::take(&mut self.members);
        self.producers.clear();
        self.index_of.clear();
        for member in members.into_iter().flat_map(Pending::split) {
            let registration = registrations.get_mut(&member.publish.producer);
            match judge(&member.publish, head, registration) {
                Some(answer) => member.answer(answer),
                None => self.add(member),
            }
        }
    }
}

/// The answer to a publish that cannot be stored, or has been stored already. `None` if it can be
/// stored; the registration then continues after it.
fn judge(
    publish: &Publish,
    head: Offset,
    registration: Option<&mut Registration>,
) -> Option<Result<Receipt, Error>> {
    let Publish { topic, producer, epoch, sequence, expected_head, messages } = publish;
    let Some(registration) = registration else {
        let (topic, producer) = (topic.clone(), producer.clone());
        return Some(Err(Error::ProducerNotRegistered { topic, producer }));
    };
    if registration.epoch != *epoch {
        let (topic, producer) = (topic.clone(), producer.clone());
        let current = registration.epoch;
        return Some(Err(Error::ProducerFenced { topic, producer, epoch: *epoch, current }));
    }
    let (count, expected) = (messages.count(), registration.next_sequence);
    if let Some(sequence) = *sequence
        && sequence != expected
    {
        let stored = registration.find_stored(sequence, count);
        // A receipt names one first offset, from which all messages are consecutive.
        if let [StoredRun { offset: first, count: found, .. }] = stored[..]
            && found == count
        {
            return Some(Ok(Receipt { first, count, duplicate: true }));
        }
        let (topic, producer) = (topic.clone(), producer.clone());
        return Some(Err(match sequence < expected {
            true => Error::SequencePassed { topic, producer, sequence, expected, stored },
            false => Error::SequenceGap { topic, producer, sequence, expected },
        }));
    }
    if let Some(expected_head) = *expected_head
        && expected_head != head
    {
        let topic = topic.clone();
        return Some(Err(Error::HeadMoved { topic, expected_head, head }));
    }
    if sequence.is_some() {
        registration.next_sequence = expected.after(count);
    }
    None
}
