//! Prints messages, and keeps track of which have arrived.
//!
//! On a terminal or in a file, a message has arrived when the system has taken its last byte. A
//! pipe holds 64 KiB or more, which are lost if its reader exits early, as `head` does. In a pipe,
//! a message has arrived when its last byte has been read.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Write as _},
    time::Duration,
};

use super::{
    escape::Data,
    format::FormatArgs,
    pipe::{Pipe, standard_output},
    render,
};
use crate::client::Message;

/// How much is written at once: enough for few calls, and not much more than a pipe holds.
const PIECE_BYTES: usize = 128 * 1024;

/// How often to check how much of a pipe has been read, while it is not empty.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// How long to wait at the end for the reader to empty the pipe. What it has not read by then stays
/// in the pipe for it, even after this process has ended.
const LAST_READS: Duration = Duration::from_secs(1);

pub(super) struct Printer {
    out: File,
    data: Data,
    pipe: Pipe,
    /// Bytes that are rendered but not written yet.
    rendered: Vec<u8>,
    /// The number of bytes that the system has taken.
    written: u64,
    /// The number of messages that are known to have arrived.
    arrived: u64,
    /// Groups of messages that have not arrived completely. All but the first group have at least
    /// one unread byte, so there are no more groups than a pipe holds bytes.
    unread: VecDeque<PrintedGroup>,
}

/// Messages that were printed together.
struct PrintedGroup {
    messages: Vec<Message>,
    /// For each message, the number of bytes written up to its end.
    ends: Vec<u64>,
    /// The number of messages known to have arrived.
    arrived: usize,
    /// The number of messages of earlier groups that arrive with the last one of these.
    earlier: usize,
}

impl Printer {
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self {
            out: standard_output()?,
            data: Data::of_standard_output(),
            pipe: Pipe::of_standard_output()?,
            rendered: Vec::with_capacity(2 * PIECE_BYTES),
            written: 0,
            arrived: 0,
            unread: VecDeque::new(),
        })
    }

    /// Prints messages. If that fails, some of the first messages may have been written.
    pub(super) fn print(
        &mut self,
        topic: &str,
        messages: Vec<Message>,
        format: &FormatArgs,
    ) -> io::Result<()> {
        let mut ends = Vec::with_capacity(messages.len());
        let written = messages.iter().try_for_each(|message| {
            render::message(&mut self.rendered, topic, message, format, self.data)?;
            ends.push(self.written + self.rendered.len() as u64);
            match self.rendered.len() {
                PIECE_BYTES.. => self.write_rendered(),
                _ => Ok(()),
            }
        });
        let written = written.and_then(|()| self.write_rendered());
        let mut group = PrintedGroup { messages, ends, arrived: 0, earlier: 0 };
        // A group that prints no bytes has arrived with the group before it.
        if self.unread.back().is_some_and(|last| last.ends.last() == group.ends.last())
            && let Some(last) = self.unread.pop_back()
        {
            group.earlier = last.not_arrived();
        }
        self.unread.push_back(group);
        written
    }

    fn write_rendered(&mut self) -> io::Result<()> {
        let mut rest = &self.rendered[..];
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
        self.rendered.clear();
        Ok(())
    }

    /// The number of messages that had arrived, in the order in which they were printed, when
    /// [`Self::arrived`] or [`Self::finish`] was called last.
    pub(super) fn arrived_messages(&self) -> u64 {
        self.arrived
    }

    /// The last message that has arrived, unless no more have arrived since the last call.
    pub(super) fn arrived(&mut self) -> Option<Message> {
        self.written_before(self.written.saturating_sub(self.pipe.unread()))
    }

    /// The last message that ends within the first `bytes` bytes, unless it was returned before.
    fn written_before(&mut self, bytes: u64) -> Option<Message> {
        let mut last = None;
        while let Some(group) = self.unread.front_mut() {
            let PrintedGroup { messages, ends, arrived, .. } = group;
            let count = ends.partition_point(|&end| end <= bytes);
            if count < messages.len() {
                if count > *arrived {
                    self.arrived += (count - *arrived) as u64;
                    *arrived = count;
                    last = messages.get(count - 1).cloned();
                }
                return last;
            }
            self.arrived += group.not_arrived() as u64;
            last = group.messages.pop().or(last);
            self.unread.pop_front();
        }
        last
    }

    /// Waits until it is time to check again which messages have arrived; for ever if all have.
    pub(super) async fn next_check(&self) {
        match self.unread.is_empty() {
            true => std::future::pending().await,
            false => tokio::time::sleep(POLL_INTERVAL).await,
        }
    }

    /// Waits until standard output has lost its reader, even while nothing is printed; for ever if
    /// it is not a pipe.
    pub(super) async fn reader_gone(&self) {
        self.pipe.reader_gone().await;
    }

    /// Waits for the reader to empty the pipe, and returns the last message that has arrived. What
    /// is left in the pipe counts as arrived unless the reader has gone.
    pub(super) async fn finish(&mut self) -> Option<Message> {
        let pipe = &self.pipe;
        let reading = async {
            while pipe.unread() > 0 && !pipe.is_reader_gone() {
                tokio::time::sleep(POLL_INTERVAL).await;
            }
        };
        // Whether or not it was emptied in time, only a reader that has gone loses messages.
        let _ = tokio::time::timeout(LAST_READS, reading).await;
        match self.pipe.is_reader_gone() {
            true => self.arrived(),
            false => self.written_before(self.written),
        }
    }
}

impl PrintedGroup {
    /// The number of messages that arrive with the last one, or before it, and have not arrived.
    fn not_arrived(&self) -> usize {
        self.messages.len() - self.arrived + self.earlier
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto;

    /// Messages of one byte each, from an offset on.
    fn printed(first: i64, count: i64) -> PrintedGroup {
        let offsets = first..first + count;
        let message = |offset| proto::Message { offset, ..Default::default() }.into();
        let ends = offsets.clone().map(|offset| offset.unsigned_abs() + 1).collect();
        PrintedGroup { messages: offsets.map(message).collect(), ends, arrived: 0, earlier: 0 }
    }

    #[test]
    fn each_arrival_is_returned_once() {
        let mut printer = Printer::open().unwrap();
        printer.unread.extend([printed(0, 4), printed(4, 0), printed(4, 2)]);
        let mut arrived = |bytes| printer.written_before(bytes).map(|message| message.offset);
        assert_eq!(arrived(0), None);
        assert_eq!(arrived(2), Some(1));
        assert_eq!(arrived(2), None);
        assert_eq!(arrived(3), Some(2));
        // A group without messages hides nothing.
        assert_eq!(arrived(4), Some(3));
        assert_eq!(arrived(4), None);
        assert_eq!(arrived(6), Some(5));
        assert!(printer.unread.is_empty());
        assert_eq!(printer.arrived_messages(), 6);
    }

    #[test]
    fn an_empty_group_at_the_end_hides_nothing() {
        let mut printer = Printer::open().unwrap();
        printer.unread.extend([printed(0, 1), printed(1, 0)]);
        assert_eq!(printer.written_before(1).map(|message| message.offset), Some(0));
    }
}
