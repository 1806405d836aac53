//! The handlers that run, each in a task of its own.

use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
};

use tokio::task::{self, JoinSet};

use super::job::{IntoVerdict, Job, Verdict};

type Handling = Pin<Box<dyn Future<Output = Verdict> + Send>>;

/// What is done with each message.
type Handler = Arc<dyn Fn(Job) -> Handling + Send + Sync>;

/// The handlers that run. Dropping them aborts them.
pub(super) struct Handlers {
    handler: Handler,
    running: JoinSet<Verdict>,
    /// What each of them works on.
    messages: HashMap<task::Id, Handled>,
}

/// The message of a handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Handled {
    /// The stream that it came over.
    pub(super) stream: u64,
    pub(super) delivery: i64,
    pub(super) offset: i64,
}

impl Handlers {
    pub(super) fn new<H, W>(handler: H) -> Self
    where
        H: Fn(Job) -> W + Send + Sync + 'static,
        W: Future + Send + 'static,
        W::Output: IntoVerdict,
    {
        let handler = move |job: Job| -> Handling {
            let work = handler(job);
            Box::pin(async move { work.await.into_verdict() })
        };
        let (running, messages) = (JoinSet::new(), HashMap::new());
        Self { handler: Arc::new(handler), running, messages }
    }

    pub(super) fn len(&self) -> usize {
        self.running.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// Starts the handler of a message that came over a stream. Handlers are called in this order; what
    /// they return runs at the same time.
    pub(super) fn start(&mut self, stream: u64, job: Job) {
        let handled = Handled { stream, delivery: job.delivery(), offset: job.offset };
        let handling = catch_unwind(AssertUnwindSafe(|| (self.handler)(job)));
        let handling = handling.unwrap_or_else(|_| Box::pin(std::future::ready(Verdict::retry())));
        let task = self.running.spawn(handling);
        self.messages.insert(task.id(), handled);
    }

    /// Waits until a handler has ended, for ever if none runs. One that panics or is aborted asks for a
    /// retry. Nothing is lost if this is dropped before.
    pub(super) async fn ended(&mut self) -> (Handled, Verdict) {
        loop {
            let (id, verdict) = match self.running.join_next_with_id().await {
                Some(Ok(ended)) => ended,
                Some(Err(failed)) => (failed.id(), Verdict::retry()),
                None => std::future::pending().await,
            };
            if let Some(handled) = self.messages.remove(&id) {
                return (handled, verdict);
            }
        }
    }

    /// Aborts all that run.
    pub(super) fn abort(&mut self) {
        self.running.abort_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{client::Message, proto};

    fn job(offset: i64) -> Job {
        let message = proto::Message { offset, ..Default::default() };
        Job::new(Message::from(message), 1, 7)
    }

    #[tokio::test]
    async fn a_handler_that_panics_asks_for_a_retry() {
        let mut handlers = Handlers::new(|job: Job| {
            assert_ne!(job.offset, 1, "before it runs");
            async move {
                assert_ne!(job.offset, 2, "while it runs");
                Verdict::Acknowledge
            }
        });
        (0..3).for_each(|offset| handlers.start(5, job(offset)));
        assert_eq!(handlers.len(), 3);
        let mut ended = Vec::new();
        while !handlers.is_empty() {
            let (handled, verdict) = handlers.ended().await;
            assert_eq!((handled.stream, handled.delivery), (5, 7));
            ended.push((handled.offset, verdict));
        }
        ended.sort_by_key(|(offset, _)| *offset);
        let expected = [(0, Verdict::Acknowledge), (1, Verdict::retry()), (2, Verdict::retry())];
        assert_eq!(ended, expected);
    }
}
