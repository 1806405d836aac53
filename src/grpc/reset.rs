//! Ends calls from within: the task of a call is dropped, which makes HTTP/2 reset its stream.

use std::{
    cell::Cell,
    future::poll_fn,
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

/// Completes when a call is to be reset.
type Due = Pin<Box<dyn Future<Output = ()> + Send>>;

/// When a call has asked to be reset.
enum Asked {
    When(Due),
    After(Duration),
}

tokio::task_local! {
    /// What the call that runs now has asked for since it was last polled.
    static ASKED: Cell<Option<Asked>>;
}

/// Runs a call, which may be reset by `when`.
pub fn resettable<F: Future + Send>(call: F) -> impl Future<Output = ()> + Send {
    ASKED.scope(Cell::new(None), run(call))
}

/// Resets the call that runs now once `due` completes. Does nothing outside of a call that
/// [`resettable`] runs.
pub(super) fn when(due: impl Future<Output = ()> + Send + 'static) {
    let _ = ASKED.try_with(|asked| asked.set(Some(Asked::When(Box::pin(due)))));
}

/// Resets the call that runs now after `limit`. Costs no timer if the call ends at once, as nearly
/// every call does that has its answer.
pub(super) fn after(limit: Duration) {
    let _ = ASKED.try_with(|asked| asked.set(Some(Asked::After(limit))));
}

async fn run<F: Future>(call: F) {
    let (mut call, mut due) = (pin!(call), None::<Due>);
    let is_due = |due: &mut Option<Due>, context: &mut Context<'_>| {
        due.as_mut().is_some_and(|due| due.as_mut().poll(context).is_ready())
    };
    poll_fn(|context| {
        // First what may have something to say to the client.
        if is_due(&mut due, context) || call.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        let Some(asked) = ASKED.with(Cell::take) else { return Poll::Pending };
        due = Some(match asked {
            Asked::When(due) => due,
            Asked::After(limit) => Box::pin(tokio::time::sleep(limit)),
        });
        match is_due(&mut due, context) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn a_call_ends_by_itself_or_when_it_is_due() {
        resettable(async { when(std::future::pending()) }).await;
        resettable(async {
            when(async {});
            std::future::pending::<()>().await;
        })
        .await;
        resettable(async {
            after(Duration::from_millis(1));
            std::future::pending::<()>().await;
        })
        .await;

        let (reset, due) = oneshot::channel::<()>();
        let mut call = pin!(resettable(async {
            when(due.map(drop));
            std::future::pending::<()>().await;
        }));
        assert!(futures::poll!(call.as_mut()).is_pending());
        reset.send(()).unwrap();
        assert!(futures::poll!(call.as_mut()).is_ready());
    }

    #[test]
    fn outside_of_a_call_nothing_is_reset() {
        when(async {});
    }
}
