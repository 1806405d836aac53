//! A worker in a task of its own, so that nothing here holds its stream up.

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{
    cli::failure::Failure,
    client::{Error, IntoVerdict, Job, WorkerBuilder},
};

/// A worker that works. Dropping it aborts it.
pub(super) struct Working(JoinHandle<Result<(), Error>>);

impl Working {
    /// Starts a worker, which works until the token is cancelled.
    pub(super) async fn start<H, W>(
        worker: WorkerBuilder,
        handler: H,
        stop: &CancellationToken,
    ) -> Result<Self, Failure>
    where
        H: Fn(Job) -> W + Send + Sync + 'static,
        W: Future + Send + 'static,
        W::Output: IntoVerdict,
    {
        let stopped = stop.clone().cancelled_owned();
        let working = worker.open().await?.run_until(handler, stopped);
        Ok(Self(tokio::spawn(working)))
    }

    /// Waits until it has ended.
    pub(super) async fn ended(&mut self) -> Result<(), Failure> {
        match (&mut self.0).await {
            Ok(worked) => Ok(worked?),
            Err(failed) => Err(Failure::refused(format!("work on messages: {failed}"))),
        }
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.0.abort();
    }
}
