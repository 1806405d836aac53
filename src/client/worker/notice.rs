//! What a worker says of its stream.

use std::{fmt, sync::Arc};

use crate::{client::error::Error, proto::Stalled};

/// What happens on a worker's stream; for
/// [`WorkerBuilder::on_notice`](crate::client::WorkerBuilder::on_notice).
#[derive(Clone, Debug, PartialEq)]
pub enum WorkerNotice {
    /// The stream is open.
    Attached,
    /// The broker was lost, and the worker tries again.
    Broken(Error),
    /// Messages wait, and cannot be delivered to this worker now: it has as many as it may have, or all
    /// workers together have.
    Stalled(Stalled),
}

/// Who is told.
#[derive(Clone, Default)]
pub(crate) struct Listener(Option<Arc<dyn Fn(WorkerNotice) + Send + Sync>>);

impl Listener {
    pub(crate) fn new(listen: impl Fn(WorkerNotice) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(listen)))
    }

    pub(super) fn notify(&self, notice: WorkerNotice) {
        if let Some(listen) = &self.0 {
            listen(notice);
        }
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Listener").field(&self.0.is_some()).finish()
    }
}
