//! Ends a stream of answers as soon as its caller may not have it any more.

use std::{
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
};

use tokio_stream::Stream;
use tokio_util::{
    sync::{CancellationToken, WaitForCancellationFutureOwned},
    task::AbortOnDropHandle,
};
use tonic::Status;

use crate::{
    access::{self, Guard, OpenStream},
    grpc::{audited::Denials, status::refuse},
};

/// A stream that ends with an error as soon as its caller may not have it any more. What waits for
/// the client then is dropped.
pub struct Guarded<S> {
    inner: S,
    /// `None` for a stream that everyone may have.
    watch: Option<Watch>,
    ended: bool,
    /// Counts the stream until it is dropped.
    _open: Option<OpenStream>,
}

/// What tells that the caller may not have the stream any more.
struct Watch {
    withdrawn: Pin<Box<WaitForCancellationFutureOwned>>,
    reason: Arc<OnceLock<access::Error>>,
    /// Ends with the stream.
    _task: AbortOnDropHandle<()>,
}

impl<S> Guarded<S> {
    /// Cancels `withdrawn` when `guard` ends, and counts that, also while the client does not read.
    pub(super) fn new(
        inner: S,
        mut guard: Guard,
        withdrawn: CancellationToken,
        denials: Option<Denials>,
        open: Option<OpenStream>,
    ) -> Self {
        if guard.is_of_everyone() {
            return Self { inner, watch: None, ended: false, _open: open };
        }
        let reason = Arc::<OnceLock<_>>::default();
        let (why, until) = (reason.clone(), withdrawn.clone());
        let task = tokio::spawn(async move {
            let error = guard.ended().await;
            if let Some(denials) = denials {
                denials.count(&error);
            }
            why.get_or_init(|| error);
            until.cancel();
        });
        let watch = Watch {
            withdrawn: Box::pin(withdrawn.cancelled_owned()),
            reason,
            _task: AbortOnDropHandle::new(task),
        };
        Self { inner, watch: Some(watch), ended: false, _open: open }
    }
}

impl<T, S: Stream<Item = Result<T, Status>> + Unpin> Stream for Guarded<S> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if let Some(refusal) = self.refusal(context) {
            return Poll::Ready(Some(Err(refusal)));
        }
        match Pin::new(&mut self.inner).poll_next(context) {
            // The stream may have ended because of the withdrawal, which had not been seen here yet.
            Poll::Ready(None) => Poll::Ready(self.refusal(context).map(Err)),
            next => next,
        }
    }
}

impl<S> Guarded<S> {
    /// Why the caller may not have the stream any more, if that is so.
    fn refusal(&mut self, context: &mut Context<'_>) -> Option<Status> {
        let watch = self.watch.as_mut()?;
        if watch.withdrawn.as_mut().poll(context).is_pending() {
            return None;
        }
        self.ended = true;
        // The reason is set before the withdrawal.
        let error = watch.reason.get().cloned().unwrap_or(access::Error::Unconfirmed);
        Some(refuse(error))
    }
}
