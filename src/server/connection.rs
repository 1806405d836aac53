//! One client's connection: HTTP/2 with limits that ordinary clients do not reach.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use futures::FutureExt as _;
use http_body_util::BodyExt as _;
use hyper::{Request, body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::rustls;
use tonic::body::Body;
use tracing::{Instrument as _, debug, warn};

use super::{
    accept::{Accepted, KEEPALIVE_INTERVAL},
    cancellations::Cancellations,
    handshake::{self, Opened, Prefaced},
    lifetime::{Ending, Lifetime, Watch},
    logs,
    open_calls::OpenCalls,
    read_gate::ReadGate,
    tls::Tls,
    write_progress::WriteProgress,
};
use crate::{access::PeerIdentity, grpc};

/// How long a silent client may take to answer a ping.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(6);

/// How many streams a connection may have open.
const MAX_STREAMS: u32 = 2_048;

/// How many calls of a connection may be under way before the broker stops reading it. A client has
/// fewer, unless it has cancelled some whose tasks have not ended yet. What has been read by then may
/// still begin as many calls as [`MAX_STREAMS`] and [`MAX_CANCELLED_EARLY`] allow.
const MAX_UNDER_WAY: usize = MAX_STREAMS as usize * 9 / 8;

/// How many streams a client may open and cancel before the broker has accepted them; one more ends
/// the connection. A client that cancels all its streams at once, even several times while the
/// broker is busy, stays below. Each of these streams takes a few hundred bytes. [`Cancellations`]
/// counts those that the broker has accepted.
const MAX_CANCELLED_EARLY: usize = 4 * MAX_STREAMS as usize;

/// How many streams the broker may end itself because of a fault of the client's, such as sending
/// more after the answer. HTTP/2 counts them over a connection's whole life, so a low limit would
/// end connections that live for weeks.
const MAX_STREAMS_ENDED: usize = 65_536;

/// The most metadata that HTTP/2 reads of one call, which is before anybody knows who calls. It is
/// twice [`grpc::MAX_METADATA_BYTES`], so that a call in between is answered by gRPC with the limit.
/// More than this is answered by HTTP/2, which many gRPC clients know in advance, as they are told this
/// limit.
const MAX_METADATA_READ: u32 = 2 * grpc::MAX_METADATA_BYTES as u32;

/// What all connections have in common.
#[derive(Clone)]
pub(super) struct Settings {
    pub(super) api: grpc::Api,
    pub(super) tls: Option<Arc<Tls>>,
    pub(super) lifetime: Lifetime,
    /// When all connections end.
    pub(super) ending: Ending,
    pub(super) windows: Windows,
}

/// How much may arrive before it is read.
#[derive(Clone, Copy)]
pub(super) struct Windows {
    pub(super) stream: u32,
    pub(super) connection: u32,
}

impl Windows {
    /// Of clients.
    pub(super) const OF_CLIENTS: Self =
        Self { stream: grpc::STREAM_WINDOW, connection: grpc::CONNECTION_WINDOW };

    /// Of other brokers. All streams together fill a connection, so that one whose requests are not read holds up
    /// no other.
    pub(super) const OF_BROKERS: Self =
        Self { stream: 64 * 1024, connection: MAX_STREAMS * 64 * 1024 };
}

/// An accepted connection, and how it is served.
pub(super) struct Connection {
    pub(super) accepted: Accepted,
    pub(super) settings: Settings,
}

/// HTTP/2 on a connection.
struct Http2 {
    api: grpc::Api,
    peer: SocketAddr,
    identity: Option<PeerIdentity>,
    calls: OpenCalls,
    ending: Ending,
    windows: Windows,
}

impl Connection {
    /// Serves the connection to its end.
    pub(super) async fn serve(self) {
        let Self { accepted, settings } = self;
        let Settings { api, tls, lifetime, ending, windows } = settings;
        let Accepted { stream, peer, admitted } = accepted;
        let ending = ending.of_one();
        let cut_off = ending.cut_off.clone();
        let served = async {
            let writes = WriteProgress::new();
            let opening = handshake::open(stream, &admitted, tls.as_deref(), writes.clone());
            let opened = tokio::select! {
                opened = opening => opened,
                () = ending.closing.cancelled() => return,
            };
            let Some(opened) = opened_in_time(opened, peer) else { return };
            let calls = OpenCalls::new(MAX_UNDER_WAY);
            let watch = Watch::new(lifetime, calls.clone(), writes, ending.clone());
            let http2 = Http2 { api, peer, identity: None, calls, ending, windows };
            let serving = async {
                match opened {
                    Opened::Plain(stream) => http2.serve(stream).await,
                    // Boxed, so that plain connections are not as large.
                    Opened::Encrypted { stream, identity } => {
                        Box::pin(Http2 { identity, ..http2 }.serve(*stream)).await;
                    }
                }
            };
            tokio::select! {
                () = serving => {}
                () = watch.end_when_due() => {}
            }
        };
        cut_off.run_until_cancelled(served).await;
        drop(admitted);
    }
}

/// What was opened; logs why not.
fn opened_in_time(opened: io::Result<Opened>, peer: SocketAddr) -> Option<Opened> {
    match opened {
        Ok(opened) => return Some(opened),
        Err(error) if error.get_ref().is_some_and(|error| error.is::<rustls::Error>()) => {
            // Such as a client that does not trust the broker, or has no certificate itself.
            warn!(%error, "refuse TLS connections");
            debug!(%peer, %error, "refuse a TLS connection");
        }
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
            debug!(%peer, "closed a connection without a preface");
        }
        Err(error) => debug!(%peer, %error, "lost a connection before its preface"),
    }
    None
}

