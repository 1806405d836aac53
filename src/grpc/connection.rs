//! What the calls of one connection share.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, OnceLock},
};

use tonic::codegen::http::Extensions;

use crate::{
    access::PeerIdentity,
    grpc::{accounts::Account, backlog::Backlog},
};

/// What the calls of one connection share: an extension of each of them. Cheap to clone.
#[derive(Clone, Default)]
pub struct Connection(Arc<State>);

#[derive(Default)]
struct State {
    client: Option<SocketAddr>,
    identity: Option<PeerIdentity>,
    backlog: Backlog,
    /// The account that its client is known by without proving who it is.
    account: OnceLock<Arc<Account>>,
}

impl Connection {
    /// The connection of a client, which may have presented a certificate.
    pub fn new(client: Option<SocketAddr>, identity: Option<PeerIdentity>) -> Self {
        Self(Arc::new(State { client, identity, ..State::default() }))
    }

    /// The requests that wait for room.
    pub(super) fn backlog(&self) -> Backlog {
        self.0.backlog.clone()
    }

    /// The account of the client's address, found at the first call.
    pub(super) fn account_or(&self, find: impl FnOnce() -> Arc<Account>) -> Arc<Account> {
        self.0.account.get_or_init(find).clone()
    }
}

/// The address and port of a call's client.
pub(super) fn client(call: &Extensions) -> Option<SocketAddr> {
    call.get::<Connection>()?.0.client
}

/// The address of a call's client.
pub(super) fn address(call: &Extensions) -> Option<IpAddr> {
    client(call).map(|client| client.ip())
}

/// Who the client of a call is, if it presented a certificate.
pub(super) fn identity(call: &Extensions) -> Option<&PeerIdentity> {
    call.get::<Connection>()?.0.identity.as_ref()
}
