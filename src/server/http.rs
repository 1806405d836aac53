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
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;
use tracing::debug;

use super::{
    accept::{Accepted, Acceptor},
    admission::ConnectionLimits,
    error::Error,
    exposure,
    lifetime::Ending,
    options::{HttpAddress, HttpOptions},
    tls::Tls,
    write_progress::{Noted, WriteProgress},
};
use crate::{
    access::PeerIdentity,
    broker::OverviewLimits,
    http::{Client, HostNames},
};

/// How many connections may be open: of browsers and of programs that scrape.
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
}

impl HttpPort {
    /// Binds the port; `None` if the options turn it off.
    pub(super) async fn bind(options: &HttpOptions) -> Result<Option<Self>, Error> {
        let HttpAddress::On(address) = options.http else { return Ok(None) };
        let failed = |source| Error::ListenHttp { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        let limits =
            ConnectionLimits { total: MAX_CONNECTIONS, per_address: MAX_CONNECTIONS_PER_ADDRESS };
        let acceptor = Acceptor::new(listener, limits);
        Ok(Some(Self { acceptor, bound, options: options.clone() }))
    }

    /// The address that it is bound to.
    pub(super) fn bound(&self) -> SocketAddr {
        self.bound
    }

    /// Whether only this host can reach it.
    pub(super) fn is_local(&self) -> bool {
        exposure::is_loopback(self.bound)
    }

    /// The names that it may be asked for by; `None` if any will do, because other hosts need a proof
    /// of who they are.
    pub(super) fn host_names(&self) -> Option<HostNames> {
        self.is_local().then(|| HostNames(self.options.http_host.clone()))
    }

    /// How much its metrics list.
    pub(super) fn limits(&self) -> OverviewLimits {
        let topics = self.options.metrics_max_series as usize;
        let consumers = if self.options.metrics_consumers { topics } else { 0 };
        OverviewLimits { topics, consumers }
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
                    Err(error) => debug!(%peer, %error, "refuse a TLS connection for HTTP"),
                }
            }
        }
    };
    tokio::select! {
        () = served => {}
        () = until_blocked(&writes) => debug!(%peer, "closed an HTTP connection that was not read"),
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
