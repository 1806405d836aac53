//! Takes a connection to HTTP/2's preface, encrypted if the broker uses TLS.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::server::TlsStream;

use super::{
    admission::Admitted,
    tls::Tls,
    write_progress::{Noted, WriteProgress},
};
use crate::access::PeerIdentity;

/// How long a client may take to send its first bytes, and then, once it is its turn, for the TLS
/// handshake and HTTP/2's preface together. Pings begin only after them.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How long a client that has sent its first bytes may wait for its turn.
const TURN_TIMEOUT: Duration = Duration::from_secs(30);

/// The first bytes that an HTTP/2 client sends.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection whose client has sent HTTP/2's preface.
pub(super) enum Opened {
    Plain(Prefaced<Noted<TcpStream>>),
    Encrypted {
        stream: Box<Prefaced<TlsStream<Noted<TcpStream>>>>,
        /// Who the client is, if it presented a certificate.
        identity: Option<PeerIdentity>,
    },
}

/// A stream whose first bytes were read already.
pub(super) struct Prefaced<S> {
    read: Vec<u8>,
    given: usize,
    stream: S,
}

/// Waits for the client's first bytes, encrypts the connection if there is TLS, and reads the
/// preface. A client that stays silent takes no place among the handshakes.
pub(super) async fn open(
    stream: TcpStream,
    admitted: &Admitted,
    tls: Option<&Tls>,
    writes: WriteProgress,
) -> io::Result<Opened> {
    timeout(TIMEOUT, stream.readable()).await??;
    let _under_way = timeout(TURN_TIMEOUT, admitted.begin_handshake()).await?;
    let stream = Noted::new(stream, writes);
    let opening = async {
        match tls {
            None => Ok(Opened::Plain(read_preface(stream).await?)),
            Some(tls) => {
                let (stream, identity) = tls.accept(stream).await?;
                let stream = Box::new(read_preface(stream).await?);
                Ok(Opened::Encrypted { stream, identity })
            }
        }
    };
    timeout(TIMEOUT, opening).await?
}

/// Reads the preface, or as much as shows that it is not one; the HTTP/2 server then refuses it.
async fn read_preface<S: AsyncRead + Unpin>(mut stream: S) -> io::Result<Prefaced<S>> {
    let mut read = Vec::with_capacity(PREFACE.len());
    while read.len() < PREFACE.len() && PREFACE.starts_with(&read) {
        let mut rest = [0; PREFACE.len()];
        let rest = &mut rest[read.len()..];
        match stream.read(rest).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => read.extend_from_slice(&rest[..count]),
        }
    }
    Ok(Prefaced { read, given: 0, stream })
}

impl<S: AsyncRead + Unpin> AsyncRead for Prefaced<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { read, given, stream } = &mut *self;
        if *given == read.len() {
            return Pin::new(stream).poll_read(context, buffer);
        }
        let count = buffer.remaining().min(read.len() - *given);
        buffer.put_slice(&read[*given..*given + count]);
        *given += count;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Prefaced<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
