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
    /// How many of them are known to have arrived.
    arrived: usize,
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
        let printed = Printed { messages, ends, arrived: 0 };
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

    /// The last arrived message, if that may have changed since the last call.
    pub(super) fn arrived(&mut self) -> Option<Message> {
        self.written_before(self.written.saturating_sub(self.pipe.unread()))
    }

    /// The last message of which all bytes are among the first `bytes`, unless it was returned
    /// before.
    fn written_before(&mut self, bytes: u64) -> Option<Message> {
        let mut last = None;
        while let Some(Printed { messages, ends, arrived }) = self.on_their_way.front_mut() {
            let count = ends.partition_point(|&end| end <= bytes);
            if count < messages.len() {
                if count > *arrived {
                    *arrived = count;
                    last = messages.get(count - 1).cloned();
                }
                return last;
            }
            last = messages.pop().or(last);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto;

    /// Messages from an offset on, of one byte each.
    fn printed(first: i64, count: i64) -> Printed {
        let offsets = first..first + count;
        let message = |offset| proto::Message { offset, ..Default::default() }.into();
        let ends = offsets.clone().map(|offset| offset.unsigned_abs() + 1).collect();
        Printed { messages: offsets.map(message).collect(), ends, arrived: 0 }
    }

    #[test]
    fn each_arrival_is_told_once() {
        let mut printer = Printer::open().unwrap();
        printer.on_their_way.extend([printed(0, 4), printed(4, 0), printed(4, 2)]);
        let mut told = |bytes| printer.written_before(bytes).map(|message| message.offset);
        assert_eq!(told(0), None);
        assert_eq!(told(2), Some(1));
        assert_eq!(told(2), None);
        assert_eq!(told(3), Some(2));
        // A group without messages hides nothing.
        assert_eq!(told(4), Some(3));
        assert_eq!(told(4), None);
        assert_eq!(told(6), Some(5));
        assert!(printer.on_their_way.is_empty());
    }

    #[test]
    fn an_empty_group_at_the_end_hides_nothing() {
        let mut printer = Printer::open().unwrap();
        printer.on_their_way.extend([printed(0, 1), printed(1, 0)]);
        assert_eq!(printer.written_before(1).map(|message| message.offset), Some(0));
    }
}
