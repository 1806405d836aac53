//! What the calls of one connection share.

use std::sync::{Arc, OnceLock};

use crate::grpc::{accounts::Account, backlog::Backlog};

/// What the calls of one connection share: an extension of each of them. Cheap to clone.
#[derive(Clone, Default)]
pub struct Connection(Arc<State>);

#[derive(Default)]
struct State {
    backlog: Backlog,
    /// The account that its client is known by without proving who it is.
    account: OnceLock<Arc<Account>>,
}

impl Connection {
    /// The requests that wait for room.
    pub(super) fn backlog(&self) -> Backlog {
        self.0.backlog.clone()
    }

    /// The account of the client's address, found at the first call.
    pub(super) fn account_or(&self, find: impl FnOnce() -> Arc<Account>) -> Arc<Account> {
        self.0.account.get_or_init(find).clone()
    }
}
