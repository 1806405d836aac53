//! Hand-written HTTP/2, for frames and calls that no library sends.

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
pub const ACK: u8 = 1;

const CANCEL: u32 = 8;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a client is about to send. Checks nothing of it.
pub struct Frames {
    queued: Vec<u8>,
    next_stream: u32,
}

impl Frames {
    /// Queues what begins a connection, with settings of an identifier and a value each.
    pub fn begin_connection(settings: &[(u16, u32)]) -> Self {
        let mut frames = Self { queued: PREFACE.to_vec(), next_stream: 1 };
        let payload: Vec<u8> = settings
            .iter()
            .flat_map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat())
            .collect();
        frames.frame(SETTINGS, 0, 0, &payload);
        frames
    }

    /// Queues the headers of a call; returns the id of its stream.
    pub fn begin(&mut self, method: &str, headers: &[(&str, &str)]) -> u32 {
        let block = header_block(method, headers);
        let stream = self.new_stream();
        self.frame(HEADERS, END_HEADERS, stream, &block);
        stream
    }

    /// Queues a whole call with one message; returns the id of its stream.
    pub fn call(&mut self, method: &str, headers: &[(&str, &str)], message: &[u8]) -> u32 {
        let stream = self.begin(method, headers);
        self.message(stream, message);
        stream
    }

    /// Queues a call that is cancelled at once.
    pub fn cancelled_call(&mut self, method: &str, headers: &[(&str, &str)]) {
        let stream = self.begin(method, headers);
        self.frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes());
    }

    /// Queues the only message of a call, in frames of 16 KiB.
    pub fn message(&mut self, stream: u32, message: &[u8]) {
        let mut data = prefix(0, message.len() as u32).to_vec();
        data.extend(message);
        let mut frames = data.chunks(16_384).peekable();
        while let Some(frame) = frames.next() {
            let flags = if frames.peek().is_none() { END_STREAM } else { 0 };
            self.frame(DATA, flags, stream, frame);
        }
    }

    pub fn new_stream(&mut self) -> u32 {
        self.next_stream += 2;
        self.next_stream - 2
    }

    pub fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.frame_head(payload.len() as u32, kind, flags, stream);
        self.queued.extend(payload);
    }

    /// Queues the head of a frame, whatever follows.
    pub fn frame_head(&mut self, length: u32, kind: u8, flags: u8, stream: u32) {
        self.queued.extend(&length.to_be_bytes()[1..]);
        self.queued.extend([kind, flags]);
        self.queued.extend(stream.to_be_bytes());
    }

    /// Takes what is queued, to send it.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.queued)
    }
}

/// What precedes a message of gRPC: whether it is compressed, and its length.
pub fn prefix(compressed: u8, length: u32) -> [u8; 5] {
    let [a, b, c, d] = length.to_be_bytes();
    [compressed, a, b, c, d]
}

/// The headers of a gRPC call: literals that are not indexed.
pub fn header_block(method: &str, headers: &[(&str, &str)]) -> Vec<u8> {
    // ":method: POST" and ":scheme: http" by index.
    let mut block = vec![0x83, 0x86, 0x04];
    text(&mut block, &format!("/{method}"));
    block.push(0x01);
    text(&mut block, "broker");
    for (name, value) in
        [&[("content-type", "application/grpc"), ("te", "trailers")], headers].concat()
    {
        block.push(0x00);
        text(&mut block, name);
        text(&mut block, value);
    }
    block
}

/// A string of HPACK, without Huffman coding.
fn text(block: &mut Vec<u8>, text: &str) {
    let mut length = text.len();
    if length < 127 {
        block.push(length as u8);
    } else {
        block.push(127);
        length -= 127;
        while length >= 128 {
            block.push((length % 128) as u8 | 128);
            length /= 128;
        }
        block.push(length as u8);
    }
    block.extend(text.bytes());
}
