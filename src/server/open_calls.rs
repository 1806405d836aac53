//! Counts the calls that are open on a connection, from their request to the end of their answer.

use std::{
    sync::{
        Arc,
        atomic::{
            AtomicU64, AtomicUsize,
            Ordering::{AcqRel, Acquire, Release},
        },
    },
    task::{Context, Poll},
    time::Duration,
};

use futures::{FutureExt as _, task::AtomicWaker};
use hyper::rt::Executor;
use tokio::time::Instant;

use crate::grpc;

/// The open calls of one connection. As the executor of its HTTP/2 server it runs each call in a
/// task, so a call counts until its whole answer is handed over, also that of a stream.
#[derive(Clone)]
pub(super) struct OpenCalls(Arc<Shared>);

struct Shared {
    began: Instant,
    open: AtomicUsize,
    /// Milliseconds from `began` until the last call ended.
    idle_at: AtomicU64,
    /// How many may be open before the connection is no longer read.
    most: usize,
    /// Waits until there are fewer.
    reader: AtomicWaker,
}

/// A call that is open until this is dropped.
struct OpenCall(OpenCalls);

impl OpenCalls {
    /// The calls of a connection that is not read while it has this many.
    pub(super) fn new(most: usize) -> Self {
        Self(Arc::new(Shared {
            began: Instant::now(),
            open: AtomicUsize::new(0),
            idle_at: AtomicU64::new(0),
            most,
            reader: AtomicWaker::new(),
        }))
    }

    /// Waits until the connection may be read. Only one task at a time may wait.
    pub(super) fn poll_room(&self, context: &mut Context<'_>) -> Poll<()> {
        let Shared { open, most, reader, .. } = &*self.0;
        if open.load(Acquire) < *most {
            return Poll::Ready(());
        }
        reader.register(context.waker());
        // A call may have ended before the waker was there.
        match open.load(Acquire) < *most {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }

    /// Since when no call is open; `None` while one is.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        if self.0.open.load(Acquire) > 0 {
            return None;
        }
        Some(self.0.began + Duration::from_millis(self.0.idle_at.load(Acquire)))
    }

    fn begin(&self) -> OpenCall {
        self.0.open.fetch_add(1, AcqRel);
        OpenCall(self.clone())
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        let OpenCalls(shared) = &self.0;
        // Before the count, so that whoever sees no open call sees when the last one ended.
        let now = u64::try_from(shared.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        shared.idle_at.store(now, Release);
        if shared.open.fetch_sub(1, AcqRel) == shared.most {
            shared.reader.wake();
        }
    }
}

impl<F> Executor<F> for OpenCalls
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, call: F) {
        let open = self.begin();
        // Also a call that panics drops what it counts by.
        tokio::spawn(grpc::serve_call(call).map(move |()| drop(open)));
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn a_connection_is_idle_while_none_of_its_calls_is_open() {
        let calls = OpenCalls::new(usize::MAX);
        assert!(calls.idle_since().is_some());
        let (end, ended) = oneshot::channel::<()>();
        calls.execute(ended);
        calls.execute(async {});
        assert!(calls.idle_since().is_none());
        end.send(()).unwrap();
        while calls.idle_since().is_none() {
            tokio::task::yield_now().await;
        }
        assert!(calls.idle_since().unwrap() <= Instant::now());
    }
}
