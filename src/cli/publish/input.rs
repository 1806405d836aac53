//! Standard input, line by line.

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader, Stdin};

use super::super::failure::Failure;
use crate::proto::MAX_MESSAGE_BYTES;

pub(super) struct StandardInput {
    reader: BufReader<Stdin>,
    /// The number of lines that were read.
    lines: u64,
}

impl StandardInput {
    pub(super) fn new() -> Self {
        Self { reader: BufReader::with_capacity(64 * 1024, tokio::io::stdin()), lines: 0 }
    }

    /// Whether the next line has been read already, so that it is there at once.
    pub(super) fn has_line(&self) -> bool {
        memchr::memchr(b'\n', self.reader.buffer()).is_some()
    }

    /// The next line without its end, and its number.
    pub(super) async fn next_line(&mut self) -> Result<Option<(u64, Vec<u8>)>, Failure> {
        let failed = |error| Failure::refused(format!("read standard input: {error}"));
        let mut line = Vec::new();
        // One byte for the line end, and one more to notice a line over the limit.
        let mut limited = (&mut self.reader).take(MAX_MESSAGE_BYTES as u64 + 2);
        if limited.read_until(b'\n', &mut line).await.map_err(failed)? == 0 {
            return Ok(None);
        }
        self.lines += 1;
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        Ok(Some((self.lines, line)))
    }
}
