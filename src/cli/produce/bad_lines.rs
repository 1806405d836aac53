//! What becomes of lines that cannot be messages.

use std::{
    fs::{File, OpenOptions},
    io::{BufWriter, Write as _},
    path::PathBuf,
};

use bytes::Bytes;

use super::{
    super::{failure::Failure, lines::Line},
    message::cut_payload,
    problem::{Problem, ascii_excerpt},
};
use crate::{
    client::{Acknowledgement, Producer},
    proto::{MAX_MESSAGE_BYTES, NewMessage},
};

/// How many lines are named at the end.
const NAMED: usize = 20;

/// Lines that were skipped or cut, and where they are kept.
pub(super) struct BadLines {
    sink: Sink,
    skipped: Tally,
    cut: Tally,
    first_problem: Option<String>,
}

/// Where bad lines go.
pub(super) enum Sink {
    Nowhere,
    /// The end of a file: each line as it was read, however long.
    File {
        path: PathBuf,
        out: BufWriter<File>,
        is_synced: bool,
    },
    /// Another topic: each line as far as a message has room, with headers that say what it is.
    Topic(Producer),
}

impl Sink {
    /// Appends to a file, which is made if it is missing.
    pub(super) fn file(path: PathBuf) -> Result<Self, Failure> {
        let opened = OpenOptions::new().create(true).append(true).open(&path);
        let file = opened
            .map_err(|error| Failure::refused(format!("open {}: {error}", path.display())))?;
        Ok(Self::File { path, out: BufWriter::with_capacity(256 * 1024, file), is_synced: true })
    }
}

impl BadLines {
    pub(super) fn to(sink: Sink) -> Self {
        Self { sink, skipped: Tally::default(), cut: Tally::default(), first_problem: None }
    }

    /// Some of a line over the limit.
    pub(super) fn overflow(&mut self, bytes: &Bytes) -> Result<(), Failure> {
        self.write(bytes)
    }

    /// A line is skipped. What its topic says of it is to be waited for.
    pub(super) async fn skip(
        &mut self,
        file: usize,
        name: &str,
        line: &Line,
        problem: &Problem,
    ) -> Result<Option<Acknowledgement>, Failure> {
        self.skipped.add(file, line.number);
        if self.first_problem.is_none() {
            self.first_problem = Some(problem.to_string());
        }
        self.keep(name, line, &problem.to_string()).await
    }

    /// A line was cut. What its topic says of it is to be waited for.
    pub(super) async fn cut(
        &mut self,
        file: usize,
        name: &str,
        line: &Line,
    ) -> Result<Option<Acknowledgement>, Failure> {
        self.cut.add(file, line.number);
        self.keep(name, line, "is longer than the limit, and was cut to it").await
    }

    async fn keep(
        &mut self,
        name: &str,
        line: &Line,
        problem: &str,
    ) -> Result<Option<Acknowledgement>, Failure> {
        match &self.sink {
            Sink::Nowhere => Ok(None),
            Sink::File { .. } => {
                // Of a line over the limit, all has been written as it was read.
                if line.is_whole() {
                    self.write(&line.bytes)?;
                }
                self.write(b"\n")?;
                Ok(None)
            }
            Sink::Topic(producer) => {
                let mut message = NewMessage::new(line.bytes.clone())
                    .with_header("file", ascii_excerpt(name, 1_000))
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

    /// Brings the file to the disk: what is passed over is kept by then.
    pub(super) fn sync(&mut self) -> Result<(), Failure> {
        let Sink::File { path, out, is_synced } = &mut self.sink else { return Ok(()) };
        if !*is_synced {
            let synced = out.flush().and_then(|()| out.get_ref().sync_data());
            synced.map_err(|error| failed(path, &error))?;
            *is_synced = true;
        }
        Ok(())
    }

    /// Waits until the topic has what was sent to it.
    pub(super) async fn flush(&mut self) -> Result<(), Failure> {
        match &self.sink {
            Sink::Topic(producer) => Ok(producer.flush().await?),
            Sink::Nowhere | Sink::File { .. } => self.sync(),
        }
    }

    /// Which lines they were, for people; nothing, if there were none.
    pub(super) fn told(&self, names: &[String]) -> Option<String> {
        let mut told = Vec::new();
        if self.skipped.count > 0 {
            let problem = self.first_problem.as_deref().unwrap_or_default();
            let skipped = self.skipped.told("skipped", names);
            told.push(format!("{skipped}; the first one: {problem}"));
        }
        if self.cut.count > 0 {
            told.push(self.cut.told("cut to the limit", names));
        }
        (!told.is_empty()).then(|| told.join("; "))
    }
}

fn failed(path: &std::path::Path, error: &std::io::Error) -> Failure {
    Failure::refused(format!("write {}: {error}", path.display()))
}

/// How many lines, and which came first.
#[derive(Default)]
struct Tally {
    count: u64,
    /// File and number.
    first: Vec<(usize, u64)>,
}

impl Tally {
    fn add(&mut self, file: usize, number: u64) {
        self.count += 1;
        if self.first.len() < NAMED {
            self.first.push((file, number));
        }
    }

    fn told(&self, done: &str, names: &[String]) -> String {
        let lines = if self.count == 1 { "line" } else { "lines" };
        let files = self.first.chunk_by(|(one, _), (other, _)| one == other).map(|numbers| {
            let name = numbers.first().map_or("", |&(file, _)| &names[file]);
            let numbers: Vec<_> = numbers.iter().map(|(_, number)| number.to_string()).collect();
            format!("{} of {name}", numbers.join(", "))
        });
        let mut told =
            format!("{} {lines} {done}: {}", self.count, files.collect::<Vec<_>>().join(", "));
        let more = self.count - self.first.len() as u64;
        if more > 0 {
            told.push_str(&format!(" and {more} more"));
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_lines_are_named() {
        let names = ["a".to_owned(), "b".to_owned()];
        let mut tally = Tally::default();
        tally.add(0, 7);
        assert_eq!(tally.told("skipped", &names), "1 line skipped: 7 of a");
        tally.add(0, 9);
        tally.add(1, 1);
        assert_eq!(tally.told("skipped", &names), "3 lines skipped: 7, 9 of a, 1 of b");
        (2..100).for_each(|number| tally.add(1, number));
        let told = tally.told("skipped", &names);
        assert!(told.starts_with("101 lines skipped: 7, 9 of a, 1, 2, 3"), "{told}");
        assert!(told.ends_with("18 of b and 81 more"), "{told}");
    }
}
