//! What the server that owns the ports says of them.

use std::{net::SocketAddr, sync::Arc};

use crate::access::PeerIdentity;

/// The connections of the gRPC port.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionCounts {
    /// Connections that are open.
    pub open: usize,
    /// The most connections that may be open.
    pub limit: usize,
    /// Connections that were refused because of that limit.
    pub refused_by_total: u64,
    /// Connections that were refused because their address had too many.
    pub refused_by_address: u64,
}

/// Counts what is open on the gRPC port.
pub struct PortCounts {
    /// The connections.
    pub connections: Arc<dyn Fn() -> ConnectionCounts + Send + Sync>,
    /// The open calls.
    pub calls: Box<dyn Fn() -> usize + Send + Sync>,
}

/// Who asks: an extension of each request.
#[derive(Clone, Debug)]
pub struct Client {
    /// Its address and port.
    pub address: SocketAddr,
    /// Who it is, if it presented a certificate.
    pub identity: Option<PeerIdentity>,
}
