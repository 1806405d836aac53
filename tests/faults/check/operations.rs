//! Operations, and their outcomes.

use crate::history::{Offsets, Run, Settlement, Values, What};

use super::piece::Piece;

/// The number of a line in the history, from 1; lines are in order of time.
pub type Line = usize;

/// The outcome of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was done, and its client learned it at this line.
    Done(Line),
    /// It was certainly not done.
    NotDone,
    /// It may have been done, or may still be: a broker continues what its client gave up.
    Unknown,
}

impl Outcome {
    pub fn done(self) -> Option<Line> {
        match self {
            Self::Done(line) => Some(line),
            Self::NotDone | Self::Unknown => None,
        }
    }

    pub fn may_be_done(self) -> bool {
        self != Self::NotDone
    }
}

/// The answer to a publish.
#[derive(Clone, Copy, Debug)]
pub struct Stored {
    pub first_offset: i64,
    pub duplicate: bool,
}

#[derive(Debug)]
pub struct Publish<'a> {
    pub op: u64,
    pub client: &'a str,
    pub invoked: Line,
    pub topic: &'a str,
    pub values: &'a Values,
    pub sequence: Option<i64>,
    pub outcome: Outcome,
    /// What the answer says, if there is one.
    pub stored: Option<Stored>,
}

impl<'a> Publish<'a> {
    /// The values at the offsets of the answer.
    pub fn acknowledged(&self) -> Option<Piece<'a>> {
        let offset = self.stored?.first_offset;
        let Values { producer, first, count } = self.values;
        Some(Piece { offset, producer, value: *first, count: *count })
    }
}

#[derive(Debug)]
pub struct Stream<'a> {
    pub op: u64,
    pub invoked: Line,
    pub ended: Option<Line>,
    /// Whether the broker ended it with a reason, so that its client received everything sent.
    pub has_reason: bool,
    pub topic: &'a str,
    pub consumer: &'a str,
    pub manual: bool,
    pub frames: Vec<(Line, &'a What)>,
}

/// An attached frame: the stream got the lease.
#[derive(Clone, Copy, Debug)]
pub struct Attached {
    pub op: u64,
    pub invoked: Line,
    pub line: Line,
    pub position: i64,
    pub epoch: i64,
}

impl<'a> Stream<'a> {
    pub fn attached(&self) -> impl Iterator<Item = Attached> {
        self.frames.iter().filter_map(|(line, frame)| match frame {
            What::Attached { position, epoch, .. } => Some(Attached {
                op: self.op,
                invoked: self.invoked,
                line: *line,
                position: *position,
                epoch: *epoch,
            }),
            _ => None,
        })
    }

    pub fn delivered(&self) -> impl Iterator<Item = (Line, Piece<'a>)> {
        self.frames
            .iter()
            .filter_map(|(line, frame)| match frame {
                What::Delivered { runs } => Some(runs.iter().map(|run| (*line, run.into()))),
                _ => None,
            })
            .flatten()
    }
}

#[derive(Debug)]
pub struct Commit {
    pub op: u64,
    pub invoked: Line,
    pub epoch: i64,
    pub position: i64,
    pub outcome: Outcome,
}

/// Messages that a worker got as one delivery.
#[derive(Debug)]
pub struct Handed<'a> {
    /// The stream or call that delivered them.
    pub op: u64,
    pub line: Line,
    pub delivery: i64,
    pub runs: &'a [Run],
    /// How often they were delivered, and how many messages in a row that holds for.
    pub attempts: &'a [(i32, i64)],
}

impl<'a> Handed<'a> {
    pub fn pieces(&self) -> impl Iterator<Item = Piece<'a>> {
        self.runs.iter().map(Piece::from)
    }
}

/// A request that says what becomes of messages.
#[derive(Debug)]
pub struct Settle<'a> {
    pub op: u64,
    pub settlements: &'a [Settlement],
    pub outcome: Outcome,
    /// How many messages each of them applied to, if there is an answer.
    pub applied: &'a [i32],
}

/// What the tables have of a subscription at the end of a run.
#[derive(Debug)]
pub struct Subscription<'a> {
    pub floor: i64,
    pub parked: &'a [Offsets],
    pub retried: &'a [Offsets],
}

#[derive(Debug)]
pub struct Seek {
    pub invoked: Line,
    pub outcome: Outcome,
}

#[derive(Debug)]
pub struct Trim {
    pub op: u64,
    pub before: i64,
    /// The log start offset in the answer.
    pub first: Option<i64>,
}

/// A row that a client read from the tables, between the lines `since` and `line`.
#[derive(Debug)]
pub struct RowRead<'a, T> {
    pub client: &'a str,
    pub since: Line,
    pub line: Line,
    pub row: T,
}

#[derive(Clone, Copy, Debug)]
pub struct Position {
    pub position: i64,
    pub epoch: i64,
}

#[derive(Clone, Copy, Debug)]
pub struct LogEnds {
    pub first: i64,
    pub head: i64,
}
