//! The port for HTTP: accepts connections, encrypts them as the gRPC port does, and serves HTTP/1.1.
//!
//! It has connection limits of its own, far below those of the gRPC port, so that neither port takes
//! descriptors from the other.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, extract::Request};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    time::{Instant, sleep, timeout},
};
use tokio_rustls::rustls;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;
use tracing::{debug, warn};

use super::{
    accept::{Accepted, Acceptor},
    admission::ConnectionLimits,
    error::Error,
    exposure,
    lifetime::Ending,
    options::{HttpAddress, HttpOptions, ServeOptions},
    tls::Tls,
    write_progress::{Noted, WriteProgress},
};
use crate::{
    access::PeerIdentity,
    http::{Client, HostNames},
};

/// How many connections may be open.
pub(super) const MAX_CONNECTIONS: usize = 128;
const MAX_CONNECTIONS_PER_ADDRESS: usize = 64;

/// How long a client may take for the TLS handshake, and for the head of each request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a client may leave an answer unread.
const MAX_BLOCKED: Duration = Duration::from_secs(30);

/// How much of a request's head is read.
const MAX_HEAD: usize = 32 * 1024;

/// The port for HTTP, before anything is served on it.
pub(super) struct HttpPort {
    acceptor: Acceptor,
    bound: SocketAddr,
    options: HttpOptions,
    /// Whether each client must prove who it is.
    requires_proof: bool,
}

impl HttpPort {
    /// Binds the port; `None` if the options turn it off.
    pub(super) async fn bind(options: &ServeOptions) -> Result<Option<Self>, Error> {
        let HttpAddress::On(address) = options.http.http else { return Ok(None) };
        let requires_proof = exposure::authenticates(options);
        let failed = |source| Error::ListenHttp { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        let limits =
            ConnectionLimits { total: MAX_CONNECTIONS, per_address: MAX_CONNECTIONS_PER_ADDRESS };
        let acceptor = Acceptor::new(listener, limits);
        Ok(Some(Self { acceptor, bound, options: options.http.clone(), requires_proof }))
    }

    /// The address that it is bound to.
    pub(super) fn bound(&self) -> SocketAddr {
        self.bound
    }

    /// Whether only this host can reach it.
    pub(super) fn is_local(&self) -> bool {
        exposure::is_loopback(self.bound)
    }

    /// The names that the header Host may have; `None` if any will do, because whoever asks has to prove
    /// who it is.
    pub(super) fn host_names(&self) -> Option<HostNames> {
        let names = self.options.http_host.clone();
        match self.is_local() {
            true => Some(HostNames { names, any_address: false }),
            // A page whose name was given this host's address still asks for its name.
            false if !self.requires_proof => Some(HostNames { names, any_address: true }),
            false => None,
        }
    }

    /// What its metrics show.
    pub(super) fn options(&self) -> &HttpOptions {
        &self.options
    }

    /// Serves requests until the ending's `closing`, then waits for all connections to end.
    pub(super) async fn serve(self, routes: Router, tls: Option<Arc<Tls>>, ending: Ending) {
        let Self { mut acceptor, .. } = self;
        let connections = TaskTracker::new();
        while let Some(accepted) = ending.closing.run_until_cancelled(acceptor.next()).await {
            let (routes, tls, ending) = (routes.clone(), tls.clone(), ending.clone());
            connections.spawn(async move {
                let cut_off = ending.cut_off.clone();
                let served = serve_connection(accepted, routes, tls.as_deref(), ending);
                cut_off.run_until_cancelled(served).await;
            });
        }
        drop(acceptor);
        connections.close();
        connections.wait().await;
    }
}

/// Serves one connection to its end.
async fn serve_connection(accepted: Accepted, routes: Router, tls: Option<&Tls>, ending: Ending) {
    let Accepted { stream, peer, admitted } = accepted;
    let writes = WriteProgress::new();
    let stream = Noted::new(stream, writes.clone());
    let served = async {
        match tls {
            None => serve_requests(stream, peer, None, routes, ending).await,
            Some(tls) => {
                let opened = timeout(HEAD_TIMEOUT, tls.accept_http(stream)).await;
                match opened.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                    Ok((stream, identity)) => {
                        serve_requests(stream, peer, identity, routes, ending).await;
                    }
                    Err(error) if error.get_ref().is_some_and(|it| it.is::<rustls::Error>()) => {
                        warn!(%error, "refuse TLS connections for HTTP");
                    }
                    Err(error) => debug!(%peer, %error, "lost an HTTP connection"),
                }
            }
        }
    };
    tokio::select! {
        () = served => {}
        () = until_blocked(&writes) => debug!(%peer, "cut off a blocked HTTP connection"),
    }
    drop(admitted);
}

async fn serve_requests<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    peer: SocketAddr,
    identity: Option<PeerIdentity>,
    routes: Router,
    ending: Ending,
) {
    let client = Client { address: peer, identity };
    let service = routes.map_request(move |mut request: Request<_>| {
        request.extensions_mut().insert(client.clone());
        request
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = ending.closing.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%peer, %error, "lost an HTTP connection");
    }
}

/// Returns once a client has left an answer unread for too long.
async fn until_blocked(writes: &WriteProgress) {
    loop {
        let blocked = writes.blocked(Instant::now()).unwrap_or_default();
        if blocked >= MAX_BLOCKED {
            return;
        }
        sleep(MAX_BLOCKED - blocked).await;
    }
}
