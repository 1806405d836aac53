//! Publishes on their way to a writer, and the answers to them.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::{
    broker::{
        budget::Hold,
        error::Error,
        publish::request::{Publish, Receipt},
    },
    metrics::PublishTimer,
    traces::{Ending, PublishSpan},
};

/// The outcome of a publish.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// All requests were stored, one after the other.
    Stored(Receipt),
    /// The publish failed as a whole.
    Failed(Error),
    /// Each request has an outcome of its own.
    Each(Vec<Result<Receipt, Error>>),
}

impl Outcome {
    /// Why messages were not stored, if some were not.
    fn error(&self) -> Option<&Error> {
        match self {
            Self::Stored(_) => None,
            Self::Failed(error) => Some(error),
            Self::Each(outcomes) => outcomes.iter().find_map(|outcome| outcome.as_ref().err()),
        }
    }
}

/// The caller that waits for a publish's outcome.
pub(crate) struct Caller {
    pub outcome: oneshot::Sender<Outcome>,
    /// What the publish was charged for its bytes, returned with the answer.
    pub _hold: Option<Hold>,
    /// Measures how long the answer takes.
    pub timer: PublishTimer,
    /// The publish's span, if it is traced.
    pub span: Option<PublishSpan>,
}

/// The answers to come to a publish.
pub struct Answers {
    pub(crate) requests: usize,
    /// How many messages each request has; empty if there is one request.
    pub(crate) counts: Vec<usize>,
    pub(crate) outcome: oneshot::Receiver<Outcome>,
}

impl Answers {
    /// The answers to a publish, sent over a channel.
    pub(crate) fn of(publish: &Publish, outcome: oneshot::Receiver<Outcome>) -> Self {
        let requests = publish.messages.requests();
        let counts = if requests > 1 { publish.messages.counts() } else { Vec::new() };
        Self { requests, counts, outcome }
    }

    /// Waits for the answers: one to each request, in order.
    pub async fn wait(self) -> Vec<Result<Receipt, Error>> {
        let Self { requests, counts, outcome } = self;
        match outcome.await {
            Ok(Outcome::Stored(receipt)) if requests == 1 => vec![Ok(receipt)],
            Ok(Outcome::Stored(Receipt { mut first, duplicate, .. })) => {
                let receipts = counts.into_iter().map(|count| {
                    let receipt = Receipt { first, count, duplicate };
                    first = first.after(count);
                    Ok(receipt)
                });
                receipts.collect()
            }
            Ok(Outcome::Failed(error)) => vec![Err(error); requests],
            Ok(Outcome::Each(outcomes)) => outcomes,
            // The writer ended without an answer, and may have written.
            Err(_) => vec![Err(Error::outcome_unknown()); requests],
        }
    }
}

/// A publish that waits for its outcome.
pub(crate) struct Pending {
    pub publish: Publish,
    reply: Reply,
}

enum Reply {
    Whole(Caller),
    /// The answer to one request of a publish that was split.
    Part {
        answers: Arc<Mutex<Gathered>>,
        index: usize,
    },
}

/// The answers to the requests of a publish that was split. The last answer sends them all; if one
/// never comes, all outcomes are unknown.
struct Gathered {
    outcomes: Vec<Option<Result<Receipt, Error>>>,
    /// How many have not come yet.
    outstanding: usize,
    caller: Option<Caller>,
}

impl Pending {
    pub(crate) fn new(publish: Publish, caller: Caller) -> Self {
        Self { publish, reply: Reply::Whole(caller) }
    }

    /// The span of the publish, if it is traced.
    pub(crate) fn span(&self) -> Option<&PublishSpan> {
        match &self.reply {
            Reply::Whole(caller) => caller.span.as_ref(),
            // The flush that was split has linked to it.
            Reply::Part { .. } => None,
        }
    }

    /// Answers with where the publish was stored, or why it failed.
    pub(crate) fn answer(self, answer: Result<Receipt, Error>) {
        match self.reply {
            Reply::Whole(caller) => caller.send(match answer {
                Ok(receipt) => Outcome::Stored(receipt),
                Err(error) => Outcome::Failed(error),
            }),
            Reply::Part { answers, index } => answers.lock().add(index, answer),
        }
    }

