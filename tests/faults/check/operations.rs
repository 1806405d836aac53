//! What was asked, each with what came of it.

use crate::history::{Values, What};

use super::piece::Piece;

/// The number of a line of the history, from 1; lines are in the order of their times.
pub type Line = usize;

/// What came of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was done, and its client knew at this line.
    Done(Line),
    /// It was certainly not done.
    Undone,
    /// It may have been done, and may be yet: a broker goes on with what its client gave up.
    Unknown,
}

impl Outcome {
    pub fn done(self) -> Option<Line> {
        match self {
            Self::Done(line) => Some(line),
            Self::Undone | Self::Unknown => None,
        }
    }

    pub fn may_be_done(self) -> bool {
        self != Self::Undone
    }
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
    /// Where the answer says that the values are, and whether they were there before.
    pub stored: Option<(i64, bool)>,
}

impl<'a> Publish<'a> {
    /// What the answer says.
    pub fn acknowledged(&self) -> Option<Piece<'a>> {
        let (offset, _) = self.stored?;
        let Values { producer, first, count } = self.values;
        Some(Piece { offset, producer, value: *first, count: *count })
    }
}

#[derive(Debug)]
pub struct Stream<'a> {
    pub op: u64,
    pub invoked: Line,
    pub ended: Option<Line>,
    /// Whether the broker ended it, and said why: its client then had all that it sent.
    pub is_told_why: bool,
    pub topic: &'a str,
    pub consumer: &'a str,
    pub manual: bool,
    /// In their order.
    pub frames: Vec<(Line, &'a What)>,
}

/// That a stream got a lease.
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

#[derive(Debug)]
pub struct Seek {
    pub invoked: Line,
    pub outcome: Outcome,
}

#[derive(Debug)]
pub struct Trim {
    pub op: u64,
    pub before: i64,
    /// What its answer says is the oldest message left.
    pub first: Option<i64>,
}

/// A row of the tables that somebody read, after the line `since` and before `line`.
#[derive(Debug)]
pub struct Look<'a, T> {
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
pub struct Ends {
    pub first: i64,
    pub head: i64,
}
