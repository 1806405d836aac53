//! Sends the lines of an input, or decides what else becomes of them.

use std::time::Duration;

use bytes::Bytes;

use super::{
    super::{
        failure::{Failure, print_notice},
        lines::{Line, LinePiece},
    },
    line_id::LineId,
    line_mark::LineMark,
    message::{OnBadLine, ShapedMessage},
    problem::Problem,
    shipping::Shipping,
};
use crate::client::Error;

/// How often to record how far a file is shipped.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(1);

/// When a bad line is kept.
#[derive(PartialEq)]
enum KeptWhen {
    Before,
    Now,
}

impl Shipping {
    /// Ships the lines of the current input.
    pub(super) async fn ship_lines(&mut self) -> Result<(), Failure> {
        let index = self.current.index;
        loop {
            let read = tokio::select! {
                read = self.sources[index].fill() => read.map_err(|error| {
                    Failure::refused(format!("read {}: {error}", self.names[index]))
                })?,
                error = self.sent.failed() => return Err(error.into()),
            };
            while let Some(piece) = self.sources[index].next_piece() {
                match piece {
                    LinePiece::Line(line) => self.take_line(line).await?,
                    LinePiece::Overflow(bytes) => self.take_overflow(&bytes)?,
                }
            }
            if read == 0 {
                return self.take_last_line().await;
            }
            self.sent.take_answers()?;
            self.progress.read(read, self.sent.acknowledged());
            if self.current.written.is_none_or(|at| at.elapsed() > CHECKPOINT_INTERVAL) {
                self.checkpoint(self.current.has_begun)?;
            }
        }
    }

    async fn take_last_line(&mut self) -> Result<(), Failure> {
        let index = self.current.index;
        let Some(line) = self.sources[index].last_line() else { return Ok(()) };
        let is_stored = self.stored_lines.is_some();
        if self.leaves_unfinished && self.sources[index].is_file && !is_stored {
            if !line.is_whole() {
                self.bad_lines.overflow(&Bytes::from_static(b"\n"))?;
            }
            self.unfinished.push(format!("line {} of {}", line.number, self.names[index]));
            return Ok(());
        }
        self.take_line(line).await
    }

    fn take_overflow(&mut self, bytes: &Bytes) -> Result<(), Failure> {
        let number = self.sources[self.current.index].next_number();
        match &self.stored_lines {
            Some(lines) if !lines.keeps_bad_lines() => Ok(()),
            None if self.rule.on_bad_line == OnBadLine::Stop => {
                // The run stops here, as the line's end may never come.
                Err(self.stopped_at(number, &self.rule.too_long()))
            }
            // The file is being reread, and the line is kept already.
            _ if self.last_kept >= Some(self.line_id(number)) => Ok(()),
            _ => self.bad_lines.overflow(bytes),
        }
    }

    async fn take_line(&mut self, line: Line) -> Result<(), Failure> {
        let index = self.current.index;
        let mark = LineMark::new(index, &line, self.ledger.is_some());
        if self.sources[index].take_inside_line() {
            if line.length == 0 {
                // A line that was shipped unfinished has got its line end, and nothing else.
                self.sent.pass_over(None, mark);
                return Ok(());
            }
            let (number, name) = (line.number, &self.names[index]);
            print_notice(&format!(
                "line {number} of {name} was shipped before it was finished: the rest of it becomes \
                 a message of its own"
            ));
        }
        if self.stored_lines.is_some() {
            return self.pass_over(line, mark).await;
        }
        if let Some(problem) = self.refused.take(line.number) {
            return self.take_refused(&line, &problem, mark).await;
        }
        match self.rule.shape(&line) {
            Ok(shaped) => self.send(&line, shaped, mark).await,
            Err(problem) if self.rule.on_bad_line.stops() => {
                Err(self.stopped_at(line.number, &problem))
            }
            Err(problem) => match self.record_kept(line.number) {
                KeptWhen::Before => {
                    self.sent.pass_over(None, mark);
                    Ok(())
                }
                KeptWhen::Now => self.skip(&line, &problem, mark).await,
            },
        }
    }

    async fn send(
        &mut self,
        line: &Line,
        shaped: ShapedMessage,
        mark: LineMark,
    ) -> Result<(), Failure> {
        self.begin()?;
        let mut kept = None;
        if shaped.is_cut && self.record_kept(line.number) == KeptWhen::Now {
            kept = self.bad_lines.cut(self.current.index, line).await?;
        }
        match self.producer.send(shaped.message).await {
            Ok(acknowledgement) => self.sent.push(acknowledgement, kept, mark),
            Err(error @ Error::Invalid { .. }) => {
                return Err(self.stopped_at(line.number, &Problem::new(&error.to_string())));
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    async fn skip(
        &mut self,
        line: &Line,
        problem: &Problem,
        mark: LineMark,
    ) -> Result<(), Failure> {
        let kept = self.bad_lines.skip(self.current.index, line, problem).await?;
        self.sent.pass_over(kept, mark);
        Ok(())
    }

    /// Passes over a line that is stored already, or was skipped.
    async fn pass_over(&mut self, line: Line, mark: LineMark) -> Result<(), Failure> {
        let Some(stored) = &mut self.stored_lines else { return Ok(()) };
        match stored.rule().shape(&line) {
            Ok(ShapedMessage { message, .. }) => {
                self.lines_before += 1;
                self.sent.pass_over(None, mark);
                if stored.count_off(&message, line.number, &self.names[self.current.index])? {
                    self.stored_lines = None;
                    self.checkpoint_passed_over()?;
                }
                Ok(())
            }
            Err(problem) if stored.keeps_bad_lines() => self.skip(&line, &problem, mark).await,
            Err(_) => {
                self.sent.pass_over(None, mark);
                Ok(())
            }
        }
    }

    /// Skips a line that the broker has refused, or stops at it. First waits until all lines before
    /// it are stored: by the rule alone the line would be a message, so a later run must not have
    /// to count off messages across it.
    async fn take_refused(
        &mut self,
        line: &Line,
        problem: &Problem,
        mark: LineMark,
    ) -> Result<(), Failure> {
        self.producer.flush().await?;
        self.sent.take_answers()?;
        if self.rule.on_bad_line.stops() {
            return Err(self.stopped_at(line.number, problem));
        }
        self.skip(line, problem, mark).await?;
        self.bad_lines.flush().await?;
        self.sent.take_answers()?;
        self.current.has_begun = false;
        Ok(())
    }

    /// Records that a bad line is kept, which it may be already if its file is being reread.
    fn record_kept(&mut self, number: u64) -> KeptWhen {
        let id = self.line_id(number);
        let is_kept = self.last_kept.is_some_and(|last| id <= last);
        self.last_kept = self.last_kept.max(Some(id));
        if is_kept { KeptWhen::Before } else { KeptWhen::Now }
    }

    fn line_id(&self, number: u64) -> LineId {
        LineId { file: self.current.index, number }
    }
}
