//! Lines on their way from the inputs to the topic.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{
    super::{
        failure::{Failure, say},
        lines::{Line, Piece},
    },
    Produce,
    bad_lines::BadLines,
    going_back::Refused,
    input::Source,
    ledger::{Ledger, Place},
    message::{OnBadLine, Rule, Shaped},
    passing::{Origin, Passing},
    problem::Problem,
    progress::Progress,
    sent::{Mark, Sent},
};
use crate::{
    client::{Client, Error, Producer},
    proto::Message,
};

/// How long answers are waited for after Ctrl-C.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// How often it is written down how far a file is shipped.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(1);

pub(super) struct Shipping {
    pub(super) client: Client,
    pub(super) options: Produce,
    /// How much of a line is looked at.
    pub(super) limit: usize,
    pub(super) producer: Producer,
    pub(super) rule: Rule,
    /// Whether an error of a line names the flag that passes over it, as it is not given.
    pub(super) names_flag: bool,
    pub(super) names: Vec<String>,
    pub(super) sources: Vec<Source>,
    pub(super) places: Vec<Place>,
    /// Where it is written down how far the files are shipped, if it is.
    pub(super) ledger: Option<Ledger>,
    /// Whether the last line of a file waits for its end.
    pub(super) leaves_unfinished: bool,
    /// Lines that are stored already, if some come next.
    pub(super) passing: Option<Passing>,
    /// The producer's last message, if it is needed and still kept.
    pub(super) last_message: Option<Message>,
    pub(super) bad_lines: BadLines,
    pub(super) progress: Progress,
    pub(super) sent: Sent,
    pub(super) passed_over: u64,
    /// Of the last lines without an end, those that wait for it.
    pub(super) unfinished: Vec<String>,
    /// Lines that the broker refused.
    pub(super) refused: Refused,
    /// File and number of the last bad line that is kept.
    pub(super) dealt_with: Option<(usize, u64)>,
    pub(super) current: Current,
}

/// The input that is being shipped.
#[derive(Default)]
pub(super) struct Current {
    pub(super) index: usize,
    /// Whether it is written down that its lines are on their way.
    pub(super) has_begun: bool,
    written: Option<Instant>,
    /// Inputs that were passed over whole, and are not written down before it is known that they
    /// are the right ones.
    passed: Vec<Mark>,
}

impl Shipping {
    pub(super) async fn ship(&mut self) -> Result<(), Failure> {
        for index in 0..self.sources.len() {
            self.current.index = index;
            self.current.has_begun = false;
            self.passed_over += self.places[index].position.lines;
            if let Some(unsettled) = self.places[index].unsettled.take() {
                self.passing = Some(Passing::of_file(unsettled, self.last_message.clone()));
            }
            self.refused = Refused::default();
            let unfinished = self.unfinished.len();
            while let Err(failure) = self.ship_current().await {
                if !self.go_back().await? {
                    return Err(failure);
                }
                self.unfinished.truncate(unfinished);
            }
        }
        match &self.passing {
            Some(passing) => Err(passing.ended_early(&self.names)),
            None => Ok(()),
        }
    }

    async fn ship_current(&mut self) -> Result<(), Failure> {
        self.ship_input().await?;
        self.end_input().await
    }

