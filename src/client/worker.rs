//! A worker: runs a handler for each message of a subscription, many at a time.

mod extending;
mod handlers;
mod job;
mod notice;
mod run;
mod session;
mod settling;
mod stopping;
mod stream;

use handlers::Handlers;
pub use job::{IntoVerdict, Job, Verdict};
pub(super) use notice::Listener;
pub use notice::WorkerNotice;
pub(super) use run::Options;
use run::Run;
use stopping::Stopping;
pub use stream::{WorkerEvent, WorkerStream};

use crate::client::error::Error;

/// Runs a handler for each message of a subscription; from [`Client::worker`](super::Client::worker).
///
/// Any number of workers share the messages of a subscription. What a handler returns says what becomes
/// of its message ([`IntoVerdict`]): it is acknowledged, delivered again, or parked. A handler that
/// panics asks for a retry.
///
/// ```no_run
/// # async fn example(client: trunkline::client::Client) -> Result<(), trunkline::client::Error> {
/// use trunkline::client::{Job, Verdict};
/// # async fn bill(_order: &str) -> Result<(), std::io::Error> { Ok(()) }
///
/// let worker = client.worker("orders", "billing").concurrency(32).open().await?;
/// worker
///     .run(|job: Job| async move {
///         let order = match std::str::from_utf8(&job.payload) {
///             Ok(order) => order,
///             // No retry would help: it is parked.
///             Err(error) => return Ok(Verdict::reject(error.to_string())),
///         };
///         println!("attempt {} at {order}", job.attempt());
///         // An error asks for a retry after the delay that the subscription's policy says.
///         bill(order).await?;
///         Ok::<_, std::io::Error>(Verdict::Acknowledge)
///     })
///     .await
/// # }
/// ```
///
/// # What it promises
///
/// * Each message is handled at least once, and at most [`concurrency`](super::WorkerBuilder::concurrency)
///   handlers run at once. Handlers are called in the order in which messages arrive; what they return
///   runs at the same time.
/// * While a message is with the worker, its deadline is extended before it passes, so a handler may
///   take as long as it needs. A handler that blocks its thread may block that as well. If the
///   subscription's `ack_deadline` becomes shorter while a worker runs, the worker does not learn of it
///   until it opens its stream again.
/// * Verdicts that are ready at the same time go to the broker together.
/// * A stream that was lost is opened again. The handlers of the lost stream's messages go on, but their
///   verdicts are dropped: the broker delivers these messages again, and handlers may then work on the
///   same message at the same time. So handlers should be idempotent.
/// * The broker delivers no more than [`max_outstanding_messages`](super::WorkerBuilder::max_outstanding_messages)
///   at a time. After a seek, or a lost stream, a worker takes as many again at most while it still has
///   messages that were delivered before.
#[derive(Debug)]
pub struct Worker {
    options: Options,
}

impl Worker {
    pub(super) fn new(options: Options) -> Self {
        Self { options }
    }

    /// Works until an error is final, or as the builder says
    /// ([`until_caught_up`](super::WorkerBuilder::until_caught_up),
    /// [`max_messages`](super::WorkerBuilder::max_messages)). If the returned future is dropped, the
    /// handlers are aborted, and what they work on is delivered again.
    ///
    /// # Errors
    ///
    /// As for [`Self::run_until`].
    pub async fn run<H, W>(self, handler: H) -> Result<(), Error>
    where
        H: Fn(Job) -> W + Send + Sync + 'static,
        W: Future + Send + 'static,
        W::Output: IntoVerdict,
    {
        self.run_until(handler, std::future::pending()).await
    }

    /// As [`Self::run`], until `stop` is ready. The worker then takes no more messages, and waits for the
    /// handlers that run, for at most the [`stop_timeout`](super::WorkerBuilder::stop_timeout). Messages
    /// whose handlers have not begun are given back, so that another worker gets them at once. That does
    /// not count as an attempt.
    ///
    /// ```no_run
    /// # async fn example(client: trunkline::client::Client) -> Result<(), trunkline::client::Error> {
    /// use trunkline::client::Job;
    ///
    /// let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    /// let worker = client.worker("orders", "billing").open().await?;
    /// let working = tokio::spawn(worker.run_until(
    ///     |job: Job| async move { println!("{}", job.offset) },
    ///     async { _ = stopped.await },
    /// ));
    /// // Later:
    /// drop(stop);
    /// let _ = working.await;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] if the broker refuses for good, for example because the subscription is gone.
    /// [`Error::Lost`] if handlers did not end in time, or if the stream was lost while the worker
    /// stopped: some messages that were handled are delivered again then.
    pub async fn run_until<H, W>(
        self,
        handler: H,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), Error>
    where
        H: Fn(Job) -> W + Send + Sync + 'static,
        W: Future + Send + 'static,
        W::Output: IntoVerdict,
    {
        let Self { options } = self;
        let stopping = Stopping::new(stop, options.stop_timeout);
        Run::new(options, Handlers::new(handler), stopping).run().await
    }
}
