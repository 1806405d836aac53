//! The task of a call: what it keeps until the whole answer is handed over, and when it ends from
//! within. Dropping it makes HTTP/2 reset the call's stream.

use std::{
    cell::Cell,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use pin_project_lite::pin_project;

use crate::grpc::open_calls::OpenCall;

/// Completes when a call is to be reset.
type Due = Pin<Box<dyn Future<Output = ()> + Send>>;

/// When a call has asked to be reset.
enum Asked {
    When(Due),
    After(Duration),
}

/// What the task of a call keeps for it.
#[derive(Default)]
struct TaskState {
    open: Cell<Option<OpenCall>>,
    /// What the call has asked for since it was last polled.
    asked: Cell<Option<Asked>>,
}

tokio::task_local! {
    /// That of the current task.
    static STATE: TaskState;
}

pin_project! {
    /// A call that may be reset.
    struct Served<F> {
        #[pin]
        call: F,
        due: Option<Due>,
    }
}

/// Serves a call, in a task of its own, which ends when the whole answer is handed over or the call
/// is reset.
pub fn serve_call<F: Future + Send>(call: F) -> impl Future<Output = ()> + Send {
    STATE.scope(TaskState::default(), Served { call, due: None })
}

/// Counts a call as open until its task ends.
pub(super) fn keep(call: OpenCall) {
    // Only tests call services elsewhere.
    let _ = STATE.try_with(|state| state.open.set(Some(call)));
}

/// Resets the call that runs now once `due` completes. Does nothing outside of a call that
/// [`serve_call`] serves.
pub(super) fn reset_when(due: impl Future<Output = ()> + Send + 'static) {
    let _ = STATE.try_with(|state| state.asked.set(Some(Asked::When(Box::pin(due)))));
}

/// Resets the call that runs now after `limit`. Costs no timer if the call ends at once, as nearly
/// every call does that has its answer.
pub(super) fn reset_after(limit: Duration) {
    let _ = STATE.try_with(|state| state.asked.set(Some(Asked::After(limit))));
}

impl<F: Future> Future for Served<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        let is_due = |due: &mut Option<Due>, context: &mut Context<'_>| {
            due.as_mut().is_some_and(|due| due.as_mut().poll(context).is_ready())
        };
        // First what may have something to say to the client.
        if is_due(this.due, context) || this.call.poll(context).is_ready() {
            return Poll::Ready(());
        }
        let Some(asked) = STATE.with(|state| state.asked.take()) else { return Poll::Pending };
        *this.due = Some(match asked {
            Asked::When(due) => due,
            Asked::After(limit) => Box::pin(tokio::time::sleep(limit)),
        });
        match is_due(this.due, context) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures::FutureExt as _;
    use tokio::sync::oneshot;

    use super::*;
    use crate::grpc::open_calls::{AllCalls, CallLimits, OpenCalls};

    #[tokio::test]
    async fn a_call_ends_by_itself_or_when_it_is_due() {
        serve_call(async { reset_when(std::future::pending()) }).await;
        serve_call(async {
            reset_when(async {});
            std::future::pending::<()>().await;
        })
        .await;
        serve_call(async {
            reset_after(Duration::from_millis(1));
            std::future::pending::<()>().await;
        })
        .await;

        let (reset, due) = oneshot::channel::<()>();
        let mut call = pin!(serve_call(async {
            reset_when(due.map(drop));
            std::future::pending::<()>().await;
        }));
        assert!(futures::poll!(call.as_mut()).is_pending());
        reset.send(()).unwrap();
        assert!(futures::poll!(call.as_mut()).is_ready());
    }

    #[tokio::test]
    async fn a_call_counts_until_its_task_ends() {
        let limits = CallLimits { each: 1, all: 1, first: 0 };
        let calls = OpenCalls::new(AllCalls::new(limits));
        let served = serve_call(async {
            keep(calls.open().unwrap());
            assert!(!calls.is_unused());
        });
        served.await;
        assert!(calls.is_unused());
    }

    #[test]
    fn outside_of_a_call_nothing_is_kept() {
        let (due, dropped) = oneshot::channel::<()>();
        reset_when(dropped.map(drop));
        reset_after(Duration::ZERO);
        assert!(due.is_closed());
        let calls = OpenCalls::new(AllCalls::new(CallLimits { each: 1, all: 1, first: 0 }));
        keep(calls.open().unwrap());
        assert!(calls.is_unused());
    }
}
