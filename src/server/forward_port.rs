//! The port on which other brokers forward calls to this one.
//!
//! Its certificate and its secret are drawn at the start, and known to whoever can read the database's tables.

use std::{io, net::SocketAddr, sync::Arc};

use tokio::net::TcpListener;

use super::{
    accept::Acceptor,
    admission::ConnectionLimits,
    error::Error,
    options::{HttpAddress, ServeOptions},
    tls::Tls,
};
use crate::grpc::ForwardIdentity;

/// How many connections there can be, in all and from one address. Another broker has one for each thousand
/// calls.
pub(super) const MAX_CONNECTIONS: usize = 256;
const MAX_OF_ADDRESS: usize = 64;

/// The port, and where others find it.
pub(super) struct ForwardPort {
    pub(super) acceptor: Acceptor,
    pub(super) tls: Arc<Tls>,
    pub(super) identity: ForwardIdentity,
}

impl ForwardPort {
    /// Binds the port that the options name; `None` if there is none.
    pub(super) async fn of(options: &ServeOptions) -> Result<Option<Self>, Error> {
        let address = match options.forward.forward_listen {
            Some(HttpAddress::Off) => return Ok(None),
            Some(HttpAddress::On(address)) => address,
            None => SocketAddr::new(options.listen.ip(), 0),
        };
        Self::bind(address, options.forward.forward_host.as_deref()).await.map(Some)
    }

    /// Binds a port. Others reach it by the host that is given or, without one, by the address if it is of one
    /// host.
    pub(super) async fn bind(address: SocketAddr, host: Option<&str>) -> Result<Self, Error> {
        let failed = |source| Error::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        let bound_host = (!bound.ip().is_unspecified()).then(|| bound.ip().to_string());
        let host = host.map(str::to_owned).or(bound_host);
        let identity = ForwardIdentity::draw(host, bound.port());
        let identity = identity.map_err(|error| failed(io::Error::other(error)))?;
        let tls = Tls::of_broker(identity.certificate.clone(), identity.key.clone());
        let tls = tls.map_err(|error| failed(io::Error::other(error)))?;
        let limits = ConnectionLimits { total: MAX_CONNECTIONS, per_address: MAX_OF_ADDRESS };
        Ok(Self { acceptor: Acceptor::new(listener, limits), tls: Arc::new(tls), identity })
    }
}
