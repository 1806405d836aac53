//! One client's connection: HTTP/2 with limits that ordinary clients do not meet.

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

use super::{KEEPALIVE_INTERVAL, accept::Accepted, cancellations::Cancellations, logs};
use crate::grpc;

/// How long a silent client may take to answer when it is asked whether it is there.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(6);

/// How long a client may take to say that it speaks HTTP/2; keepalive begins only after that.
const PREFACE_TIMEOUT: Duration = Duration::from_secs(10);

/// What a client begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a client may send ahead of being read, by stream and by connection. The default of 64 KiB
/// is less than one batch.
const STREAM_WINDOW: u32 = 2 * 1024 * 1024;
const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;

/// Streams that one connection may have open.
const MAX_STREAMS: u32 = 2_048;

/// Streams that a client may open and cancel before the broker has looked at them; one more ends
/// the connection. A client that cancels all its streams at once, and several times so while the
/// broker is busy, stays below. What waits takes a few hundred bytes each. [`Cancellations`] counts
/// those that the broker has looked at.
const MAX_CANCELLED_UNSEEN: usize = 4 * MAX_STREAMS as usize;

/// Streams that the broker itself may end because of what a client did, such as sending on after
/// the answer. They are counted over a connection's whole life, so that a low limit ends
/// connections that live for weeks.
const MAX_STREAMS_ENDED: usize = 65_536;

/// The most metadata that HTTP/2 reads of one call. Far more than [`grpc::MAX_METADATA_BYTES`], so
/// that what lies between is answered as gRPC answers, and by itself; more than this is answered by
/// HTTP/2, which gRPC clients cannot tell apart from a broken proxy.
const MAX_METADATA_READ: u32 = 2 * 1024 * 1024;

/// When connections end.
#[derive(Clone)]
pub(super) struct Ending {
    /// No more calls: those that are under way may end.
    pub(super) closing: CancellationToken,
    /// At once.
    pub(super) cut_off: CancellationToken,
}

/// Serves a connection to its end.
pub(super) async fn serve(accepted: Accepted, routes: Routes, ending: Ending) {
    let Accepted { stream, peer, permit } = accepted;
    let served = async {
        let preface = tokio::select! {
            preface = tokio::time::timeout(PREFACE_TIMEOUT, read_preface(&stream)) => preface,
            () = ending.closing.cancelled() => return,
        };
        match preface {
            Ok(Ok(preface)) => serve_http2(stream, preface, routes, &ending.closing).await,
            Ok(Err(error)) => debug!(%peer, %error, "lose a connection before it began"),
            Err(_) => debug!(%peer, "close a connection that says nothing"),
        }
    };
    ending.cut_off.run_until_cancelled(served).await;
    drop(permit);
}

/// Reads what an HTTP/2 client begins with, or the first bytes that are something else, which the
/// HTTP/2 server then refuses.
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
    let service = service_fn(move |request: Request<Incoming>| {
        let under_way = calls.call();
        let cut_off = under_way.cut_off();
        let mut request = request.map(|body| {
            let tell = move |error| {
                cut_off.tell();
                error
            };
            Body::new(body.map_err(tell))
        });
        request.extensions_mut().insert(info.clone());
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
            return warn!(?peer, "end a connection that is flooded with cancelled calls");
        }
    };
    if let Err(error) = ended {
        debug!(?peer, %error, cause = ?std::error::Error::source(&error), "lose a connection");
    }
}

fn http2_server() -> http2::Builder<TokioExecutor> {
    let mut server = http2::Builder::new(TokioExecutor::new());
    server
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(MAX_STREAMS)
        .max_pending_accept_reset_streams(MAX_CANCELLED_UNSEEN)
        .max_local_error_reset_streams(MAX_STREAMS_ENDED)
        .max_header_list_size(MAX_METADATA_READ);
    server
}
