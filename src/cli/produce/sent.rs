//! Keeps track of the lines that were sent or passed over, and of their acknowledgements.

use std::{collections::VecDeque, time::Duration};

use super::super::plural::count;
use super::{line_id::LineId, line_mark::LineMark};
use crate::client::{Acknowledgement, Error};

#[derive(Default)]
pub(super) struct SentLines {
    /// Lines in order, at most as many as the producer's buffer has room for.
    waiting: VecDeque<SentLine>,
    acknowledged: u64,
    /// How many of them were acknowledged to earlier instances of the producer.
    acknowledged_before: u64,
    last_offset: i64,
    /// The last line that was acknowledged.
    last: Option<LineId>,
    /// The last line that is settled, as are all lines before it.
    reached: Option<LineMark>,
}

/// A line that was sent or passed over.
struct SentLine {
    /// The acknowledgement of the line's message, if it was sent.
    answer: Option<Acknowledgement>,
    /// The acknowledgement of the topic that keeps bad lines, if the line was sent there.
    kept: Option<Acknowledgement>,
    mark: LineMark,
}

impl SentLine {
    /// An acknowledgement that has not come yet, if there is one.
    fn awaited(&self) -> Option<&Acknowledgement> {
        let answers = [&self.answer, &self.kept].into_iter().flatten();
        answers.into_iter().find(|answer| answer.try_offset().is_none())
    }
}

/// A request that the broker refused for one of its messages.
pub(super) struct RefusedRequest {
    /// The first line that is not stored.
    pub(super) first: LineMark,
    /// The line whose message was refused.
    pub(super) refused: LineMark,
}

impl SentLines {
    /// Adds a line that was sent, and maybe kept elsewhere as well.
    pub(super) fn push(
        &mut self,
        acknowledgement: Acknowledgement,
        kept: Option<Acknowledgement>,
        mark: LineMark,
    ) {
        self.waiting.push_back(SentLine { answer: Some(acknowledgement), kept, mark });
    }

    /// Adds a line that was passed over, and maybe kept elsewhere.
    pub(super) fn pass_over(&mut self, kept: Option<Acknowledgement>, mark: LineMark) {
        match self.waiting.back_mut() {
            // Consecutive lines that wait for nothing need only one entry.
            Some(last) if kept.is_none() && last.awaited().is_none() => last.mark = mark,
            _ => self.waiting.push_back(SentLine { answer: None, kept, mark }),
        }
    }

    /// Takes the acknowledgements that have come; fails with the first refusal.
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
                self.last = Some(entry.mark.id);
                self.acknowledged += 1;
            }
            self.reached = Some(entry.mark);
        }
        Ok(())
    }

    /// Waits until a line is refused; for ever if none is.
    pub(super) async fn failed(&mut self) -> Error {
        loop {
            if let Err(error) = self.take_answers() {
                return error;
            }
            match self.waiting.front().and_then(SentLine::awaited) {
                // The outcome is taken above.
                Some(answer) => _ = answer.offset().await,
                None => std::future::pending().await,
            }
        }
    }

    /// The number of acknowledged messages.
    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// The last line that is settled, as are all lines before it.
    pub(super) fn reached(&self) -> Option<&LineMark> {
        self.reached.as_ref()
    }

    /// The number of messages acknowledged to this instance of the producer.
    pub(super) fn acknowledged_to_this_instance(&self) -> u64 {
        self.acknowledged - self.acknowledged_before
    }

    /// The request at the front, which was refused for its message at `index`; all requests before
    /// it are acknowledged.
    pub(super) fn refused(&self, index: usize) -> Option<RefusedRequest> {
        let mut sent = self.waiting.iter().filter(|entry| entry.answer.is_some());
        let refused = sent.nth(index)?;
        let first = self.waiting.front()?.mark.clone();
        Some(RefusedRequest { first, refused: refused.mark.clone() })
    }

    /// Forgets lines that are not settled: another instance of the producer sends them again.
    pub(super) fn forget_waiting(&mut self) {
        self.waiting.clear();
        self.acknowledged_before = self.acknowledged;
    }

    /// Whether all lines are settled.
    pub(super) fn is_settled(&self) -> bool {
        self.waiting.is_empty()
    }

    /// What was acknowledged, for people.
    pub(super) fn summary(&self, names: &[String], took: Duration) -> String {
        let Some(LineId { file, number }) = self.last else {
            return "no message was acknowledged".to_owned();
        };
        let (lines, seconds) = (self.acknowledged, took.as_secs_f64());
        let rate = lines as f64 / seconds.max(0.000_001);
        let (name, offset) = (&names[file], self.last_offset);
        format!(
            "{} acknowledged in {seconds:.2} s ({rate:.0}/s), up to line {number} of {name}, last \
             offset {offset}",
            count(lines, "message")
        )
    }
}
