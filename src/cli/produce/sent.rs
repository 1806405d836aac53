//! Lines that were sent, and how far they were acknowledged.

use std::{collections::VecDeque, time::Duration};

use crate::client::{Acknowledgement, Error};

#[derive(Default)]
pub(super) struct Sent {
    /// In order; as many as the producer's buffer has room for.
    waiting: VecDeque<Line>,
    acknowledged: u64,
    last_offset: i64,
    /// File and number of the last line that was acknowledged.
    last: Option<(usize, u64)>,
}

struct Line {
    acknowledgement: Acknowledgement,
    file: usize,
    number: u64,
}

impl Sent {
    pub(super) fn push(&mut self, acknowledgement: Acknowledgement, file: usize, number: u64) {
        self.waiting.push_back(Line { acknowledgement, file, number });
    }

    /// Takes the answers that have come.
    pub(super) fn take_answers(&mut self) -> Result<(), Error> {
        while let Some(line) = self.waiting.front() {
            let Some(answer) = line.acknowledgement.try_offset() else { break };
            self.last_offset = answer?;
            self.last = Some((line.file, line.number));
            self.acknowledged += 1;
            self.waiting.pop_front();
        }
        Ok(())
    }

    /// Waits until a line is refused; for ever, if none is.
    pub(super) async fn failed(&mut self) -> Error {
        loop {
            if let Err(error) = self.take_answers() {
                return error;
            }
            match self.waiting.front() {
                // What comes of it is taken above.
                Some(line) => _ = line.acknowledgement.offset().await,
                None => std::future::pending().await,
            }
        }
    }

    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged
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
