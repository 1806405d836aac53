//! One client's connection: HTTP/2 with limits that ordinary clients do not reach.

use std::{convert::Infallible, io, time::Duration};

use http_body_util::BodyExt as _;
use hyper::{Request, body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::{AsyncReadExt as _, Interest},
    net::TcpStream,
};
use tokio_util::sync::CancellationToken;
use tonic::{body::Body, service::Routes, transport::server::Connected as _};
use tracing::{Instrument as _, debug, warn};

use super::{
    accept::{Accepted, KEEPALIVE_INTERVAL},
    cancellations::Cancellations,
    logs,
};
use crate::grpc;

/// How long a silent client may take to answer a ping.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(6);

/// How long a client may take to send HTTP/2's preface. Pings begin only after it.
const PREFACE_TIMEOUT: Duration = Duration::from_secs(10);

/// The first bytes that an HTTP/2 client sends.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How many streams a connection may have open.
const MAX_STREAMS: u32 = 2_048;

/// How many streams a client may open and cancel before the broker has accepted them; one more ends
/// the connection. A client that cancels all its streams at once, even several times while the
/// broker is busy, stays below. Each of these streams takes a few hundred bytes. [`Cancellations`]
/// counts those that the broker has accepted.
const MAX_CANCELLED_EARLY: usize = 4 * MAX_STREAMS as usize;

/// How many streams the broker may end itself because of a fault of the client's, such as sending
/// more after the answer. HTTP/2 counts them over a connection's whole life, so a low limit would
/// end connections that live for weeks.
const MAX_STREAMS_ENDED: usize = 65_536;

/// The most metadata that HTTP/2 reads of one call. It is far more than
/// [`grpc::MAX_METADATA_BYTES`], so that a call in between is answered by gRPC, and alone. More than
/// this is answered by HTTP/2, which gRPC clients cannot tell apart from a broken proxy.
const MAX_METADATA_READ: u32 = 2 * 1024 * 1024;

/// When connections end.
#[derive(Clone)]
pub(super) struct Ending {
    /// No new calls are accepted; calls that are under way may end.
    pub(super) closing: CancellationToken,
    /// All calls are cut off at once.
    pub(super) cut_off: CancellationToken,
}

/// A connection and what its calls are routed to.
pub(super) struct Connection {
    pub(super) accepted: Accepted,
    pub(super) routes: Routes,
    pub(super) ending: Ending,
}

impl Connection {
    /// Serves the connection to its end.
    pub(super) async fn serve(self) {
        let Self { accepted, routes, ending } = self;
        let Accepted { stream, peer, permit } = accepted;
        let served = async {
            let preface = tokio::select! {
                preface = tokio::time::timeout(PREFACE_TIMEOUT, read_preface(&stream)) => preface,
                () = ending.closing.cancelled() => return,
            };
            match preface {
                Ok(Ok(preface)) => serve_http2(stream, preface, routes, &ending.closing).await,
                Ok(Err(error)) => debug!(%peer, %error, "lost a connection before its preface"),
                Err(_) => debug!(%peer, "closed a connection that sent no preface"),
            }
        };
        ending.cut_off.run_until_cancelled(served).await;
        drop(permit);
    }
}

/// Reads the preface, or as much as shows that it is not one; the HTTP/2 server then refuses it.
async fn read_preface(stream: &TcpStream) -> io::Result<Vec<u8>> {
    let mut read = Vec::with_capacity(PREFACE.len());
    while read.len() < PREFACE.len() && PREFACE.starts_with(&read) {
        stream.ready(Interest::READABLE).await?;
        let mut rest = [0; PREFACE.len()];
        let rest = &mut rest[read.len()..];
        match stream.try_read(rest) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => read.extend_from_slice(&rest[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}

async fn serve_http2(
    stream: TcpStream,
    preface: Vec<u8>,
    routes: Routes,
    closing: &CancellationToken,
) {
    let info = stream.connect_info();
    let peer = info.remote_addr();
    let cancellations = Cancellations::new();
    let calls = cancellations.clone();
    let backlog = grpc::Backlog::default();
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
        request.extensions_mut().insert(info.clone());
        request.extensions_mut().insert(backlog.clone());
        let span = logs::request_span(&request);
        let answering = grpc::answer(routes.clone(), request);
        let answering = async move {
            let answer = answering.await;
            under_way.answered();
            Ok::<_, Infallible>(answer)
        };
        // Boxed: it is large, and moved several times on its way into its task.
        Box::pin(answering.instrument(span))
    });
    let (reading, writing) = stream.into_split();
    let stream = tokio::io::join(io::Cursor::new(preface).chain(reading), writing);
    let connection = http2_server().serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let served = async {
        tokio::select! {
            ended = &mut connection => return ended,
            () = closing.cancelled() => {}
        }
        connection.as_mut().graceful_shutdown();
        connection.await
    };
    let ended = tokio::select! {
        ended = served => ended,
        () = cancellations.flood() => {
            return warn!(?peer, "closed a connection that was flooded with cancelled calls");
        }
    };
    if let Err(error) = ended {
        debug!(?peer, %error, cause = ?std::error::Error::source(&error), "lost a connection");
    }
}

fn http2_server() -> http2::Builder<TokioExecutor> {
    let mut server = http2::Builder::new(TokioExecutor::new());
    server
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .initial_stream_window_size(grpc::STREAM_WINDOW)
        .initial_connection_window_size(grpc::CONNECTION_WINDOW)
        .max_concurrent_streams(MAX_STREAMS)
        .max_pending_accept_reset_streams(MAX_CANCELLED_EARLY)
        .max_local_error_reset_streams(MAX_STREAMS_ENDED)
        .max_header_list_size(MAX_METADATA_READ);
    server
}
