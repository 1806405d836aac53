//! A hostile client's connection.

use std::{
    ops::{Deref, DerefMut},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, tcp::OwnedWriteHalf},
    task::JoinHandle,
};

use super::http2::{ACK, Frames, SETTINGS};

/// How long a write may wait for room, or a connection to be accepted.
const PATIENCE: Duration = Duration::from_secs(2);

/// A connection that sends any frames, and drops what it receives.
pub struct Wire {
    frames: Frames,
    writing: OwnedWriteHalf,
    reading: JoinHandle<()>,
}

impl Wire {
    /// Connects with HTTP/2 settings, each an identifier and a value; `None` if that fails.
    pub async fn connect(port: u16, settings: &[(u16, u32)]) -> Option<Self> {
        let connecting = TcpStream::connect(("127.0.0.1", port));
        let stream = tokio::time::timeout(PATIENCE, connecting).await.ok()?.ok()?;
        let (mut read, writing) = stream.into_split();
        let reading = tokio::spawn(async move {
            let mut buffer = vec![0; 64 * 1024];
            while matches!(read.read(&mut buffer).await, Ok(1..)) {}
        });
        let mut frames = Frames::begin_connection(settings);
        frames.frame(SETTINGS, ACK, 0, &[]);
        Some(Self { frames, writing, reading })
    }

    /// Sends what is queued; returns false if the peer is gone or takes nothing.
    pub async fn flush(&mut self) -> bool {
        let outgoing = self.frames.take();
        let writing = tokio::time::timeout(PATIENCE, self.writing.write_all(&outgoing));
        matches!(writing.await, Ok(Ok(()))) && !self.reading.is_finished()
    }
}

impl Deref for Wire {
    type Target = Frames;

    fn deref(&self) -> &Frames {
        &self.frames
    }
}

impl DerefMut for Wire {
    fn deref_mut(&mut self) -> &mut Frames {
        &mut self.frames
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.reading.abort();
    }
}
