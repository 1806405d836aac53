//! Stops reading from a connection while too many of its calls are under way.
//!
//! HTTP/2 limits how many calls a client has open, and does not count those that the client has
//! cancelled. The task of a cancelled call ends soon, but only when it is its turn, and reading is
//! faster: a client that opens and cancels calls without a pause would fill the memory with tasks.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::open_calls::OpenCalls;

/// A stream that is read only while the calls that came over it leave room for more.
pub(super) struct ReadGate<S> {
    stream: S,
    calls: OpenCalls,
}

impl<S> ReadGate<S> {
    pub(super) fn new(stream: S, calls: OpenCalls) -> Self {
        Self { stream, calls }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ReadGate<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.calls.poll_room(context));
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ReadGate<S> {
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hyper::rt::Executor as _;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        sync::Notify,
    };

    use super::*;

    #[tokio::test]
    async fn nothing_is_read_while_there_are_too_many_calls_and_reading_goes_on_afterwards() {
        let calls = OpenCalls::new(2);
        let (mut client, stream) = tokio::io::duplex(64);
        let mut stream = ReadGate::new(stream, calls.clone());
        client.write_all(b"12").await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'1');

        let end = std::sync::Arc::new(Notify::new());
        for _ in 0..3 {
            let end = end.clone();
            calls.execute(async move { end.notified().await });
        }
        let mut reading = std::pin::pin!(stream.read_u8());
        assert!(futures::poll!(reading.as_mut()).is_pending());
        // The calls begin to wait, and then end one after the other.
        tokio::task::yield_now().await;
        end.notify_waiters();
        let read = tokio::time::timeout(Duration::from_secs(20), reading).await;
        assert_eq!(read.unwrap().unwrap(), b'2');
    }
}
