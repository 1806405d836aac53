//! A connection of HTTP/2 that sends and receives single frames.

use std::{
    ops::{Deref, DerefMut},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{
    http2::{ACK, Frames, PING, SETTINGS},
    soon,
};

/// A connection that checks nothing of what it sends.
pub struct RawHttp2 {
    frames: Frames,
    stream: TcpStream,
}

pub struct Frame {
    pub kind: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// Whether the peer is about to end the connection.
    pub fn is_goaway(&self) -> bool {
        const GOAWAY: u8 = 7;
        self.kind == GOAWAY
    }
}

impl RawHttp2 {
    pub async fn connect(endpoint: &str) -> Self {
        Self::over(TcpStream::connect(endpoint.strip_prefix("http://").unwrap()).await.unwrap())
    }

    /// Begins HTTP/2 on an open connection.
    pub fn over(stream: TcpStream) -> Self {
        Self { frames: Frames::begin_connection(&[]), stream }
    }

    /// Sends what is queued; returns false if the peer is gone.
    pub async fn flush(&mut self) -> bool {
        let outgoing = self.frames.take();
        soon("room in the socket", self.stream.write_all(&outgoing)).await.is_ok()
    }

    /// Sends what is queued again and again, and reads nothing; returns once the peer has stopped
    /// reading or ended the connection, or has taken this many bytes.
    pub async fn flood_unread(&mut self, most: usize) -> usize {
        /// A peer that reads takes something well within this.
        const PATIENCE: Duration = Duration::from_secs(3);
        let outgoing = self.frames.take();
        let mut sent = 0;
        while sent < most {
            let rest = &outgoing[sent % outgoing.len()..];
            match tokio::time::timeout(PATIENCE, self.stream.write(rest)).await {
                Ok(Ok(count)) if count > 0 => sent += count,
                _ => break,
            }
        }
        sent
    }

    /// The next frame other than SETTINGS and PING, which it answers; `None` at the end of the
    /// connection.
    pub async fn next(&mut self) -> Option<Frame> {
        loop {
            let mut head = [0; 9];
            soon("a frame", self.stream.read_exact(&mut head)).await.ok()?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let mut payload = vec![0; length];
            soon("a frame's payload", self.stream.read_exact(&mut payload)).await.ok()?;
            let stream = u32::from_be_bytes(head[5..].try_into().unwrap());
            match (head[3], head[4] & ACK) {
                (SETTINGS | PING, ACK) => {}
                (SETTINGS, _) => self.answer(SETTINGS, &[]).await,
                (PING, _) => self.answer(PING, &payload).await,
                (kind, _) => return Some(Frame { kind, stream, payload }),
            }
        }
    }

    async fn answer(&mut self, kind: u8, payload: &[u8]) {
        self.frame(kind, ACK, 0, payload);
        self.flush().await;
    }
}

impl Deref for RawHttp2 {
    type Target = Frames;

    fn deref(&self) -> &Frames {
        &self.frames
    }
}

impl DerefMut for RawHttp2 {
    fn deref_mut(&mut self) -> &mut Frames {
        &mut self.frames
    }
}
