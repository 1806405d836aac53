//! A history, indexed once for all checks.

use std::collections::BTreeMap;

use crate::history::Event;

use super::{
    attempts::Attempts,
    log::Log,
    operations::{
        Attached, Commit, Handed, Line, LogEnds, Outcome, Position, Publish, RowRead, Seek, Settle,
        Stream, Subscription, Trim,
    },
    piece::{CORRUPT, Piece},
    reading::Reading,
};

#[derive(Debug, Default)]
pub struct Index<'a> {
    pub operations: u64,
    pub faults: u64,
    /// Lines that contradict others, or do not belong in a history.
    pub contradictions: Vec<String>,
    /// In the order of their invocations.
    pub publishes: Vec<Publish<'a>>,
    pub topics: BTreeMap<&'a str, Topic<'a>>,
    /// By topic and name.
    pub consumers: BTreeMap<(&'a str, &'a str), Consumer<'a>>,
    pub attempts: Attempts<'a>,
    /// The contents of the tables by topic and producer, each list in the order of its values.
    pub stored: BTreeMap<(&'a str, &'a str), Vec<Piece<'a>>>,
}

#[derive(Debug, Default)]
pub struct Topic<'a> {
    /// `None` if the table was not read.
    pub log: Option<Log<'a>>,
    pub fresh_reads: Vec<FreshRead<'a>>,
    pub row_reads: Vec<RowRead<'a, LogEnds>>,
    pub trims: Vec<Trim>,
    /// The maximum number of messages, if there is a limit.
    pub keeps: Option<i64>,
}

#[derive(Debug)]
pub struct FreshRead<'a> {
    pub line: Line,
    pub broker: &'a str,
    pub pieces: Vec<Piece<'a>>,
}

#[derive(Debug, Default)]
pub struct Consumer<'a> {
    /// Its first position, if known.
    pub start: Option<i64>,
    pub streams: Vec<Stream<'a>>,
    pub commits: Vec<Commit>,
    pub seeks: Vec<Seek>,
    pub row_reads: Vec<RowRead<'a, Position>>,
    /// What its workers got and settled, if they share its messages.
    pub handed: Vec<Handed<'a>>,
    pub settles: Vec<Settle<'a>>,
    /// `None` if it is no subscription, or the tables were not read.
    pub subscription: Option<Subscription<'a>>,
}

impl Consumer<'_> {
    /// In the order of their lines.
    pub fn attached(&self) -> Vec<Attached> {
        let mut attached: Vec<_> = self.streams.iter().flat_map(Stream::attached).collect();
        attached.sort_by_key(|attached| attached.line);
        attached
    }

    /// The accepted commits, each with the line of its answer.
    pub fn accepted(&self) -> impl Iterator<Item = (Line, &Commit)> {
        self.commits.iter().filter_map(|commit| Some((commit.outcome.done()?, commit)))
    }

    /// The invocation of the first seek that may have moved the position.
    pub fn first_seek(&self) -> Option<Line> {
        let moving = |seek: &&Seek| seek.outcome.may_be_done();
        self.seeks.iter().filter(moving).map(|seek| seek.invoked).min()
    }

    pub fn is_sought(&self) -> bool {
        self.first_seek().is_some()
    }

    /// Whether all its streams have the same commit mode: manual or automatic.
    pub fn is_all(&self, manual: bool) -> bool {
        self.streams.iter().all(|stream| stream.manual == manual)
    }
}

/// Messages that a client received.
#[derive(Clone, Copy, Debug)]
pub struct Observation<'a> {
    pub line: Line,
    pub by: Reader<'a>,
    pub topic: &'a str,
    pub piece: Piece<'a>,
}

#[derive(Clone, Copy, Debug)]
pub enum Reader<'a> {
    Stream { op: u64, consumer: &'a str },
    Worker { op: u64, subscription: &'a str },
    FreshRead { broker: &'a str },
}

impl<'a> Index<'a> {
    pub fn of(events: &'a [Event]) -> Self {
        let mut index = Reading::of(events);
        index.attempts = Attempts::of(&index.publishes);
        for (topic, Topic { log, .. }) in &index.topics {
            for piece in log.iter().flat_map(|log| &log.pieces) {
                index.stored.entry((topic, piece.producer)).or_default().push(*piece);
            }
        }
        for pieces in index.stored.values_mut() {
            pieces.sort_by_key(|piece| piece.value);
        }
        index
    }

    /// Everything that clients received, including corrupt messages.
    pub fn observations(&self) -> impl Iterator<Item = Observation<'a>> {
        let streams = self.consumers.values().flat_map(|consumer| &consumer.streams);
        let streamed = streams.flat_map(|stream| {
            let by = Reader::Stream { op: stream.op, consumer: stream.consumer };
            let seen = move |(line, piece)| Observation { line, by, topic: stream.topic, piece };
            stream.delivered().map(seen)
        });
        let handed = self.consumers.iter().flat_map(|((topic, subscription), consumer)| {
            consumer.handed.iter().flat_map(move |handed| {
                let by = Reader::Worker { op: handed.op, subscription };
                let line = handed.line;
                handed.pieces().map(move |piece| Observation { line, by, topic, piece })
            })
        });
        let read = self.topics.iter().flat_map(|(topic, Topic { fresh_reads, .. })| {
            fresh_reads.iter().flat_map(move |read| {
                let by = Reader::FreshRead { broker: read.broker };
                let seen =
                    move |piece: &_| Observation { line: read.line, by, topic, piece: *piece };
                read.pieces.iter().map(seen)
            })
        });
        streamed.chain(handed).chain(read)
    }

    /// The acknowledged publishes, each with the line and the content of its answer.
    pub fn acknowledged(&self) -> impl Iterator<Item = (&Publish<'a>, Line, Piece<'a>)> {
        self.publishes.iter().filter_map(|publish| {
            let Outcome::Done(line) = publish.outcome else { return None };
            Some((publish, line, publish.acknowledged()?))
        })
    }
}

impl Observation<'_> {
    pub fn is_corrupt(&self) -> bool {
        self.piece.producer == CORRUPT
    }
}

impl std::fmt::Display for Observation<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { line, by, topic, piece } = self;
        match by {
            Reader::Stream { op, consumer } => {
                write!(out, "the stream of operation {op}, of consumer {consumer} on {topic}, ")?;
                write!(out, "got {piece} in line {line}")
            }
            Reader::Worker { op, subscription } => {
                write!(out, "operation {op} of a worker of {subscription} on {topic} ")?;
                write!(out, "got {piece} in line {line}")
            }
            Reader::FreshRead { broker } => {
                write!(
                    out,
                    "a fresh read of {topic} from broker {broker} got {piece} in line {line}"
                )
            }
        }
    }
}
