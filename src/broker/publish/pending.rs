//! What a writer answers to a run of requests: most often one word for all of them.

use std::sync::{Arc, Mutex};

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::broker::{
    error::Error,
    publish::request::{Publish, Receipt, Run},
};

/// What became of a run.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// All was stored, one request behind the other.
    Stored(Receipt),
    /// It failed as a whole.
    Failed(Error),
    /// Each request has an outcome of its own.
    Each(Vec<Result<Receipt, Error>>),
}

/// Who waits for a run's outcome.
pub(crate) struct Caller {
    pub outcome: oneshot::Sender<Outcome>,
    /// The run's share of the bytes that may be on their way, given back when it is answered.
    pub _room: OwnedSemaphorePermit,
}

/// A run on its way to its writer.
pub(crate) struct Pending {
    pub publish: Publish,
    /// How many messages each of its requests has.
    counts: Vec<usize>,
    reply: Reply,
}

enum Reply {
    Whole(Caller),
    /// Of one request of a run that was taken apart.
    Part {
        run: Arc<Mutex<Apart>>,
        index: usize,
    },
}

/// A run whose requests are answered one by one; the last answer sends them all. One that never
/// comes leaves all of them unknown.
struct Apart {
    outcomes: Vec<Option<Result<Receipt, Error>>>,
    waiting: usize,
    caller: Option<Caller>,
}

impl Pending {
    pub(crate) fn new(Run { publish, counts }: Run, caller: Caller) -> Self {
        Self { publish, counts, reply: Reply::Whole(caller) }
    }

    /// Tells where the run was stored, or that it failed.
    pub(crate) fn answer(self, answer: Result<Receipt, Error>) {
        match self.reply {
            Reply::Whole(caller) => caller.tell(match answer {
                Ok(receipt) => Outcome::Stored(receipt),
                Err(error) => Outcome::Failed(error),
            }),
            Reply::Part { run, index } => {
                run.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).answer(index, answer);
            }
        }
    }

    /// The requests of the run one by one, so that each can be judged for itself.
    pub(crate) fn split(self) -> Vec<Self> {
        let Reply::Whole(caller) = self.reply else { return vec![self] };
        let waiting = self.counts.len();
        let caller = Some(caller);
        let run = Arc::new(Mutex::new(Apart { outcomes: vec![None; waiting], waiting, caller }));
        let requests = Run { publish: self.publish, counts: self.counts }.split();
        let part = |(index, publish)| {
            let Run { publish, counts } = Run::from(publish);
            Self { publish, counts, reply: Reply::Part { run: run.clone(), index } }
        };
        requests.into_iter().enumerate().map(part).collect()
    }
}

impl Caller {
    fn tell(self, outcome: Outcome) {
        // One that has gone does not receive it.
        let _ = self.outcome.send(outcome);
    }
}

impl Apart {
    fn answer(&mut self, index: usize, answer: Result<Receipt, Error>) {
        self.outcomes[index] = Some(answer);
        self.waiting -= 1;
        if self.waiting == 0
            && let Some(caller) = self.caller.take()
        {
            caller.tell(Outcome::Each(self.outcomes.drain(..).flatten().collect()));
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Semaphore;

    use super::*;
    use crate::model::{Epoch, Message, NewMessages, Offset, ProducerId, Sequence, TopicName};

    /// A run of three requests, of 1, 2 and 3 messages.
    fn queued() -> (Pending, oneshot::Receiver<Outcome>) {
        let publish = |sequence, count| Publish {
            topic: TopicName::stored("orders"),
            producer: ProducerId::stored("shop"),
            epoch: Epoch(0),
            sequence: Some(Sequence(sequence)),
            expected_head: None,
            messages: NewMessages::parse(vec![Message::default(); count]).unwrap(),
        };
        let mut run = Run::from(publish(0, 1));
        assert!(run.add(publish(1, 2)).is_ok() && run.add(publish(3, 3)).is_ok());
        let (outcome, answered) = oneshot::channel();
        let room = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        (Pending::new(run, Caller { outcome, _room: room }), answered)
    }

    fn receipt(first: i64, count: usize) -> Receipt {
        Receipt { first: Offset(first), count, duplicate: false }
    }

    #[test]
    fn requests_that_are_judged_one_by_one_are_answered_together_in_their_order() {
        let (queued, mut answered) = queued();
        let mut parts = queued.split();
        let sequences: Vec<_> = parts.iter().map(|part| part.publish.sequence.unwrap().0).collect();
        assert_eq!(sequences, [0, 1, 3]);
        // A part is not taken apart once more.
        let last = parts.pop().unwrap().split().pop().unwrap();
        last.answer(Ok(receipt(7, 3)));
        parts.remove(0).answer(Err(Error::Draining));
        assert!(answered.try_recv().is_err());
        parts.remove(0).answer(Ok(receipt(5, 2)));
        let Ok(Outcome::Each(outcomes)) = answered.try_recv() else { panic!("an answer to each") };
        assert!(matches!(outcomes[0], Err(Error::Draining)));
        assert_eq!(outcomes[1].as_ref().unwrap(), &receipt(5, 2));
        assert_eq!(outcomes[2].as_ref().unwrap(), &receipt(7, 3));
    }

    #[tokio::test]
    async fn a_part_without_an_answer_leaves_all_unknown() {
        let (queued, outcome) = queued();
        let counts = queued.counts.clone();
        let mut parts = queued.split();
        parts.remove(0).answer(Ok(receipt(4, 1)));
        drop(parts);
        let answers = crate::broker::Answers { counts, outcome }.wait().await;
        assert_eq!(answers.len(), 3);
        assert!(answers.iter().all(|answer| matches!(answer, Err(Error::OutcomeUnknown))));
    }
}
