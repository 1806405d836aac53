//! A publish on its way: what is asked, what is answered, and what waits in between.

use tokio::sync::oneshot;

use crate::{
    broker::{error::Error, publish::pending::Outcome},
    model::{Epoch, NewMessages, Offset, ProducerId, Sequence, TopicName},
};

/// Messages to store in one topic.
#[derive(Clone, Debug)]
pub struct Publish {
    /// The topic.
    pub topic: TopicName,
    /// Who publishes.
    pub producer: ProducerId,
    /// The epoch that the producer's instance was given.
    pub epoch: Epoch,
    /// The first message's number in the producer's count, if it counts.
    pub sequence: Option<Sequence>,
    /// The head that the topic must have, if the producer says so.
    pub expected_head: Option<Offset>,
    /// What to store.
    pub messages: NewMessages,
}

/// Where messages were stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The offset of the first message.
    pub first: Offset,
    /// How many were stored.
    pub count: usize,
    /// Whether they had been stored before.
    pub duplicate: bool,
}

/// Requests of one producer that follow each other, on their way as one: what a request costs on
/// its way to the writer and back is then shared by all of them.
#[derive(Clone, Debug)]
pub struct Run {
    /// All requests as one.
    pub(crate) publish: Publish,
    /// How many messages each request has.
    pub(crate) counts: Vec<usize>,
}

impl Run {
    /// A run takes no more requests in when it has so many messages or bytes.
    const MAX_MESSAGES: usize = 1_024;
    const MAX_BYTES: usize = 256 * 1024;

    /// How many requests there are.
    pub fn requests(&self) -> usize {
        self.counts.len()
    }

    /// Takes the next request in if it goes on where the run ends, and else gives it back.
    pub fn add(&mut self, next: Publish) -> Result<(), Publish> {
        if !self.admits(&next) {
            return Err(next);
        }
        self.counts.push(next.messages.count());
        self.publish.messages.append(next.messages);
        Ok(())
    }

    fn admits(&self, next: &Publish) -> bool {
        let Publish { topic, producer, epoch, sequence, expected_head, messages } = &self.publish;
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
    pub(crate) fn split(self) -> Vec<Publish> {
        let Self { publish, counts } = self;
        let Publish { topic, producer, epoch, sequence, expected_head, messages } = publish;
        let mut before = 0;
        let requests = messages.split(&counts).into_iter().map(|messages| {
            let (topic, producer) = (topic.clone(), producer.clone());
            let sequence = sequence.map(|first| first.after(before));
            before += messages.count();
            Publish { topic, producer, epoch, sequence, expected_head, messages }
        });
        requests.collect()
    }
}

impl From<Publish> for Run {
    fn from(publish: Publish) -> Self {
        let counts = vec![publish.messages.count()];
        Self { publish, counts }
    }
}

/// The answers to a run that was taken in, once they are there.
pub struct Answers {
    pub(crate) counts: Vec<usize>,
    pub(crate) outcome: oneshot::Receiver<Outcome>,
}

impl Answers {
    /// Waits for the answers: one to each request, in order.
    pub async fn wait(self) -> Vec<Result<Receipt, Error>> {
        let Self { counts, outcome } = self;
        match outcome.await {
            Ok(Outcome::Stored(Receipt { mut first, duplicate, .. })) => {
                let receipts = counts.into_iter().map(|count| {
                    let receipt = Receipt { first, count, duplicate };
                    first = first.after(count);
                    Ok(receipt)
                });
                receipts.collect()
            }
            Ok(Outcome::Failed(error)) => vec![Err(error); counts.len()],
            Ok(Outcome::Each(outcomes)) => outcomes,
            // A writer that is gone without an answer may have written.
            Err(_) => vec![Err(Error::OutcomeUnknown); counts.len()],
        }
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
    fn a_run_is_what_goes_on_where_it_ends() {
        let mut run = Run::from(publish(Some(5), &[1, 2]));
        assert!(run.add(publish(Some(7), &[3])).is_ok());
        for other in [
            publish(Some(9), &[1]),
            publish(None, &[1]),
            Publish { topic: TopicName::stored("other"), ..publish(Some(8), &[1]) },
            Publish { producer: ProducerId::stored("other"), ..publish(Some(8), &[1]) },
            Publish { epoch: Epoch(1), ..publish(Some(8), &[1]) },
            Publish { expected_head: Some(Offset(0)), ..publish(Some(8), &[1]) },
            publish(Some(8), &[0; Run::MAX_MESSAGES]),
            publish(Some(8), &[Run::MAX_BYTES]),
        ] {
            assert!(run.add(other).is_err());
        }
        assert!(run.add(publish(Some(8), &[4])).is_ok());

        let requests = run.split().into_iter();
        let requests: Vec<_> =
            requests.map(|r| (r.sequence, r.messages.count(), r.messages.bytes())).collect();
        let sequence = |sequence| Some(Sequence(sequence));
        assert_eq!(requests, [(sequence(5), 2, 3), (sequence(7), 1, 3), (sequence(8), 1, 4)]);
    }

    #[test]
    fn what_expects_a_head_shares_no_run() {
        let mut run = Run::from(Publish { expected_head: Some(Offset(0)), ..publish(None, &[1]) });
        assert!(run.add(publish(None, &[1])).is_err());
    }
}
