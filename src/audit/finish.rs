//! A future that ends although nobody waits for it any more.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Runs in its caller's task, and in one of its own once the caller drops it.
pub(super) struct Unfinished<'a, T: Send + 'static> {
    /// `None` once it has ended.
    future: Option<Boxed<T>>,
    tasks: &'a TaskTracker,
    /// How many tasks there may be.
    limit: usize,
}

impl<'a, T: Send + 'static> Unfinished<'a, T> {
    pub(super) fn new(
        future: impl Future<Output = T> + Send + 'static,
        tasks: &'a TaskTracker,
        limit: usize,
    ) -> Self {
        Self { future: Some(Box::pin(future)), tasks, limit }
    }
}

impl<T: Send + 'static> Future for Unfinished<'_, T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let Some(future) = &mut self.future else { return Poll::Pending };
        let output = std::task::ready!(future.as_mut().poll(context));
        self.future = None;
        Poll::Ready(output)
    }
}

impl<T: Send + 'static> Drop for Unfinished<'_, T> {
    fn drop(&mut self) {
        let Some(future) = self.future.take() else { return };
        // What panicked cannot go on.
        if std::thread::panicking() {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if self.tasks.len() >= self.limit {
            tracing::error!(
                target: super::log::TARGET,
                limit = self.limit,
                "left an act unrecorded: too many clients have given up theirs"
            );
            return;
        }
        let rest = async move { drop(future.await) };
        self.tasks.spawn_on(rest.in_current_span(), &runtime);
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn it_goes_on_when_it_is_dropped_up_to_a_limit() {
        let tasks = TaskTracker::new();
        let (begun, done) = (oneshot::channel::<()>(), oneshot::channel::<()>());
        let act = async move {
            let _ = begun.1.await;
            let _ = done.0.send(());
        };
        let mut act = Box::pin(Unfinished::new(act, &tasks, 1));
        assert!(futures::poll!(&mut act).is_pending());
        drop(act);
        assert_eq!(tasks.len(), 1);
        // One more than may go on.
        drop(Unfinished::new(std::future::pending::<()>(), &tasks, 1));
        assert_eq!(tasks.len(), 1);
        begun.0.send(()).unwrap();
        done.1.await.unwrap();
        tasks.close();
        tasks.wait().await;
    }

    #[tokio::test]
    async fn it_leaves_no_task_when_it_is_awaited() {
        let tasks = TaskTracker::new();
        assert_eq!(Unfinished::new(async { 7 }, &tasks, 1).await, 7);
        assert_eq!(tasks.len(), 0);
    }
}
