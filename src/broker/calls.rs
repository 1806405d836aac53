//! The calls that are under way. New ones are refused while the broker drains.

use tokio::task::futures::TaskLocalFuture;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{broker::error::Error, storage::SessionShare};

/// Whom calls get sessions of the database for: owners get them in turn. Cheap to clone; every clone
/// is the same owner.
#[derive(Clone, Debug, Default)]
pub struct SessionOwner(SessionShare);

/// A call that gets sessions as those of one owner.
pub type OfOwner<F> = TaskLocalFuture<SessionShare, F>;

impl SessionOwner {
    /// Serves a call of this owner.
    pub fn scope<F: Future>(self, call: F) -> OfOwner<F> {
        self.0.scope(call)
    }

    /// Whether nobody else uses it or could.
    pub fn is_unused(&self) -> bool {
        self.0.is_unused()
    }
}

/// The calls that are under way. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Calls {
    draining: CancellationToken,
    tasks: TaskTracker,
}

impl Calls {
    /// Refuses a call if the broker drains.
    pub(crate) fn admit(&self) -> Result<(), Error> {
        if self.draining.is_cancelled() { Err(Error::Draining) } else { Ok(()) }
    }

    /// Cancelled when the broker begins to drain.
    pub(crate) fn draining(&self) -> &CancellationToken {
        &self.draining
    }

    /// Spawns a call, or the part of a call that outlives its request, and counts it until it ends.
    /// It gets sessions of the database as whoever made the call.
    pub(crate) fn spawn(&self, call: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(SessionShare::inherit(call));
    }

    /// Counts a call until it ends.
    pub(crate) async fn track<T>(&self, call: impl Future<Output = T>) -> T {
        self.tasks.track_future(call).await
    }

    /// Refuses new calls, and asks those under way to end.
    pub(crate) fn drain(&self) {
        self.draining.cancel();
    }

    /// Waits for the end of all calls.
    pub(crate) async fn ended(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}