impl Http2 {
    async fn serve<S: AsyncRead + AsyncWrite + Unpin>(self, stream: Prefaced<S>) {
        let Self { api, peer, identity, calls: open_calls, ending, windows } = self;
        let cancellations = Cancellations::new();
        let calls = cancellations.clone();
        let shared = grpc::Connection::new(Some(peer), identity);
        let service = service_fn(move |request: Request<Incoming>| {
            let under_way = calls.call();
            let cut_off = under_way.cut_off();
            let mut request = request.map(|body| {
                let record = move |error| {
                    cut_off.record();
                    error
                };
                Body::new(body.map_err(record))
            });
            request.extensions_mut().insert(shared.clone());
            let span = logs::request_span(&request);
            let answering = grpc::answer(api.clone(), request).map(|answer| {
                under_way.answered();
                Ok::<_, Infallible>(answer)
            });
            // Boxed: it is large, and moved several times on its way into its task.
            Box::pin(answering.instrument(span))
        });
        let stream = TokioIo::new(ReadGate::new(stream, open_calls.clone()));
        let connection = http2_server(open_calls, windows).serve_connection(stream, service);
        let mut connection = std::pin::pin!(connection);
        let served = async {
            tokio::select! {
                ended = &mut connection => return ended,
                () = ending.closing.cancelled() => {}
            }
            connection.as_mut().graceful_shutdown();
            connection.await
        };
        let ended = tokio::select! {
            ended = served => ended,
            () = cancellations.flood() => {
                return warn!(%peer, "cut off a flood of cancelled calls");
            }
        };
        if let Err(error) = ended {
            let cause = std::error::Error::source(&error).map(tracing::field::display);
            debug!(%peer, %error, cause, "lost a client's connection");
        }
    }
}

fn http2_server(calls: OpenCalls, windows: Windows) -> http2::Builder<OpenCalls> {
    let mut server = http2::Builder::new(calls);
    server
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .initial_stream_window_size(windows.stream)
        .initial_connection_window_size(windows.connection)
        .max_concurrent_streams(MAX_STREAMS)
        .max_pending_accept_reset_streams(MAX_CANCELLED_EARLY)
        .max_local_error_reset_streams(MAX_STREAMS_ENDED)
        .max_header_list_size(MAX_METADATA_READ);
    server
}
