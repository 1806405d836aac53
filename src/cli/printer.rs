//! Prints messages, and knows which of them have arrived.
//!
//! On a terminal and in a file a message has arrived when the system has taken its last byte. A
//! pipe holds 64 KiB and more, which are lost if its reader ends, as `head` does. There a message
//! has arrived when its last byte was read.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Write as _},
    time::Duration,
};

use super::{
    format::FormatArgs,
    pipe::{Pipe, standard_output},
    render,
};
use crate::client::Message;

/// What is written at once: few calls, and not much more than a pipe holds.
const PIECE_BYTES: usize = 128 * 1024;

/// How often a pipe is asked how much of it was read, while there is something to read.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// How long a reader has for what the pipe still holds at the end. What it then has not read stays
/// there for it, even after this process has ended.
const LAST_READS: Duration = Duration::from_secs(1);

pub(super) struct Printer {
    out: File,
    pipe: Pipe,
    /// What was rendered, but not written yet.
    piece: Vec<u8>,
    /// Bytes that the system has taken.
    written: u64,
    /// Messages of which the last have not arrived yet. All but the first hold a byte or more that
    /// was not read, so there are no more of them than a pipe holds bytes.
    on_their_way: VecDeque<Printed>,
}

/// Messages that were printed together.
struct Printed {
    messages: Vec<Message>,
    /// How many bytes were written up to the end of each.
    ends: Vec<u64>,
}

impl Printer {
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self {
            out: standard_output()?,
            pipe: Pipe::of_standard_output()?,
            piece: Vec::with_capacity(2 * PIECE_BYTES),
            written: 0,
            on_their_way: VecDeque::new(),
        })
    }

    /// Prints messages. If that fails, the first of them may have been written.
    pub(super) fn print(
        &mut self,
        topic: &str,
        messages: Vec<Message>,
        format: &FormatArgs,
    ) -> io::Result<()> {
        let mut ends = Vec::with_capacity(messages.len());
        let written = self.write(topic, &messages, format, &mut ends);
        let printed = Printed { messages, ends };
        // What prints nothing has arrived with what was printed before.
        if self.on_their_way.back().is_some_and(|last| last.ends.last() == printed.ends.last()) {
            self.on_their_way.pop_back();
        }
        self.on_their_way.push_back(printed);
        written
    }

    fn write(
        &mut self,
        topic: &str,
        messages: &[Message],
        format: &FormatArgs,
        ends: &mut Vec<u64>,
    ) -> io::Result<()> {
        for message in messages {
            render::message(&mut self.piece, topic, message, format)?;
            ends.push(self.written + self.piece.len() as u64);
            if self.piece.len() >= PIECE_BYTES {
                self.write_piece()?;
            }
        }
        self.write_piece()
    }

    fn write_piece(&mut self) -> io::Result<()> {
        let mut rest = &self.piece[..];
        while !rest.is_empty() {
            match self.out.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(taken) => {
                    self.written += taken as u64;
                    rest = &rest[taken..];
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.piece.clear();
        Ok(())
    }

    /// The last message that has arrived, if there are new ones or others are on their way.
    pub(super) fn arrived(&mut self) -> Option<Message> {
        self.written_before(self.written.saturating_sub(self.pipe.unread()))
    }

    /// The last message of which all bytes are among the first `bytes`.
    fn written_before(&mut self, bytes: u64) -> Option<Message> {
        let mut last = None;
        while let Some(Printed { messages, ends }) = self.on_their_way.front_mut() {
            let count = ends.partition_point(|&end| end <= bytes);
            if count < messages.len() {
                return count.checked_sub(1).map(|index| messages[index].clone()).or(last);
            }
            last = messages.pop();
            self.on_their_way.pop_front();
        }
        last
    }

    /// Waits until it is time to look again for messages that have arrived; for ever, if none is on
    /// its way.
    pub(super) async fn look_again(&self) {
        match self.on_their_way.is_empty() {
            true => std::future::pending().await,
            false => tokio::time::sleep(POLL_INTERVAL).await,
        }
    }

    /// Waits until the reader has gone, also while nothing is printed; for ever, if there is none.
    pub(super) async fn reader_gone(&self) {
        self.pipe.reader_gone().await;
    }

    /// Waits for the reader of a pipe to take what it holds; returns the last message that has
    /// arrived. What a reader leaves in the pipe counts as arrived, unless it has gone.
    pub(super) async fn finish(&mut self) -> Option<Message> {
        let pipe = &self.pipe;
        let reading = async {
            while pipe.unread() > 0 && !pipe.is_reader_gone() {
                tokio::time::sleep(POLL_INTERVAL).await;
            }
        };
        // In time or not, what has become of it is the same question.
        let _ = tokio::time::timeout(LAST_READS, reading).await;
        match self.pipe.is_reader_gone() {
            true => self.arrived(),
            false => self.written_before(self.written),
        }
    }
}