    /// The requests one by one, so that each can be judged alone.
    pub(crate) fn split(self) -> Vec<Self> {
        let Reply::Whole(caller) = self.reply else { return vec![self] };
        let outstanding = self.publish.messages.requests();
        let (outcomes, caller) = (vec![None; outstanding], Some(caller));
        let answers = Arc::new(Mutex::new(Gathered { outcomes, outstanding, caller }));
        let part = |(index, publish)| {
            let reply = Reply::Part { answers: answers.clone(), index };
            Self { publish, reply }
        };
        self.publish.split().into_iter().enumerate().map(part).collect()
    }
}

impl Caller {
    fn send(self, outcome: Outcome) {
        self.timer.end();
        if let Some(span) = self.span {
            span.end(match outcome.error() {
                None => Ending::Stored,
                Some(error) if error.is_fault() => Ending::Failed(error),
                Some(error) => Ending::Refused(error),
            });
        }
        // A caller that has gone does not receive it.
        let _ = self.outcome.send(outcome);
    }
}

impl Gathered {
    fn add(&mut self, index: usize, answer: Result<Receipt, Error>) {
        self.outcomes[index] = Some(answer);
        self.outstanding -= 1;
        if self.outstanding == 0
            && let Some(caller) = self.caller.take()
        {
            caller.send(Outcome::Each(self.outcomes.drain(..).flatten().collect()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::PublishMetrics;
    use crate::model::{Epoch, Message, NewMessages, Offset, ProducerId, Sequence, TopicName};

    /// Three requests, of 1, 2 and 3 messages.
    fn pending() -> (Pending, Answers) {
        let publish = |sequence, count| Publish {
            topic: TopicName::stored("orders"),
            producer: ProducerId::stored("shop"),
            epoch: Epoch(0),
            sequence: Some(Sequence(sequence)),
            expected_head: None,
            messages: NewMessages::parse(vec![Message::default(); count]).unwrap(),
        };
        let mut group = publish(0, 1);
        assert!(group.append(publish(1, 2)).is_none() && group.append(publish(3, 3)).is_none());
        let (outcome, answered) = oneshot::channel();
        let answers = Answers::of(&group, answered);
        (
            Pending::new(
                group,
                Caller {
                    outcome,
                    _hold: None,
                    timer: PublishMetrics::default().begin(),
                    span: None,
                },
            ),
            answers,
        )
    }

    fn receipt(first: i64, count: usize) -> Receipt {
        Receipt { first: Offset(first), count, duplicate: false }
    }

    #[test]
    fn requests_that_are_judged_one_by_one_are_answered_together_and_in_order() {
        let (pending, mut answers) = pending();
        let mut parts = pending.split();
        let sequences: Vec<_> = parts.iter().map(|part| part.publish.sequence.unwrap().0).collect();
        assert_eq!(sequences, [0, 1, 3]);
        // Splitting a part returns it unchanged.
        let last = parts.pop().unwrap().split().pop().unwrap();
        last.answer(Ok(receipt(7, 3)));
        parts.remove(0).answer(Err(Error::Draining));
        assert!(answers.outcome.try_recv().is_err());
        parts.remove(0).answer(Ok(receipt(5, 2)));
        let Ok(Outcome::Each(outcomes)) = answers.outcome.try_recv() else {
            panic!("each request has an outcome")
        };
        assert!(matches!(outcomes[0], Err(Error::Draining)));
        assert_eq!(outcomes[1].as_ref().unwrap(), &receipt(5, 2));
        assert_eq!(outcomes[2].as_ref().unwrap(), &receipt(7, 3));
    }

    #[tokio::test]
    async fn requests_that_are_stored_together_get_consecutive_receipts() {
        let (pending, answers) = pending();
        pending.answer(Ok(receipt(10, 6)));
        let answers: Vec<_> = answers.wait().await.into_iter().map(Result::unwrap).collect();
        assert_eq!(answers, [receipt(10, 1), receipt(11, 2), receipt(13, 3)]);
    }

    #[tokio::test]
    async fn a_part_that_is_never_answered_leaves_all_outcomes_unknown() {
        let (pending, answers) = pending();
        let mut parts = pending.split();
        parts.remove(0).answer(Ok(receipt(4, 1)));
        drop(parts);
        let answers = answers.wait().await;
        assert_eq!(answers.len(), 3);
        assert!(answers.iter().all(|answer| matches!(answer, Err(Error::OutcomeUnknown(_)))));
    }
}
