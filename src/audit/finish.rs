//! Acts that end although nobody waits for them any more.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use crate::storage::SessionShare;

/// How many acts may be under way, of all owners; each owner has a limit as well. They count until
/// they are recorded, so that clients which give theirs up cannot start more and more. Each ends
/// within seconds, as its statements have time limits.
const MAX_ACTS: usize = 1_024;

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Counts an act for its owner, and among all.
type Permit = Arc<(Option<OwnedSemaphorePermit>, Option<OwnedSemaphorePermit>)>;

tokio::task_local! {
    /// That of the act which the current task carries out.
    static PERMIT: Permit;
}

/// The acts that are under way.
pub(super) struct Acts {
    permits: Arc<Semaphore>,
    /// Those that their clients have given up, and records that nobody waits for.
    tasks: TaskTracker,
}

impl Default for Acts {
    fn default() -> Self {
        Self { permits: Arc::new(Semaphore::new(MAX_ACTS)), tasks: TaskTracker::new() }
    }
}

impl Acts {
    /// Carries out an act once it may begin, in a task of its own if the caller stops waiting.
    pub(super) fn finish<T: Send + 'static>(
        &self,
        act: impl Future<Output = T> + Send + 'static,
    ) -> impl Future<Output = T> + Send {
        // Boxed at once, so that its caller does not hold it several times.
        let act = Box::pin(act);
        async move {
            // The owner's first: whoever waits for that holds nothing of others.
            let own = SessionShare::begin_act().await;
            // Nobody closes it.
            let of_all = self.permits.clone().acquire_owned().await.ok();
            let act = SessionShare::inherit(PERMIT.scope(Arc::new((own, of_all)), act));
            Unfinished { future: Some(Box::pin(act)), tasks: &self.tasks }.await
        }
    }

    /// Does what is left of the current act, which counts until then, in a task of its own.
    pub(super) fn follow_up(&self, rest: impl Future<Output = ()> + Send + 'static) {
        let permit = PERMIT.try_with(Arc::clone).ok();
        debug_assert!(permit.is_some(), "no act is under way");
        let rest = async move {
            rest.await;
            drop(permit);
        };
        self.tasks.spawn(SessionShare::inherit(rest.in_current_span()));
    }

    /// Waits for the end of what nobody waits for.
    pub(super) async fn ended(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Runs in its caller's task, and in one of its own once the caller drops it.
struct Unfinished<'a, T: Send + 'static> {
    /// `None` once it has ended.
    future: Option<Boxed<T>>,
    tasks: &'a TaskTracker,
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
        let rest = async move { drop(future.await) };
        self.tasks.spawn_on(rest.in_current_span(), &runtime);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use tokio::{sync::oneshot, task::unconstrained};

    use super::*;

    #[tokio::test]
    async fn an_act_goes_on_when_its_client_gives_it_up() {
        let acts = Acts::default();
        let (begun, done) = (oneshot::channel::<()>(), oneshot::channel::<()>());
        let mut act = Box::pin(acts.finish(async move {
            let _ = begun.1.await;
            let _ = done.0.send(());
        }));
        assert!((&mut act).now_or_never().is_none());
        drop(act);
        assert_eq!(acts.tasks.len(), 1);
        begun.0.send(()).unwrap();
        done.1.await.unwrap();
        acts.ended().await;
    }

    #[tokio::test]
    async fn an_act_that_is_awaited_leaves_no_task() {
        let acts = Acts::default();
        assert_eq!(acts.finish(async { 7 }).await, 7);
        assert_eq!((acts.tasks.len(), acts.permits.available_permits()), (0, MAX_ACTS));
    }

    #[tokio::test]
    async fn acts_count_until_they_are_recorded_and_an_owner_has_few() {
        let (acts, recorded) = (Arc::new(Acts::default()), Arc::new(Semaphore::new(0)));
        let [greedy, other] = [(); 2].map(|()| SessionShare::default());
        // An act that ends at once, and is recorded later.
        let act = |owner: &SessionShare| {
            let (inner, outer, recorded) = (acts.clone(), acts.clone(), recorded.clone());
            let record = async move { recorded.acquire().await.unwrap().forget() };
            let act = async move { inner.follow_up(record) };
            let owned = owner.clone().scope(async move { outer.finish(act).await });
            // This task alone takes more permits than tokio lets a task take at once.
            Box::pin(unconstrained(owned))
        };
        for _ in 0..64 {
            act(&greedy).now_or_never().unwrap();
        }
        let mut one_more = act(&greedy);
        assert!((&mut one_more).now_or_never().is_none());
        act(&other).now_or_never().unwrap();
        recorded.add_permits(1);
        one_more.await;
        // All that are left.
        recorded.add_permits(65);
        acts.ended().await;
        assert_eq!(acts.permits.available_permits(), MAX_ACTS);
        assert!(greedy.is_unused());
    }
}
