//! Keeps requests that wait for room in a budget from holding up one that has its room.
//!
//! What is sent and not read counts against the flow control of the whole connection. If requests
//! that wait use all of it up, one that is half read cannot arrive, and the others may be waiting for
//! what it holds. It then ends their wait: they are refused, and can be repeated.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::Notify;

use crate::grpc::limits::{CONNECTION_WINDOW, STREAM_WINDOW};

/// How many unread bytes of requests that wait may keep another one from arriving.
const FULL: usize = (CONNECTION_WINDOW - 2 * STREAM_WINDOW) as usize;

/// The requests of a connection that wait for room. Cheap to clone.
#[derive(Clone, Default)]
pub struct Backlog(Arc<State>);

#[derive(Default)]
struct State {
    /// The most bytes that they may have sent already.
    unread: AtomicUsize,
    /// Notified to end all waits.
    end: Notify,
}

/// A request that waits.
pub(super) struct Waiting {
    backlog: Backlog,
    unread: usize,
}

impl Backlog {
    /// Counts a request that waits, of which the client may send so many bytes meanwhile.
    pub(super) fn wait(&self, bytes: usize) -> Waiting {
        let unread = bytes.min(STREAM_WINDOW as usize);
        self.0.unread.fetch_add(unread, Ordering::Relaxed);
        Waiting { backlog: self.clone(), unread }
    }

    /// A request that has its room does not arrive: ends the waits if they may be why.
    pub(super) fn starves(&self) {
        if self.0.unread.load(Ordering::Relaxed) >= FULL {
            self.0.end.notify_waiters();
        }
    }
}

impl Waiting {
    /// Waits for what the request waits for; `None` if the wait is ended before.
    pub(super) async fn until<T>(self, room: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            // Room that is there is taken.
            biased;
            room = room => Some(room),
            () = self.backlog.0.end.notified() => None,
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.backlog.0.unread.fetch_sub(self.unread, Ordering::Relaxed);
    }
}
