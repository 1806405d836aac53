//! Publish requests, and where their messages were stored.

use crate::model::{Epoch, NewMessages, Offset, ProducerId, Sequence, TopicName};

/// Messages to store in one topic: those of one request, or of a request group, which is several
/// consecutive requests of one producer ([`Publish::append`]).
///
/// The way to the writer and back costs the same for a group as for one request.
#[derive(Clone, Debug)]
pub struct Publish {
    /// The topic.
    pub topic: TopicName,
    /// Who publishes.
    pub producer: ProducerId,
    /// The epoch of the producer's instance.
    pub epoch: Epoch,
    /// The sequence of the first message, if the producer numbers its messages.
    pub sequence: Option<Sequence>,
    /// The head that the topic must have, if the producer requires one.
    pub expected_head: Option<Offset>,
    /// What to store.
    pub messages: NewMessages,
}

/// Where the messages of a request were stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The offset of the first message.
    pub first: Offset,
    /// How many there are.
    pub count: usize,
    /// Whether an earlier request stored them.
    pub duplicate: bool,
}

impl Publish {
    /// A request group has at most this many messages and bytes.
    const MAX_MESSAGES: usize = 1_024;
    const MAX_BYTES: usize = 256 * 1024;

    /// How much memory a message takes besides its bytes, and a header.
    const MESSAGE_OVERHEAD: usize = 96;
    const HEADER_OVERHEAD: usize = 96;

    /// How much memory the messages take.
    pub fn memory(&self) -> usize {
        let headers =
            self.messages.as_slice().iter().map(|message| message.headers.entries().len());
        self.messages.bytes()
            + self.messages.count() * Self::MESSAGE_OVERHEAD
            + headers.sum::<usize>() * Self::HEADER_OVERHEAD
    }

    /// Appends the producer's next request if it continues this one, and otherwise returns it.
    #[must_use]
    pub fn append(&mut self, next: Self) -> Option<Self> {
        if !self.admits(&next) {
            return Some(next);
        }
        self.messages.append(next.messages);
        None
    }

    fn admits(&self, next: &Self) -> bool {
        let Self { topic, producer, epoch, sequence, expected_head, messages } = self;
        messages.count() + next.messages.count() <= Self::MAX_MESSAGES
            && messages.bytes() + next.messages.bytes() <= Self::MAX_BYTES
            && *topic == next.topic
            && *producer == next.producer
            && *epoch == next.epoch
            && sequence.map(|first| first.after(messages.count())) == next.sequence
            && expected_head.is_none()
            && next.expected_head.is_none()
    }

    /// The requests one by one.
    pub(crate) fn split(self) -> Vec<Self> {
        let Self { topic, producer, epoch, sequence, expected_head, messages } = self;
        let mut before = 0;
        let requests = messages.split().into_iter().map(|messages| {
            let (topic, producer) = (topic.clone(), producer.clone());
            let sequence = sequence.map(|first| first.after(before));
            before += messages.count();
            Self { topic, producer, epoch, sequence, expected_head, messages }
        });
        requests.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Message;

    fn publish(sequence: Option<i64>, payloads: &[usize]) -> Publish {
        let message =
            |&size: &usize| Message { payload: vec![b'x'; size].into(), ..Default::default() };
        Publish {
            topic: TopicName::stored("orders"),
            producer: ProducerId::stored("p"),
            epoch: Epoch(0),
            sequence: sequence.map(Sequence),
            expected_head: None,
            messages: NewMessages::parse(payloads.iter().map(message).collect()).unwrap(),
        }
    }

    #[test]
    fn requests_form_a_group_if_each_continues_the_one_before() {
        let mut group = publish(Some(5), &[1, 2]);
        assert!(group.append(publish(Some(7), &[3])).is_none());
        for other in [
            publish(Some(9), &[1]),
            publish(None, &[1]),
            Publish { topic: TopicName::stored("other"), ..publish(Some(8), &[1]) },
            Publish { producer: ProducerId::stored("other"), ..publish(Some(8), &[1]) },
            Publish { epoch: Epoch(1), ..publish(Some(8), &[1]) },
            Publish { expected_head: Some(Offset(0)), ..publish(Some(8), &[1]) },
            publish(Some(8), &[0; Publish::MAX_MESSAGES]),
            publish(Some(8), &[Publish::MAX_BYTES]),
        ] {
            assert!(group.append(other).is_some());
        }
        assert!(group.append(publish(Some(8), &[4])).is_none());
        assert_eq!(group.messages.counts(), [2, 1, 1]);

        let requests = group.split().into_iter();
        let requests: Vec<_> =
            requests.map(|r| (r.sequence, r.messages.count(), r.messages.bytes())).collect();
        let sequence = |sequence| Some(Sequence(sequence));
        assert_eq!(requests, [(sequence(5), 2, 3), (sequence(7), 1, 3), (sequence(8), 1, 4)]);
    }

    #[test]
    fn a_request_that_expects_a_head_stays_alone() {
        let mut alone = Publish { expected_head: Some(Offset(0)), ..publish(None, &[1]) };
        assert!(alone.append(publish(None, &[1])).is_some());
    }
}
