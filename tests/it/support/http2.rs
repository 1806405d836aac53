//! Hand-written HTTP/2, for frames that a well-behaved library does not send.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::soon;

pub const DATA: u8 = 0;
pub const GOAWAY: u8 = 7;
pub const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

const CANCEL: u32 = 8;

/// A connection that checks nothing of what it sends.
pub struct RawHttp2 {
    stream: TcpStream,
    outgoing: Vec<u8>,
    next_stream: u32,
}

pub struct Frame {
    pub kind: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl RawHttp2 {
    pub async fn connect(endpoint: &str) -> Self {
        Self::over(TcpStream::connect(endpoint.strip_prefix("http://").unwrap()).await.unwrap())
    }

    /// Begins HTTP/2 on an open connection.
    pub fn over(stream: TcpStream) -> Self {
        let outgoing = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        let mut connection = Self { stream, outgoing, next_stream: 1 };
        connection.frame(SETTINGS, 0, 0, &[]);
        connection
    }

    /// Queues a whole call; returns the id of its stream.
    pub fn call(&mut self, method: &str, message: &[u8]) -> u32 {
        let stream = self.headers(method);
        let mut data = vec![0];
        data.extend((message.len() as u32).to_be_bytes());
        data.extend(message);
        self.frame(DATA, END_STREAM, stream, &data);
        stream
    }

    /// Queues a call that is cancelled at once.
    pub fn cancelled_call(&mut self, method: &str) {
        let stream = self.headers(method);
        self.frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes());
    }

    /// Begins a call; returns the id of its stream.
    pub fn headers(&mut self, method: &str) -> u32 {
        // ":method: POST" and ":scheme: http" by index; the rest as literals that are not indexed.
        let mut block = vec![0x83, 0x86, 0x04];
        let text = |block: &mut Vec<u8>, text: &str| {
            block.push(u8::try_from(text.len()).unwrap());
            block.extend(text.bytes());
        };
        text(&mut block, &format!("/{method}"));
        block.push(0x01);
        text(&mut block, "broker");
        for (name, value) in [("content-type", "application/grpc"), ("te", "trailers")] {
            block.push(0x00);
            text(&mut block, name);
            text(&mut block, value);
        }
        let stream = self.next_stream;
        self.next_stream += 2;
        self.frame(HEADERS, END_HEADERS, stream, &block);
        stream
    }

    /// Queues a frame.
    pub fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.outgoing.extend(&(payload.len() as u32).to_be_bytes()[1..]);
        self.outgoing.extend([kind, flags]);
        self.outgoing.extend(stream.to_be_bytes());
        self.outgoing.extend(payload);
    }

    /// Sends what is queued; returns false if the peer is gone.
    pub async fn flush(&mut self) -> bool {
        let outgoing = std::mem::take(&mut self.outgoing);
        soon("room in the socket", self.stream.write_all(&outgoing)).await.is_ok()
    }

    /// Sends what is queued again and again, and reads nothing; returns once the peer has stopped
    /// reading or ended the connection, or has taken this many bytes.
    pub async fn flood_unread(&mut self, most: usize) -> usize {
        /// A peer that reads takes something well within this.
        const PATIENCE: Duration = Duration::from_secs(3);
        let outgoing = std::mem::take(&mut self.outgoing);
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