    async fn ship_input(&mut self) -> Result<(), Failure> {
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
                    Piece::Line(line) => self.take_line(line).await?,
                    Piece::Overflow(bytes) => self.take_overflow(&bytes)?,
                }
            }
            if read == 0 {
                return self.take_last_line().await;
            }
            self.sent.take_answers()?;
            self.progress.read(read, self.sent.acknowledged());
            if self.current.written.is_none_or(|at| at.elapsed() > CHECKPOINT_INTERVAL) {
                self.write_down(self.current.has_begun)?;
            }
        }
    }

    async fn take_last_line(&mut self) -> Result<(), Failure> {
        let index = self.current.index;
        let Some(line) = self.sources[index].last_line() else { return Ok(()) };
        let is_stored = self.passing.is_some();
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
        let index = self.current.index;
        match &self.passing {
            Some(passing) if !passing.hands_on_bad_lines() => Ok(()),
            None if self.rule.on_bad_line == OnBadLine::Stop => {
                // Its end may never come.
                let number = self.sources[index].next_number();
                Err(self.told(number, &self.rule.too_long()))
            }
            // As its file is read again, it is kept already.
            _ if self.dealt_with >= Some((index, self.sources[index].next_number())) => Ok(()),
            _ => self.bad_lines.overflow(bytes),
        }
    }

    async fn take_line(&mut self, line: Line) -> Result<(), Failure> {
        let index = self.current.index;
        let mark = Mark::new(index, &line, self.ledger.is_some());
        if self.sources[index].take_inside_line() {
            if line.length == 0 {
                // The line that was shipped unfinished has got its end, and nothing more.
                self.sent.pass(None, mark);
                return Ok(());
            }
            let (number, name) = (line.number, &self.names[index]);
            say(&format!(
                "line {number} of {name} was shipped before it was finished: its rest is a message \
                 of its own"
            ));
        }
        if self.passing.is_some() {
            return self.pass_line(line, mark).await;
        }
        if let Some(problem) = self.refused.take(line.number) {
            return self.take_refused(&line, &problem, mark).await;
        }
        match self.rule.shape(&line) {
            Ok(shaped) => self.send(&line, shaped, mark).await,
            Err(problem) if self.rule.on_bad_line.stops() => Err(self.told(line.number, &problem)),
            Err(problem) => {
                let is_kept = self.is_kept(line.number);
                self.skip(&line, &problem, mark, is_kept).await
            }
        }
    }

    async fn send(&mut self, line: &Line, shaped: Shaped, mark: Mark) -> Result<(), Failure> {
        let index = self.current.index;
        self.begin()?;
        let kept = match shaped.cut && !self.is_kept(line.number) {
            true => self.bad_lines.cut(index, &self.names[index], line).await?,
            false => None,
        };
        match self.producer.send(shaped.message).await {
            Ok(acknowledgement) => self.sent.push(acknowledgement, kept, mark),
            Err(error @ Error::Invalid { .. }) => {
                return Err(self.told(line.number, &Problem::new(&error.to_string())));
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    pub(super) async fn skip(
        &mut self,
        line: &Line,
        problem: &Problem,
        mark: Mark,
        is_kept: bool,
    ) -> Result<(), Failure> {
        let index = self.current.index;
        let kept = match is_kept {
            true => None,
            false => self.bad_lines.skip(index, &self.names[index], line, problem).await?,
        };
        self.sent.pass(kept, mark);
        Ok(())
    }

    /// Passes over a line that is stored already, or was skipped.
    async fn pass_line(&mut self, line: Line, mark: Mark) -> Result<(), Failure> {
        let Some(passing) = &mut self.passing else { return Ok(()) };
        match passing.rule().shape(&line) {
            Ok(Shaped { message, .. }) => {
                self.passed_over += 1;
                self.sent.pass(None, mark);
                if passing.pass(&message, line.number, &self.names[self.current.index])? {
                    self.passing = None;
                    self.write_down_passed()?;
                }
                Ok(())
            }
            Err(problem) if passing.hands_on_bad_lines() => {
                self.skip(&line, &problem, mark, false).await
            }
            Err(_) => {
                self.sent.pass(None, mark);
                Ok(())
            }
        }
    }

    pub(super) fn told(&self, number: u64, problem: &Problem) -> Failure {
        let name = &self.names[self.current.index];
        let column = problem.column.map(|at| format!(", column {at},")).unwrap_or_default();
        let colon = if problem.is_predicate() { "" } else { ":" };
        let help = match self.names_flag {
            true => "; --on-bad-line skip|cut says to go on behind such a line",
            false => "",
        };
        Failure::refused(format!("line {number}{column} of {name}{colon} {problem}{help}"))
    }

    /// The sequence behind the last message that is acknowledged.
    pub(super) fn sequence(&self) -> i64 {
        let acknowledged = i64::try_from(self.sent.acknowledged_now()).unwrap_or(i64::MAX);
        self.producer.first_sequence().saturating_add(acknowledged)
    }

    /// Writes down that lines of the current file are on their way, before the first one is.
    fn begin(&mut self) -> Result<(), Failure> {
        if std::mem::replace(&mut self.current.has_begun, true) {
            return Ok(());
        }
        self.sent.take_answers()?;
        let index = self.current.index;
        let sequence = self.sequence();
        let Some(ledger) = &mut self.ledger else { return Ok(()) };
        let reached = self.sent.reached().filter(|mark| mark.file == index).map(Mark::position);
        let at = reached.unwrap_or_else(|| self.places[index].position.clone());
        ledger.begin(index, at, self.sources[index].head(), sequence)?;
        self.current.written = Some(Instant::now());
        Ok(())
    }

    /// Writes down how far the current file is dealt with.
    fn write_down(&mut self, shipping: bool) -> Result<(), Failure> {
        let sequence = self.sequence();
        let index = self.current.index;
        let Some(ledger) = &mut self.ledger else { return Ok(()) };
        let Some(mark) = self.sent.reached().filter(|mark| mark.file == index) else {
            return Ok(());
        };
        if self.passing.is_some() {
            return Ok(());
        }
        self.bad_lines.sync()?;
        ledger.advance(index, mark.position(), self.sources[index].head(), sequence, shipping)?;
        self.current.written = Some(Instant::now());
        Ok(())
    }

    /// Waits until all of the current file is stored, and writes that down: what is under way is
    /// always of one file.
    async fn end_input(&mut self) -> Result<(), Failure> {
        let goes_on = match &self.passing {
            Some(Passing { origin: Origin::AllInputs { .. }, .. }) => true,
            Some(passing) => return Err(passing.ended_early(&self.names)),
            None => false,
        };
        self.producer.flush().await?;
        self.bad_lines.flush().await?;
        self.sent.take_answers()?;
        if self.ledger.is_none() {
            return Ok(());
        }
        if goes_on {
            self.current.passed.extend(self.sent.reached().cloned());
            return Ok(());
        }
        self.write_down(false)
    }

    /// Writes the files down that were passed over whole.
    fn write_down_passed(&mut self) -> Result<(), Failure> {
        let sequence = self.sequence();
        let Some(ledger) = &mut self.ledger else { return Ok(()) };
        for mark in std::mem::take(&mut self.current.passed) {
            let head = self.sources[mark.file].head();
            ledger.advance(mark.file, mark.position(), head, sequence, false)?;
        }
        Ok(())
    }

    /// Waits for the answers to what was sent, and says how far it was acknowledged.
    pub(super) async fn finish(mut self, shipped: Result<(), Failure>) -> Result<(), Failure> {
        let interrupted = shipped.as_ref().is_err_and(Failure::is_interruption);
        let patience = async {
            match interrupted {
                true => tokio::time::sleep(LAST_ANSWERS).await,
                false => _ = tokio::signal::ctrl_c().await,
            }
        };
        // What was sent before a line that cannot be is acknowledged all the same.
        let flush = async {
            let flushed = self.producer.flush().await.map_err(Failure::from);
            self.bad_lines.flush().await.and(flushed)
        };
        let answered = tokio::select! {
            flushed = flush => flushed,
            () = patience => Err(Failure::interrupted()),
        };
        let answered = answered.and(self.sent.take_answers().map_err(Failure::from));
        let written = self.write_down_the_end();
        self.progress.finish();
        let told = self.summary();
        match shipped.and(answered).and(written) {
            Ok(()) => {
                say(&told);
                Ok(())
            }
            Err(failure) => Err(failure.after(&told)),
        }
    }

    fn write_down_the_end(&mut self) -> Result<(), Failure> {
        let is_settled = self.sent.is_settled();
        self.write_down(self.current.has_begun && !is_settled)?;
        let sequence = self.sequence();
        match &mut self.ledger {
            Some(ledger) if is_settled && self.passing.is_none() => ledger.close(sequence),
            _ => Ok(()),
        }
    }

    fn summary(&self) -> String {
        let mut told = self.sent.told(&self.names, self.progress.elapsed());
        if self.passed_over > 0 {
            told = format!("{} lines were published before; {told}", self.passed_over);
        }
        if let Some(bad_lines) = self.bad_lines.told(&self.names) {
            told = format!("{told}; {bad_lines}");
        }
        if !self.unfinished.is_empty() {
            let lines = self.unfinished.join(", ");
            told = format!("{told}; not shipped, as its end is missing: {lines}");
        }
        told
    }
}
