//! Counts and keeps lines that cannot be messages.

use std::{
    fs::{File, OpenOptions},
    io::{BufWriter, Write as _},
    path::PathBuf,
};

use bytes::Bytes;

use super::{
    super::{failure::Failure, lines::Line},
    line_id::LineId,
    message::cut_payload,
    problem::{Problem, ascii_excerpt},
};
use crate::{
    client::{Acknowledgement, Producer},
    proto::{MAX_MESSAGE_BYTES, NewMessage},
};

/// How many lines are named at the end of a run.
const NAMED: usize = 20;

/// Lines that were skipped or cut.
pub(super) struct BadLines {
    sink: Sink,
    skipped: Tally,
    cut: Tally,
    first_problem: Option<String>,
    /// The names of the inputs.
    names: Vec<String>,
}

/// Where bad lines are kept.
pub(super) enum Sink {
    Nowhere,
    /// At the end of a file: each line as it was read, however long.
    File {
        path: PathBuf,
        out: BufWriter<File>,
        is_synced: bool,
    },
    /// In another topic: as much of each line as a message has room for, with headers that describe
    /// the line.
    Topic(Producer),
}

impl Sink {
    /// Appends to a file, which is created if it does not exist.
    pub(super) fn file(path: PathBuf) -> Result<Self, Failure> {
        let opened = OpenOptions::new().create(true).append(true).open(&path);
        let file = opened
            .map_err(|error| Failure::refused(format!("open {}: {error}", path.display())))?;
        Ok(Self::File { path, out: BufWriter::with_capacity(256 * 1024, file), is_synced: true })
    }
}

impl BadLines {
    pub(super) fn new(sink: Sink, names: Vec<String>) -> Self {
        let (skipped, cut) = (Tally::default(), Tally::default());
        Self { sink, skipped, cut, first_problem: None, names }
    }

    /// The index of an input, which is added if it is new.
    pub(super) fn index_of(&mut self, name: &str) -> usize {
        self.names.iter().position(|known| known == name).unwrap_or_else(|| {
            self.names.push(name.to_owned());
            self.names.len() - 1
        })
    }

    /// Whether lines over the limit are kept whole.
    pub(super) fn keeps_rests(&self) -> bool {
        matches!(self.sink, Sink::File { .. })
    }

    /// Keeps a part of a line over the limit.
    pub(super) fn overflow(&mut self, bytes: &Bytes) -> Result<(), Failure> {
        self.write(bytes)
    }

    /// Counts and keeps a skipped line; returns the acknowledgement to wait for, if any.
    pub(super) async fn skip(
        &mut self,
        file: usize,
        line: &Line,
        problem: &Problem,
    ) -> Result<Option<Acknowledgement>, Failure> {
        self.skipped.add(LineId { file, number: line.number });
        if self.first_problem.is_none() {
            self.first_problem = Some(problem.to_string());
        }
        self.keep(file, line, &problem.to_string()).await
    }

    /// Counts and keeps a cut line; returns the acknowledgement to wait for, if any.
    pub(super) async fn cut(
        &mut self,
        file: usize,
        line: &Line,
    ) -> Result<Option<Acknowledgement>, Failure> {
        self.cut.add(LineId { file, number: line.number });
        self.keep(file, line, "is longer than the limit, and was cut to it").await
    }

