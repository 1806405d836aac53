//! Lines that were sent or passed over, and how far they are dealt with.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;

use super::{
    super::lines::Line,
    identity::{PRINT_BYTES, Position, Print},
};
use crate::client::{Acknowledgement, Error};

#[derive(Default)]
pub(super) struct Sent {
    /// In order; as many as the producer's buffer has room for.
    waiting: VecDeque<Entry>,
    acknowledged: u64,
    /// How many of them were acknowledged to instances of the producer before this one.
    acknowledged_before: u64,
    last_offset: i64,
    /// File and number of the last line that was acknowledged.
    last: Option<(usize, u64)>,
    /// The last line that is dealt with, as all before it are.
    reached: Option<Mark>,
}

struct Entry {
    /// What is waited for; nothing, if the line was passed over.
    answer: Option<Acknowledgement>,
    /// What is waited for as well: that a bad line is kept elsewhere.
    kept: Option<Acknowledgement>,
    mark: Mark,
}

impl Entry {
    /// An answer that has not come yet, if there is one.
    fn awaited(&self) -> Option<&Acknowledgement> {
        let answers = [&self.answer, &self.kept].into_iter().flatten();
        answers.into_iter().find(|answer| answer.try_offset().is_none())
    }
}

/// A line and its place.
#[derive(Clone)]
pub(super) struct Mark {
    pub(super) file: usize,
    pub(super) number: u64,
    pub(super) start: u64,
    end: u64,
    /// Its beginning, where its place is to be kept.
    beginning: Bytes,
    /// Whether all of it is in its beginning, but for its end.
    is_whole: bool,
}

impl Mark {
    pub(super) fn new(file: usize, line: &Line, is_kept: bool) -> Self {
        let kept = if is_kept { line.bytes.len().min(PRINT_BYTES) } else { 0 };
        let beginning = line.bytes.slice(..kept);
        let is_whole = kept as u64 == line.length;
        let Line { number, start, end, .. } = *line;
        Self { file, number, start, end, beginning, is_whole }
    }

    /// The place behind the line.
    pub(super) fn position(&self) -> Position {
        let mut part = self.beginning.to_vec();
        if self.is_whole && self.start + (part.len() as u64) < self.end {
            part.push(b'\n');
        }
        let last_line = Some(Print::of(self.start, &part));
        Position { offset: self.end, lines: self.number, last_line }
    }
}

impl Sent {
    /// A line was sent, and may be kept elsewhere as well.
    pub(super) fn push(
        &mut self,
        acknowledgement: Acknowledgement,
        kept: Option<Acknowledgement>,
        mark: Mark,
    ) {
        self.waiting.push_back(Entry { answer: Some(acknowledgement), kept, mark });
    }

    /// A line was passed over, and may be kept elsewhere.
    pub(super) fn pass(&mut self, kept: Option<Acknowledgement>, mark: Mark) {
        match self.waiting.back_mut() {
            // Of many that wait for nothing, one stands for all.
            Some(last) if kept.is_none() && last.awaited().is_none() => last.mark = mark,
            _ => self.waiting.push_back(Entry { answer: None, kept, mark }),
        }
    }

    /// Takes the answers that have come.
    pub(super) fn take_answers(&mut self) -> Result<(), Error> {
        while let Some(entry) = self.waiting.front() {
            if entry.awaited().is_some() {
                break;
            }
            if let Some(kept) = entry.kept.as_ref().and_then(Acknowledgement::try_offset) {
                kept?;
            }
            let offset = entry.answer.as_ref().and_then(Acknowledgement::try_offset).transpose()?;
            let Some(entry) = self.waiting.pop_front() else { break };
            if let Some(offset) = offset {
                self.last_offset = offset;
                self.last = Some((entry.mark.file, entry.mark.number));
                self.acknowledged += 1;
            }
            self.reached = Some(entry.mark);
        }
        Ok(())
    }

    /// Waits until a line is refused; for ever, if none is.
    pub(super) async fn failed(&mut self) -> Error {
        loop {
            if let Err(error) = self.take_answers() {
                return error;
            }
            match self.waiting.front().and_then(Entry::awaited) {
                // What comes of it is taken above.
                Some(answer) => _ = answer.offset().await,
                None => std::future::pending().await,
            }
        }
    }

    /// How many messages are acknowledged.
    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// The last line that is dealt with, as all before it are.
    pub(super) fn reached(&self) -> Option<&Mark> {
        self.reached.as_ref()
    }

    /// How many messages are acknowledged to this instance of the producer.
    pub(super) fn acknowledged_now(&self) -> u64 {
        self.acknowledged - self.acknowledged_before
    }

    /// The first line of a request that was refused, and the one of its message of an index: what
    /// came before the request is acknowledged.
    pub(super) fn refused(&self, index: usize) -> Option<(Mark, Mark)> {
        let mut sent = self.waiting.iter().filter(|entry| entry.answer.is_some());
        let refused = sent.nth(index)?;
        Some((self.waiting.front()?.mark.clone(), refused.mark.clone()))
    }

    /// What waits is dealt with anew, by another instance of the producer.
    pub(super) fn forget_waiting(&mut self) {
        self.waiting.clear();
        self.acknowledged_before = self.acknowledged;
    }

    /// Whether all lines are dealt with.
    pub(super) fn is_settled(&self) -> bool {
        self.waiting.is_empty()
    }

    /// How far it went, for people.
    pub(super) fn told(&self, names: &[String], took: Duration) -> String {
        let Some((file, number)) = self.last else {
            return "no message was acknowledged".to_owned();
        };
        let (lines, seconds) = (self.acknowledged, took.as_secs_f64());
        let rate = lines as f64 / seconds.max(0.000_001);
        let (name, offset) = (&names[file], self.last_offset);
        format!(
            "{lines} messages acknowledged in {seconds:.2} s ({rate:.0}/s), up to line {number} of {name}, last offset {offset}"
        )
    }
}
