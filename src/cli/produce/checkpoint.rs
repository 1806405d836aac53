//! Records in the ledger how far a run has shipped its files.

use std::time::Instant;

use super::{
    super::failure::Failure, ledger::Checkpoint, shipping::Shipping, stored_lines::Origin,
};

impl Shipping {
    /// Records that lines of the current file are about to be sent, before the first one is.
    pub(super) fn begin(&mut self) -> Result<(), Failure> {
        if std::mem::replace(&mut self.current.has_begun, true) {
            return Ok(());
        }
        self.sent.take_answers()?;
        let input = self.current.index;
        let sequence = self.sequence();
        let Some(ledger) = &mut self.ledger else { return Ok(()) };
        let reached = self.sent.reached().filter(|mark| mark.id.file == input);
        let position = match reached {
            Some(mark) => mark.position(),
            None => self.resume_points[input].position.clone(),
        };
        let head = self.sources[input].head();
        ledger.begin(Checkpoint { input, position, head, sequence })?;
        self.current.written = Some(Instant::now());
        Ok(())
    }

    /// Records how far the current file is shipped; more of it may be in flight if `is_shipping`.
    pub(super) fn checkpoint(&mut self, is_shipping: bool) -> Result<(), Failure> {
        let sequence = self.sequence();
        let input = self.current.index;
        let Some(ledger) = &mut self.ledger else { return Ok(()) };
        let Some(mark) = self.sent.reached().filter(|mark| mark.id.file == input) else {
            return Ok(());
        };
        if self.stored_lines.is_some() {
            return Ok(());
        }
        self.bad_lines.sync()?;
        let (position, head) = (mark.position(), self.sources[input].head());
        ledger.advance(Checkpoint { input, position, head, sequence }, is_shipping)?;
        self.current.written = Some(Instant::now());
        Ok(())
    }

    /// Waits until the broker has stored the whole current file, and records that. So lines in
    /// flight are always of one file.
    pub(super) async fn end_input(&mut self) -> Result<(), Failure> {
        let is_passed_over = match &self.stored_lines {
            Some(lines) => match lines.origin {
                Origin::AllInputs { .. } => true,
                Origin::File => return Err(lines.ended_early(&self.names)),
            },
            None => false,
        };
        self.producer.flush().await?;
        self.bad_lines.flush().await?;
        self.sent.take_answers()?;
        if self.ledger.is_none() {
            return Ok(());
        }
        if is_passed_over {
            self.current.passed_over.extend(self.sent.reached().cloned());
            return Ok(());
        }
        self.checkpoint(false)
    }

    /// Records the ends of the files that were passed over whole.
    pub(super) fn checkpoint_passed_over(&mut self) -> Result<(), Failure> {
        let sequence = self.sequence();
        let Some(ledger) = &mut self.ledger else { return Ok(()) };
        for mark in std::mem::take(&mut self.current.passed_over) {
            let (input, position) = (mark.id.file, mark.position());
            let head = self.sources[input].head();
            ledger.advance(Checkpoint { input, position, head, sequence }, false)?;
        }
        Ok(())
    }

    /// Records how far the run came.
    pub(super) fn close_ledger(&mut self) -> Result<(), Failure> {
        let is_settled = self.sent.is_settled();
        self.checkpoint(self.current.has_begun && !is_settled)?;
        let sequence = self.sequence();
        match &mut self.ledger {
            Some(ledger) if is_settled && self.stored_lines.is_none() => ledger.close(sequence),
            _ => Ok(()),
        }
    }
}