    async fn keep(
        &mut self,
        file: usize,
        line: &Line,
        problem: &str,
    ) -> Result<Option<Acknowledgement>, Failure> {
        match &self.sink {
            Sink::Nowhere => Ok(None),
            Sink::File { .. } => {
                // A line over the limit has been written already, piece by piece.
                if line.is_whole() {
                    self.write(&line.bytes)?;
                }
                self.write(b"\n")?;
                Ok(None)
            }
            Sink::Topic(producer) => {
                let mut message = NewMessage::new(line.bytes.clone())
                    .with_header("file", ascii_excerpt(&self.names[file], 1_000))
                    .with_header("line", line.number.to_string())
                    .with_header("line-bytes", line.length.to_string())
                    .with_header("problem", ascii_excerpt(problem, 1_000));
                let headers = message.headers.iter().map(|(n, v)| n.len() + v.len());
                let room = MAX_MESSAGE_BYTES.saturating_sub(headers.sum());
                cut_payload(&mut message.payload, room);
                Ok(Some(producer.send(message).await?))
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let Sink::File { path, out, is_synced } = &mut self.sink else { return Ok(()) };
        *is_synced = false;
        out.write_all(bytes).map_err(|error| failed(path, &error))
    }

    /// Syncs the file to disk, so that skipped lines are kept before the ledger passes over them.
    pub(super) fn sync(&mut self) -> Result<(), Failure> {
        let Sink::File { path, out, is_synced } = &mut self.sink else { return Ok(()) };
        if !*is_synced {
            let synced = out.flush().and_then(|()| out.get_ref().sync_data());
            synced.map_err(|error| failed(path, &error))?;
            *is_synced = true;
        }
        Ok(())
    }

    /// Waits until all bad lines are kept.
    pub(super) async fn flush(&mut self) -> Result<(), Failure> {
        match &self.sink {
            Sink::Topic(producer) => Ok(producer.flush().await?),
            Sink::Nowhere | Sink::File { .. } => self.sync(),
        }
    }

    /// The skipped and cut lines, for people; `None` if there were none.
    pub(super) fn summary(&self) -> Option<String> {
        let mut summary = Vec::new();
        if self.skipped.count > 0 {
            let problem = self.first_problem.as_deref().unwrap_or_default();
            let skipped = self.skipped.summary("skipped", &self.names);
            summary.push(format!("{skipped}; the first one: {problem}"));
        }
        if self.cut.count > 0 {
            summary.push(self.cut.summary("cut to the limit", &self.names));
        }
        (!summary.is_empty()).then(|| summary.join("; "))
    }
}

fn failed(path: &std::path::Path, error: &std::io::Error) -> Failure {
    Failure::refused(format!("write {}: {error}", path.display()))
}

/// A number of lines, the first of which are named.
#[derive(Default)]
struct Tally {
    count: u64,
    first: Vec<LineId>,
}

impl Tally {
    fn add(&mut self, line: LineId) {
        self.count += 1;
        if self.first.len() < NAMED {
            self.first.push(line);
        }
    }

    fn summary(&self, done: &str, names: &[String]) -> String {
        let lines = if self.count == 1 { "line" } else { "lines" };
        let files = self.first.chunk_by(|one, other| one.file == other.file).map(|lines| {
            let name = lines.first().map_or("", |line| &names[line.file]);
            let numbers: Vec<_> = lines.iter().map(|line| line.number.to_string()).collect();
            format!("{} of {name}", numbers.join(", "))
        });
        let mut summary =
            format!("{} {lines} {done}: {}", self.count, files.collect::<Vec<_>>().join(", "));
        let more = self.count - self.first.len() as u64;
        if more > 0 {
            summary.push_str(&format!(" and {more} more"));
        }
        summary
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_lines_are_named() {
        let names = ["a".to_owned(), "b".to_owned()];
        let mut tally = Tally::default();
        tally.add(LineId { file: 0, number: 7 });
        assert_eq!(tally.summary("skipped", &names), "1 line skipped: 7 of a");
        tally.add(LineId { file: 0, number: 9 });
        tally.add(LineId { file: 1, number: 1 });
        assert_eq!(tally.summary("skipped", &names), "3 lines skipped: 7, 9 of a, 1 of b");
        (2..100).for_each(|number| tally.add(LineId { file: 1, number }));
        let summary = tally.summary("skipped", &names);
        assert!(summary.starts_with("101 lines skipped: 7, 9 of a, 1, 2, 3"), "{summary}");
        assert!(summary.ends_with("18 of b and 81 more"), "{summary}");
    }
}
