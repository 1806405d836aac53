//! What a writer answers to a run of requests: most often one word for all of them.

use std::sync::{Arc, Mutex};

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{
    Error,
    publish::{Publish, Receipt, Run},
};

/// What became of a run.
#[derive(Debug)]
pub(super) enum Outcome {
    /// All was stored, one request behind the other.
    Stored(Receipt),
    /// It failed as a whole.
    Failed(Error),
    /// Each request has an outcome of its own.
    Each(Vec<Result<Receipt, Error>>),
}

/// Who waits for a run's outcome.
pub(super) struct Caller {
    pub outcome: oneshot::Sender<Outcome>,
    /// The run's share of the bytes that may be on their way, given back when it is answered.
    pub _room: OwnedSemaphorePermit,
}

/// A run on its way to its writer.
pub(super) struct Queued {
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

impl Queued {
    pub(super) fn new(Run { publish, counts }: Run, caller: Caller) -> Self {
        Self { publish, counts, reply: Reply::Whole(caller) }
    }

    /// Tells where the run was stored, or that it failed.
    pub(super) fn answer(self, answer: Result<Receipt, Error>) {
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
    pub(super) fn split(self) -> Vec<Self> {
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
        // One that has gone does not hear it.
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
