//! Notes whether writes to a client make progress.
//!
//! A client that lives but does not read leaves its connection blocked for ever: the kernel sees it
//! answer, and HTTP/2 cannot send the frame that would end it. [`WriteProgress::blocked`] says for
//! how long nothing could be written. A client that has nothing to read is never blocked.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

/// The progress of one connection's writes.
#[derive(Clone)]
pub(super) struct WriteProgress(Arc<Shared>);

struct Shared {
    began: Instant,
    /// Milliseconds from `began` until writes blocked, plus one; 0 while they do not.
    blocked_at: AtomicU64,
}

/// A stream that notes the progress of its writes.
pub(super) struct Noted<S> {
    stream: S,
    progress: WriteProgress,
}

impl WriteProgress {
    pub(super) fn new() -> Self {
        Self(Arc::new(Shared { began: Instant::now(), blocked_at: AtomicU64::new(0) }))
    }

    /// For how long nothing could be written, although there was something to write.
    pub(super) fn blocked(&self, now: Instant) -> Option<Duration> {
        let at = self.0.blocked_at.load(Relaxed).checked_sub(1)?;
        Some(now.saturating_duration_since(self.0.began + Duration::from_millis(at)))
    }

    fn note<T>(&self, written: &Poll<io::Result<T>>) {
        let is_blocked = self.0.blocked_at.load(Relaxed) != 0;
        if written.is_pending() && !is_blocked {
            let at = self.0.began.elapsed().as_millis();
            self.0.blocked_at.store(u64::try_from(at).unwrap_or(u64::MAX - 1) + 1, Relaxed);
        } else if written.is_ready() && is_blocked {
            self.0.blocked_at.store(0, Relaxed);
        }
    }
}

impl<S> Noted<S> {
    pub(super) fn new(stream: S, progress: WriteProgress) -> Self {
        Self { stream, progress }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Noted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Noted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.progress.note(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.progress.note(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    // Flushing and shutting down a socket never blocks, so they say nothing about progress.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn a_stream_is_blocked_from_a_write_that_waits_until_one_that_succeeds() {
        let (stream, mut client) = tokio::io::duplex(4);
        let progress = WriteProgress::new();
        let mut stream = Noted::new(stream, progress.clone());
        let later = || Instant::now() + Duration::from_secs(3_600);
        stream.write_all(b"1234").await.unwrap();
        assert_eq!(progress.blocked(later()), None);

        {
            let mut waiting = std::pin::pin!(stream.write_all(b"5678"));
            assert!(futures::poll!(waiting.as_mut()).is_pending());
            assert!(progress.blocked(later()).unwrap() >= Duration::from_secs(3_599));
            let mut read = [0; 2];
            client.read_exact(&mut read).await.unwrap();
            // Two bytes more are written, and the rest waits anew.
            assert!(futures::poll!(waiting.as_mut()).is_pending());
            client.read_exact(&mut read).await.unwrap();
            waiting.await.unwrap();
        }
        assert_eq!(progress.blocked(later()), None);
    }
}
